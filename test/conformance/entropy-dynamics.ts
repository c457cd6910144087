import { entropyChange } from '../../src/policy/entropy-change.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const [states, actions] = shapeOf(inputs.logits, 'logits');
  const policy = {
    states,
    actions,
    logits: float64(inputs.logits, 'logits'),
    advantages: float64(inputs.advantages, 'advantages'),
  };
  const eta = number(inputs.eta, 'eta');
  const pg = entropyChange(policy, eta, 'pg');
  const npg = entropyChange(policy, eta, 'npg');
  const named: Record<string, Float64Array> = {
    entropy: pg.entropy,
    pg_pred: pg.predicted,
    pg_actual: pg.exact,
    npg_pred: npg.predicted,
    npg_actual: npg.exact,
    cov_logp_adv: npg.covariance,
    cov_logp_padv: pg.covariance,
  };
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    if (key === 'advantages_centered') result[key] = tensor([states, actions], pg.centredAdvantages);
    else if (key in named) result[key] = tensor([states], named[key]);
  }
  return result;
}
