import { InputError } from '../errors.js';
import { cholesky, choleskySolve } from '../linalg/cholesky.js';

/** Which parameters of a wide two-layer network carry its training, and so which kernel predicts it. */
export const NTK_PARAMETRISATIONS = ['ntk', 'standard'] as const;
export type NtkParametrisation = (typeof NTK_PARAMETRISATIONS)[number];

/** Deviations of weights and biases at the start; 1 and 0 in the theorem. */
export interface KernelScales {
  readonly sigmaW: number;
  readonly sigmaB: number;
}

export const THEOREM_SCALES: KernelScales = { sigmaW: 1, sigmaB: 0 };

/** Kernels of the outputs of infinitely wide two-layer ReLU networks at one pair of inputs. */
export interface KernelPair {
  /** Covariance of the outputs at the start, Σ. */
  readonly nngp: number;
  /** Tangent kernel when both layers are trained, Θ. */
  readonly ntk: number;
  /** Tangent kernel of the output weights alone: Σ without the variance of the output biases. */
  readonly lastLayer: number;
}

/**
 * Which kernel predicts a parametrisation: Θ where both layers move alike. In the standard one the tangent kernel of the
 * output weights is `width` times larger than all others, so that training is regression on the last layer.
 */
export const kernelOf = (parametrisation: NtkParametrisation): keyof KernelPair =>
  parametrisation === 'ntk' ? 'ntk' : 'lastLayer';

/**
 * Σ and Θ of a network k -> width -> outputs at the inputs x and y [k]. With K0 = σw² x·y/k + σb² and the angle θ of the
 * inputs in K0's geometry: Σ = σw² √(K0(x,x) K0(y,y)) (sin θ + (π-θ) cos θ)/(2π) + σb², Θ = Σ + K0 σw² (π-θ)/(2π) (Jacot
 * et al. 2018; arXiv 2502.16763, section 3). The angle is taken from |u-v| and |u+v| of the unit vectors, so that equal
 * inputs give exactly 0.
 */
export function kernelPair(x: ArrayLike<number>, y: ArrayLike<number>, scales: KernelScales): KernelPair {
  const k = x.length;
  const weight = scales.sigmaW ** 2 / k;
  const bias = scales.sigmaB ** 2;
  let product = bias;
  let xSquare = bias;
  let ySquare = bias;
  for (let i = 0; i < k; i++) {
    product += weight * x[i] * y[i];
    xSquare += weight * x[i] * x[i];
    ySquare += weight * y[i] * y[i];
  }
  if (xSquare === 0 || ySquare === 0) return { nngp: bias, ntk: bias, lastLayer: 0 };
  const xNorm = Math.sqrt(xSquare);
  const yNorm = Math.sqrt(ySquare);
  const along = scales.sigmaB * (1 / xNorm - 1 / yNorm);
  const across = scales.sigmaB * (1 / xNorm + 1 / yNorm);
  let minus = along * along;
  let plus = across * across;
  for (let i = 0; i < k; i++) {
    const u = x[i] / xNorm;
    const v = y[i] / yNorm;
    minus += weight * (u - v) ** 2;
    plus += weight * (u + v) ** 2;
  }
  const angle = 2 * Math.atan2(Math.sqrt(minus), Math.sqrt(plus));
  const open = Math.PI - angle;
  const arc = (scales.sigmaW ** 2 * (xNorm * yNorm) * (Math.sin(angle) + open * Math.cos(angle))) / (2 * Math.PI);
  const inner = (product * scales.sigmaW ** 2 * open) / (2 * Math.PI);
  return { nngp: arc + bias, ntk: arc + bias + inner, lastLayer: arc };
}

/** All kernels between the rows of a [rows, k] and those of b [columns, k]: matrices [rows, columns]. */
export function kernelMatrices(
  a: Float64Array,
  b: Float64Array,
  k: number,
  scales: KernelScales = THEOREM_SCALES,
): Record<keyof KernelPair, Float64Array> {
  const rows = a.length / k;
  const columns = b.length / k;
  const size = rows * columns;
  const found = { nngp: new Float64Array(size), ntk: new Float64Array(size), lastLayer: new Float64Array(size) };
  for (let i = 0; i < rows; i++) {
    const x = a.subarray(i * k, (i + 1) * k);
    for (let j = 0; j < columns; j++) {
      const pair = kernelPair(x, b.subarray(j * k, (j + 1) * k), scales);
      found.nngp[i * columns + j] = pair.nngp;
      found.ntk[i * columns + j] = pair.ntk;
      found.lastLayer[i * columns + j] = pair.lastLayer;
    }
  }
  return found;
}

/** The rows e_1..e_k: the training inputs. */
export function basisRows(k: number): Float64Array {
  const rows = new Float64Array(k * k);
  for (let i = 0; i < k; i++) rows[i * k + i] = 1;
  return rows;
}

/**
 * The target of an input: coordinate i is 1 where x[permutation[i]] is not 0, for every row of `inputs` [rows, k].
 * @throws InputError when `permutation` is none of 0..k-1
 */
export function permutedBits(inputs: ArrayLike<number>, permutation: ArrayLike<number>): Uint8Array {
  const k = permutation.length;
  const seen = new Uint8Array(k);
  for (let i = 0; i < k; i++) {
    const from = permutation[i];
    if (!Number.isInteger(from) || from < 0 || from >= k || seen[from] === 1) {
      throw new InputError(`entry ${i} of the permutation is ${from}; each of 0..${k - 1} is needed once`);
    }
    seen[from] = 1;
  }
  const bits = new Uint8Array(inputs.length);
  for (let at = 0; at < inputs.length; at += k) {
    for (let i = 0; i < k; i++) bits[at + i] = inputs[at + permutation[i]] === 0 ? 0 : 1;
  }
  return bits;
}

/** Gaussian law of the outputs of one trained network. */
export interface EnsembleLaw {
  /** K(X, X) [k, k]. */
  readonly trainKernel: Float64Array;
  /** K(x, X) [rows, k]. */
  readonly testTrainKernel: Float64Array;
  /** [rows, k], mean of each output. */
  readonly mean: Float64Array;
  /** [rows, rows], covariance of one output at two inputs; outputs are independent of each other. */
  readonly covariance: Float64Array;
  /** Σ(X, X) [k, k]. */
  readonly nngpTrain: Float64Array;
}

/**
 * Law of a network trained to convergence on (e_i, P e_i), in the limit of infinite width: with A = K(x,X) K(X,X)⁻¹ the
 * mean is A Y and the covariance Σ(x,x') - A Σ(X,x') - Σ(x,X) A'ᵀ + A Σ(X,X) A'ᵀ (Lee et al. 2019, equations 16 and 17).
 * @param inputs [rows, k]
 * @throws InputError when `permutation` is none, or the kernel of the training inputs is singular
 */
export function ensembleLaw(
  inputs: Float64Array,
  permutation: ArrayLike<number>,
  parametrisation: NtkParametrisation,
  scales: KernelScales = THEOREM_SCALES,
): EnsembleLaw {
  const k = permutation.length;
  const rows = inputs.length / k;
  const basis = basisRows(k);
  const train = kernelMatrices(basis, basis, k, scales);
  const cross = kernelMatrices(inputs, basis, k, scales);
  const own = kernelMatrices(inputs, inputs, k, scales);
  const kernel = kernelOf(parametrisation);
  const factor = cholesky(train[kernel], k);
  if (!factor) throw new InputError('the kernel of the training inputs is singular; sigma_w must be above 0');
  const weights = new Float64Array(rows * k);
  for (let r = 0; r < rows; r++) {
    weights.set(choleskySolve(factor, k, cross[kernel].subarray(r * k, (r + 1) * k)), r * k);
  }
  // Column j of P x is x[permutation[j]]: the label of e_i is 1 where permutation[j] = i.
  const mean = new Float64Array(rows * k);
  for (let r = 0; r < rows; r++) for (let j = 0; j < k; j++) mean[r * k + j] = weights[r * k + permutation[j]];
  return {
    trainKernel: train[kernel],
    testTrainKernel: cross[kernel],
    mean,
    covariance: conditioned(own.nngp, cross.nngp, train.nngp, weights, k),
    nngpTrain: train.nngp,
  };
}

/** Σ(x,x') - A Σ(X,x') - Σ(x,X) A'ᵀ + A Σ(X,X) A'ᵀ. */
function conditioned(
  own: Float64Array,
  cross: Float64Array,
  train: Float64Array,
  weights: Float64Array,
  k: number,
): Float64Array {
  const rows = cross.length / k;
  const spread = new Float64Array(rows * k);
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < k; i++) {
      let sum = -cross[r * k + i];
      for (let j = 0; j < k; j++) sum += weights[r * k + j] * train[j * k + i];
      spread[r * k + i] = sum;
    }
  }
  const covariance = new Float64Array(rows * rows);
  for (let r = 0; r < rows; r++) {
    for (let s = 0; s < rows; s++) {
      let sum = own[r * rows + s];
      for (let i = 0; i < k; i++) {
        sum += spread[r * k + i] * weights[s * k + i] - weights[r * k + i] * cross[s * k + i];
      }
      covariance[r * rows + s] = sum;
    }
  }
  return covariance;
}
