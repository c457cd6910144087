import { describe, expect, it } from 'vitest';
import type { MergeDType } from '../../../src/fusion/merge/types.js';
import { planVocabulary } from '../../../src/fusion/merge/vocabulary-plan.js';
import { withVocabulary } from '../../../src/fusion/merge/vocabulary-source.js';
import { createRandom } from '../../../src/random.js';
import { memorySource, valuesOf } from './memory-source.js';

const EMBEDDING = 'model.embed_tokens.weight';
const HEAD = 'lm_head.weight';

function matrix(rows: number, width: number, seed: number, dtype: MergeDType = 'F32') {
  const random = createRandom(seed);
  const data = Float32Array.from({ length: rows * width }, () => Math.round(random.uniform() * 200 - 100) / 64);
  return { dtype, shape: [rows, width], data };
}

const vocabulary = (name: string, tokens: readonly string[], rows = tokens.length) => ({
  reference: { text: name, model: name },
  tokens: new Map(tokens.map((token, id) => [token, id])),
  rows,
});
const noTokens = { tokens: new Map() };

describe('a model on another vocabulary', () => {
  it('shows the rows that the plan names, in any blocks', async () => {
    const words = Array.from({ length: 40 }, (_, i) => `w${i}`);
    const shuffled = words.map((_, i) => words[(i * 7 + 3) % 40]);
    const lists = [words.slice(0, 30), shuffled.slice(0, 25), shuffled.slice(10, 40)];
    const models = lists.map((list, i) => vocabulary('abc'[i], list));
    const tensors = lists.map((list, i) => matrix(list.length, 6, i));
    const sources = tensors.map((tensor, i) => memorySource('abc'[i], { [EMBEDDING]: tensor, norm: matrix(6, 1, 9) }));
    const output = new Map(words.map((word, id) => [word, id]));
    const { maps, size } = planVocabulary({ output, models, settings: { ...noTokens, padToMultipleOf: 32 } });
    expect(size).toBe(64);
    const rowOf = (model: number, word: string): number[] | undefined => {
      const row = lists[model].indexOf(word);
      return row < 0 ? undefined : Array.from(tensors[model].data).slice(row * 6, row * 6 + 6);
    };
    for (const [model, map] of maps.entries()) {
      const source = withVocabulary(
        model,
        sources,
        map,
        sources.map(() => [EMBEDDING]),
      );
      const expected = words.map((word) => {
        const own = rowOf(model, word);
        if (own !== undefined) return own;
        const holders = [0, 1, 2].map((other) => rowOf(other, word)).filter((row) => row !== undefined);
        return Array.from({ length: 6 }, (_, i) =>
          holders.length === 0 ? 0 : Math.fround(holders.reduce((sum, row) => sum + row[i], 0) / holders.length),
        );
      });
      const mean = Array.from({ length: 6 }, (_, i) =>
        Math.fround(expected.reduce((sum, row) => sum + row[i], 0) / 40),
      );
      for (let id = 40; id < 64; id++) expected.push(mean);
      for (const block of [1, 7, 64])
        expect(Array.from(await valuesOf(source, EMBEDDING, block))).toEqual(expected.flat());
      expect(await valuesOf(source, 'norm')).toEqual(await valuesOf(sources[model], 'norm'));
    }
  });

  it('is the model itself where nothing changes', () => {
    const models = [vocabulary('a', ['x', 'y']), vocabulary('b', ['x', 'y'])];
    const sources = models.map(({ reference }, i) => memorySource(reference.text, { [EMBEDDING]: matrix(2, 3, i) }));
    const { maps } = planVocabulary({ output: models[0].tokens, models, settings: noTokens });
    expect(withVocabulary(0, sources, maps[0], [[EMBEDDING], [EMBEDDING]])).toBe(sources[0]);
  });

  it('gives a tied model a head of its own beside a model that has one', async () => {
    const models = [vocabulary('tied', ['x', 'y']), vocabulary('free', ['y', 'z'])];
    const tied = memorySource('tied', { [EMBEDDING]: matrix(2, 3, 1) });
    const free = memorySource('free', { [EMBEDDING]: matrix(2, 3, 2), [HEAD]: matrix(2, 3, 3) });
    const output = new Map(['x', 'y', 'z'].map((token, id) => [token, id]));
    const { maps } = planVocabulary({ output, models, settings: noTokens });
    const names = [[EMBEDDING], [EMBEDDING, HEAD]];
    const [first, second] = maps.map((map, i) => withVocabulary(i, [tied, free], map, names));
    const [own, embedding, head] = [
      await valuesOf(tied, EMBEDDING),
      await valuesOf(free, EMBEDDING),
      await valuesOf(free, HEAD),
    ];
    expect(Array.from(await valuesOf(first, EMBEDDING))).toEqual([...own, ...embedding.subarray(3)]);
    expect(Array.from(await valuesOf(first, HEAD))).toEqual([...own, ...head.subarray(3)]);
    expect(Array.from(await valuesOf(second, HEAD))).toEqual([...own.subarray(0, 3), ...head]);
  });

  it('takes a dtype that holds all donors, and rounds a mean once', async () => {
    const models = [vocabulary('a', ['x']), vocabulary('b', ['y']), vocabulary('c', ['y'])];
    const output = new Map(['x', 'y'].map((token, id) => [token, id]));
    const { maps } = planVocabulary({ output, models, settings: noTokens });
    const sources = (dtypes: readonly MergeDType[], values: readonly number[]) =>
      models.map(({ reference }, i) =>
        memorySource(reference.text, { [EMBEDDING]: { dtype: dtypes[i], shape: [1, 1], data: [values[i]] } }),
      );
    const names = models.map(() => [EMBEDDING]);
    const mixed = withVocabulary(0, sources(['BF16', 'F16', 'F16'], [1, 1.0009765625, 1]), maps[0], names);
    expect(mixed.tensors.get(EMBEDDING)?.dtype).toBe('F32');
    expect(await valuesOf(mixed, EMBEDDING)).toEqual(Float64Array.of(1, 1.00048828125));
    // 1 + 2^-8 is a tie of BF16 and would round to 1; what lies 2^-30 above it must not.
    const tiny = withVocabulary(0, sources(['BF16', 'BF16', 'BF16'], [1, 2.015625, 2 ** -29]), maps[0], names);
    expect(tiny.tensors.get(EMBEDDING)?.dtype).toBe('BF16');
    expect(await valuesOf(tiny, EMBEDDING)).toEqual(Float64Array.of(1, 1.0078125));
    // A merge that computes in F32 gets the mean in F32.
    const wide = withVocabulary(0, sources(['BF16', 'BF16', 'BF16'], [1, 2.015625, 2 ** -16]), maps[0], names, 'F32');
    expect(wide.tensors.get(EMBEDDING)?.dtype).toBe('F32');
    expect(await valuesOf(wide, EMBEDDING)).toEqual(Float64Array.of(1, 1.0078125 + 2 ** -17));
  });

  it('reads large tensors in pieces', async () => {
    const rows = 9000;
    const words = Array.from({ length: rows }, (_, i) => `w${i}`);
    const backwards = [...words].reverse();
    const models = [vocabulary('a', words), vocabulary('b', backwards)];
    const width = 512;
    const tensor = { dtype: 'F32' as const, shape: [rows, width], data: new Float32Array(rows * width) };
    for (let r = 0; r < rows; r++) tensor.data[r * width] = r;
    const source = memorySource('b', { [EMBEDDING]: tensor });
    const sources = [memorySource('a', { [EMBEDDING]: tensor }), source];
    const { maps } = planVocabulary({ output: models[0].tokens, models, settings: noTokens });
    const shown = withVocabulary(1, sources, maps[1], [[EMBEDDING], [EMBEDDING]]);
    const values = await valuesOf(shown, EMBEDDING);
    for (let r = 0; r < rows; r += 97) expect(values[r * width]).toBe(rows - 1 - r);
    expect(source.largestRead()).toBeLessThanOrEqual(8 << 20);
    expect(source.reads()).toBeLessThan(10);
  });

  it('names models whose rows have another length', () => {
    const models = [vocabulary('a', ['x']), vocabulary('b', ['y'])];
    const sources = [
      memorySource('a', { [EMBEDDING]: matrix(1, 4, 1) }),
      memorySource('b', { [EMBEDDING]: matrix(1, 3, 1) }),
    ];
    const output = new Map(['x', 'y'].map((token, id) => [token, id]));
    const { maps } = planVocabulary({ output, models, settings: noTokens });
    expect(() => withVocabulary(0, sources, maps[0], [[EMBEDDING], [EMBEDDING]])).toThrow(
      /row has the shape \[4\] in a but \[3\] in b.*fuse knowledge/,
    );
  });
});
