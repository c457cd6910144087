// Claim: evidence on substitutions from all 14,950 quaternary alloys of 26 elements (1.1e8 pairs of alloys) is collected
// in seconds, and leave-one-out predictions of all of them too, since pairs are found by their common core and combined
// in closed form. Peer: the naive method in Python (every pair tested, Dempster's rule piece by piece) on a subset.
// Usage, after `npm run build`: node bench/evidence.mjs [--python python3]
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { alloyTable, allRows } from '../dist/src/fusion/evidence/alloy-table.js';
import { combinationsOf } from '../dist/src/fusion/evidence/exchanges.js';
import { predictRows, singleSourceModel } from '../dist/src/fusion/evidence/fuse-sources.js';
import { uniformPrior } from '../dist/src/fusion/evidence/predict.js';
import { createRandom } from '../dist/src/random.js';

const ELEMENTS = 26;
const SUBSET = 300;
const REPEATS = 3;
const SUBSET_REPEATS = 21;
const at = process.argv.indexOf('--python');
const python = at > 0 ? process.argv[at + 1] : (process.env.PYTHON ?? 'python3');

const names = Array.from({ length: ELEMENTS }, (_, e) => `E${String(e).padStart(2, '0')}`);
const random = createRandom(7);
const quaternaries = [];
for (let a = 0; a < ELEMENTS; a++)
  for (let b = a + 1; b < ELEMENTS; b++)
    for (let c = b + 1; c < ELEMENTS; c++)
      for (let d = c + 1; d < ELEMENTS; d++) {
        const set = [a, b, c, d];
        const first = set.filter((e) => e % 3 === 0).length;
        const high = first >= 2 !== random.uniform() < 0.05;
        quaternaries.push({ set: set.map((e) => names[e]), label: high ? 'High' : 'Low', where: '' });
      }

const median = (values) => values.sort((x, y) => x - y)[values.length >> 1];
const seconds = (work) => {
  const start = performance.now();
  const result = work();
  return { result, s: (performance.now() - start) / 1000 };
};

function measure(rows, maxSubstitution, repeats) {
  const table = alloyTable(names, rows);
  const setup = {
    table,
    combinations: combinationsOf(names, maxSubstitution),
    experts: [],
    settings: { alpha: 0.01, version: 'v1' },
    discount: { factor: 1, mode: 'once' },
    folds: 10,
    seed: 0,
    prior: uniformPrior(2),
  };
  const all = allRows(table);
  const [fit, predict] = [[], []];
  let pieces = 0;
  let high = 0;
  for (let r = 0; r < repeats; r++) {
    const built = seconds(() => singleSourceModel(setup, all, 'dataset'));
    const predicted = seconds(() => predictRows(setup, built.result, all));
    fit.push(built.s);
    predict.push(predicted.s);
    pieces = built.result.evidence.pieces;
    high = predicted.result.probabilities.reduce((sum, p, i) => (i % 2 === 0 ? sum + p : sum), 0);
  }
  return { fit: median(fit), predict: median(predict), pieces, high };
}

const order = createRandom(1).permutation(quaternaries.length);
const subset = Array.from(order.subarray(0, SUBSET), (i) => quaternaries[i]);
for (const n of [1, 2]) {
  const { fit, predict, pieces } = measure(quaternaries, n, REPEATS);
  console.log(
    `${quaternaries.length} alloys, substitutions of up to ${n}: ${pieces} pieces of evidence in ${fit.toFixed(3)} s, ` +
      `leave-one-out of all in ${predict.toFixed(3)} s`,
  );
}
for (const n of [1, 2]) {
  const ours = measure(subset, n, SUBSET_REPEATS);
  const input = JSON.stringify({
    alloys: subset.map(({ set }) => set),
    labels: subset.map(({ label }) => label),
    most: n,
    alpha: 0.01,
  });
  const peer = spawnSync(python, [fileURLToPath(new URL('evidence.py', import.meta.url))], {
    input,
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  if (peer.status !== 0) {
    console.log(`no peer: ${peer.error?.message ?? peer.stderr.trim().split('\n').at(-1)}`);
    break;
  }
  const found = JSON.parse(peer.stdout);
  console.log(
    `${SUBSET} alloys, up to ${n}: ${found.pieces} pieces in ${found.seconds.toFixed(3)} s by the naive method in Python, ` +
      `${ours.fit.toFixed(4)} s here (${(found.seconds / ours.fit).toFixed(0)} times); pieces agree: ${found.pieces === ours.pieces}`,
  );
}
