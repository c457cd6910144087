import { describe, expect, it } from 'vitest';
import { InputError } from '../../../src/errors.js';
import { batchSize } from '../../../src/policy/aggregation.js';
import { tokenEntropyChanges } from '../../../src/policy/entropy-change-estimates.js';
import { clipCov, clipCovQuota, prepareClipCov } from '../../../src/policy/interventions/clip-cov.js';
import { adaptCoefficient, entropyBonus } from '../../../src/policy/interventions/entropy-bonus.js';
import {
  klCov,
  klCovCount,
  klPenalty,
  klPenaltyGradient,
  prepareKlCov,
} from '../../../src/policy/interventions/kl-cov.js';
import { findIntervention, INTERVENTIONS } from '../../../src/policy/interventions/registry.js';
import { kthLargest, scopeUnits, selectInScopes } from '../../../src/policy/interventions/scoped-selection.js';
import { completeSettings, parseMethod } from '../../../src/policy/interventions/settings.js';
import { prepareSteer, steer, steerWeights } from '../../../src/policy/interventions/steer.js';
import type { InterventionSettings } from '../../../src/policy/interventions/types.js';
import { blockObjective } from '../../../src/policy/objective.js';
import type { RolloutIndex, RolloutStep, TokenBlock } from '../../../src/policy/rollouts/types.js';
import { createRandom } from '../../../src/random.js';
import { randomStep } from '../random-steps.js';

const settingsOf = (name: string, given: InterventionSettings = {}): InterventionSettings =>
  completeSettings(findIntervention(name), given);

/** What `inspect` says of a step, blocks joined. */
function joined(step: RolloutStep, values: (block: TokenBlock) => ArrayLike<number>): number[] {
  return [...step.blocks()].flatMap((block) => Array.from(values(block)));
}

/** Positions of the k largest covariances of some tokens by sorting, the first of equal ones first. */
function topByHand(
  { block, index }: { block: TokenBlock; index: RolloutIndex },
  unitOf: (r: number) => number,
  f: number,
) {
  const { logProb = new Float64Array(), advantage = new Float64Array(), mask, offsets } = block;
  const units = new Map<number, number[]>();
  for (let r = 0; r < index.records; r++) {
    for (let i = offsets[r]; i < offsets[r + 1]; i++) {
      if (mask[i] === 1) units.set(unitOf(r), [...(units.get(unitOf(r)) ?? []), i]);
    }
  }
  const selected = new Set<number>();
  for (const tokens of units.values()) {
    const mean = (values: Float64Array) => tokens.reduce((sum, i) => sum + values[i], 0) / tokens.length;
    const [a, l] = [mean(advantage), mean(logProb)];
    const c = (i: number) => (advantage[i] - a) * (logProb[i] - l);
    const k = Math.max(1, Math.floor(f * tokens.length));
    for (const i of [...tokens].sort((x, y) => c(y) - c(x) || x - y).slice(0, k)) selected.add(i);
  }
  return selected;
}

describe('selection', () => {
  it('finds the k-th largest', () => {
    const random = createRandom(5);
    for (let n = 1; n < 60; n++) {
      const values = Float64Array.from({ length: n }, () => random.integer(9));
      const sorted = [...values].sort((a, b) => b - a);
      const k = 1 + random.integer(n);
      expect(kthLargest(values.slice(), k)).toBe(sorted[k - 1]);
    }
  });
});

describe('selection in scopes', () => {
  it('takes the same tokens whatever may be held in memory', () => {
    const { pieces, index } = randomStep({ seed: 21, records: 6, longest: 6, decimals: 0 });
    const score = (block: TokenBlock, out: Float64Array): void => {
      block.mask.forEach((one, i) => {
        out[i] = one === 1 ? (block.logProb?.[i] ?? 0) : Number.NaN;
      });
    };
    for (const scope of ['batch', 'group', 'record'] as const) {
      const units = scopeUnits(pieces, scope, index);
      const wanted = units.counted.map((tokens) => Math.ceil(tokens / 3));
      const scores = { candidates: units.counted, score };
      const [all, ...others] = [1e6, 9, 2].map((held) => selectInScopes(pieces, units, scores, wanted, held));
      for (const other of others) {
        expect(other.threshold).toEqual(all.threshold);
        for (const block of pieces.blocks()) {
          block.records.forEach((record, r) => {
            for (let i = block.offsets[r]; i < block.offsets[r + 1]; i++) {
              const asked = [units.of(record), block.logProb?.[i] ?? 0, block.firstToken + i] as const;
              if (block.mask[i] === 1) expect(other.has(...asked)).toBe(all.has(...asked));
            }
          });
        }
      }
    }
  });
});

describe('KL-Cov', () => {
  it.each(['batch', 'group', 'record'])('takes the tokens that sorting takes, scope %s', (scope) => {
    for (let seed = 0; seed < 12; seed++) {
      const random = randomStep({ seed, records: 8 });
      const fraction = [0.01, 0.2, 1][seed % 3];
      const settings = settingsOf('kl-cov', { fraction, scope });
      const unitOf = (r: number) => (scope === 'batch' ? 0 : scope === 'group' ? random.index.group[r] : r);
      const expected = topByHand(random, unitOf, fraction);
      for (const step of [random.step, random.pieces]) {
        const prepared = prepareKlCov(step, settings, { index: random.index, seed: 0 });
        const selected = joined(step, (block) => prepared.inspect(block).selected);
        expect(new Set(selected.flatMap((one, i) => (one === 1 ? [i] : [])))).toEqual(expected);
        expect(prepared.facts.selected).toBe(expected.size);
      }
    }
  });

  it('breaks ties by position, in every cut into blocks', () => {
    // Equal rows: all covariances within a row tie, and rows come in equal pairs.
    const columns = { logProb: new Float64Array(12).fill(-1), advantage: new Float64Array(12).fill(1) };
    columns.logProb.fill(-2, 6);
    columns.advantage.fill(-1, 6);
    const part = (from: number, to: number): TokenBlock => ({
      records: Int32Array.of(from / 6),
      offsets: Int32Array.of(0, to - from),
      firstToken: from,
      mask: new Uint8Array(to - from).fill(1),
      logProb: columns.logProb.subarray(from, to),
      oldLogProb: columns.logProb.subarray(from, to),
      advantage: columns.advantage.subarray(from, to),
    });
    const blocks = [part(0, 6), part(6, 12)];
    const step: RolloutStep = { step: 0, records: Int32Array.of(0, 1), tokens: 12, counted: 12, blocks: () => blocks };
    const index = {
      ...randomStep({ seed: 1, records: 2 }).index,
      counted: Int32Array.of(6, 6),
      length: Int32Array.of(6, 6),
    };
    const prepared = prepareKlCov(step, settingsOf('kl-cov', { fraction: 8 / 12 }), { index, seed: 0 });
    expect(joined(step, (block) => prepared.inspect(block).selected)).toEqual([1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]);
  });

  it('counts as published in percent and as a fraction, and refuses both', () => {
    expect(klCovCount(1000, 0, 0.2)).toBe(2);
    expect(klCovCount(7, 0.002, 0)).toBe(1);
    expect(klCovCount(100, 0, 29)).toBe(29);
    expect(() => completeSettings(klCov, { fraction: 0.1, percent: 10 })).toThrow(/fraction and percent say the same/);
  });

  it('has penalties with their derivatives', () => {
    for (const kind of ['abs', 'k2', 'k3'] as const) {
      for (const d of [-1.3, -0.01, 0.4, 2]) {
        const h = 1e-6;
        const slope = (klPenalty(kind, d + h) - klPenalty(kind, d - h)) / (2 * h);
        expect(slope).toBeCloseTo(klPenaltyGradient(kind, d), 7);
        expect(klPenalty(kind, d)).toBeGreaterThan(0);
      }
      expect(klPenaltyGradient(kind, 0)).toBe(0);
    }
  });

  it('warns where the policy is the one that sampled, and where one token is too many', () => {
    const { step, index, block } = randomStep({ seed: 2, onPolicy: true });
    const prepared = klCov.prepare(step, settingsOf('kl-cov', { fraction: 2e-4 }), { index, seed: 0 });
    expect(prepared.warnings.join()).toMatch(/plain policy gradient.*more than five times the fraction 0.0002/);
    const batch = batchSize(block.offsets, block.mask);
    const plain = findIntervention('grpo').prepare(step, settingsOf('grpo'), { index, seed: 0 });
    expect(blockObjective(block, prepared.effect(block), batch).gradient).toEqual(
      blockObjective(block, plain.effect(block), batch).gradient,
    );
  });
});

describe('Clip-Cov', () => {
  const given = { ratio: 0.1, lower: -0.2, upper: 3 };

  it('chooses eligible tokens alone, as many as the quota, whatever the blocks', () => {
    for (let seed = 0; seed < 20; seed++) {
      const { step, pieces, index } = randomStep({ seed, records: 9 });
      for (const scope of ['batch', 'group', 'record']) {
        const settings = settingsOf('clip-cov', { ...given, scope });
        const [whole, cut] = [step, pieces].map((one) => {
          const prepared = prepareClipCov(one, settings, { index, seed: 11 });
          expect(prepared.facts.chosen).toBe(prepared.chosen);
          const tokens = [...one.blocks()].map((block) => prepared.inspect(block));
          const chosen = tokens.flatMap((part) => Array.from(part.chosen));
          const eligible = tokens.flatMap((part) => Array.from(part.eligible));
          expect(chosen.every((value, i) => value <= eligible[i])).toBe(true);
          expect(chosen.reduce((sum, value) => sum + value, 0)).toBe(prepared.chosen);
          return chosen;
        });
        expect(cut).toEqual(whole);
      }
    }
  });

  it('draws uniformly, by the seed', () => {
    const { step, block, index } = randomStep({ seed: 8, records: 4 });
    const settings = settingsOf('clip-cov', { ...given, ratio: 0.2 });
    const counts = new Float64Array(block.mask.length);
    const draws = 3000;
    const first = prepareClipCov(step, settings, { index, seed: 0 });
    const { eligible } = first.inspect(block);
    for (let seed = 0; seed < draws; seed++) {
      prepareClipCov(step, settings, { index, seed })
        .inspect(block)
        .chosen.forEach((one, i) => {
          counts[i] += one;
        });
    }
    const share = first.chosen / first.eligible;
    const deviation = Math.sqrt(draws * share * (1 - share));
    for (let i = 0; i < counts.length; i++) {
      if (eligible[i] === 1) expect(Math.abs(counts[i] - draws * share)).toBeLessThan(4.5 * deviation);
      else expect(counts[i]).toBe(0);
    }
  });

  it('has one gradient in both variants, and keeps the loss of detached tokens in the paper’s', () => {
    const { step, block, index } = randomStep({ seed: 4 });
    const batch = batchSize(block.offsets, block.mask);
    const objectives = ['code', 'paper'].map((variant) => {
      const prepared = prepareClipCov(step, settingsOf('clip-cov', { ...given, variant }), { index, seed: 3 });
      return blockObjective(block, prepared.effect(block), batch);
    });
    const untouched = prepareClipCov(step, settingsOf('clip-cov', given), { index, seed: 3 }, []);
    expect(objectives[1].gradient.map(Math.abs)).toEqual(objectives[0].gradient.map(Math.abs));
    expect(objectives[0].loss).not.toBeCloseTo(objectives[1].loss, 6);
    expect(objectives[1].loss).toBeCloseTo(blockObjective(block, untouched.effect(block), batch).loss, 13);
  });

  it('has a quota of at least one, and says where nothing lies between the bounds', () => {
    expect(clipCovQuota(100, 2e-4)).toBe(1);
    expect(clipCovQuota(20_000, 2e-4)).toBe(4);
    const { step, index } = randomStep({ seed: 4 });
    const { warnings } = clipCov.prepare(step, settingsOf('clip-cov', { lower: 90, upper: 91 }), { index, seed: 0 });
    expect(warnings.join()).toMatch(/more than five times.*no covariance lies between 90 and 91/);
  });
});

describe('STEER', () => {
  it('maps metrics to weights', () => {
    const linear = { kind: 'linear', least: 0.8, most: 1.2 } as const;
    expect(steerWeights(linear, 1, 3)(1)).toBe(1.2);
    expect(steerWeights(linear, 1, 3)(3)).toBeCloseTo(0.8, 14);
    expect(steerWeights(linear, 2, 2)(2)).toBe(1);
    expect(steerWeights({ kind: 'exp', least: 0.5 }, 0, 4)(4)).toBeCloseTo(0.5, 14);
    expect(steerWeights({ kind: 'exp', least: 0.5 }, 0, 0.002)(0.001)).toBeGreaterThan(0.96);
    expect(steerWeights({ kind: 'exp', least: 0.5 }, 0, 4)(0)).toBe(1);
  });

  it('predicts the direction of nearly every exact change of a random softmax, not its size', () => {
    const rows = 600;
    const vocabulary = 9;
    const random = createRandom(17);
    const logits = Float64Array.from({ length: rows * vocabulary }, () => 1.5 * random.normal());
    const token = Int32Array.from({ length: rows }, () => random.integer(vocabulary));
    const advantage = Float64Array.from({ length: rows }, () => random.normal());
    const old = Float64Array.from({ length: rows }, (_, r) => {
      const z = logits.subarray(r * vocabulary, (r + 1) * vocabulary);
      return Math.exp(z[token[r]]) / z.reduce((sum, value) => sum + Math.exp(value), 0);
    });
    const changes = tokenEntropyChanges(logits, token, advantage, old, 1e-5);
    let agree = 0;
    for (let r = 0; r < rows; r++) {
      expect(changes.exactChange[r]).toBeCloseTo(changes.exactFirstOrder[r], 8);
      if (Math.sign(-changes.omega[r]) === Math.sign(changes.exactChange[r])) agree++;
      expect(Math.sign(-changes.omega[r])).toBe(Math.sign(changes.singleLogit[r]));
    }
    // 26 of 27 in the published comparison.
    expect(agree / rows).toBeGreaterThan(0.9);
    expect(agree / rows).toBeLessThan(1);
  });

  it('counts quadrants, clamped tokens and its own exact estimate; facts do not depend on blocks', () => {
    const { step, pieces, index, block } = randomStep({ seed: 9, records: 10 });
    for (const estimator of ['steer', 'single-logit', 'exact']) {
      const [whole, cut] = [step, pieces].map((one) =>
        prepareSteer(one, settingsOf('steer', { estimator }), { index, seed: 0 }),
      );
      expect(cut.facts).toEqual(whole.facts);
      const omegas = whole.omegas(block);
      expect(whole.facts.metric_largest).toBe(omegas.reduce((most, omega) => Math.max(most, Math.abs(omega)), 0));
      const change = omegas.reduce((sum, omega) => sum - omega, 0);
      expect(whole.facts.predicted_entropy_change_sum).toBeCloseTo(change, 12);
      const shares = ['raised_likely', 'raised_unlikely', 'lowered_likely', 'lowered_unlikely'];
      expect(shares.reduce((sum, name) => sum + whole.facts[`${name}_share`], 0)).toBeCloseTo(1, 12);
      const weights = whole.weights(block);
      expect(weights.every((weight, i) => (block.mask[i] === 1 ? weight >= 0.8 && weight <= 1 : weight === 0))).toBe(
        true,
      );
    }
    const old = Float64Array.from(block.oldLogProb ?? []).fill(-20, 0, 1);
    const rare = { ...step, blocks: () => [{ ...block, oldLogProb: old }] };
    expect(prepareSteer(rare, settingsOf('steer'), { index, seed: 0 }).warnings.join()).toMatch(/^1 tokens had a/);
  });

  it('refuses what it cannot weigh', () => {
    const { step, block, index } = randomStep({ seed: 9 });
    const masked: RolloutStep = { ...step, counted: 0 };
    const context = { index, seed: 0 };
    expect(() => prepareSteer(masked, settingsOf('steer'), context)).toThrow(/no valid tokens/);
    const { topTokens, entropy, ...bare } = block;
    const without = (one: TokenBlock): RolloutStep => ({ ...step, blocks: () => [one] });
    expect(() => prepareSteer(without({ ...bare, topTokens }), settingsOf('steer'), context)).toThrow(
      /entropies over the/,
    );
    const exact = settingsOf('steer', { estimator: 'exact' });
    expect(() => prepareSteer(without({ ...bare, entropy }), exact, context)).toThrow(/likeliest tokens/);
    expect(() => steer.prepare(step, settingsOf('steer', { 'weight-min': 2 }), context)).toThrow(/at most 1/);
  });
});

describe('entropy bonus', () => {
  const { step, block, index } = randomStep({ seed: 6, records: 8 });

  it('lowers the loss by the coefficient times the mean entropy', () => {
    const { effect, facts } = entropyBonus.prepare(step, settingsOf('entropy-bonus', { coefficient: 0.3 }), {
      index,
      seed: 0,
    });
    const { entropyGradient = new Float64Array() } = effect(block);
    let term = 0;
    for (let i = 0; i < entropyGradient.length; i++) {
      if (block.mask[i] === 0) expect(entropyGradient[i]).toBe(0);
      else term += entropyGradient[i] * (block.entropy?.[i] ?? 0);
    }
    expect(term).toBeCloseTo(-0.3 * facts.entropy_mean_nats, 13);
    expect(facts.bonus_entropy_change_per_coefficient_nats).toBeGreaterThan(0);
  });

  it('follows TRL’s adaptive coefficient from step to step', () => {
    const rule = { target: 0.2, delta: 0.005, least: 0, most: 1 };
    const first = adaptCoefficient({ coefficient: 0.1, lastEntropy: Number.NaN }, 0.1, rule);
    expect(first.used).toBe(0);
    expect(first.next.coefficient).toBeCloseTo(0.105, 15);
    const second = adaptCoefficient(first.next, 0.5, rule);
    expect(second.used).toBeCloseTo(0.105, 15);
    expect(second.next.coefficient).toBeCloseTo(0.1, 15);
    expect(adaptCoefficient({ coefficient: 0, lastEntropy: 1 }, 1, rule).next.coefficient).toBe(0);
    const settings = settingsOf('entropy-bonus', { schedule: 'adaptive', coefficient: 0.1, target: 9 });
    const carried = {};
    const used = [0, 1, 2].map(
      () => entropyBonus.prepare(step, settings, { index, seed: 0, carried }).facts.coefficient,
    );
    expect(used[0]).toBe(0);
    expect(used[1]).toBeCloseTo(0.105, 15);
    expect(used[2]).toBeCloseTo(0.11, 15);
  });
});

describe('settings', () => {
  it('are read from name:key=value,...', () => {
    expect(parseMethod('kl-cov:fraction=0.02,scope=group')).toEqual({
      name: 'kl-cov',
      settings: { fraction: '0.02', scope: 'group' },
    });
    expect(completeSettings(klCov, { fraction: '0.02' }).fraction).toBe(0.02);
  });

  it.each([
    ['kl-cov:fraktion=1', /no setting "fraktion"; did you mean "fraction"/],
    ['kl-cov:fraction=x', /fraction is "x", which is not a number/],
    ['kl-cov:fraction=2', /between 0 and 1/],
    ['kl-cov:scope=bath', /did you mean "batch"/],
    ['kl-cov:fraction', /not key=value/],
    ['kl-cov:beta=1,beta=2', /beta is given twice/],
    ['klcov', /no intervention "klcov"; did you mean "kl-cov"/],
  ])('%s is refused', (text, message) => {
    const read = () => {
      const { name, settings } = parseMethod(text);
      completeSettings(findIntervention(name), settings);
    };
    expect(read).toThrow(InputError);
    expect(read).toThrow(message);
  });

  it('have initial values that are allowed', () => {
    for (const intervention of INTERVENTIONS) {
      const initial = completeSettings(intervention);
      const single = Object.fromEntries(
        Object.entries(initial).filter(([name]) => !(intervention.exclusive ?? []).some((pair) => pair[1] === name)),
      );
      expect(completeSettings(intervention, single)).toEqual(initial);
    }
  });
});
