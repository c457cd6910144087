import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type DecodeArguments, type DecodeProgress, decode } from '../../src/decoding/decode-job.js';
import { PATH_NUCLEUS_DEFAULTS } from '../../src/decoding/path-nucleus.js';
import { parseSamplingPlan } from '../../src/decoding/sampler-text.js';
import type { SteeringPlan } from '../../src/decoding/steering-plan.js';
import { type LanguageModel, openLanguageModel } from '../../src/models/language-model.js';
import { createRandom } from '../../src/random.js';

const NAMES = ['temperature=1.3,top-h=0.4', 'none', 'greedy'];
const ARGUMENTS: DecodeArguments = {
  prompts: [Int32Array.of(7, 300, 41), Int32Array.of(12, 9, 700, 3, 64), Int32Array.of(500)],
  comparison: {
    samplers: NAMES.map((name) => ({ name, plan: parseSamplingPlan(name) })),
    alphas: [0.4],
    temperature: 1,
    exactCandidates: 8,
  },
  replay: true,
  samples: 2,
  maxNewTokens: 6,
  stopIds: [],
  seed: 4,
};

describe('decoding beside the engine', () => {
  let model: LanguageModel;
  beforeAll(async () => {
    model = await openLanguageModel('fixtures/models/llama-sotu', {
      threads: 2,
      maxMemoryBytes: 2 ** 32,
      device: 'cpu',
      precision: 'f32',
      context: 64,
    });
  });
  afterAll(() => model.close());

  it('meets in the second pass the rows that were drawn from', async () => {
    let tokens = 0;
    const result = await decode(model, ARGUMENTS, (value) => {
      tokens += (value as DecodeProgress).tokens;
    });
    expect(result.decoded.map((prompts) => prompts.map((samples) => samples.length))).toEqual([
      [2, 2, 2],
      [2, 2, 2],
      [1, 1, 1],
    ]);
    // Six samples of two samplers and three of the greedy one, six tokens each.
    expect(tokens).toBe(90);
    expect(result.comparison?.rows).toBe(90);
    for (const sequence of result.decoded[0].flat()) {
      sequence.entropyAfterNats.forEach((entropy, step) => {
        const bound = sequence.review?.boundNats[step] ?? Number.NaN;
        expect(bound).toBeCloseTo(0.4 * (sequence.review?.temperedEntropyNats[step] ?? Number.NaN), 12);
        expect(entropy).toBeLessThanOrEqual(bound * (1 + 1e-4));
      });
    }
    for (const sequence of result.decoded[1].flat()) {
      sequence.entropyNats.forEach((entropy, step) => {
        expect(sequence.review?.temperedEntropyNats[step]).toBeCloseTo(entropy, 3);
        expect(sequence.review?.boundNats[step]).toBeNaN();
      });
      expect(sequence.unsteeredSurprisalNats).toBeUndefined();
    }
  });

  it('scores steered text without steering', async () => {
    const random = createRandom(2);
    const vector = Float32Array.from({ length: 128 }, () => random.normal());
    const steering: SteeringPlan = {
      terms: [{ layer: 1, operator: 'add', vector, scale: 0.5 }],
      positions: { kind: 'last' },
    };
    const { decoded, paths } = await decode(
      model,
      { ...ARGUMENTS, replay: false, steering, paths: { ...PATH_NUCLEUS_DEFAULTS, width: 2 } },
      () => {},
    );
    expect(paths?.map(({ paths: kept }) => kept.length)).toEqual([2, 2, 2]);
    const [[first]] = decoded[1];
    const window = Int32Array.of(...ARGUMENTS.prompts[0], ...first.tokens);
    const { surprisalNats } = await model.statistics([window], [[2, 2 + first.tokens.length]], first.tokens, {
      topK: 1,
      renyiOrders: [],
    });
    expect(first.unsteeredSurprisalNats).toHaveLength(first.tokens.length);
    first.unsteeredSurprisalNats?.forEach((value, step) => {
      expect(value).toBeCloseTo(surprisalNats[step], 4);
    });
    expect(Math.abs(first.surprisalNats[0] - (first.unsteeredSurprisalNats?.[0] ?? 0))).toBeGreaterThan(1e-3);
  });
});
