import { describe, expect, it } from 'vitest';
import { InputError } from '../../../src/errors.js';
import { ares } from '../../../src/policy/interventions/ares.js';
import { cure } from '../../../src/policy/interventions/cure.js';
import { empg } from '../../../src/policy/interventions/empg.js';
import { hardnessWeights } from '../../../src/policy/interventions/hardness-weights.js';
import { pear } from '../../../src/policy/interventions/pear.js';
import { recentSamples } from '../../../src/policy/interventions/recent-samples.js';
import { completeSettings } from '../../../src/policy/interventions/settings.js';
import { targetedEntropy } from '../../../src/policy/interventions/targeted-entropy.js';
import type {
  Intervention,
  InterventionContext,
  InterventionSettings,
  PolicyEffect,
} from '../../../src/policy/interventions/types.js';
import { stepOfArrays } from '../../../src/policy/rollouts/array-step.js';
import type { RolloutIndex, RolloutStep, TokenBlock } from '../../../src/policy/rollouts/types.js';

const WORDS = ['wait', ' but', 'x', ' sum', '<|end|>', ' so'];
const LENGTH = 8;
const RECORDS = 4;
const n = LENGTH * RECORDS;
const nan = Number.NaN;

/** Two groups of two responses, one right and one wrong in each; every third token is masked out and holds NaN. */
function example(): { step: RolloutStep; index: RolloutIndex; context: InterventionContext } {
  const mask = Uint8Array.from({ length: n }, (_, i) => (i % 3 === 2 ? 0 : 1));
  const masked = (of: (i: number) => number): Float64Array => Float64Array.from(mask, (one, i) => (one ? of(i) : nan));
  const offsets = Int32Array.from({ length: RECORDS + 1 }, (_, r) => r * LENGTH);
  const ids = Int32Array.from({ length: n }, (_, i) => (i * 7) % WORDS.length);
  const top = Int32Array.from({ length: 2 * n }, (_, i) => (i * 5) % WORDS.length);
  const logProbs = Float64Array.from({ length: 2 * n }, (_, i) =>
    mask[i >> 1] ? Math.log(i % 2 === 0 ? 0.5 + ((i >> 1) % 5) / 20 : 0.2) : nan,
  );
  const correct = Float64Array.of(1, 0, 0, 1);
  const advantage = Float64Array.from(correct, (one) => (one === 1 ? Math.SQRT1_2 : -Math.SQRT1_2));
  const logProb = masked((i) => -0.3 - (i % 4) / 10);
  const step = stepOfArrays({
    offsets,
    mask,
    columns: {
      tokens: ids,
      textIds: ids,
      logProb,
      oldLogProb: masked((i) => -0.3 - (i % 5) / 10),
      referenceLogProb: masked((i) => -0.35 - (i % 4) / 10),
      entropy: masked((i) => 0.2 + ((i * 13) % 11) / 5),
      advantage: masked((i) => advantage[Math.floor(i / LENGTH)]),
      topTokens: { k: 2, ids: top, logProbs },
    },
  });
  const index: RolloutIndex = {
    records: RECORDS,
    step: new Float64Array(RECORDS),
    group: Int32Array.of(0, 0, 1, 1),
    groups: 2,
    promptIds: ['a', 'b'],
    length: new Int32Array(RECORDS).fill(LENGTH),
    counted: new Int32Array(RECORDS).fill(5),
    reward: correct,
    correct,
    advantage,
    thinkEnd: Int32Array.of(4, 4, -1, 6),
    thinkMarkerStart: Int32Array.of(3, 4, -1, 6),
    stepSpans: [0, 1, 2, 3].map(() => Int32Array.of(0, 3, 3, 8)),
  };
  return { step, index, context: { index, seed: 4, textOf: (id) => WORDS[id], textOfToken: (id) => WORDS[id] } };
}

/** The same step in one block a record. */
function inPieces(step: RolloutStep): RolloutStep {
  const [whole] = [...step.blocks()];
  const cut = <A extends Float64Array | Int32Array | Uint8Array>(values: A | undefined, r: number, width = 1) =>
    values?.slice(r * LENGTH * width, (r + 1) * LENGTH * width) as A;
  const blocks = Array.from({ length: RECORDS }, (_, r): TokenBlock => {
    const { topTokens } = whole;
    return {
      records: Int32Array.of(r),
      offsets: Int32Array.of(0, LENGTH),
      firstToken: r * LENGTH,
      mask: cut(whole.mask, r),
      tokens: cut(whole.tokens, r),
      textIds: cut(whole.textIds, r),
      logProb: cut(whole.logProb, r),
      oldLogProb: cut(whole.oldLogProb, r),
      referenceLogProb: cut(whole.referenceLogProb, r),
      entropy: cut(whole.entropy, r),
      advantage: cut(whole.advantage, r),
      ...(topTokens && { topTokens: { k: 2, ids: cut(topTokens.ids, r, 2), logProbs: cut(topTokens.logProbs, r, 2) } }),
    };
  });
  return { ...step, blocks: () => blocks };
}

const ARRAYS = ['advantage', 'multiplier', 'penalty', 'penaltyGradient', 'entropyGradient', 'touched'] as const;

function effectOf(step: RolloutStep, method: Intervention, given: InterventionSettings, context: InterventionContext) {
  const prepared = method.prepare(step, completeSettings(method, given), context);
  return { prepared, effects: [...step.blocks()].map((block) => prepared.effect(block)) };
}

const joined = (effects: readonly PolicyEffect[], name: (typeof ARRAYS)[number]): number[] =>
  effects.flatMap((effect) => [...(effect[name] ?? [])]);

const CASES: readonly (readonly [Intervention, InterventionSettings])[] = [
  [pear, {}],
  [ares, {}],
  [ares, { variant: 'paper', window: 2 }],
  [empg, {}],
  [cure, {}],
  [cure, { order: 'random', 'top-k': 2 }],
  [targetedEntropy, {}],
  [hardnessWeights, {}],
  [recentSamples, { batch: 1 }],
];

describe.each(CASES)('$name', (method, given) => {
  it('never lets out what is masked out, nor depends on blocks', () => {
    const { step, context } = example();
    const whole = effectOf(step, method, given, context);
    const pieces = effectOf(inPieces(step), method, given, context);
    const [{ mask }] = [...step.blocks()];
    for (const name of ARRAYS) {
      const values = joined(whole.effects, name);
      values.forEach((value, i) => {
        expect(Number.isFinite(value)).toBe(true);
        if (mask[i] === 0) expect(value).toBe(0);
      });
      expect(joined(pieces.effects, name)).toEqual(values);
    }
    expect(pieces.prepared.facts).toEqual(whole.prepared.facts);
  });
});

describe('effects', () => {
  it('of PEAR are the GRPO advantages of its rewards', () => {
    const { step, context } = example();
    const { prepared, effects } = effectOf(step, pear, {}, context);
    const reward = effects[0].reward ?? new Float64Array(0);
    expect(reward[1]).toBe(0);
    const half = (reward[0] - reward[1]) / 2;
    const expected = half / (Math.SQRT2 * Math.abs(half) + 1e-6);
    expect(effects[0].advantage?.[0]).toBeCloseTo(expected, 12);
    expect(prepared.facts.records_without_marker).toBe(1);
  });

  it('of ARES carry threshold, targets and controllers from step to step', () => {
    const { step, context } = example();
    const carried = {};
    const settings = { 'kl-interval': 1 };
    const first = effectOf(step, ares, settings, { ...context, carried }).prepared.facts;
    const second = effectOf(step, ares, settings, { ...context, carried }).prepared.facts;
    const alone = effectOf(step, ares, settings, context).prepared.facts;
    expect(alone).toEqual(first);
    expect(second.threshold_nats).toBeCloseTo(first.threshold_nats, 12);
    expect([first.kl_beta_medium, second.kl_beta_medium]).toEqual([1, expect.not.closeTo(1, 9)]);
  });

  it('of ARES take trigger words that are given', () => {
    const { step, context } = example();
    const facts = (words: string[]) =>
      effectOf(step, ares, { window: 1 }, { ...context, triggerWords: words }).prepared.facts;
    const none = facts(['nothing']);
    expect(none.valid_windows_mean + none.invalid_windows_mean).toBe(0);
    const all = facts(['wait', 'but', 'x', 'sum', '<|end|>', 'so']);
    expect(all.valid_windows_mean + all.invalid_windows_mean).toBeGreaterThan(0);
  });

  it('of CURE mark tokens with text and none that is special', () => {
    const { step, context } = example();
    const [{ touched }] = effectOf(step, cure, { 'clip-low': 0.2 }, context).effects;
    const [block] = [...step.blocks()];
    const fewer = effectOf(step, cure, {}, { ...context, specialTokens: [5] }).effects[0].touched;
    touched.forEach((one, i) => {
      const text = WORDS[block.tokens?.[i] ?? 0];
      if (text === ' so' && block.mask[i] === 1) expect(fewer[i]).toBe(0);
      if (one === 1) expect(['wait', ' but', ' sum', ' so']).toContain(text);
    });
  });

  it('of recent samples train later, or not at all, on groups that are not used', () => {
    const { step, index, context } = example();
    const right = { ...index, correct: Float64Array.of(1, 1, 0, 1) };
    const { effects, prepared } = effectOf(step, recentSamples, { batch: 1 }, { ...context, index: right });
    expect(effects[0].multiplier?.[0]).toBe(0);
    expect(effects[0].multiplier?.[2 * LENGTH]).toBe(1);
    expect(prepared.facts).toMatchObject({ groups_legitimate: 1, groups_used: 1, groups_dropped: 1 });
    const held = effectOf(step, recentSamples, { batch: 1 }, context).effects[0].multiplier ?? [];
    const [{ logProb = [], oldLogProb = [] }] = [...step.blocks()];
    const i = 2 * LENGTH;
    expect(held[i]).toBeCloseTo(Math.exp(Number(oldLogProb[i]) - Number(logProb[i])), 14);
    const corrected = effectOf(step, recentSamples, { batch: 1, importance: 'yes' }, context);
    expect(corrected.effects[0].multiplier?.[i]).toBe(1);
  });
});

describe('what a dump lacks is named with the way to give it', () => {
  const failing = (
    method: Intervention,
    given: InterventionSettings,
    change: (index: RolloutIndex) => RolloutIndex,
  ) => {
    const { step, index, context } = example();
    return () => effectOf(step, method, given, { ...context, index: change(index) });
  };
  const without = (key: keyof RolloutIndex) => (index: RolloutIndex) => ({ ...index, [key]: undefined });

  it('of records', () => {
    expect(failing(pear, {}, without('thinkEnd'))).toThrow(/--think-marker/);
    expect(failing(pear, {}, without('correct'))).toThrow(/--map correct=COLUMN/);
    expect(failing(empg, {}, without('stepSpans'))).toThrow(/--map step_spans=COLUMN/);
    expect(failing(ares, { buckets: 'dump' }, (index) => index)).toThrow(/--map difficulty=COLUMN/);
    expect(failing(ares, { window: 2.5 }, (index) => index)).toThrow(/whole number/);
    expect(failing(hardnessWeights, {}, (index) => ({ ...index, reward: Float64Array.of(0, 0.5, 1, 1) }))).toThrow(
      InputError,
    );
  });

  it('of tokens', () => {
    const { index, context } = example();
    const bare = stepOfArrays({
      offsets: Int32Array.of(0, 8, 16, 24, 32),
      columns: { entropyLower: new Float64Array(n).fill(0.4), advantage: new Float64Array(n) },
    });
    const run = (method: Intervention, given: InterventionSettings) => () =>
      effectOf(bare, method, given, { index, seed: context.seed });
    expect(run(pear, {})).toThrow(/truncated sum is no entropy.*entropy=lower/);
    expect(run(pear, { entropy: 'lower' })).not.toThrow();
    expect(run(pear, { entropy: 'upper' })).toThrow(/--vocab/);
    expect(run(cure, {})).toThrow(/--map token_text=COLUMN/);
    expect(run(ares, {})).toThrow(/trigger-token=sampled.*--map topk=COLUMN/);
    expect(run(ares, { variant: 'paper' })).not.toThrow();
  });
});
