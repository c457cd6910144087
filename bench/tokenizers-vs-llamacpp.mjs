/**
 * Token ids of GGUF vocabularies against llama.cpp's, line by line:
 *
 *   node bench/tokenizers-vs-llamacpp.mjs --python PYTHON [--lines 10000] FILE.gguf ...
 *
 * PYTHON needs the package llama-cpp-python. Lines are made by tokenizer-lines.mjs. Each line is encoded with the
 * file's special tokens added, once without and once with special tokens parsed from the text. Prints the agreement of
 * each file and the first lines that differ; exit code 3 when any differs. Run after `npm run build`.
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
const { openGguf } = await import(path.resolve(values.dist, 'src/formats/gguf.js'));
const { tokenizerFromGguf } = await import(path.resolve(values.dist, 'src/tokenizers/gguf-tokenizer.js'));

const PYTHON = `
import json, sys
from llama_cpp import Llama
model, lines_path, out_path = sys.argv[1:]
lines = json.load(open(lines_path, encoding='utf-8'))
llama = Llama(model_path=model, vocab_only=True, verbose=False)
with open(out_path, 'w') as out:
    for line in lines:
        data = line.encode('utf-8')
        rows = [llama.tokenize(data, add_bos=True, special=s) for s in (False, True)]
        out.write(json.dumps(rows) + '\\n')
`;

const lines = makeLines(Number(values.lines));
const directory = mkdtempSync(path.join(tmpdir(), 'tokenizers-'));
const linesPath = path.join(directory, 'lines.json');
writeFileSync(linesPath, JSON.stringify(lines));
const megabytes = lines.reduce((sum, line) => sum + Buffer.byteLength(line), 0) / 1e6;
let differing = 0;
try {
  for (const file of positionals) {
    const outPath = path.join(directory, 'ids.jsonl');
    const child = spawnSync(values.python, ['-c', PYTHON, file, linesPath, outPath], { encoding: 'utf8' });
    if (child.status !== 0) {
      console.log(`${path.basename(file)}: llama.cpp could not read it: ${child.stderr.trim().split('\n').pop()}`);
      continue;
    }
    const expected = readFileSync(outPath, 'utf8')
      .trim()
      .split('\n')
      .map((row) => JSON.parse(row));
    const store = await openGguf(file);
    let tokenizer;
    try {
      tokenizer = tokenizerFromGguf(store.kv);
    } catch (error) {
      console.log(`${path.basename(file)}: ${error.message.slice(0, 160)}`);
      continue;
    } finally {
      await store.close?.();
    }
    let agree = 0;
    let shown = 0;
    const started = performance.now();
    const ours = lines.map((line) =>
      [false, true].map((parse) => tokenizer.encode(line, { parseSpecialTokens: parse })),
    );
    const seconds = (performance.now() - started) / 1000;
    for (let i = 0; i < lines.length; i++) {
      const same = [0, 1].every((k) => expected[i][k].join() === ours[i][k].join());
      if (same) agree++;
      else if (shown++ < 3) {
        const k = expected[i][0].join() === ours[i][0].join() ? 1 : 0;
        let at = 0;
        while (expected[i][k][at] === ours[i][k][at]) at++;
        const show = (ids) =>
          JSON.stringify(Array.from(ids.slice(at, at + 5), (id) => `${id}:${tokenizer.tokenText(id)}`));
        console.log(`  ${JSON.stringify(lines[i])} special=${k === 1} from token ${at}`);
        console.log(`    llama.cpp ${show(expected[i][k])} here ${show(ours[i][k])}`);
      }
    }
    differing += lines.length - agree;
    const speed = (2 * megabytes) / seconds;
    console.log(`${path.basename(file)}: ${agree} of ${lines.length} lines agree; ${speed.toFixed(1)} MB/s here`);
  }
} finally {
  rmSync(directory, { recursive: true });
}
process.exitCode = differing > 0 ? 3 : 0;
