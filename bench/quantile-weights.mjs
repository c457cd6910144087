/**
 * Certified weights of quantile forecasts against SciPy's HiGHS on the same linear programs, and the whole of a large
 * problem: n = 100,000 rows, 10 models, 99 levels. One thread on both sides of the comparison.
 *
 *   node bench/quantile-weights.mjs [--python /path/to/python] [--large] [--rows 100000]
 *
 * Without a Python that has SciPy the peer is left out. `--large` adds the coarse and medium forms of the large problem and
 * four levels of the fine form, whose 99 programs have 990 columns each.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { encodeNpy } from '../dist/src/formats/npy.js';
import { certifiedWeights } from '../dist/src/fusion/quantiles/certified-weights.js';
import { weightPrograms } from '../dist/src/fusion/quantiles/weight-program.js';
import { createRandom } from '../dist/src/random.js';

const { values: options } = parseArgs({
  options: { python: { type: 'string' }, large: { type: 'boolean' }, rows: { type: 'string' } },
});
const python = options.python ?? process.env.PYTHON ?? 'python3';
const SETTINGS = { tolerance: 1e-8, seed: 0, threads: 1 };
const RUNS = 3;

function forecastsOf(rows, models, m, seed) {
  const random = createRandom(seed);
  const levels = Float64Array.from({ length: m }, (_, j) => (j + 1) / (m + 1));
  const logits = levels.map((level) => 0.6 * Math.log(level / (1 - level)));
  const values = new Float32Array(rows * models * m);
  const outcomes = new Float64Array(rows);
  for (let i = 0; i < rows; i++) {
    const centre = random.normal();
    const spread = Math.exp(0.5 * random.normal());
    outcomes[i] = centre + spread * random.normal();
    for (let k = 0; k < models; k++) {
      const shifted = centre + 0.3 * random.normal();
      const scale = spread * Math.exp(0.2 * random.normal() + 0.05 * (k - models / 2));
      for (let j = 0; j < m; j++) values[(i * models + k) * m + j] = shifted + scale * logits[j];
    }
  }
  return { forecasts: { values, rows, models, levels: m }, outcomes, levels };
}

const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
const every = (rows) => Int32Array.from({ length: rows }, (_, i) => i);

const PEER = `
import sys, time, json
import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_matrix, hstack, identity, vstack
z, y, tau, runs = np.load(sys.argv[1]).astype(float), np.load(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
n, p = z.shape
times = []
for _ in range(runs):
    start = time.perf_counter()
    a = hstack([csr_matrix(y[:, None] - z), -identity(n), identity(n)])
    a = vstack([a, csr_matrix(np.concatenate([np.ones(p), np.zeros(2 * n)])[None])]).tocsr()
    c = np.concatenate([np.zeros(p), np.full(n, tau), np.full(n, 1 - tau)]) / n
    b = np.zeros(n + 1); b[-1] = 1
    found = linprog(c, A_eq=a, b_eq=b, bounds=(0, None), method='highs')
    times.append(time.perf_counter() - start)
print(json.dumps({'seconds': sorted(times)[len(times) // 2], 'objective': found.fun}))
`;

const scratch = mkdtempSync(join(tmpdir(), 'surprisal-'));
try {
  for (const [rows, models, level] of [
    [1000, 10, 0.1],
    [5000, 10, 0.5],
    [20_000, 10, 0.9],
    [2000, 100, 0.5],
    [5000, 200, 0.25],
  ]) {
    const { forecasts, outcomes } = forecastsOf(rows, models, 1, rows + models);
    const times = [];
    let found;
    for (let run = 0; run < RUNS; run++) {
      const start = performance.now();
      const [program] = weightPrograms(forecasts, outcomes, [level], 'coarse', every(rows));
      found = certifiedWeights(program, SETTINGS);
      times.push((performance.now() - start) / 1000);
    }
    const gap = (found.objective - found.bound) / found.objective;
    const [z, y, script] = ['z.npy', 'y.npy', 'peer.py'].map((name) => join(scratch, name));
    writeFileSync(z, encodeNpy(forecasts.values, [rows, models]));
    writeFileSync(y, encodeNpy(outcomes, [rows]));
    writeFileSync(script, PEER);
    const env = { ...process.env, OMP_NUM_THREADS: '1' };
    const { status, stdout } = spawnSync(python, [script, z, y, String(level), String(rows > 10_000 ? 1 : RUNS)], {
      encoding: 'utf8',
      env,
    });
    const peer = status === 0 ? JSON.parse(stdout) : undefined;
    const ours = median(times);
    console.log(
      `${rows} rows, ${models} columns, level ${level}: ${ours.toFixed(3)} s, gap ${gap.toExponential(1)}` +
        (peer === undefined
          ? ' (no SciPy)'
          : `; HiGHS ${peer.seconds.toFixed(3)} s (${(peer.seconds / ours).toFixed(1)} times), ` +
            `objectives differ by ${((found.objective - peer.objective) / peer.objective).toExponential(1)}`),
    );
  }
} finally {
  rmSync(scratch, { recursive: true });
}

if (options.large) {
  const rows = Number(options.rows ?? 100_000);
  const { forecasts, outcomes, levels } = forecastsOf(rows, 10, 99, 1);
  for (const [form, wanted] of [
    ['coarse', [0]],
    ['medium', levels.map((_, j) => j)],
    ['fine', [4, 24, 49, 94]],
  ]) {
    const start = performance.now();
    let [worst, count, at, own] = [0, 0, 0, []];
    for (const program of weightPrograms(forecasts, outcomes, levels, form, every(rows))) {
      if (wanted.includes(at++)) {
        const found = certifiedWeights(program, SETTINGS, own);
        own = Array.from(found.weights.keys()).filter((k) => found.weights[k] > 1e-3);
        worst = Math.max(worst, (found.objective - found.bound) / found.objective);
        count++;
      }
    }
    const seconds = (performance.now() - start) / 1000;
    console.log(
      `${rows} rows, 10 models, 99 levels, ${form}: ${count} programs in ${seconds.toFixed(1)} s, worst gap ${worst.toExponential(1)}`,
    );
  }
}
