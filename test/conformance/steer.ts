import { batchSize } from '../../src/policy/aggregation.js';
import { tokenEntropyChanges } from '../../src/policy/entropy-change-estimates.js';
import { completeSettings } from '../../src/policy/interventions/settings.js';
import { prepareSteer, steer } from '../../src/policy/interventions/steer.js';
import { blockObjective } from '../../src/policy/objective.js';
import type { Json } from './harness.js';
import { paddedBatch, wordOf } from './policy-batches.js';
import { float64, int32, keysOf, number, shapeOf, tensor } from './tensors.js';

function entropyChanges(inputs: { [key: string]: Json }): Record<string, unknown> {
  const [rows] = shapeOf(inputs.logits, 'logits');
  const changes = tokenEntropyChanges(
    float64(inputs.logits, 'logits'),
    int32(inputs.token, 'token'),
    float64(inputs.advantage, 'advantage'),
    float64(inputs.old_prob, 'old_prob'),
    number(inputs.eta, 'eta'),
  );
  return {
    entropy: tensor([rows], changes.entropy),
    exact_first_order: tensor([rows], changes.exactFirstOrder),
    exact_change: tensor([rows], changes.exactChange),
    single_logit: tensor([rows], changes.singleLogit),
    steer_omega: tensor([rows], changes.omega),
  };
}

function reweighting(inputs: { [key: string]: Json }): Record<string, unknown> {
  const { shape, block, step, index } = paddedBatch(inputs);
  const settings = completeSettings(steer, {
    mapping: wordOf(inputs.mapping, 'mapping'),
    'weight-min': number(inputs.weight_min, 'weight_min'),
    'weight-max': number(inputs.weight_max, 'weight_max'),
    'clip-low': number(inputs.clip_low, 'clip_low'),
    'clip-high': number(inputs.clip_high, 'clip_high'),
    'dual-clip': number(inputs.dual_clip_c, 'dual_clip_c'),
  });
  const prepared = prepareSteer(step, settings, { index, seed: 0 });
  const objective = blockObjective(block, prepared.effect(block), batchSize(block.offsets, block.mask));
  return {
    omega: tensor(shape, prepared.omegas(block)),
    weights: tensor(shape, prepared.weights(block)),
    loss: objective.loss,
    clipfrac: objective.clipFraction,
    clipfrac_high: objective.clipFractionHigh,
    clipfrac_low: objective.clipFractionLow,
    dual_clipfrac: objective.dualClipFraction,
    ppo_kl: objective.ppoKl,
    grad_log_prob: tensor(shape, objective.gradient),
  };
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const named = inputs.logits === undefined ? reweighting(inputs) : entropyChanges(inputs);
  return Object.fromEntries(keysOf(wanted).map((key) => [key, named[key]]));
}
