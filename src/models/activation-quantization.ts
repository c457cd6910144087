import { planRotation, type Rotation, tensorSeed } from '../linalg/hadamard.js';
import type { ModelDescription } from './description.js';

/**
 * How the input of every linear (router and LM head aside) is quantised and dequantised again at run time, as a
 * simulation: a scale for every token, nothing of it is calibrated.
 *
 * - `int`: symmetric; step = clip * max|x| / (2^(bits-1) - 1), codes from -2^(bits-1) to 2^(bits-1) - 1, ties to even.
 * - `pvq`: groups of `groupLength` = D numbers (the last one padded with zeros) as points y of the pyramid P(D, K),
 *   K = `pulses`, and a gain. The point is the nearest to (K / ||u||_1) u, u = |x|, and then the nearest to
 *   (||y||^2 / <u, y>) u where that has the larger cosine. The gain is the projection s = <u, y> / ||y||, coded as the
 *   nearest of `levels`, in units of a sqrt(D) with the token's scale a, refitted by least squares and kept as f16.
 *
 * `rotated`: the row x is rotated by a randomised Hadamard matrix of its width first, and back afterwards; linears see
 * Q^T quantised(Q x).
 */
export type ActivationQuantization =
  | { readonly kind: 'int'; readonly bits: 4 | 8; readonly clip: number; readonly rotated: boolean }
  | {
      readonly kind: 'pvq';
      readonly groupLength: number;
      readonly pulses: number;
      /** Ascending, positive; 2^bits of them for a gain of so many bits. */
      readonly levels: readonly number[];
      readonly rotated: boolean;
    };

/** A text that is equal for equal settings: a part of the keys of sessions. */
export function activationsKey(activations: ActivationQuantization | undefined): string {
  return activations === undefined ? '' : JSON.stringify(activations);
}

/** Rounds of the least-squares refit of a token's scale. */
export const SCALE_ROUNDS = 3;
/** The largest f16. */
export const LARGEST_HALF = 65504;
/** Smallest divisor: what a row of zeros is divided by. */
export const LEAST_DIVISOR = 1e-30;

/** The rotation of activations of a width: one for all linears, whatever the weights are rotated by. */
export function activationRotation(width: number): Rotation {
  return planRotation(width, tensorSeed(0n, `activations.${width}`));
}

/** Cores of the rotations before the linears of a model: orders of products whose bits could depend on threads. */
export function activationCores(model: ModelDescription, activations: ActivationQuantization | undefined): number[] {
  if (!activations?.rotated) return [];
  const widths = new Set([model.hiddenSize]);
  for (const { attention, mlp } of model.layers) {
    widths.add(attention.heads * attention.headDim);
    widths.add(mlp.width);
    if (mlp.kind === 'moe' && mlp.shared) widths.add(mlp.shared.width);
  }
  return [...widths].map((width) => activationRotation(width).core);
}
