import { routingMeasures, usageMeasures } from '../../src/moe/routing-measures.js';
import { createRoutingSums } from '../../src/moe/routing-statistics.js';
import type { Json } from './harness.js';
import { float64, number, shapeOf } from './tensors.js';

/** Names of the golden figures: entropies carry their unit, loads are listed by expert. */
export function run(inputs: { [key: string]: Json }): unknown {
  const logits = float64(inputs.router_logits, 'router_logits');
  const [layers, tokens, experts] = shapeOf(inputs.router_logits, 'router_logits');
  const mask = inputs.valid_token_mask ?? null;
  const valid = Array.isArray(mask) ? mask.map(Number) : mask;
  const known = valid === null ? {} : { valid: Array.isArray(valid) ? valid : float64(valid, 'valid_token_mask') };
  const rule = { score: 'softmax', topK: number(inputs.top_k, 'top_k'), normalizeTopK: true } as const;
  const perLayer = Array.from({ length: layers }, (_, layer) => {
    const sums = createRoutingSums(layer, experts, rule);
    sums.add(logits.subarray(layer * tokens * experts, (layer + 1) * tokens * experts), tokens, known);
    const statistics = sums.finish();
    const measures = routingMeasures(statistics);
    return {
      layer,
      tokens: statistics.tokens,
      mean_token_entropy_nats: measures.mean_token_entropy,
      std_token_entropy_nats: measures.std_token_entropy,
      mean_token_entropy_normalized: measures.mean_token_entropy_normalized,
      mean_topk_weight_entropy_nats: measures.mean_topk_weight_entropy,
      usage_counts: [...statistics.counts],
      usage_entropy_nats: measures.usage_entropy,
      effective_experts_usage: measures.effective_experts_usage,
      inverse_simpson_usage: measures.inverse_simpson_usage,
      mean_probability_entropy_nats: measures.mean_probability_entropy,
      token_expert_mutual_information_nats: measures.token_expert_mutual_information,
      gate_mass_entropy_nats: measures.gate_mass_entropy,
      effective_experts_gate_mass: measures.effective_experts_gate_mass,
      usage_kl_to_uniform_nats: measures.usage_kl_to_uniform,
      usage_cv: measures.usage_cv,
      usage_gini: measures.usage_gini,
      max_over_mean_load: measures.max_over_mean_load,
      dead_experts: usageMeasures(statistics.counts).dead,
      switch_balance_loss: measures.switch_balance_loss,
      router_z_loss: measures.router_z_loss,
    };
  });
  return { per_layer: perLayer };
}
