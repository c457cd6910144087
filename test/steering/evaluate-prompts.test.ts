import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openPromptCache } from '../../src/decoding/prompt-cache.js';
import { interventionsOf, type SteeringPlan } from '../../src/decoding/steering-plan.js';
import { gatherRows } from '../../src/models/gather-rows.js';
import { type LanguageModel, openLanguageModel, type PositionRange } from '../../src/models/language-model.js';
import { openModelTokenizer } from '../../src/models/model-tokenizer.js';
import { createRandom } from '../../src/random.js';
import { type EvaluationRequest, evaluateCells } from '../../src/steering/evaluate-prompts.js';
import { choiceOf, encodeForcedChoice, exactActionEntropy } from '../../src/steering/forced-choice.js';

const MODEL = 'fixtures/models/llama-sotu';
const tokenizer = openModelTokenizer(MODEL);
const PROMPTS = ['My fellow Americans, we must choose between', 'The state of the Union is'].map((text) =>
  tokenizer.encode(text),
);
const CHOICE = encodeForcedChoice(tokenizer, ' the', [' people.', ' world.', ' Congress.']);

let model: LanguageModel;
beforeAll(async () => {
  model = await openLanguageModel(MODEL, {
    threads: 2,
    maxMemoryBytes: 2 ** 33,
    device: 'cpu',
    precision: 'f32',
    context: 256,
  });
});
afterAll(() => model.close());

const random = createRandom(1);
const vector = Float32Array.from({ length: 128 }, () => random.normal());
const steering = (scale: number): SteeringPlan => ({
  terms: [{ layer: 1, operator: 'add', vector, scale }],
  positions: { kind: 'last' },
});

/** The definition: every action's string is run whole, without a cache. */
async function byDefinition(
  prompt: Int32Array,
  plan: SteeringPlan | undefined,
  temperature: number,
): Promise<number[]> {
  const { engine } = model;
  if (!engine) throw new Error('no layers');
  const sums: number[] = [];
  for (const action of CHOICE.actions) {
    const window = Int32Array.of(...prompt, ...CHOICE.thought, ...action);
    const steered = [{ prompt: 0, promptLength: prompt.length }];
    const groups = await engine.forward({
      windows: [window],
      ...(plan && { interventions: interventionsOf(plan, steered) }),
    });
    const from = prompt.length + CHOICE.thought.length - 1;
    const range: PositionRange = [from, from + action.length];
    const rows = gatherRows(groups, 128, [range]);
    await engine.normalize(rows);
    const logits = await engine.logits(rows);
    let sum = 0;
    action.forEach((token, i) => {
      const row = Array.from(logits.subarray(i * 1024, (i + 1) * 1024), (x) => x / temperature);
      const highest = Math.max(...row);
      sum += row[token] - highest - Math.log(row.reduce((s, x) => s + Math.exp(x - highest), 0));
    });
    sums.push(sum);
  }
  return sums;
}

describe('the exact choice', () => {
  it.each([
    ['without steering', undefined, 1],
    ['with steering', steering(4), 1],
    ['at another temperature', steering(-2), 1.7],
  ] as const)('is that of whole passes %s', async (_name, plan, temperature) => {
    const cache = await openPromptCache(model, PROMPTS[0], 64, plan);
    const { thought, actions } = CHOICE;
    const choice = await exactActionEntropy(cache, thought, actions, plan, temperature);
    const expected = await byDefinition(PROMPTS[0], plan, temperature);
    expected.forEach((log, a) => {
      expect(Math.abs(choice.logProbabilities[a] - log)).toBeLessThan(2e-4);
    });
    const weights = expected.map(Math.exp);
    const total = weights.reduce((a, b) => a + b, 0);
    const entropy = -weights.reduce((sum, w) => sum + (w / total) * Math.log(w / total), 0);
    expect(Math.abs(choice.entropyNats - entropy)).toBeLessThan(1e-4);
    expect(Math.abs(choice.mass / total - 1)).toBeLessThan(1e-3);
  });

  it('does not underflow where every action is unlikely', () => {
    const { probabilities, entropyNats, mass } = choiceOf(Float64Array.of(-2000, -2000 - Math.log(3)));
    expect(probabilities[0]).toBeCloseTo(0.75, 12);
    expect(entropyNats).toBeCloseTo(0.5623351446, 9);
    expect(mass).toBe(0);
  });

  it('splits thought and actions where tokens meet', () => {
    const joined = encodeForcedChoice(tokenizer, 'I choose', [' Button 1.', ' Button 2.']);
    joined.actions.forEach((action, a) => {
      expect(tokenizer.decode([...joined.thought, ...action])).toBe(`I choose Button ${a + 1}.`);
    });
    expect(() => encodeForcedChoice(tokenizer, '', ['go', 'go on'])).toThrow(/beginning of/);
    expect(() => encodeForcedChoice(tokenizer, '', ['go'])).toThrow(/only action/);
  });
});

const SAMPLING = {
  samples: 6,
  plan: { steps: [] },
  pattern: { source: '\\b(the|and)\\b', actions: ['the', 'and'] },
  maxNewTokens: 16,
  seed: 3,
};
const REQUEST: EvaluationRequest = { prompts: PROMPTS, choice: CHOICE, sampling: SAMPLING };

describe('cells of a sweep', () => {
  it('are what each cell gives alone, and leave no trace in each other', async () => {
    const cells = [{}, { steering: steering(3) }, { temperature: 1.5 }, { steering: steering(0) }];
    const together = await evaluateCells(model, tokenizer, REQUEST, cells);
    for (const [c, cell] of cells.entries()) {
      const [alone] = await evaluateCells(model, tokenizer, REQUEST, [cell]);
      alone.forEach((one, p) => {
        expect(one.sampled).toEqual(together[c][p].sampled);
        expect(Math.abs((one.exact?.entropyNats ?? 0) - (together[c][p].exact?.entropyNats ?? 1))).toBeLessThan(1e-5);
      });
    }
    const [plain, steered, hot, zero] = together;
    plain.forEach((one, p) => {
      expect(zero[p].sampled).toEqual(one.sampled);
      expect(Math.abs(zero[p].guards.firstTokenKlNats)).toBeLessThan(1e-6);
      expect(one.guards.firstTokenKlNats).toBe(0);
      expect(steered[p].guards.firstTokenKlNats).toBeGreaterThan(0);
      expect(hot[p].guards.firstTokenKlNats).toBeGreaterThan(0);
      expect(hot[p].exact?.entropyNats).toBeGreaterThan(one.exact?.entropyNats ?? Number.NaN);
      expect(steered[p].exact?.entropyNats).not.toBe(one.exact?.entropyNats);
      expect(one.guards.replyNats).toBeGreaterThan(0);
      expect(one.guards.thoughtNats).toBeGreaterThan(0);
    });
  });

  it('counts what completions say', async () => {
    const [[{ sampled }]] = await evaluateCells(model, tokenizer, { ...REQUEST, prompts: [PROMPTS[1]] }, [{}]);
    if (!sampled) throw new Error('nothing was sampled');
    expect(sampled.completions).toHaveLength(6);
    const said = sampled.completions.map((text) => /\b(the|and)\b/i.exec(text)?.[1]?.toLowerCase() ?? null);
    expect(sampled.actions).toEqual(said.map((word) => (word === null ? null : word === 'the' ? 0 : 1)));
    expect(sampled.counts[0] + sampled.counts[1]).toBe(sampled.valid);
    expect(sampled.validShare).toBe(sampled.valid / 6);
  });

  it('gives a prompt of a list the mask of its place', async () => {
    const first = Uint8Array.from(PROMPTS[0], () => 0);
    const second = Uint8Array.from(PROMPTS[1], () => 1);
    const masked: SteeringPlan = { ...steering(3), positions: { kind: 'mask', masks: [first, second] } };
    const [plain] = await evaluateCells(model, tokenizer, { prompts: PROMPTS, choice: CHOICE }, [{}]);
    const [cell] = await evaluateCells(model, tokenizer, { prompts: PROMPTS, choice: CHOICE }, [{ steering: masked }]);
    expect(Math.abs((cell[0].exact?.entropyNats ?? 0) - (plain[0].exact?.entropyNats ?? 1))).toBeLessThan(1e-5);
    expect(Math.abs((cell[1].exact?.entropyNats ?? 0) - (plain[1].exact?.entropyNats ?? 0))).toBeGreaterThan(1e-4);
  });
});
