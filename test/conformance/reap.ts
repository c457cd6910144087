import { createExpertSums } from '../../src/moe/expert-statistics.js';
import { expertScores, pruneOrder } from '../../src/moe/reap.js';
import { createRoutingSums, type TokenRouting } from '../../src/moe/routing-statistics.js';
import type { LayerStatistics } from '../../src/moe/types.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, numbers, shapeOf, tensor } from './tensors.js';

function statistics(inputs: { [key: string]: Json }): LayerStatistics {
  const logits = float64(inputs.router_logits, 'router_logits');
  const outputs = float64(inputs.expert_outputs, 'expert_outputs');
  const [experts, tokens, hidden] = shapeOf(inputs.expert_outputs, 'expert_outputs');
  const topK = number(inputs.top_k, 'top_k');
  const mask = inputs.valid_token_mask;
  const valid = Array.isArray(mask) ? numbers(mask, 'valid_token_mask') : undefined;
  const sums = createExpertSums(0, { experts, hidden, width: 0 });
  const onToken = ({ token, chosen, weights, scores }: TokenRouting): void => {
    for (const [i, expert] of chosen.entries()) {
      const output = outputs.subarray((expert * tokens + token) * hidden);
      sums.addChosen(expert, { output, at: [0], weights: [scores[i]], shares: [weights[i]] });
    }
  };
  const routing = createRoutingSums(0, experts, { score: 'softmax', topK, normalizeTopK: true }, { onToken });
  routing.add(logits, tokens, valid && { valid });
  return { routing: routing.finish(), outputs: sums.finish() };
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const layer = statistics(inputs);
  const figures = (renormalize: boolean): Record<string, unknown> => {
    const scores = expertScores(layer, { renormalize });
    const vector = (values: Float64Array): unknown => tensor([values.length], values);
    return {
      expert_frequency: scores.frequency,
      reap: vector(scores.reap),
      ean_sum: vector(scores.eanSum),
      ean_mean: vector(scores.eanMean),
      weighted_ean_sum: vector(scores.weightedEanSum),
      weighted_expert_frequency_sum: vector(scores.weightedFrequency),
      prune_order_lowest_reap_first: pruneOrder(scores.reap),
    };
  };
  return Object.fromEntries(keysOf(wanted).map((key) => [key, figures(key === 'renormalized')]));
}
