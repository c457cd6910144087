import { describe, expect, it } from 'vitest';
import {
  interferenceByCount,
  interferenceOf,
  type SelectorSettings,
  selectionBaselines,
  trainSelector,
} from '../../../src/fusion/knowledge/train-selector.js';
import { createRandom } from '../../../src/random.js';

/** Two good models, each for half of the sequences, and one poor one. */
function scores(count: number): Float64Array[] {
  const random = createRandom(5);
  const ces = [0, 1, 2].map(() => new Float64Array(count));
  for (let s = 0; s < count; s++) {
    const base = 1 + random.uniform();
    ces[s % 2][s] = base;
    ces[1 - (s % 2)][s] = base + 1;
    ces[2][s] = base + 2.5;
  }
  return ces;
}

const SETTINGS: SelectorSettings = {
  ...{ threshold: 0.15, feedbackWeight: 0, lambda: 0, steps: 150, batchSize: 32, learningRate: 0.05, seed: 1 },
};

describe('a selector alone', () => {
  const ces = scores(64);

  it('finds the model that is good for a sequence, with the feedback loss', () => {
    const { before, after, curve } = trainSelector(ces, { ...SETTINGS, feedbackWeight: 0.05 });
    const { leastCe } = selectionBaselines(ces, 0.008);
    expect(after.weightedCe).toBeLessThan(before.weightedCe);
    expect(after.weightedCe - leastCe).toBeLessThan(0.15);
    expect(after.selectionShares[2]).toBe(0);
    expect(curve).toHaveLength(SETTINGS.steps);
  });

  it('may collapse to one model without it: what is dropped by the mask has no gradient', () => {
    const { after } = trainSelector(ces, SETTINGS);
    expect(after.feedback).toBeCloseTo(3, 6);
    expect(after.effectiveSources).toBeCloseTo(1, 6);
  });

  it('balances the models where the feedback loss is all', () => {
    const { before, after } = trainSelector(ces, { ...SETTINGS, lambda: 1, feedbackWeight: 1 });
    expect(after.feedback).toBeLessThan(Math.min(0.01, before.feedback));
  });

  it('is a function of its seed', () => {
    const few = { ...SETTINGS, steps: 5 };
    expect(trainSelector(ces, few).gate).toEqual(trainSelector(ces, few).gate);
    expect(trainSelector(ces, few).gate).not.toEqual(trainSelector(ces, { ...few, seed: 2 }).gate);
  });

  it('counts positions at which a kept model is outvoted', () => {
    const positions = {
      sequences: Int32Array.of(0, 0, 0, 0),
      labels: Int32Array.of(7, 7, 7, 7),
      tokens: [Int32Array.of(7, 7, 7, 1), Int32Array.of(2, 2, 3, 2), Int32Array.of(2, 4, 2, 2)],
      probabilities: [0.5, 0.3, 0.3].map((p) => new Float64Array(4).fill(p)),
    };
    const third = Float64Array.of(1 / 3, 1 / 3, 1 / 3);
    // Outvoted at the first position alone; nobody is right at the last.
    expect(interferenceOf(positions, [third])).toBe(0.25);
    expect(interferenceOf(positions, [Float64Array.of(1, 0, 0)])).toBe(0);
    const one = [Float64Array.of(1), Float64Array.of(2), Float64Array.of(2)];
    const rows = interferenceByCount(one, positions, { ...SETTINGS, steps: 2 });
    expect(rows.map(({ sources }) => sources)).toEqual([2, 3]);
    expect(rows.every(({ mince }) => mince === 0)).toBe(true);
  });
});
