import type { InferenceSession, Tensor } from 'onnxruntime-node';
import { cachedAttention } from '../kernels/cached-attention.js';
import { activationCores, activationsKey } from './activation-quantization.js';
import type { DecodingState } from './decoding-state.js';
import { layerKey, type ModelDescription } from './description.js';
import { interventionFeeds, type RowPlace } from './intervention-feeds.js';
import { composeSeam, FINISHED, NEXT } from './layer-graph.js';
import type { Floats, Intervention, LayerRunSettings, WindowGroup } from './layer-runner.js';
import { equalBitThreads, layerProducts } from './product-threads.js';
import { createRopeFeeds } from './rope-feeds.js';
import { runSession, tensorOf } from './sessions.js';

/** A pass over new positions of sequences whose earlier keys and values are kept. */
export interface CachedPass {
  /** Windows of one length; their streams are changed in place. */
  readonly group: WindowGroup;
  readonly state: DecodingState;
  /** Position of the first token of every window. */
  readonly starts: Int32Array;
  readonly layers: readonly [from: number, to: number];
  readonly weights: (layer: number) => ReadonlyMap<string, Floats>;
  readonly shapes: readonly ReadonlyMap<string, readonly number[]>[];
  readonly interventions: readonly Intervention[];
  /** Called with the stream after every layer. */
  readonly afterLayer?: (layer: number) => Promise<void> | void;
  /** Weights of two layers may be held at once. */
  readonly joined: boolean;
}

/** Runs all layers of such passes, in f32. */
export interface CachedRunner {
  run(pass: CachedPass): Promise<void>;
}

/** Whether every layer of a model takes this way: heads whose size the kernel knows, in single precision. */
export function takesCachedRunner(model: ModelDescription, precision: 'f32' | 'f64'): boolean {
  return precision === 'f32' && model.layers.every(({ attention }) => attention.headDim % 8 === 0);
}

/**
 * What lies between two attentions acts on rows, so one graph finishes a layer and begins the next; attention itself is a
 * kernel on caches that never enter the runtime, which would copy them. Windows may have any lengths before them.
 */
export function createCachedRunner(settings: LayerRunSettings): CachedRunner {
  const { model, sessions, rowsPerRun, threads, activations } = settings;
  const hidden = model.hiddenSize;
  const ropes = createRopeFeeds(model, 'f32');
  const tensors = new WeakMap<Floats, Tensor>();
  const cores = activationCores(model, activations).map((core) => ({ columns: core, depth: core }));
  const rotationThreads = equalBitThreads(cores, 0, threads);
  const buffers = new Map<string, Float32Array>();

  const scratch = (name: string, length: number): Float32Array => {
    let buffer = buffers.get(name);
    if (!buffer || buffer.length < length) {
      buffer = new Float32Array(length);
      buffers.set(name, buffer);
    }
    return buffer.subarray(0, length);
  };

  /** Buffers of weights that stay have one tensor; those that are read anew may change their shape. */
  const weightTensor = (pass: CachedPass, data: Floats, shape: readonly number[] | undefined): Tensor => {
    const found = pass.joined ? tensors.get(data) : undefined;
    if (found) return found;
    const made = tensorOf(data, shape ?? [data.length]);
    if (pass.joined) tensors.set(data, made);
    return made;
  };

  const seamSession = (
    finished: number | undefined,
    next: number | undefined,
    interventions: readonly Intervention[],
    rows: number,
  ): Promise<InferenceSession> => {
    const layerOf = (index: number | undefined) => (index === undefined ? undefined : model.layers[index]);
    const done = layerOf(finished);
    const coming = layerOf(next);
    const kinds = interventions.map(({ kind }) => kind);
    const names = [done, coming].map((layer) => (layer ? layerKey(layer) : ''));
    const key = `seam|${names.join('|')}|${kinds.join()}|${activationsKey(activations)}`;
    const limits = [done, coming].flatMap((layer) => {
      if (!layer) return [];
      const { dense, routed } = layerProducts(layer, hidden);
      return [equalBitThreads(dense, rows, threads), equalBitThreads(routed, 0, threads)];
    });
    const compose = (): Uint8Array =>
      composeSeam({
        finished: done,
        next: coming,
        hiddenSize: hidden,
        norm: model.norm,
        ropes: model.ropes,
        linearLayout: model.linearLayout,
        float: 'f32',
        interventions: kinds,
        ...(activations && { activations }),
      });
    return sessions.get(key, compose, Math.min(rotationThreads, ...limits));
  };

  /** Rows from..to of a seam. */
  const runSeam = async (
    pass: CachedPass,
    places: readonly RowPlace[],
    finished: number | undefined,
    next: number | undefined,
    [from, to]: readonly [number, number],
  ): Promise<void> => {
    const n = to - from;
    const interventions = pass.interventions.filter(({ layer }) => layer === finished);
    const session = await seamSession(finished, next, interventions, n);
    const part = (data: Floats, width: number): Tensor =>
      tensorOf(data.subarray(from * width, to * width), [1, n, width]);
    const stream = part(pass.group.stream, hidden);
    const feeds: Record<string, Tensor> = { resid: stream };
    const fetches: Record<string, Tensor> = {};
    for (const name of session.inputNames) {
      const dot = name.indexOf('.') + 1;
      const prefix = name.slice(0, dot);
      const layer = prefix === FINISHED ? finished : prefix === NEXT ? next : undefined;
      if (layer === undefined) continue;
      const role = name.slice(dot);
      const data = pass.weights(layer).get(role);
      if (data) feeds[name] = weightTensor(pass, data, pass.shapes[layer].get(role));
    }
    if (finished !== undefined) {
      const { heads, headDim } = model.layers[finished].attention;
      feeds.heads = part(scratch('heads', places.length * heads * headDim), heads * headDim);
      fetches.resid_out = stream;
      Object.assign(
        feeds,
        interventionFeeds(interventions, places.slice(from, to), FINISHED, (length) => new Float32Array(length)),
      );
    }
    if (next !== undefined) {
      const { heads, kvHeads, headDim, rope } = model.layers[next].attention;
      fetches.queries = part(scratch('queries', places.length * heads * headDim), heads * headDim);
      fetches.keys = part(scratch('keys', places.length * kvHeads * headDim), kvHeads * headDim);
      fetches.values = part(scratch('values', places.length * kvHeads * headDim), kvHeads * headDim);
      if (rope !== undefined) {
        const positions = Int32Array.from(places.slice(from, to), ({ position }) => position);
        const length = Math.max(...pass.starts) + pass.group.length;
        const [cos, sin] = ropes.rows(rope, positions, length);
        feeds[`rope.${rope}.cos`] = cos;
        feeds[`rope.${rope}.sin`] = sin;
      }
    }
    await runSession(session, feeds, fetches);
  };

  const attend = ({ state, starts, group }: CachedPass, layer: number): void => {
    const { heads, kvHeads, headDim, scale, softcap, window } = model.layers[layer].attention;
    const cells = starts.length * kvHeads * state.capacity * headDim;
    const cache = state.caches[layer];
    if (cache.keys.length < cells) {
      cache.keys = new Float32Array(cells);
      cache.values = new Float32Array(cells);
    }
    const { keys, values } = cache;
    if (!(keys instanceof Float32Array && values instanceof Float32Array)) throw new TypeError('the cache is not f32');
    const rows = starts.length * group.length;
    cachedAttention(
      {
        queries: scratch('queries', rows * heads * headDim),
        keys: scratch('keys', rows * kvHeads * headDim),
        values: scratch('values', rows * kvHeads * headDim),
        keyCache: keys,
        valueCache: values,
        out: scratch('heads', rows * heads * headDim),
        starts,
        count: group.length,
        heads,
        kvHeads,
        headDim,
        capacity: state.capacity,
        scale,
        ...(softcap !== undefined && { softcap }),
        ...(window !== undefined && { window }),
      },
      threads,
    );
  };

  return {
    async run(pass) {
      const { group, starts, joined } = pass;
      const [first, end] = pass.layers;
      const places = group.windows.flatMap((window, b) =>
        Array.from({ length: group.length }, (_, p) => ({ window, position: starts[b] + p })),
      );
      const seam = async (finished: number | undefined, next: number | undefined): Promise<void> => {
        for (const chunk of chunks(places.length, rowsPerRun)) await runSeam(pass, places, finished, next, chunk);
      };
      for (let layer = first; layer < end; layer++) {
        if (layer === first || !joined) await seam(undefined, layer);
        attend(pass, layer);
        await seam(layer, joined && layer + 1 < end ? layer + 1 : undefined);
        await pass.afterLayer?.(layer);
      }
    },
  };
}

/** Ranges of at most `most` rows, none of a single row unless there is no other. */
function chunks(rows: number, most: number): [from: number, to: number][] {
  const step = rows % most === 1 && most > 2 ? most - 1 : most;
  const ranges: [number, number][] = [];
  for (let from = 0; from < rows; from += step) ranges.push([from, Math.min(rows, from + step)]);
  return ranges;
}
