import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Generated, type GenerationRequest, generate } from '../../src/decoding/generation.js';
import type { SteeringPlan, SteeringPositions } from '../../src/decoding/steering-plan.js';
import { interventionsOf } from '../../src/decoding/steering-plan.js';
import type { SamplingPlan } from '../../src/decoding/types.js';
import { InputError } from '../../src/errors.js';
import type { Engine } from '../../src/models/engine.js';
import { gatherRows } from '../../src/models/gather-rows.js';
import { type LanguageModel, openLanguageModel } from '../../src/models/language-model.js';
import type { Intervention } from '../../src/models/layer-runner.js';
import { createRandom } from '../../src/random.js';

const OPTIONS = { threads: 2, maxMemoryBytes: 2 ** 32, device: 'cpu', precision: 'f32', context: 64 } as const;
const GREEDY_PLAN: SamplingPlan = { steps: [], greedy: true };
const GREEDY = { plan: GREEDY_PLAN, seed: 7, maxNewTokens: 12, stopIds: [] } as const;
const SAMPLED = { plan: { steps: [{ kind: 'temperature', temperature: 1.2 }] }, maxNewTokens: 16 } as const;

const prompt = (length: number, seed: number, vocabulary: number): Int32Array => {
  const random = createRandom(seed);
  return Int32Array.from({ length }, () => Math.floor(random.uniform() * vocabulary));
};

const argmax = (row: ArrayLike<number>): number => {
  let best = 0;
  for (let i = 1; i < row.length; i++) if (row[i] > row[best]) best = i;
  return best;
};

const engineOf = (model: LanguageModel): Engine => {
  if (!model.engine) throw new Error('no engine');
  return model.engine;
};

const addition = (
  engine: Engine,
  scale: number,
  positions: SteeringPositions,
  layer = 0,
): SteeringPlan & { vector: Float32Array } => {
  const vector = Float32Array.from(prompt(engine.model.hiddenSize, 5, 200), (x) => x / 100 - 1);
  return { terms: [{ layer, operator: 'add', vector, scale }], positions, vector };
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
    const [[made]] = await generate(model, { ...GREEDY, prompts: [start] });
    expect(made.tokens.length).toBe(12);
    expect(made.ended).toBe('length');
    const whole = Int32Array.of(...start, ...made.tokens);
    const vocabulary = model.info.vocabularySize;
    const logits = await model.logits([whole], [[start.length - 1, whole.length - 1]]);
    made.tokens.forEach((token, i) => {
      const row = Float64Array.from(logits.subarray(i * vocabulary, (i + 1) * vocabulary));
      expect(argmax(row), `step ${i}`).toBe(token);
      const top = Math.max(...row);
      const logSum = top + Math.log(row.reduce((sum, x) => sum + Math.exp(x - top), 0));
      const entropy = row.reduce((sum, x) => sum - Math.exp(x - logSum) * (x - logSum), 0);
      expect(Math.abs(made.surprisalNats[i] - (logSum - row[token]))).toBeLessThan(2e-5);
      expect(Math.abs(made.entropyNats[i] - entropy)).toBeLessThan(2e-5);
    });
  });
});

describe('generation', () => {
  let model: LanguageModel;
  let prompts: Int32Array[];
  const run = (request: Partial<GenerationRequest>) => generate(model, { ...GREEDY, prompts, ...request });
  beforeAll(async () => {
    model = await openLanguageModel('fixtures/models/llama-sotu', OPTIONS);
    const vocabulary = model.info.vocabularySize;
    prompts = [prompt(6, 1, vocabulary), prompt(11, 2, vocabulary), prompt(6, 3, vocabulary), prompt(1, 4, vocabulary)];
  });
  afterAll(() => model.close());

  it('gives a sequence the same bits whatever runs beside it', async () => {
    const together = await run({ ...SAMPLED, samples: 5 });
    const first = await run({ ...SAMPLED, prompts: [prompts[0]] });
    expect(first[0][0]).toEqual(together[0][0]);
    const others = await run({ ...SAMPLED, samples: 2, prompts: [prompts[0], prompts[1]] });
    expect(others).toEqual(together.slice(0, 2).map((list) => list.slice(0, 2)));
    const last = await run({ ...SAMPLED, prompts: [prompts[3]], keys: () => 3 * 2 ** 20 + 4 });
    expect(last[0][0]).toEqual(together[3][4]);
    const one = await openLanguageModel('fixtures/models/llama-sotu', { ...OPTIONS, threads: 1 });
    expect(await generate(one, { ...GREEDY, ...SAMPLED, prompts, samples: 5 })).toEqual(together);
    await one.close();
  });

  it('repeats with a seed, changes with it, and gives every sample a stream of its own', async () => {
    const once = await run({ ...SAMPLED, seed: 11 });
    expect(await run({ ...SAMPLED, seed: 11 })).toEqual(once);
    expect(await run({ ...SAMPLED, seed: 12 })).not.toEqual(once);
    const [twins] = await run({ ...SAMPLED, seed: 11, prompts: [prompts[0]], samples: 2 });
    expect(twins[0].tokens).not.toEqual(twins[1].tokens);
    const [same] = await run({ ...SAMPLED, prompts: [prompts[0]], samples: 2, keys: () => 9 });
    expect(same[0]).toEqual(same[1]);
  });

  it('ends a sequence after a stop id, or where the caller says so, and leaves the others alone', async () => {
    const free = await run({ ...SAMPLED, samples: 8 });
    const stop = free[0][0].tokens[3];
    const cut = ({ tokens }: Generated, end: number): Int32Array => (end < 0 ? tokens : tokens.slice(0, end + 1));
    const stopped = await run({ ...SAMPLED, samples: 8, stopIds: [stop] });
    stopped.forEach((list, p) => {
      list.forEach((made, s) => {
        const end = free[p][s].tokens.indexOf(stop);
        expect(made.tokens).toEqual(cut(free[p][s], end));
        expect(made.ended).toBe(end < 0 ? 'length' : 'stop');
        expect(made.entropyNats).toEqual(free[p][s].entropyNats.slice(0, made.tokens.length));
      });
    });
    const ends = (p: number, s: number): number => ((3 * p + 5 * s) % 11) + 1;
    const told = await run({ ...SAMPLED, samples: 8, finished: (tokens, p, s) => tokens.length >= ends(p, s) });
    told.forEach((list, p) => {
      list.forEach((made, s) => {
        expect(made.tokens).toEqual(free[p][s].tokens.slice(0, ends(p, s)));
        expect(made.ended).toBe('finished');
      });
    });
  });

  it.each<SteeringPositions>([
    { kind: 'last' },
    { kind: 'generated' },
    { kind: 'all' },
    { kind: 'prompt' },
    { kind: 'from', position: 14 },
    { kind: 'mask', masks: [Uint8Array.of(0, 1, 1, 0, 0, 0, 1)] },
  ])('steers the positions $kind as a full pass with the mask does', async (positions) => {
    const engine = engineOf(model);
    const steering = addition(engine, 2, positions);
    const start = prompts[1];
    const [[plain]] = await run({ prompts: [start] });
    const [[made]] = await run({ prompts: [start], steering });
    expect(made.steered).toBe(true);
    expect(
      await run({ prompts: [start], steering: { ...steering, terms: [{ ...steering.terms[0], scale: 0 }] } }),
    ).toEqual([[{ ...plain, steered: true }]]);
    const whole = Int32Array.of(...start, ...made.tokens);
    const interventions = interventionsOf(steering, [{ prompt: 0, promptLength: start.length }]);
    const logits = await logitsOf(engine, whole, interventions, start.length - 1);
    const vocabulary = model.info.vocabularySize;
    made.tokens.forEach((token, i) => {
      const row = Array.from(logits.subarray(i * vocabulary, (i + 1) * vocabulary));
      expect(argmax(row)).toBe(token);
      const sum = row.reduce((total, x) => total + Math.exp(x - row[token]), 0);
      expect(Math.abs(made.surprisalNats[i] - Math.log(sum))).toBeLessThan(2e-5);
    });
  });

  it('keeps what was steered in the cache: a history computed anew is another method', async () => {
    const engine = engineOf(model);
    const steering = addition(engine, 2, { kind: 'last' });
    const start = prompts[1];
    const plain = (await run({ prompts: [start] }))[0][0];
    const made = (await run({ prompts: [start], steering }))[0][0];
    const at = made.tokens.length - 1;
    // Steering acts on every token, not on the first call alone.
    const whole = Int32Array.of(...start, ...made.tokens.slice(0, at));
    const once = { ...steering, positions: { kind: 'mask', masks: [onlyAt(start.length - 1)] } } as const;
    const [[first]] = await run({ prompts: [start], steering: once });
    expect(first.entropyNats[0]).toBe(made.entropyNats[0]);
    expect(first.entropyNats[1]).not.toBe(made.entropyNats[1]);
    expect(plain.entropyNats[0]).not.toBe(made.entropyNats[0]);
    const anew = { ...steering, positions: { kind: 'mask', masks: [onlyAt(whole.length - 1)] } } as const;
    const [[recomputed]] = await run({ prompts: [whole], maxNewTokens: 1, steering: anew });
    expect(Math.abs(recomputed.entropyNats[0] - made.entropyNats[at])).toBeGreaterThan(1e-4);
  });

  it('steers the prompts that pass the condition of a plan', async () => {
    const engine = engineOf(model);
    const { vector, ...plan } = addition(engine, 4, { kind: 'all' }, 1);
    const condition = { layer: 2, vector, threshold: 0, comparison: '>', read: 'mean' } as const;
    const plain = await run({});
    const steered = await run({ steering: plan });
    const chosen = await run({ steering: { ...plan, condition } });
    const inverse = await run({ steering: { ...plan, condition: { ...condition, comparison: '<' } } });
    chosen.forEach(([made], p) => {
      expect(made).toEqual(made.steered ? steered[p][0] : plain[p][0]);
      expect(inverse[p][0].steered).toBe(!made.steered);
    });
  });

  it('generates in double precision, where caches grow', async () => {
    const exact = await openLanguageModel('fixtures/models/llama-sotu', { ...OPTIONS, precision: 'f64' });
    const request = { ...GREEDY, ...SAMPLED, maxNewTokens: 8, prompts: prompts.slice(0, 3), samples: 3 };
    const whole = await generate(exact, request);
    const cut = await generate(exact, { ...request, finished: (tokens, p, s) => tokens.length >= 2 + 2 * s + p });
    cut.forEach((list, p) => {
      list.forEach((made, s) => {
        expect(made.tokens).toEqual(whole[p][s].tokens.slice(0, 2 + 2 * s + p));
        expect(made.surprisalNats).toEqual(whole[p][s].surprisalNats.slice(0, 2 + 2 * s + p));
      });
    });
    await exact.close();
  });

  it('refuses what makes no sense in one line', async () => {
    const engine = engineOf(model);
    const steering = addition(engine, 1, { kind: 'last' });
    const [term] = steering.terms;
    for (const request of [
      { plan: { steps: [{ kind: 'temperature', temperature: -1 }] } },
      { maxNewTokens: 0 },
      { samples: 0 },
      { prompts: [new Int32Array(0)] },
      { steering: { ...steering, terms: [{ ...term, layer: 4 }] } },
      { steering: { ...steering, terms: [{ ...term, vector: new Float32Array(64) }] } },
      { steering: { ...steering, terms: [{ ...term, scale: Number.NaN }] } },
      { steering: { ...steering, terms: [{ ...term, vector: term.vector.map(() => Number.NaN) }] } },
    ] satisfies Partial<GenerationRequest>[]) {
      await expect(run(request)).rejects.toThrow(InputError);
    }
    await expect(run({ prompts: [Int32Array.of(1_000_000)] })).rejects.toThrow(/vocabulary/);
  });
});

function onlyAt(position: number): Uint8Array {
  const mask = new Uint8Array(position + 1);
  mask[position] = 1;
  return mask;
}

async function logitsOf(engine: Engine, window: Int32Array, interventions: Intervention[], from: number) {
  const groups = await engine.forward({ windows: [window], interventions });
  const rows = gatherRows(groups, engine.model.hiddenSize, [[from, window.length - 1]]);
  await engine.normalize(rows);
  return engine.logits(rows);
}
