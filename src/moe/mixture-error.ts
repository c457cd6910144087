import type { Floats } from '../models/layer-runner.js';
import { runExpert } from './expert-function.js';
import type { ExpertMatrices, ExpertShape } from './types.js';

/** Squared sums behind a relative error, over tokens; they add up. */
export interface MixtureError {
  /** Sum of ||merged(x) - sum_e w_e E_e(x)||^2. */
  readonly error: number;
  /** Sum of ||sum_e w_e E_e(x)||^2. */
  readonly signal: number;
  /** sqrt(error / signal); NaN without signal. */
  readonly relative: number;
}

/**
 * How far one merged expert is from the mixture of its members with fixed weights, sum_e w_e E_e(x), on given tokens: what
 * weight averaging costs, routing aside.
 * @param weights one a member, normalised
 * @param x [rows, H], of the precision of the matrices
 * @throws RangeError when a matrix does not fit the shape
 */
export function mixtureError(
  members: readonly ExpertMatrices[],
  weights: ArrayLike<number>,
  merged: ExpertMatrices,
  shape: ExpertShape,
  x: Floats,
  rows: number,
  options: { readonly threads?: number } = {},
): MixtureError {
  const wanted = new Float64Array(rows * shape.hidden);
  members.forEach((member, m) => {
    const output = runExpert(member, shape, x, rows, options);
    for (let i = 0; i < wanted.length; i++) wanted[i] += weights[m] * output[i];
  });
  const given = runExpert(merged, shape, x, rows, options);
  let error = 0;
  let signal = 0;
  for (let i = 0; i < wanted.length; i++) {
    error += (given[i] - wanted[i]) ** 2;
    signal += wanted[i] ** 2;
  }
  return { error, signal, relative: Math.sqrt(error / signal) };
}
