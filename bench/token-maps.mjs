// Claims: 2,048 tokens are aligned with 2,048 in a fraction of a second; a map of minimum edit distance between
// vocabularies of 32,000 and 128,000 tokens takes seconds, where comparing all with all takes hours.
//
//   npm run build && node bench/token-maps.mjs [--source VOCABULARY --pivot VOCABULARY] [--threads 2] [--repeats 5]
//                    [--python PYTHON] [--queries 20] [--json FILE]
//
// A vocabulary is a directory with tokenizer.json, a .gguf, or a .json file with the list of its tokens. Without any, the
// bundled ones are taken: small, so that the figures say little. The peer compares `--queries` source tokens, evenly
// spread over those without an equal, with every pivot token by the table of Levenshtein distances in Python (the package
// editdistance where it is installed), as FuseLLM does; its time for the whole map is that multiplied. Both must agree.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const knowledge = new URL('../dist/src/fusion/knowledge/', import.meta.url);
const { openPlace, searchInThreads } = await import(new URL('align-job.js', knowledge));
const { alignSequences, tokenCosts } = await import(new URL('sequence-alignment.js', knowledge));
const { tokenPair } = await import(new URL('token-pair.js', knowledge));
const { spaceMarker, tokenTexts } = await import(new URL('token-text.js', knowledge));
const { withoutEqual } = await import(new URL('vocabulary-map.js', knowledge));

const { values: options } = parseArgs({
  options: {
    source: { type: 'string', default: 'fixtures/models/qwen2-moby' },
    pivot: { type: 'string', default: 'fixtures/models/llama-sotu' },
    threads: { type: 'string', default: '2' },
    repeats: { type: 'string', default: '5' },
    queries: { type: 'string', default: '20' },
    python: { type: 'string' },
    json: { type: 'string' },
  },
});
const threads = Number(options.threads);
const repeats = Number(options.repeats);

function vocabulary(path) {
  if (/\.json$/.test(path)) {
    const texts = JSON.parse(readFileSync(path, 'utf8'));
    return { texts, marker: spaceMarker(texts) };
  }
  return tokenTexts(openPlace({ name: path, path }), 'vocab', path);
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const figures = (values) => ({ median: median(values), least: Math.min(...values), greatest: Math.max(...values) });
const report = {};
const say = (name, seconds) => {
  report[name] = seconds;
  const { median: middle, least, greatest } = seconds;
  console.log(`${name.padEnd(46)} ${middle.toFixed(3)} s  (${least.toFixed(3)} to ${greatest.toFixed(3)})`);
};

async function timed(work, times = repeats) {
  const seconds = [];
  for (let i = 0; i < times; i++) {
    const start = performance.now();
    await work();
    seconds.push((performance.now() - start) / 1e3);
  }
  return figures(seconds);
}

// Alignment, on the bundled text and tokenizers.
const text = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').replaceAll(/[^\w ,.;'-]+/g, ' ');
const bundled = ['fixtures/models/qwen2-moby', 'fixtures/models/llama-sotu'].map((path) =>
  openPlace({ name: path, path }),
);
const textPair = tokenPair(...bundled.map((tokenizer) => tokenTexts(tokenizer, 'vocab', 'bundled')));
const [from, to] = bundled.map((tokenizer) => tokenizer.encode(text, { addSpecialTokens: false }).slice(0, 2048));
say(
  'align 2048 x 2048, distances unknown',
  await timed(() => alignSequences(from, to, tokenCosts(textPair, 'fusellm'))),
);
const known = tokenCosts(textPair, 'fusellm');
alignSequences(from, to, known);
say('align 2048 x 2048, distances known', await timed(() => alignSequences(from, to, known)));

// The map.
const pair = tokenPair(vocabulary(options.source), vocabulary(options.pivot));
const queries = [...withoutEqual(pair).keys()];
console.log(
  `${pair.source.texts.length} source tokens, ${queries.length} without an equal; ${pair.pivot.texts.length} pivot tokens`,
);
let found;
for (const count of new Set([1, threads])) {
  const seconds = await timed(
    async () => {
      found = await searchInThreads(pair.pivot.texts, queries, count);
    },
    Math.min(repeats, 3),
  );
  say(`map, ${count} thread${count > 1 ? 's' : ''}`, seconds);
}

if (options.python) {
  const step = Math.max(1, Math.floor(queries.length / Number(options.queries)));
  const chosen = queries.map((_, q) => q).filter((q) => q % step === 0);
  const folder = mkdtempSync(join(tmpdir(), 'token-maps-'));
  const file = join(folder, 'in.json');
  writeFileSync(file, JSON.stringify({ texts: pair.pivot.texts, queries: chosen.map((q) => queries[q]) }));
  const peer = fileURLToPath(new URL('token-maps.py', import.meta.url));
  const { stdout, stderr } = spawnSync(options.python, [peer, file], { encoding: 'utf8' });
  rmSync(folder, { recursive: true });
  if (stdout === '') throw new Error(stderr);
  const answer = JSON.parse(stdout);
  const agree = chosen.filter(
    (q, i) => answer.nearest[i] === found.nearest[q] && answer.distances[i] === found.distances[q],
  );
  const whole = (answer.seconds * queries.length) / chosen.length;
  report.peer = { ...answer, queries: chosen.length, whole_seconds: whole, agree: agree.length };
  console.log(
    `Python (${answer.distance}), ${chosen.length} queries: ${answer.seconds.toFixed(1)} s, so ${whole.toFixed(0)} s for all; ` +
      `${agree.length} of ${chosen.length} agree`,
  );
}
if (options.json) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
