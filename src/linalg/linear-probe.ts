import { InputError } from '../errors.js';
import { cholesky, choleskySolve } from './cholesky.js';

/** Feature means and scales of the training rows; features are standardised before they are weighed. */
export interface Standardisation {
  readonly mean: Float64Array;
  /** sqrt(population variance + 1e-5). */
  readonly scale: Float64Array;
}

const VARIANCE_FLOOR = 1e-5;

/**
 * Mean and scale of every column of `[rows, features]`.
 * @throws InputError naming the column when an entry is not finite
 */
export function fitStandardisation(x: ArrayLike<number>, rows: number, features: number): Standardisation {
  const mean = new Float64Array(features);
  const scale = new Float64Array(features);
  for (let r = 0; r < rows; r++) for (let j = 0; j < features; j++) mean[j] += x[r * features + j] / rows;
  for (let j = 0; j < features; j++) {
    let squares = 0;
    for (let r = 0; r < rows; r++) squares += (x[r * features + j] - mean[j]) ** 2;
    scale[j] = Math.sqrt(squares / rows + VARIANCE_FLOOR);
    if (!Number.isFinite(scale[j])) throw new InputError(`probe: feature column ${j} has entries that are not finite`);
  }
  return { mean, scale };
}

function standardise(x: ArrayLike<number>, rows: number, features: number, by: Standardisation): Float64Array {
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
  for (let r = 0; r < rows; r++) {
    for (let k = 0; k < outputs; k++) {
      let sum = bias[k];
      for (let j = 0; j < features; j++) sum += weights[k * features + j] * z[r * features + j];
      result[r * outputs + k] = sum;
    }
  }
  return result;
}

/**
 * Ridge regression: minimises `(1/2n) ||Y - Z W^T - b||^2 + (decay/2) ||W||^2` over standardised features Z by Cholesky;
 * the bias is free.
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
  const gram = new Float64Array(features * features);
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < features; i++) {
      const zi = z[r * features + i] / rows;
      for (let j = 0; j <= i; j++) gram[i * features + j] += zi * z[r * features + j];
    }
  }
  for (let i = 0; i < features; i++) gram[i * features + i] += decay;
  const factor = cholesky(gram, features);
  if (factor === undefined) {
    throw new InputError(`probe: the ${features} features are linearly dependent on ${rows} rows; use a decay above 0`);
  }
  const weights = new Float64Array(outputs * features);
  const bias = new Float64Array(outputs);
  let objective = 0;
  for (let k = 0; k < outputs; k++) {
    for (let r = 0; r < rows; r++) bias[k] += y[r * outputs + k] / rows;
    const cross = new Float64Array(features);
    for (let r = 0; r < rows; r++) {
      const centred = (y[r * outputs + k] - bias[k]) / rows;
      for (let j = 0; j < features; j++) cross[j] += centred * z[r * features + j];
    }
    const w = choleskySolve(factor, features, cross);
    weights.set(w, k * features);
    for (let r = 0; r < rows; r++) {
      let residual = y[r * outputs + k] - bias[k];
      for (let j = 0; j < features; j++) residual -= w[j] * z[r * features + j];
      objective += (residual * residual) / (2 * rows);
    }
    for (const weight of w) objective += 0.5 * decay * weight * weight;
  }
  return { features, outputs, standardisation, weights, bias, objective, gradientNorm: 0, iterations: 0 };
}

/** Mean cross-entropy plus decay, its gradient, and the class probabilities `[rows, classes]`. */
function logisticState(
  z: Float64Array,
  labels: ArrayLike<number>,
  rows: number,
  features: number,
  classes: number,
  decay: number,
  theta: Float64Array,
): { objective: number; gradient: Float64Array; probabilities: Float64Array } {
  const width = features + 1;
  const probabilities = new Float64Array(rows * classes);
  const gradient = new Float64Array(theta.length);
  let objective = 0;
  for (let r = 0; r < rows; r++) {
    let max = Number.NEGATIVE_INFINITY;
    for (let k = 0; k < classes; k++) {
      let sum = theta[k * width + features];
      for (let j = 0; j < features; j++) sum += theta[k * width + j] * z[r * features + j];
      probabilities[r * classes + k] = sum;
      if (sum > max) max = sum;
    }
    let total = 0;
    for (let k = 0; k < classes; k++) total += Math.exp(probabilities[r * classes + k] - max);
    const shift = max + Math.log(total);
    objective += (shift - probabilities[r * classes + labels[r]]) / rows;
    for (let k = 0; k < classes; k++) {
      const p = Math.exp(probabilities[r * classes + k] - shift);
      probabilities[r * classes + k] = p;
      const difference = (p - (labels[r] === k ? 1 : 0)) / rows;
      for (let j = 0; j < features; j++) gradient[k * width + j] += difference * z[r * features + j];
      gradient[k * width + features] += difference;
    }
  }
  for (let k = 0; k < classes; k++) {
    for (let j = 0; j < features; j++) {
      const weight = theta[k * width + j];
      objective += 0.5 * decay * weight * weight;
      gradient[k * width + j] += decay * weight;
    }
  }
  return { objective, gradient, probabilities };
}

/** Product of the Hessian with a direction, without forming it. */
function hessianTimes(
  z: Float64Array,
  probabilities: Float64Array,
  rows: number,
  features: number,
  classes: number,
  decay: number,
  direction: Float64Array,
): Float64Array {
  const width = features + 1;
  const result = new Float64Array(direction.length);
  const change = new Float64Array(classes);
  for (let r = 0; r < rows; r++) {
    let mean = 0;
    for (let k = 0; k < classes; k++) {
      let sum = direction[k * width + features];
      for (let j = 0; j < features; j++) sum += direction[k * width + j] * z[r * features + j];
      change[k] = sum;
      mean += probabilities[r * classes + k] * sum;
    }
    for (let k = 0; k < classes; k++) {
      const weight = (probabilities[r * classes + k] * (change[k] - mean)) / rows;
      for (let j = 0; j < features; j++) result[k * width + j] += weight * z[r * features + j];
      result[k * width + features] += weight;
    }
  }
  for (let k = 0; k < classes; k++) {
    for (let j = 0; j < features; j++) result[k * width + j] += decay * direction[k * width + j];
  }
  return result;
}

const dot = (a: Float64Array, b: Float64Array): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};

/** Solves `H d = -g` by conjugate gradients to a share of |g| that shrinks with |g|, which keeps Newton's rate. */
function newtonDirection(times: (v: Float64Array) => Float64Array, gradient: Float64Array): Float64Array {
  const direction = new Float64Array(gradient.length);
  const residual = gradient.map((g) => -g);
  const search = residual.slice();
  let squared = dot(residual, residual);
  const norm = Math.sqrt(squared);
  const wanted = norm * Math.min(0.1, norm);
  for (let step = 0; step < 4 * gradient.length && Math.sqrt(squared) > wanted; step++) {
    const product = times(search);
    const curvature = dot(search, product);
    // Zero curvature: the common shift of all biases, along which the objective does not change.
    if (!(curvature > 0)) break;
    const length = squared / curvature;
    for (let i = 0; i < direction.length; i++) {
      direction[i] += length * search[i];
      residual[i] -= length * product[i];
    }
    const next = dot(residual, residual);
    for (let i = 0; i < search.length; i++) search[i] = residual[i] + (next / squared) * search[i];
    squared = next;
  }
  return direction;
}

/**
 * Multinomial logistic probe: minimises `mean cross-entropy + (decay/2) ||W||^2` over standardised features, bias free, by
 * Newton with conjugate gradients and backtracking to a gradient norm of `tolerance`. Deterministic; W is unique for a
 * positive decay.
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
  const { tolerance = 1e-8, maxIterations = 100 } = options;
  if (!(decay > 0)) throw new InputError('probe: the decay must be positive, or separable classes have no optimum');
  const counts = new Int32Array(classes);
  for (let r = 0; r < rows; r++) {
    if (!(labels[r] >= 0 && labels[r] < classes))
      throw new InputError(`probe: row ${r} has label ${labels[r]} of ${classes}`);
    counts[labels[r]]++;
  }
  const missing = counts.indexOf(0);
  if (missing >= 0) throw new InputError(`probe: class ${missing} is missing from the training rows`);
  const standardisation = fitStandardisation(x, rows, features);
  const z = standardise(x, rows, features, standardisation);
  const width = features + 1;
  let theta = new Float64Array(classes * width);
  let state = logisticState(z, labels, rows, features, classes, decay, theta);
  let norm = Math.sqrt(dot(state.gradient, state.gradient));
  let iterations = 0;
  while (norm > tolerance && iterations < maxIterations) {
    const { probabilities, gradient } = state;
    const direction = newtonDirection(
      (v) => hessianTimes(z, probabilities, rows, features, classes, decay, v),
      gradient,
    );
    const slope = dot(direction, gradient);
    let length = 1;
    let next = state;
    let moved = theta;
    for (; length > 1e-10; length /= 2) {
      moved = theta.map((value, i) => value + length * direction[i]);
      next = logisticState(z, labels, rows, features, classes, decay, moved);
      if (next.objective <= state.objective + 1e-4 * length * slope + 1e-15) break;
    }
    iterations++;
    if (length <= 1e-10) break;
    theta = moved;
    state = next;
    norm = Math.sqrt(dot(state.gradient, state.gradient));
  }
  const weights = new Float64Array(classes * features);
  const bias = new Float64Array(classes);
  for (let k = 0; k < classes; k++) {
    weights.set(theta.subarray(k * width, k * width + features), k * features);
    bias[k] = theta[k * width + features];
  }
  return {
    features,
    outputs: classes,
    standardisation,
    weights,
    bias,
    objective: state.objective,
    gradientNorm: norm,
    iterations,
  };
}
