import type { TokenBlock } from '../rollouts/types.js';
import { createSurrogateTerm, evaluateSurrogate, PLAIN_SURROGATE, sameSurrogate } from '../surrogate.js';
import type { Surrogate } from './types.js';

const ours = createSurrogateTerm();
const plains = createSurrogateTerm();

/**
 * Which tokens of a block another surrogate than plain GRPO's gives another loss or gradient.
 * @param plain clip of plain GRPO
 * @returns [tokens], 1 where it does
 */
export function touchedBySurrogate(
  block: TokenBlock,
  surrogate: Surrogate,
  plain: Surrogate = PLAIN_SURROGATE,
): Uint8Array {
  const touched = new Uint8Array(block.mask.length);
  const { logProb, oldLogProb, advantage, mask } = block;
  if (sameSurrogate(surrogate, plain) || !logProb || !oldLogProb || !advantage) return touched;
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === 0) continue;
    const ratio = logProb[i] - oldLogProb[i];
    // With a ratio of 1 no clip does anything.
    if (ratio === 0) continue;
    evaluateSurrogate(advantage[i], ratio, surrogate, ours);
    evaluateSurrogate(advantage[i], ratio, plain, plains);
    if (ours.loss !== plains.loss || ours.gradient !== plains.gradient) touched[i] = 1;
  }
  return touched;
}
