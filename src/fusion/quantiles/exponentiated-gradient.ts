import type { CertifiedSettings, CertifiedWeights } from './certified-weights.js';
import { dualBound, programObjective, programResiduals, type WeightProgram } from './weight-program.js';

/** Iterations after which the best weights are given with the gap that they have. */
const MOST_ITERATIONS = 20_000;
const CHECK_EVERY = 10;

/**
 * Weights of a program by accelerated exponentiated gradients on the smoothed pinball loss (Nesterov 2005 with the
 * entropy as the distance of the simplex; Tseng 2008, algorithm 1). The duals of the iterations are averaged with the
 * method's own weights, and their mean is feasible: it gives the bound. The smoothing is halved, and the method started
 * again from its best point, when the gap no longer falls. Memory is the data and a few vectors; each iteration reads
 * the data twice.
 */
export function exponentiatedGradient(program: WeightProgram, settings: CertifiedSettings): CertifiedWeights {
  const { values, offsets, step, columns, targets, levels } = program;
  const n = offsets.length;
  const residuals = new Float64Array(n);
  const norms = new Float64Array(columns);
  for (let r = 0; r < n; r++) {
    for (let k = 0, cell = offsets[r]; k < columns; k++, cell += step) norms[k] += (targets[r] - values[cell]) ** 2;
  }
  const largest = Math.max(...norms) / n;
  let best = new Float64Array(columns).fill(1 / columns);
  let objective = programObjective(program, programResiduals(program, best, residuals));
  let bound = 0;
  let smoothing = objective;
  let iterations = 0;
  const dual = new Float64Array(n);
  const averaged = new Float64Array(n);
  const middle = new Float64Array(columns);
  const done = (): boolean => objective - bound <= settings.tolerance * objective;

  while (!done() && iterations < MOST_ITERATIONS) {
    const rate = smoothing / largest;
    const logs = best.map((weight) => Math.log(Math.max(weight, 1e-12)));
    let x = best.slice();
    let v = best.slice();
    averaged.fill(0);
    // Theory: after so many steps the smoothed problem is solved to the size of the smoothing.
    const enough = (2 * Math.sqrt(8 * largest * Math.log(columns))) / smoothing;
    for (let t = 0; iterations < MOST_ITERATIONS; t++) {
      iterations++;
      const theta = 2 / (t + 2);
      for (let k = 0; k < columns; k++) middle[k] = (1 - theta) * x[k] + theta * v[k];
      programResiduals(program, middle, residuals);
      for (let r = 0; r < n; r++) {
        dual[r] = Math.min(levels[r], Math.max(levels[r] - 1, residuals[r] / smoothing));
        averaged[r] += theta * (dual[r] - averaged[r]);
      }
      const { prices } = dualBound(program, dual);
      let top = Number.NEGATIVE_INFINITY;
      for (let k = 0; k < columns; k++) {
        logs[k] -= (rate * prices[k]) / n / theta;
        top = Math.max(top, logs[k]);
      }
      let sum = 0;
      for (let k = 0; k < columns; k++) {
        logs[k] -= top;
        v[k] = Math.exp(logs[k]);
        sum += v[k];
      }
      for (let k = 0; k < columns; k++) {
        v[k] /= sum;
        x[k] = (1 - theta) * x[k] + theta * v[k];
      }
      if (t % CHECK_EVERY !== CHECK_EVERY - 1) continue;
      const now = programObjective(program, programResiduals(program, x, residuals));
      if (now < objective) {
        objective = now;
        best = x.slice();
      }
      bound = Math.max(bound, dualBound(program, averaged).bound);
      if (done()) break;
      // Rounding costs at most half of the smoothing: what is left beyond that is for a smaller one.
      if (objective - bound < smoothing / 2 || t > enough) break;
    }
    smoothing /= 4;
    v = best;
    x = best;
  }
  return {
    weights: best,
    objective,
    bound: Math.min(bound, objective),
    rounds: iterations,
    rows: n,
    incomplete: program.incomplete,
  };
}
