import { describe, expect, it } from 'vitest';
import {
  type ChoiceRow,
  choiceRow,
  choiceWindow,
  encodePair,
  scoreChoices,
  splitContextContinuation,
  summarizeChoices,
} from '../../src/entropy/choices.js';
import { createRandom } from '../../src/random.js';

/** A tokenizer that joins a space with the word behind it, as byte-level BPE does: splitting must move the space. */
const encode = (text: string): number[] => (text.match(/ ?[^ ]+| /g) ?? []).map((piece) => piece.length);

describe('context and continuation', () => {
  it('move whitespace at the end of the context to the continuation', () => {
    expect(splitContextContinuation('ab cde ', 'fghi', encode)).toEqual({
      context: Int32Array.of(2, 4),
      continuation: Int32Array.of(5),
    });
    expect(splitContextContinuation('ab cde', ' fghi jk', encode).continuation).toEqual(Int32Array.of(5, 3));
  });

  it('stand behind the prefix token where the context has none', () => {
    expect(encodePair('', 'abc', encode, 7)).toEqual({ context: Int32Array.of(7), continuation: Int32Array.of(3) });
    expect(encodePair(' ', 'abc', encode, 7)).toEqual({ context: Int32Array.of(7), continuation: Int32Array.of(4) });
  });

  it('refuse a continuation that adds no token', () => {
    expect(() => splitContextContinuation('ab', '', encode)).toThrow(/adds no token/);
    expect(() => encodePair('', '', encode, 0)).toThrow(/adds no token/);
  });

  it('are cut on the left to the context of the model', () => {
    const window = choiceWindow(Int32Array.of(1, 2, 3, 4), Int32Array.of(5, 6), 3);
    expect([...window.inputs]).toEqual([3, 4, 5]);
    expect([window.scoreFrom, window.truncated]).toEqual([1, 2]);
    const whole = choiceWindow(Int32Array.of(1, 2), Int32Array.of(5, 6), 10);
    expect([[...whole.inputs], whole.scoreFrom, whole.truncated]).toEqual([[1, 2, 5], 1, 0]);
    expect(() => choiceWindow(Int32Array.of(1), new Int32Array(5), 4)).toThrow(/5 tokens.*4/);
  });
});

describe('a question', () => {
  const lengths = { characters: [4, 10, 2], bytes: [4, 30, 2], tokens: [1, 2, 2] };

  it('is answered by likelihood, and by likelihood over characters, bytes, tokens', () => {
    const result = scoreChoices({ logLikelihoods: [-3, -6, -2], ...lengths, gold: [1] });
    expect([
      result.prediction,
      result.predictionByCharacter,
      result.predictionByByte,
      result.predictionByToken,
    ]).toEqual([2, 1, 1, 2]);
    expect([result.correct, result.correctByCharacter]).toEqual([false, true]);
    const z = Math.exp(-3) + Math.exp(-6) + Math.exp(-2);
    const p = [-3, -6, -2].map((x) => Math.exp(x) / z);
    expect(result.entropyNats).toBeCloseTo(-p.reduce((sum, x) => sum + x * Math.log(x), 0), 12);
    expect(result.confidence).toBeCloseTo(p[2], 12);
    expect(result.margin).toBeCloseTo(p[2] - p[0], 12);
    expect(result.brier).toBeCloseTo(p[0] ** 2 + (p[1] - 1) ** 2 + p[2] ** 2, 12);
    expect(result.goldSurprisalNats).toBeCloseTo(-Math.log(p[1]), 12);
  });

  it('gives ties to the first, and takes any of several answers', () => {
    const result = scoreChoices({ logLikelihoods: [-2, -1, -1], ...lengths, gold: [2, 1] });
    expect([result.prediction, result.correct]).toEqual([1, true]);
  });

  it('stands without any likelihood', () => {
    const no = Number.NEGATIVE_INFINITY;
    const result = scoreChoices({ logLikelihoods: [no, no, no], ...lengths, gold: [0] });
    expect(result.entropyNats).toBeCloseTo(Math.log(3), 12);
    expect(result.prediction).toBe(0);
  });

  it('names what is wrong with it', () => {
    expect(() => scoreChoices({ logLikelihoods: [-1, -2, -3], ...lengths, gold: [3] })).toThrow(/answer 3.*3 choices/);
    expect(() => scoreChoices({ logLikelihoods: [-1], ...lengths, gold: [0] })).toThrow(/two choices/);
    expect(() => scoreChoices({ logLikelihoods: [-1, Number.NaN, 0], ...lengths, gold: [0] })).toThrow(/choice 1/);
  });
});

describe('a set of questions', () => {
  const random = createRandom(17);
  const rows: ChoiceRow[] = Array.from({ length: 400 }, (_, index) => {
    const logLikelihoods = Array.from({ length: 4 }, () => 2 * random.normal());
    const z = logLikelihoods.reduce((sum, x) => sum + Math.exp(x), 0);
    // The answer is drawn from the model's own distribution: it is calibrated.
    let u = random.uniform() * z;
    const gold = logLikelihoods.findIndex((x) => {
      u -= Math.exp(x);
      return u < 0;
    });
    const even = [5, 5, 5, 5];
    return choiceRow(
      index,
      scoreChoices({ logLikelihoods, characters: even, bytes: even, tokens: even, gold: [gold] }),
    );
  });
  const summary = summarizeChoices(rows, { seed: 1 });

  it('has accuracies with the standard errors of the harness', () => {
    const correct = rows.filter((row) => row.correct).length;
    const n = rows.length;
    expect(summary.acc).toBe(correct / n);
    // sample_stddev / sqrt(n) of zeros and ones.
    const p = correct / n;
    expect(summary.acc_stderr).toBeCloseTo(Math.sqrt((p * (1 - p) * n) / (n - 1)) / Math.sqrt(n), 12);
    expect(summary.acc_norm).toBe(summary.acc);
    expect(summary.acc_interval.low).toBeLessThan(p);
    expect(summary.acc_interval.high).toBeGreaterThan(p);
    expect(summary.acc_interval.high - summary.acc_interval.low).toBeCloseTo(2 * 1.96 * summary.acc_stderr, 1);
  });

  it('of a calibrated model has a small calibration error; of an overconfident one, a large', () => {
    expect(summary.expected_calibration_error).toBeLessThan(0.08);
    const wrong = rows.map((row) => ({ ...row, correct: false }));
    const off = summarizeChoices(wrong, { seed: 1 });
    expect(off.expected_calibration_error).toBeCloseTo(off.mean_confidence, 12);
    expect([off.acc_interval.low, off.acc_interval.high]).toEqual([0, 0]);
  });

  it('does not depend on the order of the rows', () => {
    expect(summarizeChoices([...rows].reverse(), { seed: 1 })).toEqual(summary);
    expect(() => summarizeChoices([], { seed: 1 })).toThrow(/no question/);
  });
});
