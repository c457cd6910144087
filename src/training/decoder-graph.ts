import { Tensor } from 'onnxruntime-node';
import { decodeOnnxModel } from '../formats/onnx.js';
import type { ModelProto } from '../formats/onnx_pb.js';
import { graphOf } from '../formats/onnx-edit.js';
import { elementCount } from '../formats/tensor.js';
import type { AttentionDescription, LayerDescription, ModelDescription } from '../models/description.js';
import { bindInputs, composeGraph, type GraphComposer } from '../models/graph.js';
import { layerAround } from '../models/layer-graph.js';
import { flatten, type LayerContext, type LinearAdapter, normalize, unflatten } from '../models/layer-parts.js';
import { createRopeFeeds, dependsOnLength } from '../models/rope-feeds.js';
import { floatsOf } from '../models/sessions.js';
import { createRandom } from '../random.js';
import { type AttentionExtension, attend, COUNTED, HIDDEN_SCORE } from './attention-composition.js';
import type { DecoderWeights, ExtraParameter, WeightView } from './decoder-weights.js';
import { type Feeds, floatTensor } from './graph-segment.js';
import type { Floats, Precision } from './types.js';

export interface DecoderGraphRequest {
  readonly model: ModelDescription;
  readonly weights: DecoderWeights;
  readonly precision: Precision;
  /** Longest window; every window where a rotary embedding depends on the length. */
  readonly length: number;
  readonly extension?: AttentionExtension;
  readonly extras: readonly (readonly ExtraParameter[])[];
}

/** A model as one graph whose weights are inputs. */
export interface WholeGraph {
  readonly model: ModelProto;
  /** Every weight by name; floats lie in the student's memory. */
  readonly weights: Feeds;
  /** Names of outputs: logits [B, S, classes], and what is added to the loss. */
  readonly logits: string;
  readonly penalty?: string;
  /** A small batch, with weights, on which ranks are found out. */
  readonly example: Feeds;
}

/** A stored tensor as the graph reads it: whole, or cut into the weights that are parts of it. */
interface StoredParts {
  readonly values: Floats;
  readonly dims: readonly number[];
  readonly views: Set<WeightView>;
  cut: ReadonlyMap<WeightView, string> | undefined;
}

const EXAMPLE_SEED = 7;
const EXAMPLE_LENGTH = 5;
/** Rows in the example for each expert, so that none runs over a single row. */
const ROWS_OF_EXPERT = 4;

function allViews({ embedding, head, positions, finalNorm, finalNormBias, layers, extras }: DecoderWeights) {
  const whole = [embedding, head, positions, finalNorm, finalNormBias].flatMap((view) => view ?? []);
  return [...whole, ...[...layers, ...extras].flatMap((roles) => [...roles.values()])];
}

/** Stored tensors with the weights that are parts of them. */
function storedParts(weights: DecoderWeights): Map<string, StoredParts> {
  const stored = new Map<string, StoredParts>();
  for (const view of allViews(weights)) {
    const whole = weights.tensors.get(view.tensor);
    const known = stored.get(view.tensor) ?? {
      values: (whole?.data as Floats | undefined) ?? view.values,
      dims: whole?.shape ?? view.dims,
      views: new Set<WeightView>(),
      cut: undefined,
    };
    known.views.add(view);
    stored.set(view.tensor, known);
  }
  return stored;
}

/** Cuts a flat tensor into its views, and what lies between them. */
function cutViews(g: GraphComposer, name: string, { values, dims, views }: StoredParts): Map<WeightView, string> {
  const start = (view: WeightView): number => (view.values.byteOffset - values.byteOffset) / values.BYTES_PER_ELEMENT;
  const whole = g.input(name, g.float, dims);
  const sorted = [...views].sort((a, b) => start(a) - start(b));
  const lengths: number[] = [];
  const outputs: string[] = [];
  const cut = new Map<WeightView, string>();
  let end = 0;
  const part = (to: number): string => {
    const output = `${name}.part${outputs.length}`;
    lengths.push(to - end);
    outputs.push(output);
    end = to;
    return output;
  };
  for (const view of sorted) {
    if (start(view) > end) part(start(view));
    cut.set(view, part(start(view) + view.values.length));
  }
  if (end < values.length) part(values.length);
  const flat = g.node('Reshape', [whole, g.integers([-1])]);
  if (outputs.length === 1) return new Map([...cut.keys()].map((view) => [view, flat]));
  g.node('Split', [flat, g.integers(lengths)], { attributes: { axis: { int: 0 } }, outputs });
  return cut;
}

/** Gives the value of a weight, an input of the graph under the name of its stored tensor. */
function createWeightValues(g: GraphComposer, stored: ReadonlyMap<string, StoredParts>): (view: WeightView) => string {
  const made = new Map<WeightView, string>();
  return (view) => {
    const known = made.get(view);
    if (known !== undefined) return known;
    const tensor = stored.get(view.tensor);
    let value: string;
    if (!tensor || tensor.dims.join() === view.dims.join()) value = g.input(view.tensor, g.float, view.dims);
    else {
      tensor.cut ??= cutViews(g, view.tensor, tensor);
      value = g.node('Reshape', [tensor.cut.get(view) ?? '', g.integers(view.dims)]);
    }
    made.set(view, value);
    return value;
  };
}

/** Masks and rotary tables of windows from position 0 on. */
function createPositions(request: DecoderGraphRequest, g: GraphComposer, ids: string) {
  const { model, precision, length } = request;
  const ropes = createRopeFeeds(model, precision);
  const extent = g.node('Slice', [g.node('Shape', [ids]), g.integers([1]), g.integers([2])]);
  const count = g.node('Squeeze', [extent, g.integers([0])]);
  const places = g.node('Range', [g.integers([0], true), count, g.integers([1], true)]);
  const queries = g.node('Unsqueeze', [places, g.integers([1])]);
  const keys = g.node('Unsqueeze', [places, g.integers([0])]);
  const masks = new Map<number | undefined, string>();
  const first = (table: string): string => g.node('Slice', [table, g.integers([0]), extent, g.integers([0])]);
  return {
    first,
    mask(window: number | undefined): string {
      const known = masks.get(window);
      if (known !== undefined) return known;
      const past = g.node('LessOrEqual', [keys, queries]);
      const near = (of: number): string => g.node('Greater', [keys, g.node('Sub', [queries, g.integers([of], true)])]);
      const visible = window === undefined ? past : g.node('And', [past, near(window)]);
      const mask = g.node('Where', [visible, g.scalar(0), g.scalar(HIDDEN_SCORE)]);
      masks.set(window, mask);
      return mask;
    },
    table(rope: number, side: 'cos' | 'sin'): string {
      const tables = ropes.feeds(rope, [0], length, length);
      const values = floatsOf(tables[side === 'cos' ? 0 : 1]);
      const table = g.floats(`rope.${rope}.${side}`, values, [length, model.ropes[rope].dims / 2]);
      return dependsOnLength(model, rope) ? table : first(table);
    },
  };
}

const hasFixedLength = ({ layers, ...model }: ModelDescription): boolean =>
  layers.some(({ attention: { rope } }) => rope !== undefined && dependsOnLength({ ...model, layers }, rope));

/**
 * A decoder as one graph of operators that have gradients: what `openDecoderStudent` computes in pieces. Inputs:
 * `input_ids` [batch, length] int64, every weight under the name of its stored tensor, and `counted` [batch, 1, length]
 * where an extension of attention reads it: 1 for queries of the text, 0 for what fills a window up. Outputs: `logits`
 * [batch, length, vocabulary], and `penalty` where the attention's extension has one, summed over the layers.
 */
export function composeDecoder(request: DecoderGraphRequest): WholeGraph {
  const { model, weights, precision, extension } = request;
  const { hiddenSize, vocabularySize } = model;
  const g = composeGraph('decoder', precision);
  const stored = storedParts(weights);
  const weightValue = createWeightValues(g, stored);
  const ids = g.input('input_ids', 'i64', ['batch', hasFixedLength(model) ? request.length : 'length']);
  const positions = createPositions(request, g, ids);
  const penalties: string[] = [];

  let resid = g.node('Gather', [weightValue(weights.embedding), ids], { attributes: { axis: { int: 0 } } });
  if (model.embeddingScale !== 1) resid = g.node('Mul', [resid, g.scalar(model.embeddingScale)]);
  if (weights.positions) resid = g.node('Add', [resid, positions.first(weightValue(weights.positions))]);
  const batchLength = g.node('Shape', [ids]);
  let stream = flatten(g, resid, hiddenSize);

  model.layers.forEach((layer, l) => {
    const prefix = `layers.${l}.`;
    const { rope, ...unrotated } = layer.attention;
    const views = weights.layers[l];
    const own = bindInputs(g, prefix, (name) => {
      const view = views.get(name.slice(prefix.length));
      return view && weightValue(view);
    });
    const attention = (queries: string, keys: string, values: string): string => {
      const { heads, penalty } = attentionOf(l, layer.attention, { queries, keys, values });
      if (penalty !== undefined) penalties.push(penalty);
      return heads;
    };
    const context = layerContext(own, request, prefix, batchLength, weights.adapters[l]);
    stream = layerAround(context, { ...layer, attention: unrotated }, prefix, stream, attention);
  });

  function attentionOf(l: number, a: AttentionDescription, given: Readonly<Record<string, string>>) {
    const bound = bindInputs(g, `layers.${l}.attention.`, (name) => {
      if (name === 'mask') return positions.mask(a.window);
      if (a.rope !== undefined && (name === 'cos' || name === 'sin')) return positions.table(a.rope, name);
      const extra = weights.extras[l].get(name);
      return extra ? weightValue(extra) : given[name];
    });
    const ropeDims = a.rope === undefined ? 0 : model.ropes[a.rope].dims;
    const extras = request.extras[l] ?? [];
    return attend(bound, { attention: a, ropeDims, precision, extras, ...(extension && { extension }) });
  }

  const ends: Readonly<Record<string, WeightView | undefined>> = {
    final_norm: weights.finalNorm,
    final_norm_bias: weights.finalNormBias,
  };
  const end = bindInputs(g, '', (name) => {
    const view = ends[name];
    return view && weightValue(view);
  });
  const rows = normalize(end, model.norm, stream, 'final_norm', hiddenSize);
  let logits = g.node('Gemm', [rows, weightValue(weights.head)], { attributes: { transB: { int: 1 } } });
  if (model.logitSoftcap !== undefined) {
    const cap = g.scalar(model.logitSoftcap);
    logits = g.node('Mul', [g.node('Tanh', [g.node('Div', [logits, cap])]), cap]);
  }
  g.publish(unflatten(g, logits, batchLength), 'logits', ['batch', 'length', vocabularySize]);
  if (penalties.length > 0) g.publish(g.node('Sum', penalties), 'penalty', []);

  const feeds = Object.fromEntries(
    [...stored].map(([name, { values, dims }]) => [name, floatTensor(values, dims)] as const),
  );
  const whole = decodeOnnxModel(g.encode(), 'decoder');
  const readsCounted = graphOf(whole).input.some(({ name }) => name === COUNTED);
  return {
    model: whole,
    weights: feeds,
    logits: 'logits',
    ...(penalties.length > 0 && { penalty: 'penalty' }),
    example: exampleOf(request, feeds, readsCounted),
  };
}

function layerContext(
  g: GraphComposer,
  { model }: DecoderGraphRequest,
  prefix: string,
  batchLength: string,
  adapters: ReadonlyMap<string, LinearAdapter>,
): LayerContext {
  return {
    g,
    hiddenSize: model.hiddenSize,
    norm: model.norm,
    transposed: model.linearLayout === 'out-in',
    taps: new Set(),
    ropes: model.ropes,
    batchLength,
    quantize: (value) => value,
    adapters: new Map([...adapters].map(([role, adapter]) => [prefix + role, adapter])),
  };
}

/** Random tokens, as many as give every expert several rows, under random routers. */
function exampleOf(
  { model, weights, length, precision }: DecoderGraphRequest,
  feeds: Feeds,
  readsCounted: boolean,
): Feeds {
  const random = createRandom(EXAMPLE_SEED);
  const columns = hasFixedLength(model) ? length : Math.min(length, EXAMPLE_LENGTH);
  const routed = model.layers.flatMap(({ mlp }: LayerDescription) =>
    mlp.kind === 'moe' ? [(ROWS_OF_EXPERT * mlp.experts) / mlp.expertsPerToken] : [],
  );
  const needed = Math.max(2, ...routed.map((rows) => Math.ceil(rows / columns)));
  const batch = needed === columns ? needed + 1 : needed;
  const ids = BigInt64Array.from({ length: batch * columns }, () =>
    BigInt(Math.floor(random.uniform() * model.vocabularySize)),
  );
  const routers = weights.layers.flatMap((roles) => {
    const view = roles.get('router');
    if (!view) return [];
    const size = elementCount(view.dims);
    const data = precision === 'f32' ? new Float32Array(size) : new Float64Array(size);
    for (let i = 0; i < size; i++) data[i] = random.normal();
    return [[view.tensor, floatTensor(data, view.dims)] as const];
  });
  const ones = (precision === 'f32' ? new Float32Array(ids.length) : new Float64Array(ids.length)).fill(1);
  return {
    ...feeds,
    ...Object.fromEntries(routers),
    input_ids: new Tensor('int64', ids, [batch, columns]),
    ...(readsCounted && { [COUNTED]: floatTensor(ones, [batch, 1, columns]) }),
  };
}
