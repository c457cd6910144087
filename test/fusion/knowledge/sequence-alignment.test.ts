import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { levenshteinReference } from '../../../src/fusion/knowledge/levenshtein.js';
import { alignSequences, matchesOf, tokenCosts } from '../../../src/fusion/knowledge/sequence-alignment.js';
import { type CostRule, type TokenPair, tokenPair } from '../../../src/fusion/knowledge/token-pair.js';

const PAIR = tokenPair(
  { texts: ['Ġ', 'Ġa', 'ab', 'Ġabc', 'b', 'cb', 'ĠĠ', 'é', 'xyzzy'], marker: 'Ġ' },
  { texts: ['▁', '▁a', 'b', '▁abc', 'bc', 'a', 'é', '▁▁a', 'xyz'], marker: '▁' },
);

/** The distance of two tokens, written out. */
function cost({ source, pivot }: TokenPair, s: number, b: number, rule: CostRule): number {
  const stripped = [source.texts[s].replaceAll('Ġ', ''), pivot.texts[b].replaceAll('▁', '')] as const;
  const lone = rule === 'fusechat' && stripped.includes('');
  return lone
    ? levenshteinReference(source.texts[s].replaceAll('Ġ', '▁'), pivot.texts[b])
    : levenshteinReference(...stripped);
}

/** The whole table, and the way back step by step. */
function reference(source: Int32Array, pivot: Int32Array, rule: CostRule) {
  const sums = Array.from(source, () => new Array<number>(pivot.length).fill(0));
  const at = (i: number, j: number): number => (i < 0 || j < 0 ? Infinity : sums[i][j]);
  for (let i = 0; i < source.length; i++) {
    for (let j = 0; j < pivot.length; j++) {
      const before = i === 0 && j === 0 ? 0 : Math.min(at(i - 1, j - 1), at(i - 1, j), at(i, j - 1));
      sums[i][j] = before + cost(PAIR, source[i], pivot[j], rule);
    }
  }
  const matches: [number, number][] = [];
  let [i, j] = [source.length - 1, pivot.length - 1];
  for (;;) {
    matches.unshift([i, j]);
    if (i === 0 && j === 0) break;
    const up = { sum: at(i - 1, j), i: i - 1, j };
    const left = { sum: at(i, j - 1), i, j: j - 1 };
    const steps = [{ sum: at(i - 1, j - 1), i: i - 1, j: j - 1 }, ...(rule === 'fusellm' ? [up, left] : [left, up])];
    const least = Math.min(...steps.map(({ sum }) => sum));
    ({ i, j } = steps.find(({ sum }) => sum === least) ?? steps[0]);
  }
  return { cost: at(source.length - 1, pivot.length - 1), matches };
}

const sequence = fc
  .array(fc.integer({ min: 0, max: 8 }), { minLength: 1, maxLength: 14 })
  .map((ids) => Int32Array.from(ids));

describe('alignment of sequences', () => {
  it.each(['fusellm', 'fusechat'] as const)('is that of the whole table, ties as %s breaks them', (rule) => {
    const costs = tokenCosts(PAIR, rule);
    fc.assert(
      fc.property(sequence, sequence, (source, pivot) => {
        const found = alignSequences(source, pivot, costs);
        const expected = reference(source, pivot, rule);
        expect(found.cost).toBe(expected.cost);
        expect(matchesOf(found)).toEqual(expected.matches);
      }),
    );
  });

  it('covers every position of both, in order', () => {
    const costs = tokenCosts(PAIR, 'fusellm');
    fc.assert(
      fc.property(sequence, sequence, (source, pivot) => {
        const { offsets, positions } = alignSequences(source, pivot, costs);
        expect(offsets.subarray(1).every((end, j) => end > offsets[j])).toBe(true);
        expect(new Set(positions).size).toBe(source.length);
        expect(positions.every((position, i) => i === 0 || position >= positions[i - 1])).toBe(true);
      }),
    );
  });

  it('lets a lone marker cost under the rule of FuseChat alone', () => {
    const one = (id: number): Int32Array => Int32Array.of(id);
    expect(alignSequences(one(0), one(1), tokenCosts(PAIR, 'fusellm')).cost).toBe(1);
    expect(alignSequences(one(0), one(0), tokenCosts(PAIR, 'fusechat')).cost).toBe(0);
    expect(alignSequences(one(6), one(0), tokenCosts(PAIR, 'fusellm')).cost).toBe(0);
    expect(alignSequences(one(6), one(0), tokenCosts(PAIR, 'fusechat')).cost).toBe(1);
  });
});
