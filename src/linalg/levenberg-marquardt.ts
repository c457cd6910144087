import { cholesky, choleskySolve } from './cholesky.js';

/** A problem of least squares in n unknowns with m residuals. */
export interface LeastSquaresProblem {
  readonly unknowns: number;
  readonly residuals: number;
  /** Fills `residuals` [m] and, where given, `jacobian` [m, n] of the residuals at x. */
  evaluate(x: Float64Array, residuals: Float64Array, jacobian?: Float64Array): void;
}

export interface LeastSquaresResult {
  readonly point: Float64Array;
  /** Half of the sum of squares is minimised; this is the sum. */
  readonly sumOfSquares: number;
  readonly iterations: number;
}

const MOST_DAMPING = 1e16;

/**
 * Levenberg-Marquardt with Marquardt's scaling by the diagonal of J^T J and Nielsen's rule of the damping (1999). Points with a
 * residual that is not finite are refused as steps. Deterministic.
 */
export function leastSquares(
  problem: LeastSquaresProblem,
  start: Float64Array,
  options: { readonly maxIterations?: number; readonly tolerance?: number } = {},
): LeastSquaresResult {
  const { unknowns: n, residuals: m } = problem;
  const { maxIterations = 300, tolerance = 1e-15 } = options;
  const jacobian = new Float64Array(m * n);
  let [residuals, trial] = [new Float64Array(m), new Float64Array(m)];
  let point = start.slice();
  problem.evaluate(point, residuals, jacobian);
  let value = squares(residuals);
  let damping = 1e-3;
  let growth = 2;
  let iterations = 0;
  const scale = new Float64Array(n);
  while (iterations < maxIterations && value > 0 && damping < MOST_DAMPING) {
    iterations++;
    const { gram, gradient } = normalEquations(jacobian, residuals, n);
    for (let d = 0; d < n; d++) scale[d] = Math.max(scale[d], gram[d * n + d]);
    const step = dampedStep(gram, gradient, scale, damping);
    if (step === undefined) {
      damping *= growth;
      growth *= 2;
      continue;
    }
    const next = point.map((x, d) => x + step[d]);
    problem.evaluate(next, trial);
    const found = squares(trial);
    let predicted = 0;
    for (let d = 0; d < n; d++) predicted += step[d] * (damping * scale[d] * step[d] - gradient[d]);
    const gain = (value - found) / predicted;
    if (!(found < value)) {
      damping *= growth;
      growth *= 2;
      if (step.every((x, d) => Math.abs(x) <= 1e-15 * (Math.abs(point[d]) + 1e-15))) break;
      continue;
    }
    const drop = (value - found) / value;
    [residuals, trial] = [trial, residuals];
    [point, value] = [next, found];
    damping *= Math.max(1 / 3, 1 - (2 * gain - 1) ** 3);
    growth = 2;
    if (drop < tolerance) break;
    problem.evaluate(point, residuals, jacobian);
  }
  return { point, sumOfSquares: value, iterations };
}

function squares(values: Float64Array): number {
  let sum = 0;
  for (const value of values) sum += value * value;
  return Number.isFinite(sum) ? sum : Number.POSITIVE_INFINITY;
}

/** J^T J and J^T r. */
function normalEquations(
  jacobian: Float64Array,
  residuals: Float64Array,
  n: number,
): { readonly gram: Float64Array; readonly gradient: Float64Array } {
  const gram = new Float64Array(n * n);
  const gradient = new Float64Array(n);
  for (let r = 0; r < residuals.length; r++) {
    const row = r * n;
    for (let i = 0; i < n; i++) {
      const entry = jacobian[row + i];
      gradient[i] += entry * residuals[r];
      for (let j = 0; j <= i; j++) gram[i * n + j] += entry * jacobian[row + j];
    }
  }
  for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) gram[j * n + i] = gram[i * n + j];
  return { gram, gradient };
}

function dampedStep(
  gram: Float64Array,
  gradient: Float64Array,
  scale: Float64Array,
  damping: number,
): Float64Array | undefined {
  const n = gradient.length;
  const damped = gram.slice();
  for (let d = 0; d < n; d++) damped[d * n + d] += damping * (scale[d] > 0 ? scale[d] : 1);
  const factor = cholesky(damped, n);
  return (
    factor &&
    choleskySolve(
      factor,
      n,
      gradient.map((x) => -x),
    )
  );
}
