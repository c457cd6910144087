import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createMerger } from '../../src/tokenizers/merge.js';
import { createPairTable } from '../../src/tokenizers/pair-table.js';
import { type SplitBehavior, splitAt } from '../../src/tokenizers/patterns.js';
import { createSafeCutter } from '../../src/tokenizers/safe-cuts.js';
import { openTokenizer } from '../../src/tokenizers/tokenizer.js';
import { createTrie } from '../../src/tokenizers/trie.js';
import { segmentUnigram } from '../../src/tokenizers/unigram.js';

/** Merges of a random toy vocabulary over the letters a, b, c. */
const toyMerges = fc.array(fc.tuple(fc.nat(9), fc.nat(9)), { minLength: 1, maxLength: 12 });

/** The definition: again and again the leftmost pair of the lowest rank. */
function mergeByDefinition(symbols: readonly number[], ranks: ReadonlyMap<string, [number, number]>): number[] {
  const word = [...symbols];
  for (;;) {
    let best = -1;
    let bestRank = Infinity;
    for (let i = 0; i + 1 < word.length; i++) {
      const rank = ranks.get(`${word[i]},${word[i + 1]}`)?.[0] ?? Infinity;
      if (rank < bestRank) [best, bestRank] = [i, rank];
    }
    if (best < 0) return word;
    word.splice(best, 2, (ranks.get(`${word[best]},${word[best + 1]}`) as [number, number])[1]);
  }
}

describe('merging', () => {
  it('takes the lowest rank first, the leftmost among equals, for short and long words alike', () => {
    fc.assert(
      fc.property(toyMerges, fc.array(fc.nat(2), { maxLength: 120 }), (pairs, symbols) => {
        const table = createPairTable();
        const ranks = new Map<string, [number, number]>();
        pairs.forEach(([left, right], i) => {
          if (ranks.has(`${left},${right}`)) return;
          ranks.set(`${left},${right}`, [i >> 1, 3 + (i % 7)]);
          table.set(left, right, i >> 1, 3 + (i % 7));
        });
        const word = Int32Array.from(symbols);
        const count = createMerger(table).merge(word, word.length);
        expect(Array.from(word.subarray(0, count))).toEqual(mergeByDefinition(symbols, ranks));
      }),
      { numRuns: 300 },
    );
  });

  it('gives the same tokens for a document as one word as for the pieces that no merge can join', () => {
    const vocab: Record<string, number> = {};
    for (const token of ['?', 'a', 'b', 'c', 'd', 'ab', 'abc', 'ca', 'dd', 'cab'])
      vocab[token] = Object.keys(vocab).length;
    const merges = ['a b', 'ab c', 'c a', 'd d', 'c ab'];
    const texts = fc.array(fc.constantFrom('a', 'b', 'c', 'd', 'x'), { minLength: 40, maxLength: 200 });
    for (const unknown of [{ unk_token: '?' }, { unk_token: '?', fuse_unk: true }, {}]) {
      const model = { type: 'BPE', vocab, merges, ...unknown };
      const cutting = openTokenizer({ tokenizer: { model } });
      // Words that are tokens are taken whole: such a model is not cut, and here no text is a token.
      const whole = openTokenizer({ tokenizer: { model: { ...model, ignore_merges: true } } });
      fc.assert(
        fc.property(texts, (letters) => {
          expect(cutting.encode(letters.join(''))).toEqual(whole.encode(letters.join('')));
        }),
      );
    }
    const cut = createSafeCutter(() => ['ab', 'dd']);
    expect(cut(`${'x'.repeat(40)}`)).toHaveLength(40);
    expect(cut('abdd'.repeat(10))).toEqual(Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? 'ab' : 'dd')));
  });
});

describe('splitAt', () => {
  const split = (behavior: SplitBehavior, invert = false): string[] => {
    const pieces: string[] = [];
    splitAt('the-final--countdown', /-/gu, behavior, invert, pieces);
    return pieces;
  };

  it('follows the behaviours of Hugging Face tokenizers, by the examples of their documentation', () => {
    expect(split('Removed')).toEqual(['the', 'final', 'countdown']);
    expect(split('Isolated')).toEqual(['the', '-', 'final', '-', '-', 'countdown']);
    expect(split('MergedWithPrevious')).toEqual(['the-', 'final-', '-', 'countdown']);
    expect(split('MergedWithNext')).toEqual(['the', '-final', '-', '-countdown']);
    expect(split('Contiguous')).toEqual(['the', '-', 'final', '--', 'countdown']);
    expect(split('Removed', true)).toEqual(['-', '-', '-']);
  });

  it('cuts at empty matches too', () => {
    const pieces: string[] = [];
    splitAt('1234567', /(?=(?:\d{3})+(?!\d))/gu, 'Isolated', false, pieces);
    expect(pieces).toEqual(['1', '234', '567']);
  });
});

describe('segmentUnigram', () => {
  it('finds the best of all segmentations', () => {
    const tokens = ['a', 'b', 'ab', 'ba', 'aab', 'bb'];
    const letters = fc.array(fc.constantFrom('a', 'b', 'x'), { maxLength: 9 });
    const scoresOf = fc.array(fc.integer({ min: -40, max: -1 }), { minLength: 6, maxLength: 6 });
    fc.assert(
      fc.property(letters, scoresOf, (chars, scores) => {
        const text = chars.join('');
        const trie = createTrie();
        tokens.forEach((token, id) => {
          trie.add(token, id);
        });
        const bestSum = (rest: string): number => {
          if (rest === '') return 0;
          let best = rest[0] === 'x' ? -50 + bestSum(rest.slice(1)) : -Infinity;
          tokens.forEach((token, id) => {
            if (rest.startsWith(token)) best = Math.max(best, scores[id] + bestSum(rest.slice(token.length)));
          });
          return best;
        };
        const pieces = segmentUnigram(text, trie, Float64Array.from(scores), 99, -50);
        let sum = 0;
        let start = 0;
        for (let i = 0; i < pieces.count; i++) {
          const piece = text.slice(start, pieces.ends[i]);
          sum += pieces.ids[i] === 99 ? -50 * piece.length : scores[pieces.ids[i]];
          if (pieces.ids[i] !== 99) expect(piece).toBe(tokens[pieces.ids[i]]);
          start = pieces.ends[i];
        }
        expect(start).toBe(text.length);
        expect(sum).toBe(bestSum(text));
      }),
    );
  });
});
