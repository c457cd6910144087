import { createActivationQuantizer } from './activation-graph.js';
import type { ActivationQuantization } from './activation-quantization.js';
import { groupedAttention, plainAttention, rotate, takesPlainAttention } from './attention-graph.js';
import type { LayerDescription, ModelDescription, NormDescription, RopeDescription } from './description.js';
import { composeGraph, type GraphComposer } from './graph.js';
import { applyInterventions, type InterventionKind } from './interventions.js';
import {
  activate,
  flatten,
  type LayerContext,
  type LayerTap,
  type LinearAdapter,
  linear,
  normalize,
  split,
  unflatten,
} from './layer-parts.js';
import { mixtureOfExperts } from './moe-graph.js';

/** What a graph over a range of layers is asked to compute. */
export interface RangeRequest {
  readonly layers: readonly LayerDescription[];
  /** Prefix of the names of layer k's inputs and taps (k counts within the range). */
  readonly prefix: (k: number) => string;
  readonly hiddenSize: number;
  readonly norm: NormDescription;
  readonly ropes: readonly RopeDescription[];
  readonly linearLayout: ModelDescription['linearLayout'];
  readonly float: 'f32' | 'f64';
  readonly taps: readonly LayerTap[];
  /** Residual stream taps of the layers inside the range, published as `<prefix>resid`. */
  readonly residuals: boolean;
  /** Interventions on the output of layer k, in order. Key -1 acts on the input of the range. */
  readonly interventions: ReadonlyMap<number, readonly InterventionKind[]>;
  /** Quantise and dequantise the input of every linear but the router's; off when absent. */
  readonly activations?: ActivationQuantization;
}

/**
 * Composes the graph of a range of decoder layers.
 *
 * Inputs: `resid` [B, S, hidden]; per rope index r `rope.r.cos`, `rope.r.sin` [B, S, dims/2]; weights
 * `<prefix><role>`; per layer either `<prefix>past_k`, `<prefix>past_v` [B, kvHeads, capacity, headDim] with
 * `last_key` (int32 [B], index of the last visible key) and `total` (int32 [1]) for the grouped path, or
 * `<prefix>past_k/v` [B, kvHeads, past, headDim] with `mask.<window or all>` (bool [S, past + S]) for the plain path.
 * Outputs: `resid_out` [B, S, hidden], `<prefix>present_k/v`, and the taps by name; with a tap of experts also
 * `<prefix>expert_tokens` (int64 [routed], row of each expert row), `<prefix>expert_counts` (int64 [experts]) and
 * `<prefix>expert_weights` [routed] (the router's weights).
 *
 * The plain path (operator Attention, opset 23) serves f64, attention probabilities and odd head
 * sizes; all else takes GroupQueryAttention, which never holds a [heads, S, T] buffer.
 */
export function composeRange(request: RangeRequest): Uint8Array {
  const g = composeGraph('decoder_range', request.float);
  const { hiddenSize, taps } = request;
  const resid = g.input('resid', g.float, ['batch', 'length', hiddenSize]);
  const batchLength = g.node('Slice', [g.node('Shape', [resid]), g.integers([0]), g.integers([2])]);
  const context: LayerContext = {
    g,
    hiddenSize,
    norm: request.norm,
    transposed: request.linearLayout === 'out-in',
    taps: new Set(taps),
    ropes: request.ropes,
    batchLength,
    quantize: createActivationQuantizer(g, request.activations),
  };

  let stream = flatten(g, resid, hiddenSize);
  stream = intervene(context, stream, request.interventions.get(-1), 'input.');
  request.layers.forEach((layer, k) => {
    const prefix = request.prefix(k);
    stream = decoderLayer(context, layer, prefix, stream);
    stream = intervene(context, stream, request.interventions.get(k), prefix);
    if (request.residuals) g.publish(unflatten(g, stream, batchLength), `${prefix}resid`);
  });
  g.publish(unflatten(g, stream, batchLength), 'resid_out');
  return g.encode();
}

/** What lies between the attention of a layer and that of the next; either may be absent. */
export interface SeamRequest extends Omit<RangeRequest, 'layers' | 'prefix' | 'taps' | 'residuals' | 'interventions'> {
  /** Its heads are done. */
  readonly finished: LayerDescription | undefined;
  /** Operators on the output of the finished layer. */
  readonly interventions: readonly InterventionKind[];
  /** Its heads come next. */
  readonly next: LayerDescription | undefined;
  /** Low-rank terms by the names of the weights, such as `next.q`. */
  readonly adapters?: ReadonlyMap<string, LinearAdapter>;
}

export const FINISHED = 'finished.';
export const NEXT = 'next.';

/**
 * Composes the graph between two attentions, which acts on every row for itself.
 *
 * Inputs: `resid` [B, S, hidden], the stream before the finished layer, or before the next where none is finished;
 * `heads` [B, S, heads * headDim], what the heads of the finished layer gave; weights `finished.<role>` and
 * `next.<role>`; the tables of the next layer's rope. Outputs: `resid_out` [B, S, hidden], the stream after the finished
 * layer; `queries`, `keys` and `values` of the next, [B, S, its heads * headDim].
 */
export function composeSeam(request: SeamRequest): Uint8Array {
  const g = composeGraph('decoder_seam', request.float);
  const { hiddenSize, finished, next } = request;
  const resid = g.input('resid', g.float, ['batch', 'length', hiddenSize]);
  const batchLength = g.node('Slice', [g.node('Shape', [resid]), g.integers([0]), g.integers([2])]);
  const context: LayerContext = {
    g,
    hiddenSize,
    norm: request.norm,
    transposed: request.linearLayout === 'out-in',
    taps: new Set(),
    ropes: request.ropes,
    batchLength,
    quantize: createActivationQuantizer(g, request.activations),
    ...(request.adapters && { adapters: request.adapters }),
  };
  let stream = flatten(g, resid, hiddenSize);
  if (finished) {
    const width = finished.attention.heads * finished.attention.headDim;
    const heads = flatten(g, g.input('heads', g.float, ['batch', 'length', width]), width);
    stream = finishLayer(context, finished, FINISHED, stream, heads);
    stream = intervene(context, stream, request.interventions, FINISHED);
    g.publish(unflatten(g, stream, batchLength), 'resid_out');
  }
  if (next) {
    const [q, k, v] = attentionInputs(context, next.attention, NEXT, normed(context, NEXT, stream));
    g.publish(q, 'queries');
    g.publish(k, 'keys');
    g.publish(v, 'values');
  }
  return g.encode();
}

function intervene(
  context: LayerContext,
  stream: string,
  kinds: readonly InterventionKind[] | undefined,
  prefix: string,
): string {
  if (!kinds || kinds.length === 0) return stream;
  return applyInterventions(context.g, stream, kinds, prefix, context.hiddenSize);
}

function decoderLayer(context: LayerContext, layer: LayerDescription, prefix: string, stream: string): string {
  return finishLayer(
    context,
    layer,
    prefix,
    stream,
    attention(context, layer, prefix, normed(context, prefix, stream)),
  );
}

/**
 * One layer whose attention the caller writes: `attend` is given queries, keys and values [B, S, its heads * headDim]
 * and returns what the heads give, [B, S, heads * headDim].
 * @param stream [n, hidden]
 * @returns [n, hidden]
 */
export function layerAround(
  context: LayerContext,
  layer: LayerDescription,
  prefix: string,
  stream: string,
  attend: (queries: string, keys: string, values: string) => string,
): string {
  const { attention: a } = layer;
  const heads = attend(...attentionInputs(context, a, prefix, normed(context, prefix, stream)));
  return finishLayer(context, layer, prefix, stream, flatten(context.g, heads, a.heads * a.headDim));
}

/** What attention reads: the normed stream. */
function normed({ g, hiddenSize, norm, taps }: LayerContext, prefix: string, stream: string): string {
  const value = normalize(g, norm, stream, `${prefix}attn_norm`, hiddenSize);
  if (taps.has('attention_input')) g.publish(value, `${prefix}attention_input`);
  return value;
}

/** The stream after a layer, from the stream before it and what its heads gave, [n, heads * headDim]. */
function finishLayer(
  context: LayerContext,
  layer: LayerDescription,
  prefix: string,
  stream: string,
  mixedHeads: string,
): string {
  const { g, hiddenSize, norm, taps } = context;
  const { outputBias, heads, headDim } = layer.attention;
  const qWidth = heads * headDim;
  const attended = linear(context, context.quantize(mixedHeads, qWidth), `${prefix}o`, qWidth, hiddenSize, outputBias);
  if (taps.has('attention_output')) g.publish(attended, `${prefix}attention_output`);

  const finish = (branch: string, role: string): string =>
    layer.branchNorms ? normalize(g, norm, branch, `${prefix}${role}`, hiddenSize) : branch;

  const middle = g.node('Add', [stream, finish(attended, 'attn_post_norm')]);
  const mlpInput = normalize(g, norm, layer.parallel ? stream : middle, `${prefix}mlp_norm`, hiddenSize);
  if (taps.has('mlp_input')) g.publish(mlpInput, `${prefix}mlp_input`);
  const mixed =
    layer.mlp.kind === 'dense'
      ? denseMlp(context, layer.mlp, prefix, context.quantize(mlpInput, hiddenSize))
      : mixtureOfExperts(context, layer.mlp, prefix, mlpInput);
  return g.node('Add', [middle, finish(mixed, 'mlp_post_norm')]);
}

function denseMlp(
  context: LayerContext,
  mlp: Extract<LayerDescription['mlp'], { kind: 'dense' }>,
  prefix: string,
  value: string,
): string {
  const { g, hiddenSize, taps } = context;
  const down = (hidden: string): string => {
    if (taps.has('mlp_hidden')) g.publish(hidden, `${prefix}mlp_hidden`);
    return linear(context, context.quantize(hidden, mlp.width), `${prefix}down`, mlp.width, hiddenSize, mlp.bias);
  };
  const activated = (rows: string): string => {
    if (taps.has('mlp_preactivation')) g.publish(rows, `${prefix}mlp_preactivation`);
    return activate(g, mlp.activation, rows);
  };
  if (!mlp.gated) return down(activated(linear(context, value, `${prefix}up`, hiddenSize, mlp.width, mlp.bias)));
  let gate: string;
  let up: string;
  if (mlp.fusedGateUp) {
    const both = linear(context, value, `${prefix}gate_up`, hiddenSize, 2 * mlp.width, mlp.bias);
    [gate, up] = split(g, both, [mlp.width, mlp.width]);
  } else {
    gate = linear(context, value, `${prefix}gate`, hiddenSize, mlp.width, mlp.bias);
    up = linear(context, value, `${prefix}up`, hiddenSize, mlp.width, mlp.bias);
  }
  return down(g.node('Mul', [activated(gate), up]));
}

/** What the heads of a layer give, side by side: [n, heads * headDim]. */
function attention(context: LayerContext, layer: LayerDescription, prefix: string, value: string): string {
  const { g, taps } = context;
  const a = layer.attention;
  const [q, k, v] = attentionInputs(context, a, prefix, value);
  if (taps.has('queries')) g.publish(q, `${prefix}queries`);
  if (taps.has('keys')) g.publish(k, `${prefix}keys`);
  if (taps.has('values')) g.publish(v, `${prefix}values`);
  const mixed = takesPlainAttention(a, g.float, taps)
    ? plainAttention(g, a, prefix, q, k, v, taps.has('attention_probabilities'))
    : groupedAttention(g, a, prefix, q, k, v);
  const rows = flatten(g, mixed, a.heads * a.headDim);
  if (taps.has('attention_mixed')) g.publish(rows, `${prefix}attention_mixed`);
  return rows;
}

/** Queries, keys and values after norms, clipping and rotary embedding, each [B, S, heads * headDim]. */
function attentionInputs(
  context: LayerContext,
  a: LayerDescription['attention'],
  prefix: string,
  value: string,
): [string, string, string] {
  const { g, hiddenSize, norm, batchLength } = context;
  const qWidth = a.heads * a.headDim;
  const kvWidth = a.kvHeads * a.headDim;
  let [q, k, v] = project(context, a, prefix, context.quantize(value, hiddenSize));
  if (a.qkNorm === 'head') {
    q = headNorm(g, norm, q, `${prefix}q_norm`, a.headDim, qWidth);
    k = headNorm(g, norm, k, `${prefix}k_norm`, a.headDim, kvWidth);
  } else if (a.qkNorm === 'full') {
    q = normalize(g, norm, q, `${prefix}q_norm`, qWidth);
    k = normalize(g, norm, k, `${prefix}k_norm`, kvWidth);
  }
  if (a.clip !== undefined) {
    const bounds = [g.scalar(-a.clip), g.scalar(a.clip)];
    [q, k, v] = [q, k, v].map((x) => g.node('Clip', [x, ...bounds]));
  }
  [q, k, v] = [q, k, v].map((x) => unflatten(g, x, batchLength));
  if (a.rope === undefined) return [q, k, v];
  const { dims } = context.ropes[a.rope];
  return [rotate(g, q, a.heads, a.headDim, a.rope, dims), rotate(g, k, a.kvHeads, a.headDim, a.rope, dims), v];
}

/** Queries, keys and values, each [n, heads * headDim]. */
function project(
  context: LayerContext,
  a: LayerDescription['attention'],
  prefix: string,
  value: string,
): [string, string, string] {
  const { g, hiddenSize } = context;
  const qWidth = a.heads * a.headDim;
  const kvWidth = a.kvHeads * a.headDim;
  if (a.projection === 'separate') {
    return [
      linear(context, value, `${prefix}q`, hiddenSize, qWidth, a.qkvBias),
      linear(context, value, `${prefix}k`, hiddenSize, kvWidth, a.qkvBias),
      linear(context, value, `${prefix}v`, hiddenSize, kvWidth, a.qkvBias),
    ];
  }
  const fused = linear(context, value, `${prefix}qkv`, hiddenSize, qWidth + 2 * kvWidth, a.qkvBias);
  if (a.projection === 'fused') {
    const [q, k, v] = split(g, fused, [qWidth, kvWidth, kvWidth]);
    return [q, k, v];
  }
  const byHead = g.node('Reshape', [fused, g.integers([0, a.heads, 3 * a.headDim])]);
  const [q, k, v] = split(g, byHead, [a.headDim, a.headDim, a.headDim]).map((x) => flatten(g, x, qWidth));
  return [q, k, v];
}

/** RMSNorm over each head of [n, heads * headDim]. */
function headNorm(
  g: GraphComposer,
  norm: NormDescription,
  value: string,
  name: string,
  headDim: number,
  width: number,
): string {
  const heads = g.node('Reshape', [value, g.integers([0, width / headDim, headDim])]);
  return flatten(g, normalize(g, norm, heads, name, headDim), width);
}
