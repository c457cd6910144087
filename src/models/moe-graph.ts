import type { MoeMlpDescription } from './description.js';
import { activate, type LayerContext, linear } from './layer-parts.js';

/** TensorProto.DataType of int64. */
const INT64 = 7;

/**
 * Sparse mixture of experts over x [n, hidden].
 *
 * Router: softmax over all experts, top-k, optionally renormalised (Mixtral, Qwen-MoE, OLMoE). Each expert runs only
 * over the tokens that chose it; an expert that nobody chose runs over zero rows. The outputs are written to their
 * (token, slot) places and the slots of a token are summed, so the result does not depend on the order of experts.
 */
export function mixtureOfExperts(context: LayerContext, mlp: MoeMlpDescription, prefix: string, value: string): string {
  const { g, hiddenSize, taps } = context;
  const logits = linear(context, value, `${prefix}router`, hiddenSize, mlp.experts, false);
  if (taps.has('router_logits')) g.publish(logits, `${prefix}router_logits`);

  const probabilities = g.node('Softmax', [logits], { attributes: { axis: { int: -1 } } });
  const weights = `${prefix}topk_weights`;
  const chosen = `${prefix}topk_experts`;
  g.node('TopK', [probabilities, g.integers([mlp.expertsPerToken])], {
    attributes: { axis: { int: -1 }, largest: { int: 1 }, sorted: { int: 1 } },
    outputs: [weights, chosen],
  });
  const lastAxis = g.integers([-1]);
  const scaled = mlp.normalizeTopK
    ? g.node('Div', [weights, g.node('ReduceSum', [weights, lastAxis], { attributes: { keepdims: { int: 1 } } })])
    : weights;
  const flatWeights = g.node('Reshape', [scaled, g.integers([-1, 1])]);
  const flatChosen = g.node('Reshape', [chosen, lastAxis]);

  const slots: string[] = [];
  const outputs: string[] = [];
  for (let expert = 0; expert < mlp.experts; expert++) {
    const mask = g.node('Equal', [flatChosen, g.integers([expert], true)]);
    const slot = g.node('Reshape', [g.node('NonZero', [mask]), lastAxis]);
    const token = g.node('Div', [slot, g.integers([mlp.expertsPerToken], true)]);
    // A product with a single row has other last bits, and a result must not depend on who else is in the batch.
    const count = g.node('Shape', [token]);
    const lone = g.node('Cast', [g.node('Equal', [count, g.integers([1])])], { attributes: { to: { int: INT64 } } });
    const company = g.node('Slice', [token, g.integers([0]), lone]);
    const chosenRows = g.node('Concat', [token, company], { attributes: { axis: { int: 0 } } });
    const rows = g.node('Gather', [value, chosenRows], { attributes: { axis: { int: 0 } } });
    const all = gatedMlp(context, `${prefix}expert.${expert}.`, rows, mlp);
    const out = g.node('Slice', [all, g.integers([0]), count]);
    const weight = g.node('Gather', [flatWeights, slot], { attributes: { axis: { int: 0 } } });
    slots.push(slot);
    outputs.push(g.node('Mul', [out, weight]));
  }
  const concat = { attributes: { axis: { int: 0 } } };
  const places = g.node('Unsqueeze', [g.node('Concat', slots, concat), lastAxis]);
  const stacked = g.node('Concat', outputs, concat);
  const scattered = g.node('ScatterND', [g.node('Mul', [stacked, g.scalar(0)]), places, stacked]);
  const bySlot = g.node('Reshape', [scattered, g.integers([-1, mlp.expertsPerToken, hiddenSize])]);
  const routed = g.node('ReduceSum', [bySlot, g.integers([1])], { attributes: { keepdims: { int: 0 } } });
  if (!mlp.shared) return routed;

  const shared = gatedMlp(context, `${prefix}shared.`, value, { ...mlp, width: mlp.shared.width });
  if (!mlp.shared.gated) return g.node('Add', [routed, shared]);
  const score = g.node('Sigmoid', [linear(context, value, `${prefix}shared.router`, hiddenSize, 1, false)]);
  return g.node('Add', [routed, g.node('Mul', [score, shared])]);
}

function gatedMlp(
  context: LayerContext,
  prefix: string,
  value: string,
  mlp: Pick<MoeMlpDescription, 'width' | 'activation'>,
): string {
  const { g, hiddenSize } = context;
  const gate = linear(context, value, `${prefix}gate`, hiddenSize, mlp.width, false);
  const up = linear(context, value, `${prefix}up`, hiddenSize, mlp.width, false);
  const gated = g.node('Mul', [activate(g, mlp.activation, gate), up]);
  return linear(context, gated, `${prefix}down`, mlp.width, hiddenSize, false);
}
