import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { gatherRows } from '../../src/models/gather-rows.js';
import { chooseToken, type GenerationRequest, generate } from '../../src/models/generation.js';
import { type LanguageModel, openLanguageModel } from '../../src/models/language-model.js';
import type { Intervention } from '../../src/models/layer-runner.js';
import { createRandom } from '../../src/random.js';

const OPTIONS = { threads: 2, maxMemoryBytes: 2 ** 32, device: 'cpu', precision: 'f32', context: 64 } as const;
const GREEDY = { temperature: 0, topK: 0, topP: 1, seed: 7, maxNewTokens: 12, stopIds: [] } as const;

const prompt = (length: number, seed: number, vocabulary: number): Int32Array => {
  const random = createRandom(seed);
  return Int32Array.from({ length }, () => Math.floor(random.uniform() * vocabulary));
};

const argmax = (row: ArrayLike<number>): number => {
  let best = 0;
  for (let i = 1; i < row.length; i++) if (row[i] > row[best]) best = i;
  return best;
};

const MODELS = [
  'models/llama-sotu',
  'models/qwen2-moby',
  'models/mixtral-sotu-moby',
  'architectures/gemma2',
  'architectures/gemma3',
  'architectures/gpt2',
  'architectures/gpt-neox-parallel',
  'architectures/qwen2-moe-shared',
  'architectures/phi3-longrope-short',
  'architectures/smollm3-window',
];

describe.each(MODELS)('greedy generation of %s', (name) => {
  let model: LanguageModel;
  beforeAll(async () => {
    model = await openLanguageModel(`fixtures/${name}`, OPTIONS);
  });
  afterAll(() => model.close());

  it('takes the tokens of a full pass at every step', async () => {
    const start = prompt(9, 3, model.info.vocabularySize);
    const [made] = await generate(model, { ...GREEDY, prompts: [start] });
    expect(made.tokens.length).toBe(12);
    const whole = Int32Array.of(...start, ...made.tokens);
    const vocabulary = model.info.vocabularySize;
    const logits = await model.logits([whole], [[start.length - 1, whole.length - 1]]);
    made.tokens.forEach((token, i) => {
      const row = Float64Array.from(logits.subarray(i * vocabulary, (i + 1) * vocabulary));
      expect(argmax(row), `step ${i}`).toBe(token);
      const top = Math.max(...row);
      const logSum = top + Math.log(row.reduce((sum, x) => sum + Math.exp(x - top), 0));
      const entropy = row.reduce((sum, x) => sum - Math.exp(x - logSum) * (x - logSum), 0);
      expect(Math.abs(made.logProbabilities[i] - (row[token] - logSum))).toBeLessThan(2e-5);
      expect(Math.abs(made.entropyNats[i] - entropy)).toBeLessThan(2e-5);
    });
  });
});

describe('generation', () => {
  let model: LanguageModel;
  let prompts: Int32Array[];
  const run = (request: Partial<GenerationRequest>) => generate(model, { ...GREEDY, prompts, ...request });
  const sampled = { temperature: 1, maxNewTokens: 16 };
  beforeAll(async () => {
    model = await openLanguageModel('fixtures/models/llama-sotu', OPTIONS);
    const vocabulary = model.info.vocabularySize;
    prompts = [prompt(6, 1, vocabulary), prompt(11, 2, vocabulary), prompt(6, 3, vocabulary), prompt(1, 4, vocabulary)];
  });
  afterAll(() => model.close());

  it('gives a prompt the same bits alone and among others', async () => {
    const together = await run(sampled);
    // Streams belong to places in the list: the last prompt alone stands first, so each is compared in its place.
    const first = await run({ ...sampled, prompts: [prompts[0]] });
    expect(first[0]).toEqual(together[0]);
    const others = await run({ ...sampled, prompts: [prompts[0], prompts[1]] });
    expect(others).toEqual(together.slice(0, 2));
    expect(await run(GREEDY)).toEqual([
      ...(await run({ ...GREEDY, prompts: prompts.slice(0, 1) })),
      ...(await run({ ...GREEDY, prompts: prompts.slice(1, 2) })),
      ...(await run({ ...GREEDY, prompts: prompts.slice(2, 3) })),
      ...(await run({ ...GREEDY, prompts: prompts.slice(3) })),
    ]);
  });

  it('repeats with a seed and changes with it', async () => {
    const once = await run({ ...sampled, seed: 11 });
    expect(await run({ ...sampled, seed: 11 })).toEqual(once);
    expect(await run({ ...sampled, seed: 12 })).not.toEqual(once);
    // The same prompt twice draws from two streams.
    const twins = await run({ ...sampled, seed: 11, prompts: [prompts[0], prompts[0]] });
    expect(twins[0].tokens).not.toEqual(twins[1].tokens);
  });

  it('top-k 1 and a tiny top-p are greedy', async () => {
    const greedy = await run({});
    expect(await run({ temperature: 1, topK: 1 })).toEqual(greedy);
    expect(await run({ temperature: 1, topP: 1e-9 })).toEqual(greedy);
  });

  it('ends a sequence after a stop id and leaves the others alone', async () => {
    const greedy = await run({});
    const stop = greedy[0].tokens[3];
    const at = greedy[0].tokens.indexOf(stop);
    const stopped = await run({ stopIds: [stop] });
    expect(stopped[0].tokens).toEqual(greedy[0].tokens.slice(0, at + 1));
    expect(stopped[0].logProbabilities.length).toBe(at + 1);
    stopped.forEach((sequence, i) => {
      const end = greedy[i].tokens.indexOf(stop);
      expect(sequence.tokens).toEqual(end < 0 ? greedy[i].tokens : greedy[i].tokens.slice(0, end + 1));
    });
  });

  it('applies interventions to every position as a full pass does', async () => {
    const { engine } = model;
    if (!engine) throw new Error('no engine');
    const hidden = engine.model.hiddenSize;
    const vector = Float32Array.from(prompt(hidden, 5, 200), (x) => x / 100 - 1);
    const steer = (scale: number, from: number): Intervention => ({
      layer: 0,
      kind: 'add',
      vector,
      scale,
      positions: (_, position) => position >= from,
    });
    const start = prompts[1];
    const plain = await run({ prompts: [start] });
    const interventions = [steer(2, start.length - 1)];
    const [made] = await run({ prompts: [start], interventions });
    expect(made.tokens).not.toEqual(plain[0].tokens);
    expect(await run({ prompts: [start], interventions: [steer(0, 0)] })).toEqual(plain);

    const whole = Int32Array.of(...start, ...made.tokens);
    const groups = await engine.forward({ windows: [whole], interventions });
    const rows = gatherRows(groups, hidden, [[start.length - 1, whole.length - 1]]);
    await engine.normalize(rows);
    const logits = await engine.logits(rows);
    const vocabulary = model.info.vocabularySize;
    made.tokens.forEach((token, i) => {
      expect(argmax(logits.subarray(i * vocabulary, (i + 1) * vocabulary))).toBe(token);
    });
  });

  it('acts on the sequences that an intervention names', async () => {
    const vector = new Float32Array(model.info.hiddenSize ?? 0).fill(3);
    const interventions: Intervention[] = [
      { layer: 1, kind: 'add', vector, scale: 4, positions: (window) => window === 2 },
    ];
    const plain = await run({});
    const steered = await run({ interventions });
    expect(steered.filter((_, i) => i !== 2)).toEqual(plain.filter((_, i) => i !== 2));
    expect(steered[2]).not.toEqual(plain[2]);
  });

  it('refuses what makes no sense in one line', async () => {
    for (const request of [
      { temperature: -1 },
      { topK: 1.5 },
      { topP: 0 },
      { maxNewTokens: 0 },
      { prompts: [new Int32Array(0)] },
    ]) {
      await expect(run(request)).rejects.toThrow(InputError);
    }
    await expect(run({ temperature: Number.NaN })).rejects.toThrow(/temperature/);
    await expect(run({ prompts: [Int32Array.of(1_000_000)] })).rejects.toThrow(/vocabulary/);
  });
});

describe('chooseToken', () => {
  const probabilities = [0.05, 0.4, 0.25, 0.2, 0.1];
  const logs = Float64Array.from(probabilities, Math.log);
  const draws = 20_000;
  const frequencies = (options: { temperature?: number; topK?: number; topP?: number }): number[] => {
    const random = createRandom(5);
    const counts = probabilities.map(() => 0);
    for (let i = 0; i < draws; i++) {
      counts[chooseToken(logs, { temperature: 1, topK: 0, topP: 1, seed: 0, ...options }, random)]++;
    }
    return counts.map((count) => count / draws);
  };
  const expectClose = (actual: number[], weights: number[]): void => {
    const total = weights.reduce((a, b) => a + b, 0);
    actual.forEach((frequency, i) => {
      const p = weights[i] / total;
      // Five standard errors; exactly zero where the weight is zero.
      expect(Math.abs(frequency - p)).toBeLessThanOrEqual(5 * Math.sqrt((p * (1 - p)) / draws));
    });
  };

  it('draws from the distribution', () => expectClose(frequencies({}), probabilities));
  it('sharpens and flattens with the temperature', () => {
    expectClose(
      frequencies({ temperature: 0.5 }),
      probabilities.map((p) => p ** 2),
    );
    expectClose(
      frequencies({ temperature: 2 }),
      probabilities.map((p) => p ** 0.5),
    );
  });
  it('keeps the k largest', () => expectClose(frequencies({ topK: 2 }), [0, 0.4, 0.25, 0, 0]));
  it('keeps the smallest set that reaches the mass', () => {
    expectClose(frequencies({ topP: 0.64 }), [0, 0.4, 0.25, 0, 0]);
    expectClose(frequencies({ topP: 0.66 }), [0, 0.4, 0.25, 0.2, 0]);
    // Top-p counts mass within what top-k left: 0.4 is already 0.4 / 0.65 of it.
    expectClose(frequencies({ topK: 2, topP: 0.6 }), [0, 1, 0, 0, 0]);
  });
  it('of equal probabilities keeps the lower id', () => {
    const equal = Float64Array.from([0.25, 0.25, 0.25, 0.25], Math.log);
    const random = createRandom(1);
    const options = { temperature: 1, topK: 2, topP: 1, seed: 0 };
    const seen = new Set(Array.from({ length: 200 }, () => chooseToken(equal, options, random)));
    expect([...seen].sort()).toEqual([0, 1]);
    expect(chooseToken(equal, { ...options, temperature: 0 }, random)).toBe(0);
  });
});
