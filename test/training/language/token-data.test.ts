import { describe, expect, it } from 'vitest';
import { orderedBatches, packTexts, separateTexts, windowBatches } from '../../../src/training/language/token-data.js';

const text = (tokens: number[], spans?: [number, number][]) => ({
  tokens: Int32Array.from(tokens),
  ...(spans && { spans }),
});

describe('packTexts', () => {
  it('asks for every token once, but for the first and the prefixes', () => {
    const windows = packTexts([text([1, 2, 3]), text([4, 5, 6, 7])], { length: 4, prefix: 9 });
    expect([...windows.tokens]).toEqual([9, 1, 2, 3, 9, 4, 5, 6]);
    expect([...windows.labels]).toEqual([1, 2, 3, -100, 4, 5, 6, 7]);
    expect([...windows.lengths]).toEqual([4, 4]);
    expect(windows.validLabels).toBe(7);
  });

  it('fills a last window that is shorter', () => {
    const windows = packTexts([text([1, 2, 3, 4])], { length: 2, end: 8 });
    expect([...windows.tokens]).toEqual([1, 2, 3, 4]);
    expect([...windows.labels]).toEqual([2, 3, 4, 8]);
    const odd = packTexts([text([1, 2, 3, 4])], { length: 2 });
    expect([...odd.tokens]).toEqual([1, 2, 3, 3]);
    expect([...odd.labels]).toEqual([2, 3, 4, -100]);
    expect([...odd.lengths]).toEqual([2, 1]);
  });

  it('needs something to predict', () => {
    expect(() => packTexts([text([1])], { length: 4 })).toThrow(/fewer than two tokens/);
  });
});

describe('separateTexts', () => {
  it('asks for the answers alone', () => {
    const windows = separateTexts([text([1, 2, 3, 4], [[2, 4]]), text([5, 6], [[1, 2]])], { length: 5, end: 9 });
    expect([...windows.labels]).toEqual([-100, 3, 4, 9, -100, 6, 9, -100, -100, -100]);
    expect([...windows.lengths]).toEqual([4, 2]);
  });

  it('cuts what is too long, and refuses what then asks for nothing', () => {
    const long = separateTexts([text([1, 2, 3, 4, 5], [[1, 5]])], { length: 2 });
    expect(long.cutTexts).toBe(1);
    expect([...long.labels]).toEqual([2, 3]);
    expect(() => separateTexts([{ ...text([1, 2, 3, 4], [[3, 4]]), place: 'rows.jsonl:7' }], { length: 2 })).toThrow(
      /rows\.jsonl:7: nothing of it is to be predicted within 2 positions/,
    );
  });
});

describe('windowBatches', () => {
  it('goes through an epoch in its order, a smaller batch at its end', async () => {
    const windows = packTexts([text([0, 1, 2, 3, 4, 5, 6])], { length: 2 });
    const epochs = [[2, 0], [1], [0, 1], [2]];
    const source = orderedBatches(windows, { perEpoch: 2, items: (index) => Int32Array.from(epochs[index]) });
    expect(source.perEpoch).toBe(2);
    expect([...(await source.batch(0)).windows]).toEqual([2, 0]);
    expect([...(await source.batch(1)).tokens]).toEqual([2, 3]);
    expect([...(await source.batch(2)).tokens]).toEqual([0, 1, 2, 3]);
  });

  it('passes over windows as they lie', async () => {
    const source = windowBatches(packTexts([text([0, 1, 2, 3, 4, 5, 6])], { length: 2 }), 2);
    expect([...(await source.batch(1)).windows]).toEqual([2]);
    expect([...(await source.batch(2)).windows]).toEqual([0, 1]);
  });
});
