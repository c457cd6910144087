import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { AGGREGATIONS, aggregate, batchSize, totalWeight } from '../../src/policy/aggregation.js';
import type { PolicyEffect, Surrogate } from '../../src/policy/interventions/types.js';
import { addObjective, blockObjective, createObjectiveSums, objectiveFigures } from '../../src/policy/objective.js';
import { createSurrogateTerm, evaluateSurrogate, PLAIN_SURROGATE } from '../../src/policy/surrogate.js';
import { randomStep } from './random-steps.js';

const none = new Uint8Array(0);

describe('aggregation', () => {
  const offsets = Int32Array.of(0, 3, 5);
  const losses = Float64Array.of(1, Number.NaN, 3, 10, 20);
  const mask = Uint8Array.of(1, 0, 1, 1, 1);

  it('follows the definitions and reads nothing under the mask', () => {
    expect(aggregate(losses, offsets, mask, 'token-mean')).toBeCloseTo(34 / 4, 7);
    expect(aggregate(losses, offsets, mask, 'token-mean')).toBe((1 / (4 + 1e-8)) * 4 + (1 / (4 + 1e-8)) * 30);
    expect(aggregate(losses, offsets, mask, 'seq-mean-token-sum')).toBe((4 + 30) / 2);
    expect(aggregate(losses, offsets, mask, 'seq-mean-token-mean')).toBe((2 + 15) / 2);
    expect(aggregate(losses, offsets, mask, 'seq-mean-token-sum-norm')).toBeCloseTo(34 / 3, 14);
    expect(aggregate(losses, offsets, mask, 'token-sum')).toBe(34);
  });

  it('puts all modes on one scale by their total weight', () => {
    const ones = new Float64Array(5).fill(1);
    for (const mode of AGGREGATIONS) {
      expect(aggregate(ones, offsets, mask, mode)).toBeCloseTo(totalWeight(mode, batchSize(offsets, mask)), 14);
    }
  });

  it('refuses empty rows of token means, and batches without tokens', () => {
    const empty = Uint8Array.of(1, 1, 1, 0, 0);
    expect(() => aggregate(losses, offsets, empty, 'seq-mean-token-mean')).toThrow(
      /record 1: every token is masked out/,
    );
    expect(aggregate(Float64Array.of(1, 2, 3, Number.NaN, 0), offsets, empty, 'seq-mean-token-sum')).toBe(3);
    for (const mode of AGGREGATIONS) {
      expect(() => aggregate(losses, offsets, new Uint8Array(5), mode)).toThrow(InputError);
    }
  });
});

describe('surrogate', () => {
  const at = (advantage: number, rho: number, surrogate: Surrogate) => ({
    ...evaluateSurrogate(advantage, Math.log(rho), surrogate, createSurrogateTerm()),
  });

  it('clips by the sign of the advantage', () => {
    const clip = { clip: { low: 0.2, high: 0.28 } };
    expect(at(2, 1.5, clip)).toMatchObject({ loss: -2.56, gradient: 0, clippedHigh: 1, clippedLow: 0 });
    expect(at(2, 0.5, clip).gradient).toBeCloseTo(-1, 14);
    expect(at(-2, 0.5, clip)).toMatchObject({ loss: 1.6, gradient: 0, clippedHigh: 0, clippedLow: 1 });
    expect(at(-2, 1.5, clip).gradient).toBeCloseTo(3, 14);
  });

  it('holds the loss of negative advantages by the dual clip', () => {
    const surrogate = { clip: { low: 0.2, high: 0.2 }, dualClip: 3 };
    expect(at(-2, 5, surrogate)).toMatchObject({ loss: 6, gradient: 0, dualClipped: 1 });
    expect(at(-2, 2.5, surrogate)).toMatchObject({ dualClipped: 0 });
    expect(at(2, 5, surrogate)).toMatchObject({ dualClipped: 0 });
  });

  it('has no loss without advantage, however large the ratio, and no gradient beyond the limit of the log-ratio', () => {
    expect(evaluateSurrogate(0, 1e4, PLAIN_SURROGATE, createSurrogateTerm())).toMatchObject({ loss: 0, gradient: 0 });
    const held = evaluateSurrogate(-1, 30, { logRatioLimit: 20 }, createSurrogateTerm());
    expect(held).toMatchObject({ loss: Math.exp(20), gradient: 0, logRatio: 20 });
    expect(Math.abs(evaluateSurrogate(1, 20, { logRatioLimit: 20 }, createSurrogateTerm()).gradient)).toBe(
      Math.exp(20),
    );
  });
});

describe('objective', () => {
  const { block, pieces, step, index } = randomStep({ seed: 3 });
  const effectOf = (size: number, aggregation: PolicyEffect['aggregation']): PolicyEffect => {
    const values = (scale: number) => Float64Array.from({ length: size }, (_, i) => scale * (1 + (i % 5)));
    return { surrogate: PLAIN_SURROGATE, aggregation, multiplier: values(0.3), touched: none };
  };

  it.each(AGGREGATIONS)('has the gradient of its loss under %s', (aggregation) => {
    const batch = batchSize(block.offsets, block.mask);
    const effect = effectOf(block.mask.length, aggregation);
    const { gradient } = blockObjective(block, effect, batch);
    const logProb = block.logProb ?? none;
    const h = 1e-6;
    for (let i = 0; i < gradient.length; i++) {
      if (block.mask[i] === 0) {
        expect(gradient[i]).toBe(0);
        continue;
      }
      const lossAt = (shift: number): number => {
        const moved = Float64Array.from(logProb);
        moved[i] += shift;
        return blockObjective({ ...block, logProb: moved }, effect, batch).loss;
      };
      expect((lossAt(h) - lossAt(-h)) / (2 * h)).toBeCloseTo(gradient[i], 6);
    }
  });

  it('adds penalties with their gradients, weighted like the loss', () => {
    const size = block.mask.length;
    const batch = batchSize(block.offsets, block.mask);
    const plain: PolicyEffect = { surrogate: {}, aggregation: 'token-sum', touched: none };
    const penalty = Float64Array.from({ length: size }, (_, i) => i / 7);
    const before = blockObjective(block, plain, batch);
    const after = blockObjective(block, { ...plain, penalty, penaltyGradient: penalty }, batch);
    let sum = 0;
    for (let i = 0; i < size; i++) if (block.mask[i] === 1) sum += penalty[i];
    expect(after.loss).toBeCloseTo(before.loss + sum, 12);
    for (let i = 0; i < size; i++) {
      expect(after.gradient[i]).toBeCloseTo(before.gradient[i] + (block.mask[i] === 1 ? penalty[i] : 0), 14);
    }
  });

  it('has the same bits however the batch is cut into blocks', () => {
    const batch = batchSize(block.offsets, block.mask);
    const figures = [step, pieces].map((source) => {
      const sums = createObjectiveSums(batch);
      for (const part of source.blocks()) {
        addObjective(sums, part, { surrogate: PLAIN_SURROGATE, aggregation: 'seq-mean-token-mean', touched: none });
      }
      return objectiveFigures(sums);
    });
    expect(figures[1]).toEqual(figures[0]);
    expect(index.records).toBe(6);
  });

  it('says what is missing', () => {
    const batch = batchSize(block.offsets, block.mask);
    const effect: PolicyEffect = { surrogate: {}, aggregation: 'token-mean', touched: none };
    const { logProb, advantage, ...bare } = block;
    expect(() => blockObjective({ ...bare, advantage }, effect, batch)).toThrow(/needs log-probabilities/);
    expect(() => blockObjective({ ...bare, logProb }, effect, batch)).toThrow(/needs advantages/);
  });
});
