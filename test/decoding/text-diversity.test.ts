import { describe, expect, it } from 'vitest';
import {
  distinctN,
  meanEditDistance,
  ngramVendiScore,
  repetition,
  selfBleu,
} from '../../src/decoding/text-diversity.js';

const ids = (...tokens: number[]): Int32Array => Int32Array.from(tokens);

const NLTK_CASES = {
  sequences: [
    [2, 5, 2, 6, 5, 6, 5, 5, 4, 0, 6, 3, 6, 1],
    [0, 1, 0, 2, 3, 6, 1, 3, 4, 0, 4, 1, 0, 5, 1, 3, 2, 1, 6, 6],
    [1, 6, 6, 0, 1, 4, 4, 3, 1],
    [0, 6, 0],
    [6, 1, 1],
    [2, 2, 1],
    [5, 5, 1, 1, 5, 1, 3, 2, 0, 2, 3, 1, 1, 2],
    [2, 2],
    [4, 0, 4, 5, 5, 2, 0, 2, 2, 6, 2, 3, 5, 2],
  ],
  selfBleu: 0.25227153440699746,
};

describe('diversity of token sequences', () => {
  it('counts distinct grams over all sequences', () => {
    expect(distinctN([ids(1, 2, 1, 2), ids(1, 2)], 1)).toBe(2 / 6);
    expect(distinctN([ids(1, 2, 1, 2), ids(1, 2)], 2)).toBe(2 / 4);
    expect(distinctN([ids(1)], 2)).toBeNaN();
  });

  it('measures repetition inside a sequence', () => {
    expect(repetition(ids(1, 2, 3, 4, 1, 2, 3, 4), 4)).toBeCloseTo(1 - 4 / 5, 12);
    expect(repetition(ids(1, 2, 3, 4, 5), 4)).toBe(0);
    expect(repetition(ids(1, 2, 3), 4)).toBeNaN();
  });

  // Figures of nltk 3.10.4: sentence_bleu with SmoothingFunction().method1, each sequence against the others.
  it('equals self-BLEU of nltk', () => {
    const sequences = NLTK_CASES.sequences.map((tokens) => Int32Array.from(tokens));
    expect(selfBleu(sequences)).toBeCloseTo(NLTK_CASES.selfBleu, 12);
    expect(selfBleu([ids(1, 2, 3, 4, 5), ids(1, 2, 3, 4, 5)])).toBeCloseTo(1, 12);
    expect(selfBleu([ids(1, 2), ids(3, 4)])).toBe(0);
    expect(selfBleu([ids(1, 2)])).toBeNaN();
  });

  it('averages edit distances over pairs', () => {
    const { tokens, share } = meanEditDistance([ids(1, 2, 3), ids(1, 3), ids()]);
    expect(tokens).toBeCloseTo((1 + 3 + 2) / 3, 12);
    expect(share).toBeCloseTo((1 / 3 + 1 + 1) / 3, 12);
    expect(meanEditDistance([ids(1)]).tokens).toBeNaN();
    expect(meanEditDistance([ids(), ids()])).toEqual({ tokens: 0, share: 0 });
  });

  it('gives n for sequences without a common token, 1 for equal ones', () => {
    const apart = [ids(1, 2, 3, 4), ids(5, 6, 7, 8), ids(9, 10), ids(11)];
    expect(ngramVendiScore(apart)).toBeCloseTo(4, 10);
    expect(ngramVendiScore([ids(1, 2, 3, 4), ids(1, 2, 3, 4)])).toBeCloseTo(1, 10);
    expect(ngramVendiScore([ids(1), ids(1), ids(2), ids(2)])).toBeCloseTo(2, 10);
    expect(ngramVendiScore([])).toBeNaN();
  });
});
