import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createDataOrder } from '../../src/training/data-order.js';

describe('createDataOrder', () => {
  it('takes every item once an epoch, whatever the sizes', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 45 }),
        fc.nat(),
        (count, batchSize, seed) => {
          const order = createDataOrder({ count, batchSize, seed });
          for (const epoch of [0, 3]) {
            const items: number[] = [];
            for (let b = 0; b < order.perEpoch; b++) items.push(...order.items(epoch * order.perEpoch + b));
            expect(items.sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, i) => i));
          }
        },
      ),
      { numRuns: 40 },
    );
  });

  it('is a function of seed and number: asked in any order, it says the same', () => {
    const settings = { count: 50, batchSize: 8, seed: 5 };
    const forward = Array.from({ length: 21 }, (_, i) => createDataOrder(settings).items(i));
    const order = createDataOrder(settings);
    for (let i = 20; i >= 0; i--) expect(order.items(i)).toEqual(forward[i]);
    expect(forward[0]).not.toEqual(forward[7]);
    expect(createDataOrder({ ...settings, seed: 6 }).items(0)).not.toEqual(forward[0]);
  });

  it('keeps the order of the data, and full batches alone, where that is asked', () => {
    const order = createDataOrder({ count: 5, batchSize: 2, seed: 1, shuffle: false, dropLast: true });
    expect(order.perEpoch).toBe(2);
    expect([...order.items(1), ...order.items(2)]).toEqual([2, 3, 0, 1]);
  });

  it('refuses an empty data set and batches that cannot be filled', () => {
    expect(() => createDataOrder({ count: 0, batchSize: 2, seed: 1 })).toThrow('has no item');
    expect(() => createDataOrder({ count: 3, batchSize: 4, seed: 1, dropLast: true })).toThrow('no full batch of 4');
    expect(() => createDataOrder({ count: 3, batchSize: 0, seed: 1 })).toThrow('batches of 0');
  });
});
