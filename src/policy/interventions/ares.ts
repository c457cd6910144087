import { BUCKETS, perBucket } from '../ares/difficulty.js';
import { controlKl, type KlControl, type KlTerm, lowVarianceKl } from '../ares/kl-controller.js';
import { addTo, createCompensatedSum, meanOf, totalOf } from '../compensated-sum.js';
import type { RolloutStep, TokenBlock } from '../rollouts/types.js';
import { type AresStep, aresStep, initialAres } from './ares-step.js';
import type { AresState } from './carried-state.js';
import {
  ADVANTAGE_PARAMETER,
  advantageEffect,
  advantageVariantOf,
  eachRecord,
  placeOf,
  placesOf,
  stepAdvantages,
  wholeSetting,
} from './record-effects.js';
import { aggregationOf, choiceSetting, LOSS_PARAMETERS, numberSetting, surrogateOf } from './settings.js';
import type { Intervention, InterventionContext, InterventionSettings, PolicyEffect } from './types.js';

function klControlOf(settings: InterventionSettings): KlControl {
  return { target: numberSetting(settings, 'kl-target'), interval: wholeSetting(settings, 'kl-interval', 'ares') };
}

/** Mean KL to the reference by bucket, nats a token; NaN for a bucket without tokens. */
function bucketKl(step: RolloutStep, { groups, groupBucket }: AresStep, places: ReadonlyMap<number, number>) {
  const sums = perBucket(() => ({ total: createCompensatedSum(), tokens: 0 }));
  for (const block of step.blocks()) {
    const { logProb, referenceLogProb } = block;
    if (logProb === undefined || referenceLogProb === undefined) return undefined;
    eachRecord(block, (record, from, to) => {
      const sum = sums[groupBucket[groups.group[placeOf(places, record)]]];
      for (let i = from; i < to; i++) {
        if (block.mask[i] === 0) continue;
        addTo(sum.total, lowVarianceKl(logProb[i], referenceLogProb[i]).value);
        sum.tokens++;
      }
    });
  }
  return perBucket((bucket) => totalOf(sums[bucket].total) / sums[bucket].tokens);
}

/** A step with the state behind it: tracked threshold, targets, weights, controllers of the KL. */
export function aresRound(
  step: RolloutStep,
  settings: InterventionSettings,
  context: InterventionContext,
  state: AresState,
  use?: Parameters<typeof aresStep>[4],
) {
  const result = aresStep(step, settings, context, state, use);
  const kl = bucketKl(step, result, placesOf(step));
  return { result, kl, next: controlled(result.state, kl, klControlOf(settings)) };
}

/** State of the controllers after a step: one call a bucket that has tokens, in the order of the buckets. */
function controlled(state: AresState, kl: ReturnType<typeof bucketKl>, control: KlControl): AresState {
  if (kl === undefined) return state;
  let calls = state.klCalls;
  const next = perBucket((bucket) =>
    Number.isNaN(kl[bucket]) ? state.kl[bucket] : controlKl(state.kl[bucket], kl[bucket], ++calls, control),
  );
  return { ...state, kl: next, klCalls: calls };
}

/** The KL penalty of a block: coefficient * beta_d * k3, times rho inside validated windows under the paper's variant. */
function klPenalty(
  block: TokenBlock,
  ares: AresStep,
  places: ReadonlyMap<number, number>,
  settings: InterventionSettings,
) {
  const { logProb, referenceLogProb, mask } = block;
  const coefficient = numberSetting(settings, 'kl-coefficient');
  if (coefficient === 0 || logProb === undefined || referenceLogProb === undefined) return undefined;
  const relax = ares.options.variant === 'paper' ? numberSetting(settings, 'kl-window-factor') : 1;
  const penalty = new Float64Array(mask.length);
  const penaltyGradient = new Float64Array(mask.length);
  eachRecord(block, (record, from, to) => {
    const bucket = ares.groupBucket[ares.groups.group[placeOf(places, record)]];
    const weight = coefficient * ares.state.kl[bucket].beta;
    const factor = new Float64Array(to - from).fill(weight);
    if (relax !== 1) {
      for (const [start, end] of ares.reader.windows(block, from, to, ares.threshold).windows)
        factor.fill(weight * relax, start, end);
    }
    for (let i = from; i < to; i++) {
      if (mask[i] === 0) continue;
      const term: KlTerm = lowVarianceKl(logProb[i], referenceLogProb[i]);
      penalty[i] = factor[i - from] * term.value;
      penaltyGradient[i] = factor[i - from] * term.gradient;
    }
  });
  return { penalty, penaltyGradient };
}

function withPenalty(effect: PolicyEffect, kl: ReturnType<typeof klPenalty>): PolicyEffect {
  if (kl === undefined) return effect;
  const touched = effect.touched.slice();
  for (let i = 0; i < touched.length; i++) if (kl.penalty[i] !== 0 || kl.penaltyGradient[i] !== 0) touched[i] = 1;
  return { ...effect, ...kl, touched };
}

/** Rewards by the number of high-entropy windows against a target of the prompt's difficulty, and a KL weight by difficulty. */
export const ares: Intervention = {
  name: 'ares',
  title: 'ARES / AEPO: window entropy by difficulty',
  reference:
    'ARES: Multimodal Adaptive Reasoning via Difficulty-Aware Token-Level Entropy Shaping (2025, arXiv 2510.08457); spec 4',
  needs: ['correct'],
  parameters: {
    variant: {
      kind: 'choice',
      initial: 'code',
      choices: ['code', 'paper'],
      help: 'the published code or the paper; they differ',
    },
    window: { kind: 'number', initial: 4, least: 1, help: 'tokens of a window (the paper: 4 to 8)' },
    percentile: {
      kind: 'number',
      initial: 95,
      least: 0,
      most: 100,
      help: 'percentile of a response that is its threshold',
    },
    threshold: { kind: 'number', initial: 0, least: 0, help: 'fixed threshold in nats; 0: from the dump' },
    'threshold-ema': {
      kind: 'number',
      initial: 0.99,
      least: 0,
      most: 1,
      help: 'share of the old threshold in the tracked one (code)',
    },
    'threshold-statistic': {
      kind: 'choice',
      initial: 'median',
      choices: ['median', 'mean'],
      help: 'how thresholds of responses become one (code; the first validation takes the mean)',
    },
    entropy: {
      kind: 'choice',
      initial: 'auto',
      choices: ['auto', 'topk', 'full', 'lower', 'upper'],
      help: 'auto: top-k with its tail where the code variant finds it, else full',
    },
    'trigger-token': {
      kind: 'choice',
      initial: 'top',
      choices: ['top', 'sampled'],
      help: 'whose text is a trigger: the likeliest token or the sampled one (code)',
    },
    buckets: {
      kind: 'choice',
      initial: 'accuracy',
      choices: ['accuracy', 'dump'],
      help: 'difficulty from group accuracy or the dump',
    },
    'target-ema': {
      kind: 'number',
      initial: 0,
      least: 0,
      most: 1,
      help: 'share of the old target in the new one; 0.9 is usual, 0 the code',
    },
    'kl-coefficient': {
      kind: 'number',
      initial: 0.01,
      least: 0,
      help: 'weight of the KL to the reference, where the dump has it',
    },
    'kl-target': { kind: 'number', initial: 0.01, least: 0, help: 'KL that the controllers aim at, nats a token' },
    'kl-interval': { kind: 'number', initial: 100, least: 1, help: 'calls between moves of a KL weight' },
    'kl-window-factor': {
      kind: 'number',
      initial: 0.5,
      least: 0,
      most: 1,
      help: 'KL weight inside validated windows (paper)',
    },
    'fork-budget': { kind: 'number', initial: 8, least: 0, help: 'fork points of a response that the details list' },
    'cold-start': {
      kind: 'number',
      initial: 8,
      least: 0,
      help: 'responses that the length targets of the details keep in every eighth of the pass rate',
    },
    advantage: ADVANTAGE_PARAMETER,
    ...LOSS_PARAMETERS,
  },
  prepare(step, settings, context) {
    const { carried, plain } = context;
    const places = placesOf(step);
    const { result, kl, next } = aresRound(step, settings, context, carried?.ares ?? initialAres());
    if (carried !== undefined) carried.ares = next;
    const advantage = stepAdvantages(result.reward, result.groups, advantageVariantOf(settings));
    const loss = { surrogate: surrogateOf(settings), aggregation: aggregationOf(settings), plain };
    const withKl = kl === undefined ? 0 : 1;
    const facts: Record<string, number> = {
      threshold_nats: result.threshold,
      valid_windows_mean: meanOf(result.valid),
      invalid_windows_mean: meanOf(result.invalid),
      soft_cost_nats: meanOf(result.softCost),
      entropy_score_mean: meanOf(result.score),
      reward_mean: meanOf(result.reward),
      kl_penalty: withKl * numberSetting(settings, 'kl-coefficient'),
    };
    for (const bucket of BUCKETS) {
      facts[`prompts_${bucket}`] = result.groupBucket.filter((one) => one === bucket).length;
      const target = result.buckets.target[bucket];
      if (target !== undefined) facts[`target_${bucket}`] = target;
      facts[`alpha_${bucket}`] = result.alpha[bucket];
      if (choiceSetting(settings, 'variant') === 'paper') facts[`lambda_${bucket}`] = result.lambda[bucket];
      if (kl !== undefined && !Number.isNaN(kl[bucket])) facts[`kl_${bucket}_nats`] = kl[bucket];
      if (kl !== undefined) facts[`kl_beta_${bucket}`] = result.state.kl[bucket].beta;
    }
    return {
      effect: (block) =>
        withPenalty(
          advantageEffect(block, places, advantage, loss, result.reward),
          klPenalty(block, result, places, settings),
        ),
      facts,
      warnings: result.warnings,
    };
  },
};
