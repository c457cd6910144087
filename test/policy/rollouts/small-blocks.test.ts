import { describe, expect, it } from 'vitest';
import { ofBlock, smallBlocks } from '../../../src/policy/rollouts/small-blocks.js';
import type { TokenBlock } from '../../../src/policy/rollouts/types.js';
import { createSurrogateTerm, evaluateSurrogate, surrogateTerms } from '../../../src/policy/surrogate.js';
import { randomStep } from '../random-steps.js';

const random = randomStep({ seed: 4, records: 40, longest: 900 });
const [whole] = random.step.blocks();

describe('small blocks', () => {
  const step = smallBlocks(random.step);
  const blocks = [...step.blocks()];

  it('are the records of the step in order', () => {
    expect(blocks.length).toBeGreaterThan(1);
    expect(blocks.flatMap(({ records }) => [...records])).toEqual([...whole.records]);
    for (const column of ['mask', 'logProb', 'oldLogProb', 'advantage', 'entropy'] as const) {
      const values = blocks.flatMap((block) => Array.from(block[column] ?? []));
      expect(values).toEqual(Array.from(whole[column] ?? []));
    }
    let token = 0;
    for (const { firstToken, mask, offsets, records } of blocks) {
      expect(firstToken).toBe(token);
      expect([offsets[0], offsets[records.length]]).toEqual([0, mask.length]);
      token += mask.length;
    }
    expect(blocks.flatMap(({ topTokens }) => [...(topTokens?.ids ?? [])])).toEqual([...(whole.topTokens?.ids ?? [])]);
  });

  it('are kept with what was computed of them; other blocks keep nothing', () => {
    expect([...step.blocks()]).toEqual(blocks);
    let calls = 0;
    const compute = (block: TokenBlock): number => {
      calls++;
      return block.records.length;
    };
    for (let pass = 0; pass < 3; pass++) for (const block of step.blocks()) ofBlock(block, compute, compute);
    expect(calls).toBe(blocks.length);
    for (let pass = 0; pass < 3; pass++) ofBlock(whole, compute, compute);
    expect(calls).toBe(blocks.length + 3);
  });

  it('have the surrogate of every token, also of other advantages', () => {
    const surrogate = { clip: { low: 0.1, high: 0.05 }, dualClip: 1.05, logRatioLimit: 0.2 };
    const term = createSurrogateTerm();
    const [block] = blocks;
    const { mask, logProb, oldLogProb, advantage } = block;
    if (!logProb || !oldLogProb || !advantage) throw new Error('a column is missing');
    for (const values of [advantage, advantage.map((value) => -value)]) {
      const { loss, gradient, held } = surrogateTerms(block, surrogate, values);
      expect(held.some((bits) => bits !== 0)).toBe(true);
      const expected = Array.from(mask, (counts, i) => {
        if (counts === 0) return [0, 0, 0];
        const one = evaluateSurrogate(values[i], logProb[i] - oldLogProb[i], surrogate, term);
        return [one.loss, one.gradient, one.clippedHigh + 2 * one.clippedLow + 4 * one.dualClipped];
      });
      expect(Array.from(mask, (_, i) => [loss[i], gradient[i], held[i]])).toEqual(expected);
    }
    expect(surrogateTerms(block, { ...surrogate }, advantage)).toBe(surrogateTerms(block, surrogate, advantage));
  });
});
