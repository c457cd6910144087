import { attentionRowEntropies, CODE_EPSILON } from '../../src/entropy/attention.js';
import {
  type AttentionStack,
  attentionGradient,
  attentionRegulariser,
} from '../../src/entropy/attention-regulariser.js';
import { addAttentionRows, createAttentionStatistics, headFigures } from '../../src/entropy/attention-statistics.js';
import { quartileBins } from '../../src/linalg/quartile-bins.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const probabilities = float64(inputs.attentions, 'attentions');
  const [layers, batch, heads, queries, keys] = shapeOf(inputs.attentions, 'attentions');
  const stack: AttentionStack = { probabilities, layers, batch, heads, queries, keys };
  const thresholds = float64(inputs.thresholds, 'thresholds');
  const contextSize = inputs.context_size === null ? keys : number(inputs.context_size, 'context_size');
  const gamma = number(inputs.gamma, 'gamma');
  const shape = { batch, heads, queries, keys };
  const figures = (epsilon: number) => {
    const statistics = createAttentionStatistics(layers, heads);
    const size = batch * heads * queries * keys;
    for (let layer = 0; layer < layers; layer++) {
      const rows = attentionRowEntropies(probabilities.subarray(layer * size, (layer + 1) * size), shape, {
        epsilon,
        layer,
      });
      addAttentionRows(statistics, rows, shape, { layer, queryStart: 0 });
    }
    return headFigures(statistics, contextSize);
  };
  const exact = figures(0);
  const coded = figures(CODE_EPSILON);
  const codedEntropies = coded.map((head) => head.entropy_nats);
  const bins = quartileBins(codedEntropies);
  const shared = attentionRegulariser(stack, thresholds.subarray(0, heads), {
    reduction: 'code',
    gamma,
    contextSize,
    coefficient: number(inputs.loss_coeff, 'loss_coeff'),
    sharedThresholds: true,
  });
  const code = attentionRegulariser(stack, thresholds, { reduction: 'code', gamma, contextSize });
  const algorithm1 = attentionRegulariser(stack, thresholds, { reduction: 'algorithm1', gamma, contextSize });
  const perHead = [layers, heads];
  const named: Record<string, unknown> = {
    loss_code_shared_thresholds: shared.loss,
    grad_code_shared_thresholds: tensor([heads], shared.thresholdGradient),
    unscaled_code_reduction_per_layer_thresholds: code.loss,
    grad_code_reduction: tensor(perHead, code.thresholdGradient),
    unscaled_algorithm1_reduction: algorithm1.loss,
    grad_algorithm1_reduction: tensor(perHead, algorithm1.thresholdGradient),
    head_entropy: tensor(perHead, codedEntropies),
    head_entropy_exact_0log0: tensor(
      perHead,
      exact.map((head) => head.entropy_nats),
    ),
    head_entropy_normalised_by_log_visible_keys: tensor(
      perHead,
      exact.map((head) => head.normalized_entropy),
    ),
    quartile_bin: tensor(perHead, bins.bins, 'int64'),
    bin_fraction: tensor([4], bins.fractions),
    max_head_entropy: bins.maximum,
  };
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const place = /^grad_wrt_attention_layer(\d+)_batch(\d+)_head(\d+)$/.exec(key);
    if (place !== null) {
      const [layer, inBatch, head] = place.slice(1).map(Number);
      result[key] = tensor([queries, keys], attentionGradient(stack, code, { layer, batch: inBatch, head }));
    } else if (key in named) result[key] = named[key];
  }
  return result;
}
