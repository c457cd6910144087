import { batchSizeOf, MASKED_MEAN_EPSILON } from '../aggregation.js';
import { ofBlock } from '../rollouts/small-blocks.js';
import type { RolloutStep, TokenBlock } from '../rollouts/types.js';
import { HELD_HIGH, HELD_LOW, surrogateTerms } from '../surrogate.js';
import { touchedBySurrogate } from './effects.js';
import { SCOPE_PARAMETER, scopeUnits, selectInScopes, type TokenScores } from './scoped-selection.js';
import { effectiveFractionWarning, scopeOf } from './selection-settings.js';
import { AGGREGATION_PARAMETER, aggregationOf, choiceSetting, numberSetting } from './settings.js';
import { covarianceColumns, tokenCovariance, unitMeans } from './token-covariance.js';
import { tokenDraws } from './token-draws.js';
import type {
  Intervention,
  InterventionContext,
  InterventionSettings,
  PolicyEffect,
  PreparedIntervention,
  Surrogate,
} from './types.js';

/** What Clip-Cov knows of the tokens of a block, one value a position. */
export interface ClipCovTokens {
  /** NaN under a mask of 0. */
  readonly covariance: Float64Array;
  /** 1 where L2 > L1: the PPO clip has the token already. */
  readonly clippedByPpo: Uint8Array;
  /** 1 where the token may be chosen. */
  readonly eligible: Uint8Array;
  /** 1 where it is. */
  readonly chosen: Uint8Array;
}

export interface PreparedClipCov extends PreparedIntervention {
  inspect(block: TokenBlock): ClipCovTokens;
  /** Eligible tokens; how many may be chosen (the quotas of all units); how many are. */
  readonly eligible: number;
  readonly quota: number;
  readonly chosen: number;
}

/** max(1, floor(ratio n)): how many of n tokens Clip-Cov may choose. */
export function clipCovQuota(tokens: number, ratio: number): number {
  return tokens === 0 ? 0 : Math.max(1, Math.floor(ratio * tokens));
}

/**
 * Prepares Clip-Cov for a step (spec 1.5). Tokens are chosen uniformly without replacement: those with the smallest of numbers
 * that are drawn by seed, step and token.
 * @param injected positions in the step of the tokens to choose, instead of drawing them
 */
export function prepareClipCov(
  step: RolloutStep,
  settings: InterventionSettings,
  { index, seed, plain }: InterventionContext,
  injected?: Iterable<number>,
): PreparedClipCov {
  const ratio = numberSetting(settings, 'ratio');
  const lower = numberSetting(settings, 'lower');
  const upper = numberSetting(settings, 'upper');
  const published = choiceSetting(settings, 'variant') === 'code';
  const surrogate: Surrogate = {
    clip: { low: numberSetting(settings, 'clip-low'), high: numberSetting(settings, 'clip-high') },
  };
  const aggregation = aggregationOf(settings);
  const batch = batchSizeOf(step, index);
  const units = scopeUnits(step, scopeOf(settings), index);
  const means = unitMeans(step, units, MASKED_MEAN_EPSILON);

  /** Covariances, and what they leave eligible. */
  const findCandidates = (block: TokenBlock): Omit<ClipCovTokens, 'chosen'> => {
    const { advantage } = covarianceColumns(block);
    const covariance = new Float64Array(block.mask.length);
    const clippedByPpo = new Uint8Array(block.mask.length);
    const eligible = new Uint8Array(block.mask.length);
    tokenCovariance(block, units, means, covariance);
    const { held } = surrogateTerms(block, surrogate, advantage);
    for (let i = 0; i < covariance.length; i++) {
      if (block.mask[i] === 0) continue;
      if (held[i] & (HELD_HIGH | HELD_LOW)) {
        clippedByPpo[i] = 1;
        continue;
      }
      const c = covariance[i];
      if (published ? c > lower && c < upper : c >= lower && c <= upper) eligible[i] = 1;
    }
    return { covariance, clippedByPpo, eligible };
  };
  const candidatesOf = (block: TokenBlock) => ofBlock(block, findCandidates, findCandidates);

  const candidates = new Float64Array(units.count);
  let clipped = 0;
  for (const block of step.blocks()) {
    const { eligible, clippedByPpo } = candidatesOf(block);
    for (let r = 0; r < block.records.length; r++) {
      const unit = units.of(block.records[r]);
      for (let i = block.offsets[r]; i < block.offsets[r + 1]; i++) {
        candidates[unit] += eligible[i];
        clipped += clippedByPpo[i];
      }
    }
  }
  const quotas = units.counted.map((tokens) => clipCovQuota(tokens, ratio));
  const has = injected === undefined ? drawn() : given(new Set(injected));

  /** Whether an eligible token is among those drawn. */
  function drawn(): (unit: number, flat: number) => boolean {
    const draw = tokenDraws(seed, step.step);
    const scores: TokenScores = {
      candidates,
      score(block, out) {
        const { eligible } = candidatesOf(block);
        for (let i = 0; i < eligible.length; i++) out[i] = eligible[i] === 1 ? -draw(block.firstToken + i) : Number.NaN;
      },
    };
    // Where all are taken there is nothing to rank.
    if (candidates.every((count, u) => count <= quotas[u])) return () => true;
    const selection = selectInScopes(step, units, scores, quotas);
    return (unit, flat) => selection.has(unit, -draw(flat), flat);
  }

  function given(positions: ReadonlySet<number>): (unit: number, flat: number) => boolean {
    return (_unit, flat) => positions.has(flat);
  }

  const inspect = (block: TokenBlock): ClipCovTokens => {
    const tokens = candidatesOf(block);
    const chosen = new Uint8Array(block.mask.length);
    for (let r = 0; r < block.records.length; r++) {
      const unit = units.of(block.records[r]);
      for (let i = block.offsets[r]; i < block.offsets[r + 1]; i++) {
        const candidate = injected === undefined ? tokens.eligible[i] === 1 : block.mask[i] === 1;
        if (candidate && has(unit, block.firstToken + i)) chosen[i] = 1;
      }
    }
    return { ...tokens, chosen };
  };

  const effect = (block: TokenBlock): PolicyEffect => {
    const { chosen } = inspect(block);
    const touched = touchedBySurrogate(block, surrogate, plain);
    const multiplier = new Float64Array(chosen.length);
    // The paper detaches the chosen tokens: their loss stays, only its gradient is gone.
    const penalty = published ? undefined : new Float64Array(chosen.length);
    const { loss } = surrogateTerms(block, surrogate, covarianceColumns(block).advantage);
    for (let i = 0; i < chosen.length; i++) {
      if (block.mask[i] === 0) continue;
      if (chosen[i] === 0) {
        multiplier[i] = 1;
        continue;
      }
      touched[i] = 1;
      if (penalty !== undefined) penalty[i] = loss[i];
    }
    return { surrogate, aggregation, multiplier, ...(penalty && { penalty }), touched };
  };

  const eligible = candidates.reduce((sum, count) => sum + count, 0);
  const quota = quotas.reduce((sum, count) => sum + count, 0);
  const chosen =
    injected === undefined
      ? candidates.reduce((sum, count, u) => sum + Math.min(count, quotas[u]), 0)
      : new Set(injected).size;
  const warnings: string[] = [];
  const sparse = effectiveFractionWarning(units.counted, ratio);
  if (sparse !== undefined) warnings.push(sparse);
  if (eligible === 0) {
    warnings.push(
      `no covariance lies between ${lower} and ${upper}, so no token is chosen; lower the bounds for this dump`,
    );
  }
  const facts = {
    eligible,
    quota,
    chosen,
    clip_fraction: chosen / (batch.counted + MASKED_MEAN_EPSILON),
    clipped_by_ppo: clipped,
    effective_fraction: chosen / batch.counted,
    units: units.count,
  };
  return { effect, inspect, facts, warnings, eligible, quota, chosen };
}

/** Clip-Cov: some of the tokens with a high covariance, drawn at random, take no part in the update. */
export const clipCov: Intervention = {
  name: 'clip-cov',
  title: 'Clip-Cov',
  reference: 'The Entropy Mechanism of RL for Reasoning Language Models 2025 (arXiv 2505.22617), Clip-Cov; spec 1.5',
  needs: ['logProb', 'advantage'],
  parameters: {
    ratio: { kind: 'number', initial: 2e-4, least: 0, most: 1, help: 'share of the tokens that may be chosen' },
    lower: { kind: 'number', initial: 1, help: 'covariances that may be chosen lie above this' },
    upper: { kind: 'number', initial: 5, help: 'and below this' },
    variant: {
      kind: 'choice',
      initial: 'code',
      choices: ['code', 'paper'],
      help: 'code: bounds exclusive, loss 0; paper: bounds inclusive, loss detached (the same gradient)',
    },
    'clip-low': { kind: 'number', initial: 1, least: 0, help: 'the ratio is held above 1 - this' },
    'clip-high': { kind: 'number', initial: 1, least: 0, help: 'the ratio is held below 1 + this' },
    scope: SCOPE_PARAMETER,
    aggregation: AGGREGATION_PARAMETER,
  },
  prepare: prepareClipCov,
};
