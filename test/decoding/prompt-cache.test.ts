import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openPromptCache } from '../../src/decoding/prompt-cache.js';
import { interventionsOf, type SteeringPlan, type SteeringPositions } from '../../src/decoding/steering-plan.js';
import { InputError } from '../../src/errors.js';
import { gatherRows } from '../../src/models/gather-rows.js';
import { type LanguageModel, openLanguageModel } from '../../src/models/language-model.js';
import { createRandom } from '../../src/random.js';

const OPTIONS = { threads: 2, maxMemoryBytes: 2 ** 32, device: 'cpu', precision: 'f32', context: 64 } as const;

const POSITIONS: readonly SteeringPositions[] = [
  { kind: 'last' },
  { kind: 'generated' },
  { kind: 'all' },
  { kind: 'prompt' },
  { kind: 'from', position: 3 },
  { kind: 'mask', masks: [new Uint8Array(0), Uint8Array.of(0, 1, 1, 0, 0, 0, 1, 0, 1, 0, 1)] },
];

describe.each(['models/llama-sotu', 'models/qwen2-moby', 'architectures/gpt2', 'architectures/gemma3', 'f64'])(
  'prompt cache of %s',
  (name) => {
    let model: LanguageModel;
    let tokens: (length: number) => Int32Array;
    beforeAll(async () => {
      const precision = name === 'f64' ? 'f64' : 'f32';
      model = await openLanguageModel(`fixtures/${name === 'f64' ? 'models/llama-sotu' : name}`, {
        ...OPTIONS,
        precision,
      });
      const random = createRandom(3);
      tokens = (length) => Int32Array.from({ length }, () => random.integer(model.info.vocabularySize));
    });
    afterAll(() => model.close());

    /** ln p of every token of a continuation, from one pass over everything. */
    const whole = async (prompt: Int32Array, continuation: Int32Array, steering?: SteeringPlan): Promise<number[]> => {
      if (!model.engine) throw new Error('no engine');
      const { engine } = model;
      const window = Int32Array.of(...prompt, ...continuation);
      const interventions = steering ? interventionsOf(steering, [{ prompt: 1, promptLength: prompt.length }]) : [];
      const groups = await engine.forward({ windows: [window], interventions });
      const rows = gatherRows(groups, engine.model.hiddenSize, [[prompt.length - 1, window.length - 1]]);
      await engine.normalize(rows);
      const request = { topK: 0, renyiOrders: [] };
      return Array.from((await engine.statistics(rows, continuation, request)).surprisalNats, (x) => -x);
    };
    const expectClose = (found: ArrayLike<number>, wanted: ArrayLike<number>): void => {
      expect(found.length).toBe(wanted.length);
      for (let i = 0; i < wanted.length; i++) expect(Math.abs(found[i] - wanted[i])).toBeLessThan(3e-5);
    };
    /** In double precision the runtime's products differ in the last bits with the rows that run together. */
    const expectSame = (found: Float64Array, wanted: Float64Array): void => {
      if (name !== 'f64') expect(found).toEqual(wanted);
      for (let i = 0; i < found.length; i++) expect(Math.abs(found[i] - wanted[i])).toBeLessThan(1e-12);
    };
    const plan = (scale: number, positions: SteeringPositions): SteeringPlan => {
      const vector = Float32Array.from(tokens(model.info.hiddenSize ?? 0), (x) => ((x % 200) - 100) / 100);
      return { terms: [{ layer: 1, operator: 'add', vector, scale }], positions };
    };

    it('scores as a full pass does, for all positions in any order, and comes back', async () => {
      const prompt = tokens(9);
      const thought = tokens(4);
      const joined = (...ids: number[]): Int32Array => Int32Array.of(...thought, ...ids);
      const continuations = [
        joined(5, 6, 7),
        joined(5, 6, 8),
        joined(9),
        joined(9, 3, 2, 1),
        Int32Array.of(4),
        joined(5, 6, 7),
      ];
      const cache = await openPromptCache(model, prompt, 12, undefined, 1);
      const unsteered = await cache.logProbabilities(continuations);
      for (const [i, continuation] of continuations.entries()) {
        expectClose(unsteered[i], await whole(prompt, continuation));
      }
      for (const positions of POSITIONS) {
        const steering = plan(3, positions);
        const steered = await cache.logProbabilities(continuations, steering);
        for (const [i, continuation] of continuations.entries()) {
          expectClose(steered[i], await whole(prompt, continuation, steering));
        }
        expect(await cache.logProbabilities(continuations)).toEqual(unsteered);
      }
      const actions = await cache.logProbabilities(continuations.slice(0, 3), undefined, thought.length);
      actions.forEach((row, i) => {
        expectSame(row, unsteered[i].slice(thought.length));
      });
    });

    it('reads the unsteered part once, whatever the strengths', async () => {
      const prompt = tokens(12);
      const { engine } = model;
      if (!engine) throw new Error('no engine');
      let read = 0;
      const counting: LanguageModel = {
        ...model,
        engine: {
          ...engine,
          forward: (request) => {
            read += request.windows.reduce((sum, window) => sum + window.length, 0);
            return engine.forward(request);
          },
        },
      };
      const positions = { kind: 'last' } as const;
      const cache = await openPromptCache(counting, prompt, 16, positions);
      const buttons = [Int32Array.of(7, 3, 1), Int32Array.of(7, 3, 2)];
      expect(read).toBe(11);
      for (const scale of [0, 1, 2, 4]) await cache.logProbabilities(buttons, plan(scale, positions));
      // The last token of the prompt and what both have in common: 3 tokens a strength.
      expect(read).toBe(11 + 4 * 3);
      await cache.extend(Int32Array.of(...prompt, ...tokens(5)));
      expect(read).toBeLessThanOrEqual(11 + 4 * 3 + 6);
    });

    it('goes on with longer, other and shorter prompts', async () => {
      const first = tokens(7);
      const cache = await openPromptCache(model, first, 8);
      const continuation = tokens(3);
      const steering = plan(2, { kind: 'last' });
      for (const prompt of [
        Int32Array.of(...first, ...tokens(1)),
        Int32Array.of(...first, ...tokens(20)),
        Int32Array.of(...first.slice(0, 4), ...tokens(5)),
        first.slice(0, 2),
        first.slice(0, 1),
        tokens(1),
        first,
      ]) {
        await cache.extend(prompt);
        expect(cache.prompt).toEqual(prompt);
        const fresh = await openPromptCache(model, prompt, 40);
        const found = await cache.logProbabilities([continuation, continuation.slice(0, 1)], steering);
        const anew = await fresh.logProbabilities([continuation, continuation.slice(0, 1)], steering);
        found.forEach((row, i) => {
          expectSame(row, anew[i]);
        });
        expectClose(found[0], await whole(prompt, continuation, steering));
        const logits = await cache.logits([continuation.slice(0, 0), continuation], steering);
        const vocabulary = model.info.vocabularySize;
        const row = Array.from(logits.subarray(0, vocabulary));
        const top = Math.max(...row);
        const sum = row.reduce((total, x) => total + Math.exp(x - top), 0);
        expect(Math.abs(row[continuation[0]] - top - Math.log(sum) - found[0][0])).toBeLessThan(1e-5);
        expect(logits.length).toBe(2 * vocabulary);
      }
    });

    it('refuses what it cannot score', async () => {
      await expect(openPromptCache(model, new Int32Array(0), 8)).rejects.toThrow(InputError);
      const cache = await openPromptCache(model, tokens(3), 8);
      await expect(cache.logProbabilities([new Int32Array(0)])).rejects.toThrow(/no tokens/);
      await expect(cache.logProbabilities([Int32Array.of(-1)])).rejects.toThrow(/vocabulary/);
      const steering = plan(1, { kind: 'last' });
      const wrong = { ...steering, terms: [{ ...steering.terms[0], layer: 99 }] };
      await expect(cache.logProbabilities([Int32Array.of(1)], wrong)).rejects.toThrow(/layer 99/);
    });
  },
);
