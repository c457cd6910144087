import { batchSize } from '../../src/policy/aggregation.js';
import { clipCov, prepareClipCov } from '../../src/policy/interventions/clip-cov.js';
import { completeSettings } from '../../src/policy/interventions/settings.js';
import { blockObjective } from '../../src/policy/objective.js';
import type { Json } from './harness.js';
import { paddedBatch, wordOf } from './policy-batches.js';
import { int32, keysOf, number, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const { shape, block, step, index } = paddedBatch(inputs);
  const settings = completeSettings(clipCov, {
    ratio: number(inputs.clip_cov_ratio, 'clip_cov_ratio'),
    lower: number(inputs.cov_lb, 'cov_lb'),
    upper: number(inputs.cov_ub, 'cov_ub'),
    'clip-low': number(inputs.clip_low, 'clip_low'),
    'clip-high': number(inputs.clip_high, 'clip_high'),
    aggregation: wordOf(inputs.loss_agg_mode, 'loss_agg_mode'),
  });
  const selected = int32(inputs.selected_flat, 'selected_flat');
  const prepared = prepareClipCov(step, settings, { index, seed: 0 }, selected);
  const tokens = prepared.inspect(block);
  const objective = blockObjective(block, prepared.effect(block), batchSize(block.offsets, block.mask));
  const named: Record<string, unknown> = {
    loss: objective.loss,
    clipfrac: prepared.facts.clip_fraction,
    ppo_kl: objective.ppoKl,
    eligible: tensor(shape, tokens.eligible, 'bool'),
    num_eligible: prepared.eligible,
    clip_num: prepared.quota,
    clipped_by_ppo: tensor(shape, tokens.clippedByPpo, 'bool'),
    grad_log_prob: tensor(shape, objective.gradient),
    cov: tensor(
      shape,
      tokens.covariance.map((value, i) => (block.mask[i] === 1 ? value : 0)),
    ),
  };
  return Object.fromEntries(keysOf(wanted).map((key) => [key, named[key]]));
}
