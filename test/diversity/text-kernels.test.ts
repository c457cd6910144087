import { describe, expect, it } from 'vitest';
import { editSimilarity } from '../../src/diversity/edit-similarity.js';
import { equalityClasses } from '../../src/diversity/exact-match.js';
import { gramSource } from '../../src/diversity/gram-source.js';
import { matchSource } from '../../src/diversity/match-source.js';
import {
  ngramFeatures,
  ngramRows,
  sparseDot,
  sparseGram,
  sparseOperator,
  takeSparseRows,
  unitsOf,
} from '../../src/diversity/ngram-kernel.js';

describe('edit similarity', () => {
  it('is 1 for equal texts and symmetric', () => {
    const k = editSimilarity(['abc', 'abd', '', '']);
    expect([...k]).toEqual([1, 2 / 3, 0, 0, 2 / 3, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1]);
  });
});

describe('n-gram kernel', () => {
  const texts = ['the cat sat on the mat', 'the cat sat on a mat', 'dogs run, and run again!'];

  it('cuts words, signs and characters', () => {
    expect(unitsOf("Don't stop, now", 'words')).toEqual(['Don', "'", 't', 'stop', ',', 'now']);
    expect(unitsOf(' a  b\nc ', 'whitespace')).toEqual(['a', 'b', 'c']);
    expect(unitsOf('a\u{1f600}', 'characters')).toEqual(['a', '\u{1f600}']);
    expect(unitsOf('ABC', 'words', true)).toEqual(['abc']);
  });

  it('averages the cosines of counts', async () => {
    const cosine = (a: string[], b: string[]): number => {
      const grams = [...new Set([...a, ...b])];
      const count = (list: string[]) => grams.map((gram) => list.filter((item) => item === gram).length);
      const [x, y] = [count(a), count(b)];
      const dot = (u: number[], v: number[]) => u.reduce((sum, value, i) => sum + value * v[i], 0);
      return dot(x, y) / Math.sqrt(dot(x, x) * dot(y, y));
    };
    const grams = (text: string, length: number) => {
      const words = text.match(/\w+|[^\s\w]/g) ?? [];
      return Array.from({ length: words.length - length + 1 }, (_, i) => words.slice(i, i + length).join(' '));
    };
    const rows = ngramFeatures(texts, { lengths: [1, 2, 3, 4], unit: 'words' }, 'texts');
    const k = sparseGram(rows);
    for (let i = 0; i < 3; i++) {
      for (let j = 0; j < 3; j++) {
        let mean = 0;
        for (let length = 1; length <= 4; length++)
          mean += cosine(grams(texts[i], length), grams(texts[j], length)) / 4;
        expect(k[i * 3 + j]).toBeCloseTo(mean, 12);
        expect(sparseDot(rows, i, j)).toBeCloseTo(mean, 12);
      }
    }
    const factors = Float64Array.of(0.5, 2, 1);
    const operator = sparseOperator(rows, factors);
    expect(await operator.trace()).toBeCloseTo(5.25, 12);
    const v = Float64Array.of(1, -1, 3, 2, 0.5, 1);
    const out = new Float64Array(6);
    await operator.multiply(v, 2, out);
    for (let b = 0; b < 2; b++) {
      for (let i = 0; i < 3; i++) {
        let sum = 0;
        for (let j = 0; j < 3; j++) sum += factors[i] * k[i * 3 + j] * factors[j] * v[b * 3 + j];
        expect(out[b * 3 + i]).toBeCloseTo(sum, 12);
      }
    }
    expect([...sparseGram(takeSparseRows(rows, Int32Array.of(2, 0)))]).toEqual([1, k[6], k[6], 1]);
  });

  it('refuses a text that has no gram of a length, and leaves it out of the average on demand', () => {
    const short = ['a b c d e', 'one two'];
    expect(() => ngramFeatures(short, { lengths: [1, 2, 3, 4], unit: 'words' }, 't.txt')).toThrow(
      /^t.txt: text of row 1 has 2 words, so no 4-gram to normalise; name shorter lengths with --ngrams/,
    );
    const k = sparseGram(ngramFeatures(short, { lengths: [1, 4], unit: 'words', normalize: true }, 't.txt'));
    expect(k[3]).toBe(1);
    expect(() => ngramFeatures(['a', ''], { lengths: [1], unit: 'words', normalize: true }, 't.txt')).toThrow(
      /row 1 has 0 words/,
    );
    expect(ngramRows([['a']], 2).starts[1]).toBe(0);
  });
});

describe('exact match', () => {
  it('has the shares of its classes as eigenvalues', async () => {
    const items = ['x', 'y', 'x', 'z', 'x', 'y'];
    const n = items.length;
    const k = Float64Array.from({ length: n * n }, (_, at) => (items[Math.floor(at / n)] === items[at % n] ? 1 : 0));
    const weights = Float64Array.of(0.1, 0.2, 0.3, 0.1, 0.1, 0.2);
    for (const options of [{}, { weights }]) {
      const counts = matchSource(equalityClasses(items), options.weights);
      const gram = gramSource(k, n, options);
      const top = async (values: Promise<Float64Array>): Promise<number[]> =>
        [...(await values)].sort((a, b) => b - a).slice(0, 3);
      const [left, right] = [await top(counts.eigenvalues()), await top(gram.eigenvalues())];
      left.forEach((value, i) => {
        expect(value).toBeCloseTo(right[i], 12);
      });
      expect(await counts.squaredNorm()).toBeCloseTo(await gram.squaredNorm(), 12);
      expect([...(await counts.rowSquares())]).toEqual([...(await gram.rowSquares())]);
      expect(await counts.meanPower(1)).toBeCloseTo((await gram.meanPower(1)) ?? 0, 12);
      const without = [await top(counts.eigenvaluesWithout(0)), await top(gram.eigenvaluesWithout(0))];
      without[0].forEach((value, i) => {
        expect(value).toBeCloseTo(without[1][i], 12);
      });
    }
  });
});
