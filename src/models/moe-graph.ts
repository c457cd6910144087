import { EXPERT_MAP, type MoeMlpDescription, routerOutputs } from './description.js';
import type { GraphComposer } from './graph.js';
import { activate, EXPERT_TAPS, type LayerContext, type LayerTap, linear } from './layer-parts.js';

/** TensorProto.DataType of int64. */
const INT64 = 7;

/**
 * Sparse mixture of experts over x [n, hidden].
 *
 * Router: softmax over all experts, top-k, optionally renormalised (Mixtral, Qwen-MoE, OLMoE). Each expert runs only
 * over the tokens that chose it; an expert that nobody chose runs over zero rows. The outputs are written to their
 * (token, slot) places and the slots of a token are summed, so the result does not depend on the order of experts.
 * The router reads the rows as they are; a simulated quantisation of activations stands before the experts alone.
 *
 * In a merged model whose router chooses among the experts of before (`routerOutputs`), the chosen are looked up in the
 * map after the weights are made: merged expert g runs once with the sum of the weights of those that became g, and the
 * weight of a dropped expert (-1) is lost.
 */
export function mixtureOfExperts(context: LayerContext, mlp: MoeMlpDescription, prefix: string, value: string): string {
  const { g, hiddenSize, taps } = context;
  const logits = linear(context, value, `${prefix}router`, hiddenSize, routerOutputs(mlp), false);
  if (taps.has('router_logits')) g.publish(logits, `${prefix}router_logits`);

  const probabilities = g.node('Softmax', [logits], { attributes: { axis: { int: -1 } } });
  const weights = `${prefix}topk_weights`;
  const chosen = `${prefix}topk_experts`;
  g.node('TopK', [probabilities, g.integers([mlp.expertsPerToken])], {
    attributes: { axis: { int: -1 }, largest: { int: 1 }, sorted: { int: 1 } },
    outputs: [weights, chosen],
  });
  const lastAxis = g.integers([-1]);
  const scaled = mlp.normalizeTopK ? g.node('Div', [weights, sumOf(g, slotsOf(context, mlp, weights))]) : weights;
  const running =
    mlp.routerOutputs === undefined ? { chosen, weights: scaled } : lookUp(context, mlp, prefix, chosen, scaled);
  const flatWeights = g.node('Reshape', [running.weights, g.integers([-1, 1])]);
  const flatChosen = g.node('Reshape', [running.chosen, lastAxis]);

  const inputs = context.quantize(value, hiddenSize);
  const slots: string[] = [];
  const outputs: string[] = [];
  const seen = createExpertTaps(context, prefix);
  for (let expert = 0; expert < mlp.experts; expert++) {
    const mask = g.node('Equal', [flatChosen, g.integers([expert], true)]);
    const slot = g.node('Reshape', [g.node('NonZero', [mask]), lastAxis]);
    const token = g.node('Div', [slot, g.integers([mlp.expertsPerToken], true)]);
    // A product with a single row has other last bits, and a result must not depend on who else is in the batch.
    const count = g.node('Shape', [token]);
    const lone = g.node('Cast', [g.node('Equal', [count, g.integers([1])])], { attributes: { to: { int: INT64 } } });
    const company = g.node('Slice', [token, g.integers([0]), lone]);
    const chosenRows = g.node('Concat', [token, company], { attributes: { axis: { int: 0 } } });
    const rows = g.node('Gather', [inputs, chosenRows], { attributes: { axis: { int: 0 } } });
    const { hidden, out: all } = gatedMlp(context, `${prefix}expert.${expert}.`, rows, mlp);
    const out = g.node('Slice', [all, g.integers([0]), count]);
    const weight = g.node('Gather', [flatWeights, slot], { attributes: { axis: { int: 0 } } });
    slots.push(slot);
    outputs.push(g.node('Mul', [out, weight]));
    seen.add({ value, token, count, weight, hidden, out });
  }
  seen.publish();
  const concat = { attributes: { axis: { int: 0 } } };
  const places = g.node('Unsqueeze', [g.node('Concat', slots, concat), lastAxis]);
  const stacked = g.node('Concat', outputs, concat);
  // Slots in which no expert runs stay zero.
  const slotRows = g.node('Concat', [g.node('Shape', [flatChosen]), g.integers([hiddenSize])], concat);
  const zeros = g.node('Expand', [g.scalar(0), slotRows]);
  const scattered = g.node('ScatterND', [zeros, places, stacked]);
  const bySlot = g.node('Reshape', [scattered, g.integers([-1, mlp.expertsPerToken, hiddenSize])]);
  const routed = g.node('Reshape', [sumOf(g, slotsOf(context, mlp, bySlot)), g.integers([-1, hiddenSize])]);
  if (!mlp.shared) return routed;

  const { hidden, out: shared } = gatedMlp(context, `${prefix}shared.`, inputs, { ...mlp, width: mlp.shared.width });
  if (taps.has('shared_hidden')) g.publish(hidden, `${prefix}shared_hidden`);
  if (!mlp.shared.gated) return g.node('Add', [routed, shared]);
  const score = g.node('Sigmoid', [linear(context, value, `${prefix}shared.router`, hiddenSize, 1, false)]);
  return g.node('Add', [routed, g.node('Mul', [score, shared])]);
}

/** Slot s of [n, k] or [n, k, width], for each s: [n, 1] or [n, 1, width]. */
function slotsOf({ g }: LayerContext, { expertsPerToken }: MoeMlpDescription, value: string): string[] {
  return Array.from({ length: expertsPerToken }, (_, slot) =>
    g.node('Slice', [value, g.integers([slot]), g.integers([slot + 1]), g.integers([1])]),
  );
}

/** The sum in the order of the list, by elements: a reduction's order depends on threads and on where a row lies. */
function sumOf(g: GraphComposer, values: readonly string[]): string {
  return values.reduce((sum, value) => g.node('Add', [sum, value]));
}

/**
 * What runs in each slot [n, k] when `chosen` are outputs of a router over other experts: the first slot of each merged
 * expert holds it with the sum of its weights in the order of the slots, the others -1. Elementwise, so that the bits of
 * a row do not depend on the rows beside it.
 */
function lookUp(
  context: LayerContext,
  mlp: MoeMlpDescription,
  prefix: string,
  chosen: string,
  weights: string,
): { readonly chosen: string; readonly weights: string } {
  const { g } = context;
  const stored = g.input(`${prefix}${EXPERT_MAP}`, g.float, [routerOutputs(mlp)]);
  const map = g.node('Cast', [stored], { attributes: { to: { int: INT64 } } });
  const merged = g.node('Gather', [map, chosen], { attributes: { axis: { int: 0 } } });
  const places = Array.from({ length: mlp.expertsPerToken }, (_, slot) => slot);
  const same = slotsOf(context, mlp, merged).map((expert) => g.node('Equal', [merged, expert]));
  const shares = slotsOf(context, mlp, weights).map((weight, slot) =>
    g.node('Where', [same[slot], weight, g.scalar(0)]),
  );
  const taken = places
    .map((slot) => g.node('And', [same[slot], g.node('Greater', [g.integers(places), g.integers([slot], true)])]))
    .reduce((any, one) => g.node('Or', [any, one]));
  return { chosen: g.node('Where', [taken, g.integers([-1], true), merged]), weights: sumOf(g, shares) };
}

/** Values of one expert: its tokens [count], and its rows, of which `hidden` may carry one more for company. */
interface ExpertValues {
  readonly value: string;
  readonly token: string;
  readonly count: string;
  readonly weight: string;
  readonly hidden: string;
  readonly out: string;
}

/** Collects what the experts see and publishes it, expert by expert, where a tap asks for it. */
function createExpertTaps(context: LayerContext, prefix: string): { add(expert: ExpertValues): void; publish(): void } {
  const { g, taps } = context;
  const wanted = EXPERT_TAPS.filter((tap) => taps.has(tap));
  const parts = new Map<LayerTap | 'tokens' | 'counts' | 'weights', string[]>();
  const push = (name: LayerTap | 'tokens' | 'counts' | 'weights', value: string): void => {
    parts.set(name, [...(parts.get(name) ?? []), value]);
  };
  return {
    add({ value, token, count, weight, hidden, out }) {
      if (wanted.length === 0) return;
      push('tokens', token);
      push('counts', count);
      push('weights', g.node('Reshape', [weight, g.integers([-1])]));
      for (const tap of wanted) {
        if (tap === 'expert_input') push(tap, g.node('Gather', [value, token], { attributes: { axis: { int: 0 } } }));
        else if (tap === 'expert_hidden') push(tap, g.node('Slice', [hidden, g.integers([0]), count]));
        else push(tap, out);
      }
    },
    publish() {
      for (const [name, values] of parts) {
        const whole = g.node('Concat', values, { attributes: { axis: { int: 0 } } });
        if (name === 'tokens' || name === 'counts') {
          g.node('Identity', [whole], { outputs: [`${prefix}expert_${name}`] });
          g.output(`${prefix}expert_${name}`, 'i64', [null]);
        } else {
          g.publish(whole, name === 'weights' ? `${prefix}expert_weights` : `${prefix}${name}`);
        }
      }
    },
  };
}

/** down(act(gate x) * up x), with the input of `down`, for x [n, hidden] that is quantised already where it should be. */
function gatedMlp(
  context: LayerContext,
  prefix: string,
  value: string,
  mlp: Pick<MoeMlpDescription, 'width' | 'activation'>,
): { readonly hidden: string; readonly out: string } {
  const { g, hiddenSize } = context;
  const gate = linear(context, value, `${prefix}gate`, hiddenSize, mlp.width, false);
  const up = linear(context, value, `${prefix}up`, hiddenSize, mlp.width, false);
  const hidden = g.node('Mul', [activate(g, mlp.activation, gate), up]);
  const out = linear(context, context.quantize(hidden, mlp.width), `${prefix}down`, mlp.width, hiddenSize, false);
  return { hidden, out };
}
