import type { Tensor } from 'onnxruntime-node';
import { addInto } from '../kernels/optimizer-steps.js';
import type { AttentionDescription, ModelDescription } from '../models/description.js';
import type { RopeFeeds } from '../models/rope-feeds.js';
import type { Random } from '../random.js';
import { type AttentionExtension, COUNTED, causalScores, composeAttention } from './attention-composition.js';
import type { ExtraParameter, WeightView } from './decoder-weights.js';
import {
  createSavedBuffers,
  type Feeds,
  floatTensor,
  openSegment,
  type SavedBuffers,
  type SavedState,
  type Segment,
} from './graph-segment.js';
import { type Floats, IGNORED, type Precision } from './types.js';
import type { Workspace } from './workspace.js';

/** Queries, keys, values and what the heads give of one layer: [B, S, its heads * headDim]. */
export interface AttentionTensors {
  readonly queries: Tensor;
  readonly keys: Tensor;
  readonly values: Tensor;
  readonly heads: Tensor;
}

/** Cotangents of the same. */
export interface AttentionGradients {
  readonly queries?: Tensor;
  readonly keys?: Tensor;
  readonly values?: Tensor;
  /** What comes in. */
  readonly heads: Tensor;
}

export interface AttentionCall {
  readonly layer: number;
  readonly batch: number;
  readonly length: number;
  /** [batch * length]; queries behind the last label of a window fill it up. */
  readonly labels: Int32Array;
}

/** Attention between the seams of a decoder. */
export interface DecoderAttention {
  /** Writes `heads`; returns the penalty of the layer. */
  infer(call: AttentionCall, tensors: AttentionTensors): Promise<number>;
  forward(call: AttentionCall, tensors: AttentionTensors): Promise<number>;
  /** Writes the gradients that are there, and adds those of the layer's extras. */
  backward(
    call: AttentionCall,
    tensors: AttentionTensors,
    gradients: AttentionGradients,
    penaltyScale: number,
  ): Promise<void>;
  close(): Promise<void>;
}

export interface AttentionSettings {
  readonly model: ModelDescription;
  readonly precision: Precision;
  readonly threads: number;
  readonly random: Random;
  readonly ropes: RopeFeeds;
  readonly workspace: Workspace;
  readonly extension?: AttentionExtension;
  readonly extras: readonly (readonly ExtraParameter[])[];
  readonly views: readonly ReadonlyMap<string, WeightView>[];
  /** Layers whose attention is computed again in the backward pass. */
  readonly recompute: (layer: number) => boolean;
}

/** Attention as a graph of standard operators, with whatever an extension adds to it. */
export function createGraphAttention(settings: AttentionSettings): DecoderAttention {
  const { model, precision, workspace, extension, ropes } = settings;
  const segments = new Map<string, Promise<Segment>>();
  const states = new Map<number, SavedState>();
  const buffers: SavedBuffers[] = model.layers.map(createSavedBuffers);
  const masks = new Map<string, Tensor>();

  const tablesOf = (a: AttentionDescription, length: number): Feeds => {
    if (a.rope === undefined) return {};
    const [cos, sin] = ropes.feeds(a.rope, [0], length, length);
    const dims = [length, model.ropes[a.rope].dims / 2];
    return { cos: cos.reshape(dims), sin: sin.reshape(dims) };
  };
  const maskOf = (a: AttentionDescription, length: number): Tensor => {
    const key = `${length}|${a.window}`;
    const known = masks.get(key) ?? floatTensor(causalScores(length, a.window, precision), [length, length]);
    masks.set(key, known);
    return known;
  };
  const extrasOf = (layer: number): Feeds =>
    Object.fromEntries([...settings.views[layer]].map(([role, view]) => [role, floatTensor(view.values, view.dims)]));

  const feedsOf = (call: AttentionCall, { queries, keys, values }: AttentionTensors): Feeds => {
    const { layer, length } = call;
    const a = model.layers[layer].attention;
    const counted = extension && { [COUNTED]: countedQueries(call, precision) };
    return { queries, keys, values, mask: maskOf(a, length), ...tablesOf(a, length), ...extrasOf(layer), ...counted };
  };

  const segmentOf = (layer: number): Promise<Segment> => {
    const { attention } = model.layers[layer];
    const recompute = settings.recompute(layer);
    const extras = settings.extras[layer] ?? [];
    const key = JSON.stringify([attention, extras.map(({ role, dims }) => [role, dims]), recompute]);
    let segment = segments.get(key);
    if (!segment) {
      const ropeDims = attention.rope === undefined ? 0 : model.ropes[attention.rope].dims;
      segment = openSegment({
        graph: composeAttention({ attention, ropeDims, precision, extras, ...(extension && { extension }) }),
        wanted: ['queries', 'keys', 'values', ...extras.filter(({ frozen }) => !frozen).map(({ role }) => role)],
        seeds: ['heads', ...(extension?.penalty ? ['penalty'] : [])],
        example: feedsOf({ layer, batch: 2, length: 3, labels: new Int32Array(6) }, exampleOf(settings, attention)),
        precision,
        threads: settings.threads,
        recompute,
        fixedShapes: true,
      });
      segments.set(key, segment);
    }
    return segment;
  };

  const observedOf = ({ layer, batch, length }: AttentionCall): Tensor =>
    workspace.tensor('observed', [batch, model.layers[layer].attention.heads, length]);
  const outputsOf = (call: AttentionCall, heads: Tensor): Record<string, Tensor | null> => ({
    heads,
    ...(extension?.penalty && { penalty: workspace.tensor('penalty', []) }),
    ...(extension?.observe && { observed: observedOf(call) }),
  });
  /** Tells what was observed; returns the penalty. */
  const tell = (call: AttentionCall): number => {
    extension?.observe?.(call.layer, observedOf(call).data as Floats, { ...call, counted: countQueries(call) });
    return extension?.penalty ? workspace.floats('penalty', 1)[0] : 0;
  };

  return {
    async infer(call, tensors) {
      const segment = await segmentOf(call.layer);
      await segment.infer(feedsOf(call, tensors), outputsOf(call, tensors.heads));
      return tell(call);
    },

    async forward(call, tensors) {
      const segment = await segmentOf(call.layer);
      const shape = `${call.batch}x${call.length}`;
      const outputs = outputsOf(call, tensors.heads);
      const { saved } = await segment.forward(feedsOf(call, tensors), outputs, buffers[call.layer], shape);
      states.set(call.layer, saved);
      return tell(call);
    },

    async backward(call, tensors, gradients, penaltyScale) {
      const segment = await segmentOf(call.layer);
      const scale: Floats = workspace.floats('grad.penalty', 1);
      scale[0] = penaltyScale;
      const cotangents: Feeds = { heads: gradients.heads, penalty: floatTensor(scale, []) };
      const into: Record<string, Tensor> = {};
      for (const name of ['queries', 'keys', 'values'] as const) {
        const tensor = gradients[name];
        if (tensor) into[name] = tensor;
      }
      const views = [...settings.views[call.layer]].filter(
        ([role, { gradient }]) => gradient && !segment.unreached.has(role),
      );
      for (const [role, view] of views) into[role] = workspace.tensor(`grad.extra.${role}`, view.dims);
      await segment.backward(feedsOf(call, tensors), states.get(call.layer) ?? { tensors: {} }, cotangents, into);
      states.delete(call.layer);
      for (const [role, view] of views) {
        if (view.gradient) addInto(view.gradient, workspace.floats(`grad.extra.${role}`, view.gradient.length));
      }
    },

    async close() {
      for (const segment of segments.values()) await (await segment).close();
    },
  };
}

/** [B, 1, S]: 1 up to the last label of a window. */
function countedQueries({ batch, length, labels }: AttentionCall, precision: Precision): Tensor {
  const counted = precision === 'f32' ? new Float32Array(batch * length) : new Float64Array(batch * length);
  for (let b = 0; b < batch; b++) counted.fill(1, b * length, b * length + textLength(labels, b, length));
  return floatTensor(counted, [batch, 1, length]);
}

function countQueries({ batch, length, labels }: AttentionCall): number {
  let count = 0;
  for (let b = 0; b < batch; b++) count += textLength(labels, b, length);
  return count;
}

/** Positions of a window up to its last label. */
function textLength(labels: Int32Array, window: number, length: number): number {
  let end = length;
  while (end > 0 && labels[window * length + end - 1] === IGNORED) end--;
  return end;
}

function exampleOf({ precision, random }: AttentionSettings, a: AttentionDescription): AttentionTensors {
  const normal = (heads: number): Tensor => {
    const size = 6 * heads * a.headDim;
    const data = precision === 'f32' ? new Float32Array(size) : new Float64Array(size);
    for (let i = 0; i < size; i++) data[i] = random.normal();
    return floatTensor(data, [2, 3, heads * a.headDim]);
  };
  return { queries: normal(a.heads), keys: normal(a.kvHeads), values: normal(a.kvHeads), heads: normal(a.heads) };
}
