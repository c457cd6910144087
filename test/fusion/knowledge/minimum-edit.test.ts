import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { codePoints, levenshtein, levenshteinReference } from '../../../src/fusion/knowledge/levenshtein.js';
import { candidateSearch, editIndex, nearestTexts } from '../../../src/fusion/knowledge/minimum-edit.js';
import { createRandom } from '../../../src/random.js';

const letters = (alphabet: string, maxLength: number) =>
  fc.array(fc.constantFrom(...alphabet), { maxLength }).map((list) => list.join(''));

describe('distance', () => {
  it('counts code points, not code units', () => {
    expect(levenshtein('😀a', '😁a')).toBe(1);
    expect(levenshtein('', '😀')).toBe(1);
    expect(levenshtein('▁kitten', '▁sitting')).toBe(3);
    expect([...codePoints('a😀\udc80')]).toEqual([97, 0x1f600, 0xdc80]);
  });

  it('is that of the whole table, over words and blocks of words', () => {
    const text = fc.oneof(letters('ab😀', 12), letters('abc', 90));
    fc.assert(fc.property(text, text, (a, b) => levenshtein(a, b) === levenshteinReference(a, b)));
  });
});

/** All with all, the first of the nearest. */
function bruteForce(texts: readonly string[], query: string): { distance: number; ids: number[] } {
  const distances = texts.map((text) => (text === '' ? Infinity : levenshteinReference(query, text)));
  const distance = Math.min(...distances);
  return { distance, ids: distances.flatMap((own, id) => (own === distance ? [id] : [])) };
}

describe('search', () => {
  it('finds what comparing all with all finds, and all candidates in the order of the list', () => {
    const vocabulary = fc.array(fc.oneof(letters('▁abé', 6), letters('ab', 45)), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(
        vocabulary,
        fc.array(letters('▁abéz', 8), { maxLength: 6 }),
        letters('abz', 50),
        (texts, some, long) => {
          fc.pre(texts.some((text) => text !== ''));
          const index = editIndex(texts);
          const queries = [...some, long].filter((query) => query !== '');
          const { nearest, distances } = nearestTexts(index, queries);
          const candidates = candidateSearch(index);
          queries.forEach((query, q) => {
            const expected = bruteForce(texts, query);
            expect([nearest[q], distances[q]]).toEqual([expected.ids[0], expected.distance]);
            expect(candidates(query)).toEqual(expected.ids);
          });
        },
      ),
      { numRuns: 150 },
    );
  });

  it('finds it in a vocabulary of thousands', () => {
    const random = createRandom(3);
    const word = (): string =>
      Array.from({ length: 1 + random.integer(11) }, () => 'etaoinshrdlu▁'[random.integer(13)]).join('');
    const texts = Array.from({ length: 1500 }, word);
    const queries = Array.from({ length: 20 }, word);
    const { nearest, distances } = nearestTexts(editIndex(texts), queries);
    const expected = queries.map((query) => bruteForce(texts, query));
    expect([...nearest]).toEqual(expected.map(({ ids }) => ids[0]));
    expect([...distances]).toEqual(expected.map(({ distance }) => distance));
  });

  it('has nothing to find among ids without a token', () => {
    expect(nearestTexts(editIndex(['', '']), ['a'])).toEqual({
      nearest: Int32Array.of(-1),
      distances: Int32Array.of(-1),
    });
  });
});
