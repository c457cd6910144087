import { InputError } from '../../errors.js';
import { batchSizeOf } from '../aggregation.js';
import { addTo, createCompensatedSum, totalOf } from '../compensated-sum.js';
import {
  createDistributionSums,
  distributionSums,
  ESTIMATORS,
  type Estimator,
  entropySlope,
  LEAST_PROBABILITY,
  MOST_PROBABILITY,
  steerOmega,
} from '../entropy-change-estimates.js';
import { ofBlock } from '../rollouts/small-blocks.js';
import type { RolloutStep, TokenBlock } from '../rollouts/types.js';
import { LOG_RATIO_LIMIT } from '../surrogate.js';
import { touchedBySurrogate } from './effects.js';
import { AGGREGATION_PARAMETER, aggregationOf, choiceSetting, numberSetting, surrogateOf } from './settings.js';
import { omegaDistribution, QUADRANTS } from './steer-facts.js';
import type {
  Facts,
  Intervention,
  InterventionSettings,
  PolicyEffect,
  PreparedIntervention,
  Surrogate,
} from './types.js';

/** A largest metric below this leaves the exponential weights as good as 1. */
const METRIC_FLOOR = 0.02;

export type WeightMapping =
  | { readonly kind: 'linear'; readonly least: number; readonly most: number }
  | { readonly kind: 'exp'; readonly least: number };

/**
 * The weights of metrics in [lo, hi] (spec 2). linear: from `most` at lo down to `least` at hi, their middle where lo = hi;
 * exp: e^(-k m) with k such that the largest metric gets `least`, or that a metric of 0.02 would.
 */
export function steerWeights(mapping: WeightMapping, lo: number, hi: number): (metric: number) => number {
  const { least } = mapping;
  if (mapping.kind === 'linear') {
    const { most } = mapping;
    if (hi === lo) return () => (least + most) / 2;
    return (m) => Math.min(Math.max(most - ((m - lo) * (most - least)) / (hi - lo), least), most);
  }
  const rate = -Math.log(least) / Math.max(hi, METRIC_FLOOR);
  return (m) => Math.min(Math.max(Math.exp(-rate * m), least), 1);
}

/** The columns that the metric needs. */
interface SteerColumns {
  readonly logProb: Float64Array;
  readonly oldLogProb: Float64Array;
  readonly entropy: Float64Array;
  readonly advantage: Float64Array;
}

function steerColumns({ logProb, oldLogProb, entropy, advantage }: TokenBlock): SteerColumns {
  if (logProb === undefined || advantage === undefined) {
    throw new InputError('STEER needs log-probabilities of the sampled tokens and advantages');
  }
  if (entropy === undefined) {
    throw new InputError(
      'STEER needs entropies over the whole vocabulary; bounds from the likeliest tokens are not enough',
    );
  }
  return { logProb, oldLogProb: oldLogProb ?? logProb, entropy, advantage };
}

/**
 * Signed metric of every token of a block, 0 under a mask of 0: above 0 where its update is predicted to lower the entropy.
 * @param out [tokens of the block]
 * @throws InputError where the block lacks a column; for `exact` without the likeliest tokens
 */
export function tokenOmegas(block: TokenBlock, estimator: Estimator, out: Float64Array): void {
  const { logProb, oldLogProb, entropy, advantage } = steerColumns(block);
  const top = block.topTokens;
  if (estimator === 'exact' && top === undefined) {
    throw new InputError('STEER: the exact estimator needs the likeliest tokens of every position (topk)');
  }
  const sums = createDistributionSums();
  for (let i = 0; i < block.mask.length; i++) {
    if (block.mask[i] === 0) {
      out[i] = 0;
      continue;
    }
    if (estimator === 'steer') {
      out[i] = steerOmega(advantage[i], logProb[i], oldLogProb[i], entropy[i]);
      continue;
    }
    if (top !== undefined && estimator === 'exact') distributionSums(top, i, entropy[i], sums);
    const ascent = advantage[i] * Math.exp(logProb[i] - oldLogProb[i]);
    const omega = -ascent * entropySlope(estimator, logProb[i], entropy[i], sums.s);
    out[i] = Number.isFinite(omega) ? omega : 0;
  }
}

const OMEGAS: Readonly<Record<Estimator, symbol>> = {
  steer: Symbol('steer'),
  'single-logit': Symbol('single-logit'),
  exact: Symbol('exact'),
};

/** {@link tokenOmegas} of a block; blocks of `smallBlocks` keep them. */
function blockOmegas(block: TokenBlock, estimator: Estimator): Float64Array {
  return ofBlock(block, OMEGAS[estimator], () => {
    const out = new Float64Array(block.mask.length);
    tokenOmegas(block, estimator, out);
    return out;
  });
}

/** Range of the metric over a step, and what the report says of it. */
interface OmegaSurvey {
  readonly lo: number;
  readonly hi: number;
  readonly clampedNew: number;
  readonly clampedOld: number;
  /** [4] in the order of QUADRANTS. */
  readonly counts: Float64Array;
  readonly shares: Float64Array;
  /** Sums of |Omega| and of -Omega. */
  readonly absolute: number;
  readonly change: number;
}

function survey(step: RolloutStep, estimator: Estimator): OmegaSurvey {
  let lo = Number.POSITIVE_INFINITY;
  let hi = 0;
  let clampedNew = 0;
  let clampedOld = 0;
  const counts = new Float64Array(QUADRANTS.length);
  const weights = QUADRANTS.map(() => createCompensatedSum());
  const absolutes = createCompensatedSum();
  const change = createCompensatedSum();
  const logLeast = Math.log(LEAST_PROBABILITY);
  const logMost = Math.log(MOST_PROBABILITY);
  for (const block of step.blocks()) {
    const { logProb, oldLogProb, entropy, advantage } = steerColumns(block);
    const omegas = blockOmegas(block, estimator);
    for (let i = 0; i < block.mask.length; i++) {
      if (block.mask[i] === 0) continue;
      const metric = Math.abs(omegas[i]);
      addTo(absolutes, metric);
      addTo(change, -omegas[i]);
      if (metric < lo) lo = metric;
      if (metric > hi) hi = metric;
      if (logProb[i] < logLeast || logProb[i] > logMost) clampedNew++;
      if (oldLogProb[i] < logLeast) clampedOld++;
      const surplus = logProb[i] + entropy[i];
      if (advantage[i] === 0 || surplus === 0) continue;
      const quadrant = (advantage[i] > 0 ? 0 : 2) + (surplus > 0 ? 0 : 1);
      counts[quadrant]++;
      addTo(weights[quadrant], metric);
    }
  }
  const sums = Float64Array.from(weights, totalOf);
  const absolute = totalOf(absolutes);
  const shares = sums.map((sum) => (absolute === 0 ? 0 : sum / absolute));
  return { lo, hi, clampedNew, clampedOld, counts, shares, absolute, change: totalOf(change) };
}

export interface PreparedSteer extends PreparedIntervention {
  /** Signed metric of every token, 0 under a mask of 0. */
  omegas(block: TokenBlock): Float64Array;
  /** Weight of every token, 0 under a mask of 0. */
  weights(block: TokenBlock): Float64Array;
}

/**
 * Prepares STEER for a step (spec 2). The facts are found when they are asked for, from the same blocks.
 * @throws InputError where no token counts, columns are missing, or the weights have an impossible range
 */
export function prepareSteer(
  step: RolloutStep,
  settings: InterventionSettings,
  context: Parameters<Intervention['prepare']>[2],
): PreparedSteer {
  batchSizeOf(step, context.index);
  const estimator = ESTIMATORS.find((one) => one === choiceSetting(settings, 'estimator')) ?? 'steer';
  const mapping = mappingOf(settings);
  const surrogate: Surrogate = { ...surrogateOf(settings), logRatioLimit: LOG_RATIO_LIMIT };
  const aggregation = aggregationOf(settings);
  const seen = survey(step, estimator);
  const { lo, hi } = seen;
  const weightOf = steerWeights(mapping, lo, hi);

  const omegas = (block: TokenBlock): Float64Array => blockOmegas(block, estimator);
  const weights = (block: TokenBlock): Float64Array =>
    ofBlock(block, weightOf, () => {
      const metric = omegas(block);
      const out = new Float64Array(metric.length);
      for (let i = 0; i < out.length; i++) if (block.mask[i] === 1) out[i] = weightOf(Math.abs(metric[i]));
      return out;
    });
  const effect = (block: TokenBlock): PolicyEffect => {
    const multiplier = weights(block);
    const touched = touchedBySurrogate(block, surrogate, context.plain);
    for (let i = 0; i < touched.length; i++) if (block.mask[i] === 1 && multiplier[i] !== 1) touched[i] = 1;
    return { surrogate, aggregation, multiplier, touched };
  };

  const warnings: string[] = [];
  if (seen.clampedOld > 0) {
    warnings.push(
      `${seen.clampedOld} tokens had a probability below ${LEAST_PROBABILITY} when they were sampled; the metric takes it for ` +
        `${LEAST_PROBABILITY}, and they may decide the weights of all others`,
    );
  }
  let facts: Facts | undefined;
  return {
    effect,
    omegas,
    weights,
    warnings,
    get facts() {
      facts ??= {
        metric_largest: hi,
        metric_smallest: lo,
        ...omegaDistribution(step, omegas, weights, seen.absolute),
        clamped_new: seen.clampedNew,
        clamped_old: seen.clampedOld,
        predicted_entropy_change_sum: seen.change,
        ...Object.fromEntries(
          QUADRANTS.flatMap(({ name }, q) => [
            [`${name}_tokens`, seen.counts[q]],
            [`${name}_share`, seen.shares[q]],
          ]),
        ),
      };
      return facts;
    },
  };
}

function mappingOf(settings: InterventionSettings): WeightMapping {
  const least = numberSetting(settings, 'weight-min');
  if (choiceSetting(settings, 'mapping') === 'exp') {
    if (least > 1) throw new InputError(`steer: weight-min is ${least}; under exp weights are at most 1`);
    return { kind: 'exp', least };
  }
  const most = numberSetting(settings, 'weight-max');
  if (most < least) throw new InputError(`steer: weight-max ${most} is below weight-min ${least}`);
  return { kind: 'linear', least, most };
}

/** STEER: the larger the predicted change of entropy by a token, the smaller its loss. */
export const steer: Intervention = {
  name: 'steer',
  title: 'STEER',
  reference: 'Rethinking Entropy Interventions in RLVR 2025 (arXiv 2510.10150); spec 2',
  needs: ['logProb', 'entropy', 'advantage'],
  parameters: {
    mapping: {
      kind: 'choice',
      initial: 'exp',
      choices: ['exp', 'linear'],
      help: 'how the metric becomes a weight',
    },
    'weight-min': { kind: 'number', initial: 0.8, least: 1e-12, help: 'weight of the largest metric' },
    'weight-max': { kind: 'number', initial: 1.2, least: 0, help: 'weight of the smallest metric (linear)' },
    estimator: {
      kind: 'choice',
      initial: 'steer',
      choices: ESTIMATORS,
      help: 'the published metric; the single-logit form; exact from the likeliest tokens',
    },
    'clip-low': { kind: 'number', initial: 0.2, least: 0, help: 'the ratio is held above 1 - this' },
    'clip-high': { kind: 'number', initial: 0.28, least: 0, help: 'the ratio is held below 1 + this' },
    'dual-clip': { kind: 'number', initial: 10, least: 0, help: 'dual clip for negative advantages; 0: none' },
    aggregation: AGGREGATION_PARAMETER,
  },
  prepare: prepareSteer,
};
