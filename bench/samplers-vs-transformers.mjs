// Claim: every sampler that transformers has keeps the same tokens here, on 1,000 random distributions.
//
//   npm run build && node bench/samplers-vs-transformers.mjs --python PYTHON [--rows 1000] [--vocabulary 2000] [--json FILE]
//
// transformers runs in double precision, where sets must be equal, and in single, its own, where a token at the very
// boundary may fall to the other side: those rows are counted, with the largest mass that differs. PYTHON is an
// interpreter that has torch and transformers.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const source = new URL('../dist/src/', import.meta.url);
const { createRandom } = await import(new URL('random.js', source));
const { filterTokens } = await import(new URL('kernels/token-filter.js', source));
const { planFilters } = await import(new URL('decoding/sampler.js', source));
const { parseSamplingPlan } = await import(new URL('decoding/sampler-text.js', source));

const { values: options } = parseArgs({
  options: {
    python: { type: 'string', default: process.env.PYTHON ?? 'python3' },
    rows: { type: 'string', default: '1000' },
    vocabulary: { type: 'string', default: '2000' },
    json: { type: 'string' },
  },
});
const rows = Number(options.rows);
const vocabulary = Number(options.vocabulary);

/** [ours, theirs] */
const PIPELINES = [
  ['top-k=50', 'top_k=50'],
  ['top-p=0.9', 'top_p=0.9'],
  ['top-p=0.5', 'top_p=0.5'],
  ['min-p=0.1', 'min_p=0.1'],
  ['typical=0.9', 'typical=0.9'],
  ['typical=0.2', 'typical=0.2'],
  ['epsilon=0.0009', 'epsilon=0.0009'],
  ['eta=0.0004', 'eta=0.0004'],
  ['top-h=0.4:transformers', 'top_h=0.4'],
  ['top-h=0.8:transformers', 'top_h=0.8'],
  ['temperature=1.7,top-p=0.9', 'temperature=1.7,top_p=0.9'],
  ['temperature=0.6,min-p=0.05', 'temperature=0.6,min_p=0.05'],
  [
    'temperature=1.5,top-h=0.9:transformers,top-k=80,top-p=0.95,min-p=0.02,typical=0.9,epsilon=0.001,eta=0.001',
    'temperature=1.5,top_h=0.9,top_k=80,top_p=0.95,min_p=0.02,typical=0.9,epsilon=0.001,eta=0.001',
  ],
];

/** Normal logits of deviation 0.2 to 6; every fifth row has masked tokens, every seventh rounded logits with ties. */
function makeLogits() {
  const random = createRandom(20250915);
  const logits = new Float32Array(rows * vocabulary);
  for (let r = 0; r < rows; r++) {
    const deviation = 0.2 + 5.8 * random.uniform();
    for (let i = 0; i < vocabulary; i++) {
      let x = deviation * random.normal();
      if (r % 7 === 6) x = Math.round(x * 4) / 4;
      if (r % 5 === 4 && random.uniform() < 0.3) x = Number.NEGATIVE_INFINITY;
      logits[r * vocabulary + i] = x;
    }
  }
  return logits;
}

const folder = mkdtempSync(join(tmpdir(), 'samplers-'));
const logits = makeLogits();
writeFileSync(join(folder, 'logits.bin'), new Uint8Array(logits.buffer));
const script = fileURLToPath(new URL('samplers-vs-transformers.py', import.meta.url));
const peer = spawn(options.python, [script, folder, String(rows), String(vocabulary)], {
  stdio: ['pipe', 'pipe', 'inherit'],
});
const lines = createInterface({ input: peer.stdout })[Symbol.asyncIterator]();
const version = (await lines.next()).value;

/** Rows that differ: with ties at the boundary (equal logits on both sides), and without; the largest mass that differs. */
function compare(kept, logSumExp, theirs) {
  const outcome = { tied: 0, other: 0, mass: 0 };
  for (let r = 0; r < rows; r++) {
    const mine = new Uint8Array(vocabulary);
    for (const id of kept[r]) mine[id] = 1;
    const added = [];
    const missed = [];
    let mass = 0;
    for (let i = 0; i < vocabulary; i++) {
      const other = theirs[r * vocabulary + i];
      if (mine[i] === other) continue;
      (mine[i] === 1 ? added : missed).push(logits[r * vocabulary + i]);
      mass += Math.exp(logits[r * vocabulary + i] - logSumExp[r]);
    }
    if (added.length + missed.length === 0) continue;
    const equal = new Set([...added, ...missed]).size === 1 && added.length === missed.length;
    if (equal) outcome.tied++;
    else {
      outcome.other++;
      outcome.mass = Math.max(outcome.mass, mass);
    }
  }
  return outcome;
}

const results = [];
console.log(`transformers ${version}, ${rows} rows of ${vocabulary}; rows whose kept sets differ`);
for (const [ours, theirs] of PIPELINES) {
  const { kept, figures } = filterTokens({
    logits,
    rows,
    vocabulary,
    pipelines: [planFilters(parseSamplingPlan(ours))],
    keep: true,
  });
  for (const dtype of ['float64', 'float32']) {
    peer.stdin.write(`${dtype} ${theirs}\n`);
    await lines.next();
    const outcome = compare(kept, figures.logSumExp, readFileSync(join(folder, 'kept.bin')));
    results.push({ pipeline: ours, dtype, ...outcome });
    console.log(
      `${dtype}  ${ours.padEnd(28)} another of equal tokens ${String(outcome.tied).padStart(4)}   ` +
        `otherwise ${String(outcome.other).padStart(4)}   largest mass ${outcome.mass.toExponential(1)}`,
    );
  }
}
peer.stdin.end();
rmSync(folder, { recursive: true });
if (options.json) writeFileSync(options.json, `${JSON.stringify({ version, rows, vocabulary, results }, null, 2)}\n`);
