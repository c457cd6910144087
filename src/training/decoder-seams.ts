import type { Tensor } from 'onnxruntime-node';
import { type LayerDescription, layerKey, type ModelDescription } from '../models/description.js';
import { composeSeam, FINISHED, NEXT } from '../models/layer-graph.js';
import type { LinearAdapter } from '../models/layer-parts.js';
import type { Random } from '../random.js';
import type { DecoderWeights, WeightView } from './decoder-weights.js';
import { type Feeds, floatTensor, openSegment, type Segment } from './graph-segment.js';
import type { Precision } from './types.js';

/** What lies between two attentions: the end of layer s - 1 and the start of layer s. */
export interface Seam {
  readonly index: number;
  readonly finished?: LayerDescription;
  readonly next?: LayerDescription;
  /** Weights by input name. */
  readonly weights: ReadonlyMap<string, WeightView>;
  readonly feeds: Feeds;
  /** Names of the weights that are trained. */
  readonly trained: readonly string[];
  /** What depends on something that is trained: the stream and the heads that it reads, and what it gives. */
  readonly streamLearns: boolean;
  readonly headsLearn: boolean;
  readonly outputLearns: boolean;
  readonly queriesLearn: boolean;
  /** Experts are chosen by the data: shapes inside are no function of the batch's shape. */
  readonly routed: boolean;
  segment(recompute: boolean): Promise<Segment>;
}

export interface SeamSettings {
  readonly model: ModelDescription;
  readonly weights: DecoderWeights;
  readonly precision: Precision;
  readonly threads: number;
  /** Numbers of the examples on which ranks are found out. */
  readonly random: Random;
}

/** A layer whose graph leaves the rotary embedding to the attention. */
function unrotated(layer: LayerDescription): LayerDescription {
  const { rope: _, ...attention } = layer.attention;
  return { ...layer, attention };
}

const isRouted = (layer: LayerDescription | undefined): boolean => layer?.mlp.kind === 'moe';

/** Roles of a layer that its first half reads, up to queries, keys and values. */
const FIRST_HALF = /^(attn_norm|q|k|v|qkv|q_norm|k_norm)(_bias)?(\.lora_[ab])?$/;

/** Sessions are shared by seams that compute the same function and train the same weights. */
export function createSeams(settings: SeamSettings): { readonly seams: readonly Seam[]; close(): Promise<void> } {
  const { model, weights } = settings;
  const segments = new Map<string, Promise<Segment>>();
  const count = model.layers.length;
  let streamLearns = (weights.embedding.gradient ?? weights.positions?.gradient) !== undefined;
  let headsLearn = false;
  const seams: Seam[] = [];
  for (let index = 0; index <= count; index++) {
    const finished = index > 0 ? unrotated(model.layers[index - 1]) : undefined;
    const next = index < count ? unrotated(model.layers[index]) : undefined;
    const own = new Map<string, WeightView>();
    const adapters = new Map<string, LinearAdapter>();
    const take = (layer: number, prefix: string, firstHalf: boolean): void => {
      for (const [role, view] of weights.layers[layer])
        if (FIRST_HALF.test(role) === firstHalf) own.set(prefix + role, view);
      for (const [role, adapter] of weights.adapters[layer]) {
        if (FIRST_HALF.test(role) === firstHalf) adapters.set(prefix + role, adapter);
      }
    };
    if (finished) take(index - 1, FINISHED, false);
    if (next) take(index, NEXT, true);
    const trained = [...own].filter(([, view]) => view.gradient).map(([name]) => name);
    const outputLearns: boolean = streamLearns || headsLearn || trained.some((name) => name.startsWith(FINISHED));
    const queriesLearn: boolean = next !== undefined && (outputLearns || trained.some((name) => name.startsWith(NEXT)));
    const routed = isRouted(finished);
    const wanted = [...(streamLearns ? ['resid'] : []), ...(finished && headsLearn ? ['heads'] : []), ...trained];
    const seeds = [
      ...(finished && outputLearns ? ['resid_out'] : []),
      ...(queriesLearn ? ['queries', 'keys', 'values'] : []),
    ];
    const feeds = Object.fromEntries([...own].map(([name, view]) => [name, floatTensor(view.values, view.dims)]));
    const key =
      [finished, next].map((layer) => (layer ? layerKey(layer) : '')).join('|') +
      JSON.stringify([wanted, [...adapters]]);
    const compose = (): Uint8Array =>
      composeSeam({
        hiddenSize: model.hiddenSize,
        norm: model.norm,
        ropes: model.ropes,
        linearLayout: model.linearLayout,
        float: settings.precision,
        finished,
        next,
        interventions: [],
        adapters,
      });
    seams.push({
      index,
      weights: own,
      feeds,
      trained,
      streamLearns,
      headsLearn,
      outputLearns,
      queriesLearn,
      routed,
      ...(finished && { finished }),
      ...(next && { next }),
      segment(recompute) {
        const known = `${key}|${recompute}`;
        let segment = segments.get(known);
        if (!segment) {
          segment = openSegment({
            graph: compose(),
            wanted,
            seeds,
            example: exampleOf(settings, seams[index], own),
            precision: settings.precision,
            threads: settings.threads,
            recompute,
            fixedShapes: !routed,
          });
          segments.set(known, segment);
        }
        return segment;
      },
    });
    streamLearns = outputLearns;
    headsLearn = queriesLearn || (next !== undefined && weights.extras[index].size > 0);
  }
  return {
    seams,
    async close() {
      for (const segment of segments.values()) await (await segment).close();
    },
  };
}

/** Rows enough that every expert has several of them, and random routers, so that it does. */
function exampleOf(settings: SeamSettings, seam: Seam, weights: ReadonlyMap<string, WeightView>): Feeds {
  const { model, precision, random } = settings;
  const stream = random.fork(seam.index);
  const mlp = seam.finished?.mlp;
  const length = mlp?.kind === 'moe' ? Math.max(3, Math.ceil((4 * mlp.experts) / mlp.expertsPerToken)) : 3;
  const normal = (dims: readonly number[]): Tensor => {
    const size = dims.reduce((product, extent) => product * extent, 1);
    const data = precision === 'f32' ? new Float32Array(size) : new Float64Array(size);
    for (let i = 0; i < size; i++) data[i] = stream.normal();
    return floatTensor(data, dims);
  };
  const feeds: Record<string, Tensor> = { ...seam.feeds };
  for (const [name, view] of weights) if (name.endsWith('.router')) feeds[name] = normal(view.dims);
  feeds.resid = normal([2, length, model.hiddenSize]);
  if (seam.finished) {
    const { heads, headDim } = seam.finished.attention;
    feeds.heads = normal([2, length, heads * headDim]);
  }
  return feeds;
}
