import { batchSize } from '../../src/policy/aggregation.js';
import { klCov, prepareKlCov } from '../../src/policy/interventions/kl-cov.js';
import { completeSettings } from '../../src/policy/interventions/settings.js';
import { blockObjective } from '../../src/policy/objective.js';
import type { Json } from './harness.js';
import { paddedBatch, wordOf } from './policy-batches.js';
import { keysOf, number, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const { shape, block, step, index } = paddedBatch(inputs);
  const settings = completeSettings(klCov, {
    percent: number(inputs.k_percent, 'k_percent'),
    beta: number(inputs.ppo_kl_coef, 'ppo_kl_coef'),
    aggregation: wordOf(inputs.loss_agg_mode, 'loss_agg_mode'),
  });
  const prepared = prepareKlCov(step, settings, { index, seed: 0 });
  const { covariance, selected } = prepared.inspect(block);
  const objective = blockObjective(block, prepared.effect(block), batchSize(block.offsets, block.mask));
  const named: Record<string, unknown> = {
    loss: objective.loss,
    abs_kl_mean: objective.absoluteKl,
    selected: tensor(shape, selected, 'bool'),
    num_selected: prepared.facts.selected,
    grad_log_prob: tensor(shape, objective.gradient),
    cov: tensor(
      shape,
      covariance.map((value, i) => (block.mask[i] === 1 ? value : 0)),
    ),
  };
  return Object.fromEntries(keysOf(wanted).map((key) => [key, named[key]]));
}
