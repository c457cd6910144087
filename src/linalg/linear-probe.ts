import { InputError } from '../errors.js';
import { multiply, symmetricRankK } from '../kernels/gemm.js';
import { fitMultinomial, heldDesign, multinomialLayout } from './multinomial-newton.js';
import { solveRidge } from './ridge.js';
import { rowSpaceOf } from './row-space.js';

/** Feature means and scales of the training rows; features are standardised before they are weighed. */
export interface Standardisation {
  readonly mean: Float64Array;
  /** Population variance. */
  readonly variance: Float64Array;
  /** sqrt(variance + 1e-5). */
  readonly scale: Float64Array;
}

/** Added to variances, as batch normalisation does: a constant feature becomes 0 and not NaN. */
export const VARIANCE_FLOOR = 1e-5;

/**
 * Mean and scale of every column of `[rows, features]`.
 * @throws InputError naming the column when an entry is not finite
 */
export function fitStandardisation(x: ArrayLike<number>, rows: number, features: number): Standardisation {
  const mean = new Float64Array(features);
  const variance = new Float64Array(features);
  for (let r = 0; r < rows; r++) for (let j = 0; j < features; j++) mean[j] += x[r * features + j] / rows;
  for (let r = 0; r < rows; r++) {
    for (let j = 0; j < features; j++) variance[j] += (x[r * features + j] - mean[j]) ** 2 / rows;
  }
  const strange = variance.findIndex((value) => !Number.isFinite(value));
  if (strange >= 0) throw new InputError(`probe: feature column ${strange} has entries that are not finite`);
  return { mean, variance, scale: variance.map((value) => Math.sqrt(value + VARIANCE_FLOOR)) };
}

/** Features `[rows, features]` minus means, over scales. */
export function standardise(x: ArrayLike<number>, rows: number, features: number, by: Standardisation): Float64Array {
  const z = new Float64Array(rows * features);
  for (let r = 0; r < rows; r++) {
    for (let j = 0; j < features; j++) z[r * features + j] = (x[r * features + j] - by.mean[j]) / by.scale[j];
  }
  return z;
}

/** A fitted linear map of standardised features to `outputs` values (targets of a ridge, logits of a classifier). */
export interface LinearProbe {
  readonly features: number;
  readonly outputs: number;
  readonly standardisation: Standardisation;
  /** `[outputs, features]` over standardised features. */
  readonly weights: Float64Array;
  readonly bias: Float64Array;
  /** Value of the training objective, norm of its gradient, Newton steps (0 for the closed form). */
  readonly objective: number;
  readonly gradientNorm: number;
  readonly iterations: number;
}

/** Outputs `[rows, outputs]` of a probe on `[rows, features]`. */
export function applyProbe(probe: LinearProbe, x: ArrayLike<number>, rows: number): Float64Array {
  const { features, outputs, weights, bias } = probe;
  const z = standardise(x, rows, features, probe.standardisation);
  const result = new Float64Array(rows * outputs);
  for (let r = 0; r < rows; r++) result.set(bias, r * outputs);
  return multiply(z, weights, result, { m: rows, n: outputs, k: features }, { transposeB: true, beta: 1 });
}

/**
 * Ridge regression: minimises `(1/2n) ||Y - Z W^T - b||^2 + (decay/2) ||W||^2` over standardised features Z in closed
 * form; the bias is free.
 * @param x `[rows, features]`, @param y `[rows, outputs]`
 * @throws InputError for a decay of zero with dependent features, or entries that are not finite
 */
export function fitRidge(
  x: ArrayLike<number>,
  y: ArrayLike<number>,
  rows: number,
  features: number,
  outputs: number,
  decay: number,
): LinearProbe {
  const standardisation = fitStandardisation(x, rows, features);
  const z = standardise(x, rows, features, standardisation);
  const gram = symmetricRankK(
    z,
    new Float64Array(features * features),
    { n: features, k: rows },
    { transpose: true, alpha: 1 / rows },
  );
  const bias = new Float64Array(outputs);
  for (let r = 0; r < rows; r++) for (let k = 0; k < outputs; k++) bias[k] += y[r * outputs + k] / rows;
  const centred = Float64Array.from({ length: rows * outputs }, (_, i) => y[i] - bias[i % outputs]);
  const cross = multiply(
    centred,
    z,
    new Float64Array(outputs * features),
    { m: outputs, n: features, k: rows },
    { transposeA: true, alpha: 1 / rows },
  );
  const weights = solveRidge(gram, cross, features, outputs, decay);
  if (weights === undefined) {
    throw new InputError(`probe: the ${features} features are linearly dependent on ${rows} rows; use a decay above 0`);
  }
  const residual = multiply(
    z,
    weights,
    centred,
    { m: rows, n: outputs, k: features },
    { transposeB: true, alpha: -1, beta: 1 },
  );
  let objective = 0;
  for (const value of residual) objective += (value * value) / (2 * rows);
  for (const weight of weights) objective += 0.5 * decay * weight * weight;
  return { features, outputs, standardisation, weights, bias, objective, gradientNorm: 0, iterations: 0 };
}

/** @throws InputError when a label is out of range or a class has no row */
function checkLabels(labels: ArrayLike<number>, rows: number, classes: number): void {
  const counts = new Int32Array(classes);
  for (let r = 0; r < rows; r++) {
    if (!(labels[r] >= 0 && labels[r] < classes))
      throw new InputError(`probe: row ${r} has label ${labels[r]} of ${classes}`);
    counts[labels[r]]++;
  }
  const missing = counts.indexOf(0);
  if (missing >= 0) throw new InputError(`probe: class ${missing} is missing from the training rows`);
}

/**
 * Multinomial logistic probe: minimises `mean cross-entropy + (decay/2) ||W||^2` over standardised features, bias free, by
 * Newton with conjugate gradients and backtracking to a gradient norm of `tolerance`; with fewer rows than features in the
 * dual form. Deterministic; W is unique for a positive decay.
 *
 * @param labels `[rows]`, class 0..classes-1
 * @throws InputError when a label is out of range, a class has no row, or the decay is not positive
 */
export function fitLogisticProbe(
  x: ArrayLike<number>,
  labels: ArrayLike<number>,
  rows: number,
  features: number,
  classes: number,
  decay: number,
  options: { readonly tolerance?: number; readonly maxIterations?: number } = {},
): LinearProbe {
  if (!(decay > 0)) throw new InputError('probe: the decay must be positive, or separable classes have no optimum');
  checkLabels(labels, rows, classes);
  const standardisation = fitStandardisation(x, rows, features);
  const design = heldDesign(standardise(x, rows, features, standardisation), rows, features);
  const whole = multinomialLayout([features], classes);
  const start = new Float64Array(whole.length);
  if (rows < features) {
    const space = rowSpaceOf(design);
    const dual = fitMultinomial(heldDesign(space.coordinates, rows, space.rank), labels, classes, decay, options);
    const weightsOfRows = classes * space.rank;
    start.set(space.lift(dual.theta.slice(0, weightsOfRows), classes)[0], 0);
    start.set(dual.theta.subarray(weightsOfRows), whole.biasStart);
  }
  // From the dual optimum this only confirms that the gradient over all features is as small.
  const fit = fitMultinomial(design, labels, classes, decay, { ...options, start });
  return {
    features,
    outputs: classes,
    standardisation,
    weights: fit.theta.slice(0, whole.biasStart),
    bias: fit.theta.slice(whole.biasStart),
    objective: fit.objective,
    gradientNorm: fit.gradientNorm,
    iterations: fit.iterations,
  };
}
