import { describe, expect, it } from 'vitest';
import { attentionRowEntropies } from '../../src/entropy/attention.js';
import { entropyRegulariser } from '../../src/entropy/attention-regulariser.js';
import {
  attentionOfScores,
  scoreGradient,
  temperatureGradient,
  temperedScores,
} from '../../src/entropy/attention-temperature.js';
import { createRandom } from '../../src/random.js';

const HEADS = 2;
const LENGTH = 6;
const DIM = 3;
const shape = { heads: HEADS, queries: LENGTH, keys: LENGTH };
const random = createRandom(4);
const draw = (count: number): Float64Array => Float64Array.from({ length: count }, () => random.normal());
const input = {
  queries: draw(HEADS * LENGTH * DIM),
  keys: draw(HEADS * LENGTH * DIM),
  heads: HEADS,
  queryCount: LENGTH,
  keyCount: LENGTH,
  headDim: DIM,
  temperatures: draw(HEADS * LENGTH).map((x) => Math.exp(0.5 * x)),
  causal: true,
};
const thresholds = Float64Array.of(0.2, 0.6);

function lossOf(scores: Float64Array): { loss: number; entropyGradient: Float64Array } {
  const { rows } = attentionOfScores(scores, shape);
  const place = { layers: 1, batch: 1, heads: HEADS, queries: LENGTH };
  const options = { reduction: 'code', gamma: 0.05, contextSize: LENGTH, coefficient: 3 } as const;
  return entropyRegulariser(rows.entropyNats, place, thresholds, options);
}

describe('temperatures', () => {
  it('give the entropy of the attention that they make, to 1e-9', () => {
    const { attention, rows } = attentionOfScores(temperedScores(input), shape);
    const direct = attentionRowEntropies(attention, { batch: 1, ...shape });
    rows.entropyNats.forEach((entropy, row) => {
      expect(Math.abs(entropy - direct.entropyNats[row])).toBeLessThan(1e-9);
    });
  });

  it('raise the entropy as they rise', () => {
    const at = (t: number): number => {
      const scores = temperedScores({ ...input, temperatures: new Float64Array(HEADS * LENGTH).fill(t) });
      return attentionOfScores(scores, shape).rows.entropyNats[LENGTH - 1];
    };
    const found = [1e-4, 0.1, 0.5, 1, 2, 10, 1e4].map(at);
    expect(found).toEqual([...found].sort((a, b) => a - b));
    expect(found[0]).toBeCloseTo(0, 6);
    expect(found[6]).toBeCloseTo(Math.log(LENGTH), 6);
  });

  it('have the gradient of the regulariser, and scores have theirs', () => {
    const scores = temperedScores(input);
    const { attention, rows } = attentionOfScores(scores, shape);
    const { entropyGradient } = lossOf(scores);
    expect(entropyGradient.some((weight) => weight !== 0)).toBe(true);
    const step = 1e-6;
    const byTemperature = temperatureGradient(rows.scoreVariance, input.temperatures, entropyGradient);
    input.temperatures.forEach((t, i) => {
      const at = (value: number): number => {
        const temperatures = input.temperatures.slice();
        temperatures[i] = value;
        return lossOf(temperedScores({ ...input, temperatures })).loss;
      };
      expect(byTemperature[i]).toBeCloseTo((at(t + step) - at(t - step)) / (2 * step), 5);
    });
    const byScore = scoreGradient(attention, rows.entropyNats, entropyGradient);
    scores.forEach((score, i) => {
      if (score === Number.NEGATIVE_INFINITY) {
        expect(byScore[i]).toBe(0);
        return;
      }
      const at = (value: number): number => {
        const moved = scores.slice();
        moved[i] = value;
        return lossOf(moved).loss;
      };
      expect(byScore[i]).toBeCloseTo((at(score + step) - at(score - step)) / (2 * step), 5);
    });
  });

  it('need one a head and query', () => {
    expect(() => temperedScores({ ...input, temperatures: new Float64Array(3) })).toThrow('expected [2,6], got 3');
  });
});
