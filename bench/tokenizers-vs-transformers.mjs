/**
 * Token ids of Hugging Face tokenizers against transformers', line by line:
 *
 *   node bench/tokenizers-vs-transformers.mjs --python PYTHON [--lines 10000] DIRECTORY ...
 *
 * PYTHON needs the package transformers. Lines are made by tokenizer-lines.mjs; each is encoded with and without
 * special tokens, and decoded again with and without them. Prints the agreement of each directory and the first lines
 * that differ; exit code 3 when any differs. Run after `npm run build`.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { makeLines } from './tokenizer-lines.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string', default: 'python3' },
    lines: { type: 'string', default: '10000' },
    dist: { type: 'string', default: new URL('../dist', import.meta.url).pathname },
  },
});
const { openTokenizer } = await import(path.resolve(values.dist, 'src/tokenizers/tokenizer.js'));

const PYTHON = `
import json, sys
from transformers import AutoTokenizer
directory, lines_path, out_path = sys.argv[1:]
lines = json.load(open(lines_path, encoding='utf-8'))
tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
with open(out_path, 'w', encoding='utf-8') as out:
    for line in lines:
        ids = tokenizer(line).input_ids
        bare = tokenizer(line, add_special_tokens=False).input_ids
        row = [ids, bare, tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=True)]
        out.write(json.dumps(row) + '\\n')
`;

const lines = makeLines(Number(values.lines));
const directory = mkdtempSync(path.join(tmpdir(), 'tokenizers-'));
const linesPath = path.join(directory, 'lines.json');
writeFileSync(linesPath, JSON.stringify(lines));
const megabytes = lines.reduce((sum, line) => sum + Buffer.byteLength(line), 0) / 1e6;
const sameIds = (a, b) => a.length === b.length && a.every((id, i) => id === b[i]);
let differing = 0;
try {
  for (const model of positionals) {
    const outPath = path.join(directory, 'ids.jsonl');
    const env = { ...process.env, HF_HUB_OFFLINE: '1' };
    const child = spawnSync(values.python, ['-c', PYTHON, model, linesPath, outPath], { encoding: 'utf8', env });
    if (child.status !== 0) {
      console.log(`${model}: transformers could not read it: ${child.stderr.trim().split('\n').pop()}`);
      continue;
    }
    const expected = readFileSync(outPath, 'utf8')
      .trim()
      .split('\n')
      .map((row) => JSON.parse(row));
    const tokenizer = openTokenizer(model);
    const counts = { ids: 0, text: 0 };
    let shown = 0;
    const started = performance.now();
    for (const line of lines) tokenizer.encode(line);
    const seconds = (performance.now() - started) / 1000;
    for (let i = 0; i < lines.length; i++) {
      const [ids, bare, text, plain] = expected[i];
      const ours = tokenizer.encode(lines[i]);
      const oursBare = tokenizer.encode(lines[i], { addSpecialTokens: false });
      const idsAgree = sameIds(ids, ours) && sameIds(bare, oursBare);
      const textAgrees = tokenizer.decode(ids) === text && tokenizer.decode(ids, { skipSpecialTokens: true }) === plain;
      if (idsAgree) counts.ids++;
      if (textAgrees) counts.text++;
      if ((idsAgree && textAgrees) || shown++ >= 3) continue;
      console.log(`  ${JSON.stringify(lines[i])}`);
      if (idsAgree) console.log(`    text ${JSON.stringify(text)} here ${JSON.stringify(tokenizer.decode(ids))}`);
      else {
        let at = 0;
        while (ids[at] === ours[at] && at < ids.length) at++;
        const show = (list) =>
          JSON.stringify(Array.from(list.slice(at, at + 5), (id) => `${id}:${tokenizer.tokenText(id)}`));
        console.log(`    from token ${at}: transformers ${show(ids)} here ${show(ours)}`);
      }
    }
    differing += 2 * lines.length - counts.ids - counts.text;
    console.log(
      `${path.basename(model)}: ids of ${counts.ids} and text of ${counts.text} of ${lines.length} lines agree; ` +
        `${(megabytes / seconds).toFixed(1)} MB/s here`,
    );
  }
} finally {
  rmSync(directory, { recursive: true });
}
process.exitCode = differing > 0 ? 3 : 0;
