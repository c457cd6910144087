import { describe, expect, it } from 'vitest';
import { descendingOrder, layerBudget, parseBudgetRule, usageFrequencies } from '../../src/moe/budget.js';

const usage = [
  Float64Array.of(0.4, 0.3, 0.2, 0.1),
  Float64Array.of(0.25, 0.25, 0.25, 0.25),
  Float64Array.of(0.9, 0.1, 0, 0),
];

describe('usage', () => {
  it('divides counts by their sum', () => {
    expect([...usageFrequencies({ counts: Float64Array.of(1, 3, 0) })]).toEqual([0.25, 0.75, 0]);
    expect([...usageFrequencies({ counts: new Float64Array(2) })]).toEqual([0, 0]);
  });

  it('orders ties by index', () => {
    expect([...descendingOrder([1, 2, 2, 0, 1])]).toEqual([1, 2, 0, 4, 3]);
  });
});

describe('budget', () => {
  it('uniform keeps the same number in each merged layer', () => {
    expect(layerBudget('uniform', usage, { groupsPerLayer: 2 })).toEqual({ groups: Int32Array.of(2, 2, 2), wanted: 6 });
    const merged = [true, false, true];
    expect([...layerBudget('uniform', usage, { groupsPerLayer: 1, merged }).groups]).toEqual([1, 4, 1]);
    expect(() => layerBudget('uniform', usage, { groupsPerLayer: 2.5 })).toThrow(/whole number/);
    expect(() => layerBudget('uniform', usage, { groupsPerLayer: 5 })).toThrow(/layer 0 has 4 experts/);
  });

  it('exact keeps the number asked for, ties to the lower layer and index', () => {
    expect([...layerBudget('exact', usage, { groupsPerLayer: 2 }).groups]).toEqual([2, 3, 1]);
    expect([...layerBudget('exact', usage, { groupsPerLayer: 2, least: 2 }).groups]).toEqual([2, 2, 2]);
    expect([...layerBudget('exact', usage, { groupsPerLayer: 7 / 3 }).groups]).toEqual([2, 4, 1]);
    expect([...layerBudget('exact', usage, { groupsPerLayer: 4 }).groups]).toEqual([4, 4, 4]);
    expect(() => layerBudget('exact', usage, { groupsPerLayer: 0.5 })).toThrow(/too few/);
    expect(() => layerBudget('exact', usage, { groupsPerLayer: 5 })).toThrow(/more than the 12 experts/);
    expect(() => layerBudget('exact', usage, { groupsPerLayer: 0 })).toThrow(/at least 1/);
  });

  it('reference loses what ties with the threshold', () => {
    // Sorted: 1 1 1 .3 .25 .25 .25 .2 ...: of 6 groups, those above .25.
    const budget = layerBudget('reference', usage, { groupsPerLayer: 2 });
    expect(budget).toEqual({ groups: Int32Array.of(2, 1, 1), wanted: 6, threshold: 0.25 });
    expect(() => layerBudget('reference', usage, { groupsPerLayer: 0.5 })).toThrow(/too many groups/);
  });

  it('reference absorbs the least used expert even where every expert is to stay', () => {
    const { groups, threshold } = layerBudget('reference', usage, { groupsPerLayer: 4 });
    expect([...groups]).toEqual([4, 4, 2]);
    expect(threshold).toBe(0);
  });

  it('excluded layers keep all', () => {
    const merged = [false, true, true];
    expect([...layerBudget('reference', usage, { groupsPerLayer: 1, merged }).groups]).toEqual([4, 1, 1]);
    expect([...layerBudget('exact', usage, { groupsPerLayer: 2, merged }).groups]).toEqual([4, 3, 1]);
  });

  it('names near rules', () => {
    expect(parseBudgetRule('exact')).toBe('exact');
    expect(() => parseBudgetRule('unifrom')).toThrow(/did you mean "uniform"/);
  });
});
