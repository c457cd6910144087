import { scaleBuffer, sumOfSquares } from '../kernels/optimizer-steps.js';
import type { Floats } from './types.js';

/** min(1, max / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ has it; 1 without a maximum. */
export function clipCoefficient(norm: number, max: number | undefined): number {
  return max === undefined ? 1 : Math.min(1, max / (norm + 1e-6));
}

/**
 * Scales buffers in place so that their common Euclidean norm, summed in double, is at most `max`.
 * The trainer folds the coefficient into the optimiser's pass instead.
 * @returns the norm before
 */
export function clipGradients(buffers: readonly Floats[], max: number, threads?: number): number {
  let squares = 0;
  for (const buffer of buffers) squares += sumOfSquares(buffer, threads);
  const norm = Math.sqrt(squares);
  const coefficient = clipCoefficient(norm, max);
  if (coefficient < 1) for (const buffer of buffers) scaleBuffer(buffer, coefficient, threads);
  return norm;
}
