import { RESPONSE_FIELD, RESPONSE_FIELDS, responseFigures } from '../../src/kernels/policy-tokens.js';
import { groupAdvantages } from '../../src/policy/advantages.js';
import { groupCovariance } from '../../src/policy/dynamics/group-covariance.js';
import { responseMeans } from '../../src/policy/dynamics/response-totals.js';
import {
  ENTROPY_QUANTILES,
  type StepFigures,
  stepFigures,
  TOP_FRACTIONS,
} from '../../src/policy/dynamics/step-figures.js';
import { stepOfArrays } from '../../src/policy/rollouts/array-step.js';
import type { RolloutIndex } from '../../src/policy/rollouts/types.js';
import { topKEntropyBounds } from '../../src/policy/topk-bounds.js';
import type { Json } from './harness.js';
import { float64, keysOf, listed, number, shapeOf, tensor } from './tensors.js';

type Inputs = { [key: string]: Json };

function bounds(inputs: Inputs): Record<string, unknown> {
  const [rows, k] = shapeOf(inputs.topk_logprob, 'topk_logprob');
  const logProbs = float64(inputs.topk_logprob, 'topk_logprob');
  const found = topKEntropyBounds(logProbs, rows, k, number(inputs.vocab, 'vocab'));
  return {
    truncated_sum: [...found.truncatedSum],
    lower_lump: [...found.lowerLump],
    lower_tight: [...found.lower],
    upper: [...(found.upper ?? [])],
    tail_mass: [...found.tailMass],
  };
}

/** The entropy itself follows from the whole distribution, of which the case gives the top alone. */
export const undetermined = (inputs: Inputs): readonly string[] => ('topk_logprob' in inputs ? ['true_entropy'] : []);

const CLIP = { low: 0.2, high: 0.2 };

/** Padded rows as a flat step with the facts of its records. */
function dump(inputs: Inputs) {
  const [records, length] = shapeOf(inputs.response_mask, 'response_mask');
  const mask = Uint8Array.from(float64(inputs.response_mask, 'response_mask'));
  const offsets = Int32Array.from({ length: records + 1 }, (_, r) => r * length);
  const raw = Array.isArray(inputs.group) ? listed(inputs.group, 'group') : float64(inputs.group, 'group');
  const labels = [...new Set(raw)];
  const group = Int32Array.from(raw, (label) => labels.indexOf(label));
  const reward = float64(inputs.reward, 'reward');
  const advantage = groupAdvantages(reward, group, labels.length);
  const logProb = float64(inputs.log_prob, 'log_prob');
  const ofTokens = Float64Array.from(mask, (_, i) => advantage[Math.floor(i / length)]);
  const index: RolloutIndex = {
    records,
    step: new Float64Array(records),
    group,
    groups: labels.length,
    promptIds: labels.map(String),
    length: new Int32Array(records).fill(length),
    counted: new Int32Array(records),
    reward,
    correct: reward,
    advantage,
  };
  return { mask, offsets, labels, group, advantage, logProb, ofTokens, index };
}

function responseLevel(inputs: Inputs): Record<string, unknown> {
  const { mask, offsets, labels, group, advantage, logProb } = dump(inputs);
  const figures = new Float64Array((offsets.length - 1) * RESPONSE_FIELDS);
  responseFigures({ logProb, mask }, offsets, CLIP, figures);
  const means = responseMeans({ responses: offsets.length - 1, figures }, RESPONSE_FIELD.logProb);
  const found = groupCovariance({ group, logProb: means, advantage });
  const byGroup = [...found.groups].map((g, i) => [String(labels[g]), found.covariance[i]]);
  return {
    advantage: tensor([advantage.length], advantage),
    response_logprob: tensor([means.length], means),
    group_cov: Object.fromEntries(byGroup),
    step_cov: found.step.mean,
  };
}

/** Keys of a map of the case, with the value that belongs to each number. */
function keyed(wanted: Json, of: (key: number) => number | undefined): Record<string, unknown> {
  return Object.fromEntries(keysOf(wanted).map((key) => [key, of(Number(key))]));
}

function summary(inputs: Inputs, wanted: { [key: string]: Json }): Record<string, unknown> {
  const { mask, offsets, logProb, ofTokens, index } = dump(inputs);
  const entropy = float64(inputs.entropy, 'entropy');
  const step = stepOfArrays({ offsets, mask, columns: { logProb, entropy, advantage: ofTokens } });
  const fractions = keysOf(wanted.cov_top_fraction_mean ?? {}).map(Number);
  const found: StepFigures = stepFigures(step, index, {
    clip: CLIP,
    exactLimit: 2e7,
    lengthLimit: Number.POSITIVE_INFINITY,
    topFractions: fractions.length > 0 ? fractions : TOP_FRACTIONS,
  });
  const quantiles = found.entropy?.quantiles ?? [];
  const named: Record<string, unknown> = {
    n_tokens: found.tokens,
    token_mean_entropy: found.entropy?.token.mean,
    seq_mean_entropy: found.entropy?.sequence.mean,
    sampled_nll: found.nll?.mean,
    entropy_quantiles: tensor([quantiles.length], quantiles),
    cov_mean: found.covariance?.mean.mean,
    cov_frac_positive: found.covariance?.fractionPositive,
    zero_advantage_group_fraction: found.zeroAdvantageFraction,
    top20_entropy_threshold: quantiles[ENTROPY_QUANTILES.indexOf(0.8)],
  };
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    if (key === 'cov_top_fraction_mean') {
      result[key] = keyed(wanted[key], (fraction) => found.covariance?.top[fractions.indexOf(fraction)]);
    } else if (key === 'cov_mean_by_group_accuracy') {
      const near = (accuracy: number) => (one: { accuracy: number }) => Math.abs(one.accuracy - accuracy) < 5.1e-4;
      result[key] = keyed(wanted[key], (accuracy) => found.covariance?.byAccuracy.find(near(accuracy))?.mean);
    } else if (key in named) result[key] = named[key];
  }
  return result;
}

export function run(inputs: Inputs, wanted: Json): unknown {
  if ('topk_logprob' in inputs) return bounds(inputs);
  if (wanted !== null && typeof wanted === 'object' && 'group_cov' in wanted) return responseLevel(inputs);
  return summary(inputs, wanted as Inputs);
}
