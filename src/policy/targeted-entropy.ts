import { InputError } from '../errors.js';
import { addTo, createCompensatedSum, totalOf } from './compensated-sum.js';

/** Entropy that is held near a target (spec 7.1). */
export interface TargetedEntropy {
  /** Nats. Default 0.55. */
  readonly target?: number;
  /** Default 0.001. */
  readonly coefficient?: number;
}

export interface TargetedEntropyTerm {
  readonly meanEntropy: number;
  /** coefficient * |mean - target|, added to the loss. */
  readonly loss: number;
  /** d loss / d H of every token that counts: coefficient * sign(mean - target) / tokens. */
  readonly gradient: number;
}

/** The term from a mean entropy over `tokens` tokens; the sub-gradient at the target is 0. */
export function targetedTerm(meanEntropy: number, tokens: number, settings: TargetedEntropy = {}): TargetedEntropyTerm {
  const { target = 0.55, coefficient = 0.001 } = settings;
  const away = meanEntropy - target;
  return { meanEntropy, loss: coefficient * Math.abs(away), gradient: (coefficient * Math.sign(away)) / tokens };
}

/**
 * The term of a whole batch.
 * @param entropy Nats, [tokens]; positions out of the mask are not read.
 * @throws InputError when no token counts.
 */
export function targetedEntropy(
  entropy: Float64Array,
  mask: Uint8Array,
  settings: TargetedEntropy = {},
): TargetedEntropyTerm {
  const total = createCompensatedSum();
  let tokens = 0;
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === 0) continue;
    addTo(total, entropy[i]);
    tokens++;
  }
  if (tokens === 0) throw new InputError('targeted entropy: no valid tokens (the mask is all zero)');
  return targetedTerm(totalOf(total) / tokens, tokens, settings);
}
