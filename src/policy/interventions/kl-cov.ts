import { batchSizeOf } from '../aggregation.js';
import { addTo, createCompensatedSum, totalOf } from '../compensated-sum.js';
import { ofBlock } from '../rollouts/small-blocks.js';
import type { RolloutStep, TokenBlock } from '../rollouts/types.js';
import { touchedBySurrogate } from './effects.js';
import { SCOPE_PARAMETER, scopeUnits, selectInScopes } from './scoped-selection.js';
import { effectiveFractionWarning, scopeOf } from './selection-settings.js';
import { AGGREGATION_PARAMETER, aggregationOf, choiceSetting, numberSetting } from './settings.js';
import { tokenCovariance, unitMeans } from './token-covariance.js';
import type {
  Facts,
  Intervention,
  InterventionContext,
  InterventionSettings,
  PolicyEffect,
  PreparedIntervention,
} from './types.js';

/** abs: |d|, as published; k2: d^2 / 2; k3: e^d - d - 1. d = log pi - log pi_old on samples of pi_old. */
export const KL_PENALTIES = ['abs', 'k2', 'k3'] as const;
export type KlPenalty = (typeof KL_PENALTIES)[number];

/** Estimate of KL(pi_old || pi) from one token. */
export function klPenalty(kind: KlPenalty, d: number): number {
  if (kind === 'abs') return Math.abs(d);
  return kind === 'k2' ? (d * d) / 2 : Math.expm1(d) - d;
}

/** d penalty / d log pi; the sign of 0 is 0. */
export function klPenaltyGradient(kind: KlPenalty, d: number): number {
  if (kind === 'abs') return Math.sign(d);
  return kind === 'k2' ? d : Math.expm1(d);
}

/**
 * How many of n tokens KL-Cov takes: max(1, floor(n min(percent, n) / 100)) as published, or max(1, floor(fraction n)) where
 * percent is 0.
 */
export function klCovCount(tokens: number, fraction: number, percent: number): number {
  if (tokens === 0) return 0;
  const count = percent > 0 ? (tokens * Math.min(percent, tokens)) / 100 : tokens * fraction;
  return Math.min(tokens, Math.max(1, Math.floor(count)));
}

/** What KL-Cov knows of the tokens of a block. */
export interface KlCovTokens {
  /** [tokens], NaN under a mask of 0. */
  readonly covariance: Float64Array;
  /** [tokens], 1 where the token gets the penalty. */
  readonly selected: Uint8Array;
}

export interface PreparedKlCov extends PreparedIntervention {
  inspect(block: TokenBlock): KlCovTokens;
}

/** Prepares KL-Cov for a step (spec 1.4). */
export function prepareKlCov(
  step: RolloutStep,
  settings: InterventionSettings,
  { index, plain }: InterventionContext,
): PreparedKlCov {
  const fraction = numberSetting(settings, 'fraction');
  const percent = numberSetting(settings, 'percent');
  const beta = numberSetting(settings, 'beta');
  const word = choiceSetting(settings, 'penalty');
  const penaltyKind = KL_PENALTIES.find((kind) => kind === word) ?? 'abs';
  const aggregation = aggregationOf(settings);
  const batch = batchSizeOf(step, index);
  const units = scopeUnits(step, scopeOf(settings), index);
  const means = unitMeans(step, units, 0);
  const wanted = units.counted.map((tokens) => klCovCount(tokens, fraction, percent));
  const covariancesOf = (block: TokenBlock): Float64Array => {
    const covariance = new Float64Array(block.mask.length);
    tokenCovariance(block, units, means, covariance);
    return covariance;
  };
  const score = (block: TokenBlock, out: Float64Array): void => out.set(ofBlock(block, covariancesOf, covariancesOf));
  const selection = selectInScopes(step, units, { candidates: units.counted, score }, wanted);

  const inspect = (block: TokenBlock): KlCovTokens => {
    const covariance = ofBlock(block, covariancesOf, covariancesOf);
    const selected = new Uint8Array(block.mask.length);
    for (let r = 0; r < block.records.length; r++) {
      const unit = units.of(block.records[r]);
      for (let i = block.offsets[r]; i < block.offsets[r + 1]; i++) {
        if (block.mask[i] === 1 && selection.has(unit, covariance[i], block.firstToken + i)) selected[i] = 1;
      }
    }
    return { covariance, selected };
  };

  const effect = (block: TokenBlock): PolicyEffect => {
    const { selected } = inspect(block);
    const touched = touchedBySurrogate(block, {}, plain);
    const penalty = new Float64Array(selected.length);
    const penaltyGradient = new Float64Array(selected.length);
    const { logProb, oldLogProb } = block;
    for (let i = 0; i < selected.length; i++) {
      if (selected[i] === 0) continue;
      touched[i] = 1;
      if (logProb === undefined || oldLogProb === undefined) continue;
      const d = logProb[i] - oldLogProb[i];
      penalty[i] = beta * klPenalty(penaltyKind, d);
      penaltyGradient[i] = beta * klPenaltyGradient(penaltyKind, d);
    }
    return { surrogate: {}, aggregation, penalty, penaltyGradient, touched };
  };

  let taken = 0;
  for (const count of selection.taken) taken += count;
  const ratios = logRatios(step);
  const warnings: string[] = [];
  if (ratios.largest === 0) {
    warnings.push(
      'the policy is the one that sampled: penalty and its gradient are 0, so this update is plain policy gradient; KL-Cov ' +
        'acts from the second update of a rollout on',
    );
  }
  const sparse = effectiveFractionWarning(units.counted, percent > 0 ? percent / 100 : fraction);
  if (sparse !== undefined) warnings.push(sparse);
  const facts: Facts = {
    selected: taken,
    effective_fraction: taken / batch.counted,
    abs_log_ratio_mean_nats: ratios.mean,
    ...(units.count === 1 && { covariance_threshold: selection.threshold[0] }),
    units: units.count,
  };
  return { effect, inspect, facts, warnings };
}

/** Mean and largest |log pi - log pi_old| of a step. */
function logRatios(step: RolloutStep): { readonly mean: number; readonly largest: number } {
  const sum = createCompensatedSum();
  let largest = 0;
  for (const { records, offsets, mask, logProb, oldLogProb } of step.blocks()) {
    if (logProb === undefined || oldLogProb === undefined) continue;
    for (let r = 0; r < records.length; r++) {
      let absolute = 0;
      for (let i = offsets[r]; i < offsets[r + 1]; i++) {
        if (mask[i] === 0) continue;
        const distance = Math.abs(logProb[i] - oldLogProb[i]);
        absolute += distance;
        if (distance > largest) largest = distance;
      }
      addTo(sum, absolute);
    }
  }
  return { mean: totalOf(sum) / step.counted, largest };
}

/** KL-Cov: a penalty on the log-ratio of the tokens whose covariance is largest, and no PPO clip. */
export const klCov: Intervention = {
  name: 'kl-cov',
  title: 'KL-Cov',
  reference: 'The Entropy Mechanism of RL for Reasoning Language Models 2025 (arXiv 2505.22617), KL-Cov; spec 1.4',
  needs: ['logProb', 'advantage'],
  parameters: {
    fraction: { kind: 'number', initial: 2e-3, least: 0, most: 1, help: 'share of the tokens that get the penalty' },
    percent: {
      kind: 'number',
      initial: 0,
      least: 0,
      most: 100,
      help: 'the same in percent, as the published scripts give it; 0: `fraction` is used',
    },
    beta: { kind: 'number', initial: 1, least: 0, help: 'coefficient of the penalty' },
    penalty: {
      kind: 'choice',
      initial: 'abs',
      choices: KL_PENALTIES,
      help: 'abs: |d| as published; k2: d^2/2; k3: e^d - d - 1, with d = log pi - log pi_old',
    },
    scope: SCOPE_PARAMETER,
    aggregation: AGGREGATION_PARAMETER,
  },
  exclusive: [['fraction', 'percent']],
  prepare: prepareKlCov,
};
