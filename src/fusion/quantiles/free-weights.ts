import type { CertifiedSettings, CertifiedWeights } from './certified-weights.js';
import { solvePinballProgram } from './simplex-interior-point.js';
import type { WeightProgram } from './weight-program.js';

/**
 * Weights that may have any sign and sum: quantile regression of y on the forecasts, without intercept, by the
 * interior-point method on all rows (Portnoy & Koenker 1997). The bound is the dual objective a . y / N; it holds for
 * weights of bounded size, since the dual constraint Z^T a = 0 is met to rounding: with |w|_1 at most twice that of the
 * weights found, it is lowered by 2 |w|_1 max_k |(Z^T a)_k| / N.
 */
export function freeWeights(program: WeightProgram, settings: CertifiedSettings): CertifiedWeights {
  const { values, offsets, step, columns, targets, levels } = program;
  const n = offsets.length;
  const design = new Float64Array(n * columns);
  // Columns in units of their own size, outcomes in theirs.
  const sizes = new Float64Array(columns);
  let size = 0;
  for (let r = 0; r < n; r++) {
    size += Math.abs(targets[r]) / n;
    for (let k = 0, cell = offsets[r]; k < columns; k++, cell += step) sizes[k] += Math.abs(values[cell]) / n;
  }
  const unit = size > 0 ? size : 1;
  for (let k = 0; k < columns; k++) if (!(sizes[k] > 0)) sizes[k] = 1;
  for (let r = 0, at = 0; r < n; r++) {
    for (let k = 0, cell = offsets[r]; k < columns; k++, cell += step) design[at++] = values[cell] / sizes[k];
  }
  const solution = solvePinballProgram(
    {
      design,
      rows: n,
      columns,
      levels,
      linear: new Float64Array(columns),
      targets: targets.map((y) => y / unit),
    },
    Math.min(1e-11, settings.tolerance / 100),
    settings.threads,
  );
  const slack = new Float64Array(columns);
  let objective = 0;
  let bound = 0;
  for (let r = 0; r < n; r++) {
    let quantile = 0;
    for (let k = 0; k < columns; k++) {
      quantile += solution.weights[k] * design[r * columns + k];
      slack[k] += solution.dual[r] * design[r * columns + k];
    }
    const residual = targets[r] - unit * quantile;
    objective += residual >= 0 ? levels[r] * residual : (levels[r] - 1) * residual;
    bound += solution.dual[r] * targets[r];
  }
  const norm = solution.weights.reduce((sum, weight) => sum + Math.abs(weight), 0);
  bound -= 2 * norm * unit * slack.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return {
    weights: solution.weights.map((weight, k) => (unit * weight) / sizes[k]),
    objective: objective / n,
    bound: Math.min(bound, objective) / n,
    rounds: 1,
    rows: n,
    incomplete: program.incomplete,
  };
}
