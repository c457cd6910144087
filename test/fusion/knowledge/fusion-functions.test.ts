import { describe, expect, it } from 'vitest';
import {
  avgCeWeights,
  checkDistribution,
  decayedLambda,
  distributionDivergence,
  distributionEntropy,
  fusionRowLoss,
  isNearTie,
  minCeChoice,
  minCeWeights,
  mixDense,
  mixDistributions,
  rewards,
  rowDistribution,
  softLambda,
} from '../../../src/fusion/knowledge/fusion-functions.js';

describe('fusion functions', () => {
  it('chooses the least cross-entropy, the lowest index of equal ones, and never one that is NaN', () => {
    expect(minCeChoice([2, 1, 1])).toBe(1);
    expect(minCeChoice([1, 1, 1])).toBe(0);
    expect(minCeChoice([Number.NaN, 5])).toBe(1);
    // Rewards of both are 0: the cross-entropies are still told apart.
    expect(minCeChoice([900, 800])).toBe(1);
    expect([...minCeWeights([3, 2])]).toEqual([0, 1]);
  });

  it('weighs by the softmax of rewards', () => {
    const [a, b] = avgCeWeights([0.5, 2]);
    const [ra, rb] = [Math.exp(-0.5), Math.exp(-2)];
    expect(a / b).toBeCloseTo(Math.exp(ra - rb), 12);
    expect(a + b).toBeCloseTo(1, 14);
    expect(rewards([Number.NaN])[0]).toBe(0);
  });

  it('calls a gap that bfloat16 would lose a near tie', () => {
    expect(isNearTie([1, 1.005, 3], 0.008)).toBe(true);
    expect(isNearTie([1, 1.02, 3], 0.008)).toBe(false);
    expect(isNearTie([1, 1], 0.008)).toBe(true);
  });

  it('mixes sparse rows as whole ones', () => {
    const a = rowDistribution(Int32Array.of(3, 1), [2, 0], 1);
    const b = rowDistribution(Int32Array.of(1, 4), [1, 1], 2);
    const mixed = mixDistributions([a, b], [0.25, 0.75]);
    const dense = new Float64Array(5 * 2);
    [a, b].forEach(({ ids, probabilities }, k) => {
      ids.forEach((id, i) => {
        dense[id * 2 + k] = probabilities[i];
      });
    });
    const whole = mixDense(dense, [0.25, 0.75]);
    for (const [i, id] of mixed.ids.entries()) expect(mixed.probabilities[i]).toBeCloseTo(whole[id], 14);
    expect(mixed.ids).toHaveLength(3);
    expect(() => checkDistribution(mixed, 'row')).not.toThrow();
    expect(() => checkDistribution({ ids: a.ids, probabilities: Float64Array.of(0.5, 0.4) }, 'row 3')).toThrow(
      /row 3: the probabilities sum to 0.9/,
    );
  });

  it('has a KL that is the cross-entropy less the entropy of the target', () => {
    const target = rowDistribution(Int32Array.of(2, 0), [1, 0], 1);
    const logits = [0.3, -2, 1.1, 0.4];
    const gap = fusionRowLoss(logits, target, 'ce') - fusionRowLoss(logits, target, 'kl');
    expect(gap).toBeCloseTo(distributionEntropy(target), 14);
    expect(distributionDivergence(target, target)).toBe(0);
    const other = rowDistribution(Int32Array.of(2, 0), [0, 0], 1);
    expect(distributionDivergence(target, other)).toBeGreaterThan(0);
    expect(distributionDivergence(other, rowDistribution(Int32Array.of(2), [0], 1))).toBe(Infinity);
  });

  it('lets λ grow to 1, or follow the rewards', () => {
    expect(decayedLambda(0.9, 0, 100)).toBe(0.9);
    expect(decayedLambda(0.9, 100, 100)).toBe(1);
    expect(softLambda([1, 0.5], minCeWeights([1, 0.5]))).toBeCloseTo(1 - Math.exp(-0.5), 14);
  });

  it('refuses logits that are no numbers', () => {
    expect(() => rowDistribution(Int32Array.of(5), [Number.NaN], 1)).toThrow(/token 5 is NaN/);
  });
});
