import type { TokenBlock } from '../rollouts/types.js';
import { PLAIN_SURROGATE, sameSurrogate, surrogateTerms } from '../surrogate.js';
import type { Surrogate } from './types.js';

/**
 * Which tokens of a block another surrogate than plain GRPO's gives another loss or gradient.
 * @param plain clip of plain GRPO
 * @param advantage those of the block, unless a method puts others in their place
 * @returns [tokens], 1 where it does
 */
export function touchedBySurrogate(
  block: TokenBlock,
  surrogate: Surrogate,
  plain: Surrogate = PLAIN_SURROGATE,
  advantage: Float64Array | undefined = block.advantage,
): Uint8Array {
  const touched = new Uint8Array(block.mask.length);
  const { logProb, oldLogProb } = block;
  if (sameSurrogate(surrogate, plain) || !logProb || !oldLogProb || !advantage) return touched;
  const ours = surrogateTerms(block, surrogate, advantage);
  const plains = surrogateTerms(block, plain, advantage);
  for (let i = 0; i < touched.length; i++) {
    // With a ratio of 1 no clip does anything.
    if (logProb[i] === oldLogProb[i]) continue;
    if (ours.loss[i] !== plains.loss[i] || ours.gradient[i] !== plains.gradient[i]) touched[i] = 1;
  }
  return touched;
}
