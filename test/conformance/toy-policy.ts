import { groupAdvantages } from '../../src/policy/advantages.js';
import { findIntervention } from '../../src/policy/interventions/registry.js';
import { completeSettings } from '../../src/policy/interventions/settings.js';
import type { InterventionSettings } from '../../src/policy/interventions/types.js';
import { createPolicyRows, evaluateRows, type TabularPolicy } from '../../src/policy/lab/tabular-policy.js';
import { updatePolicy } from '../../src/policy/lab/tabular-update.js';
import type { Json } from './harness.js';
import { float64, int32, number, numbers, shapeOf, tensor } from './tensors.js';

type Named = { [key: string]: Json };

/** Our names for the settings of the cases. */
const SETTINGS: Readonly<Record<string, string>> = {
  frac: 'fraction',
  beta: 'beta',
  wmin: 'weight-min',
  target: 'target',
  coef: 'coefficient',
};

function settingsOf(params: Named): InterventionSettings {
  const settings: Record<string, number> = {};
  for (const [name, value] of Object.entries(params)) {
    if (name === 'clip') [settings['clip-low'], settings['clip-high']] = numbers(value, name);
    else settings[SETTINGS[name] ?? name] = number(value, name);
  }
  return settings;
}

export function run(inputs: Named): unknown {
  const [positions, vocabulary] = shapeOf(inputs.W, 'W');
  const [contexts] = shapeOf(inputs.U, 'U');
  const shared = float64(inputs.W, 'W');
  const own = float64(inputs.U, 'U');
  const policy: TabularPolicy = { contexts, positions, vocabulary, shared, own };
  const prompts = int32(inputs.context, 'context');
  const tokens = int32(inputs.tokens, 'tokens');
  const reward = float64(inputs.rewards, 'rewards');
  const size = number(inputs.group_size, 'group_size');
  const group = Int32Array.from(prompts, (_, r) => Math.floor(r / size));
  const groups = prompts.length / size;
  const advantage = groupAdvantages(reward, group, groups);

  const before = createPolicyRows(policy);
  evaluateRows(policy, prompts, before);
  const rowOf = (i: number) => prompts[Math.floor(i / positions)] * positions + (i % positions);
  const oldLogProb = Float64Array.from(tokens, (token, i) => before.logProbs[rowOf(i) * vocabulary + token]);
  const oldEntropy = Float64Array.from(tokens, (_, i) => before.entropies[rowOf(i)]);
  const batch = { contexts: prompts, group, groups, tokens, oldLogProb, oldEntropy, reward, advantage };

  const intervention = findIntervention(String(inputs.mode).replaceAll('_', '-'));
  const settings = completeSettings(intervention, settingsOf(inputs.params as Named));
  const rule = { intervention, settings, seed: 0, plain: {}, carried: {} };
  const rate = number(inputs.lr, 'lr');
  const rates = { own: rate, shared: rate * number(inputs.shared_lr_scale, 'shared_lr_scale') };
  const rows = createPolicyRows(policy);
  const updates = Array.from({ length: number(inputs.inner, 'inner') }, (_, k) =>
    updatePolicy(policy, rows, batch, rule, rates, k),
  );
  const spread = Float64Array.from(tokens, (_, i) => advantage[Math.floor(i / positions)]);
  return {
    advantages: tensor([prompts.length, positions], spread),
    W: tensor([positions, vocabulary], shared),
    U: tensor([contexts, positions, vocabulary], own),
    per_update: updates.map(({ meanEntropy, meanCovariance }) => ({
      mean_entropy: meanEntropy,
      mean_cov: meanCovariance,
    })),
  };
}
