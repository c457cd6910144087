import type { InferenceSession, Tensor } from 'onnxruntime-node';
import { type ActivationQuantization, activationCores, activationsKey } from './activation-quantization.js';
import { maskName, takesPlainAttention } from './attention-graph.js';
import { type LayerDescription, layerKey, type ModelDescription } from './description.js';
import { interventionFeeds } from './intervention-feeds.js';
import type { InterventionKind } from './interventions.js';
import { composeRange } from './layer-graph.js';
import { EXPERT_TAPS, type LayerTap } from './layer-parts.js';
import { equalBitThreads, layerProducts } from './product-threads.js';
import { createRopeFeeds } from './rope-feeds.js';
import { floatsOf, integersOf, runSession, type SessionPool, tensorOf } from './sessions.js';

export type Floats = Float32Array | Float64Array;

/** An operator on the residual stream after a layer, with its numbers (see `interventions.ts`). */
export interface Intervention {
  /** 0-based block whose output it changes; -1 changes the embeddings. */
  readonly layer: number;
  readonly kind: InterventionKind;
  readonly vector: Floats;
  readonly scale: number;
  /** Whether it acts at a position of a window. */
  readonly positions: (window: number, position: number) => boolean;
}

/** Keys and values of one layer of a group of windows: [B, kvHeads, capacity, headDim] each. */
export interface LayerCache {
  keys: Floats;
  values: Floats;
}

/** Windows of equal length that run together. */
export interface WindowGroup {
  /** Indices of the windows in the caller's list. */
  readonly windows: readonly number[];
  /** Tokens of each window. */
  readonly length: number;
  /** Position of the first token (0 unless a cache holds earlier ones). */
  readonly start: number;
  /** Residual stream [B * length, hidden], changed in place. */
  readonly stream: Floats;
  /** Positions that the caches can hold; start + length at least. */
  readonly capacity: number;
  /** One cache per layer when earlier positions must be kept; else a single cache is reused by all layers. */
  readonly caches?: LayerCache[];
}

/**
 * Which rows the experts of a layer saw. Taps of experts ({@link EXPERT_TAPS}) are [routed, width] with the rows of expert
 * 0 first, then those of expert 1, and so on; a row that chose several experts is there once for each. An expert that
 * nobody chose has no rows.
 */
export interface ExpertRows {
  /** Rows of each expert, [experts]; they sum to routed. */
  readonly counts: Int32Array;
  /** Row of the event's other taps (window * count + position - from) that each is, [routed]; ascending in an expert. */
  readonly rows: Int32Array;
  /** Weight that the router gave each, [routed]; of a merged expert the sum over those that became it. */
  readonly weights: Floats;
}

/** What a layer gave for positions from..from+count-1 of a group. */
export interface TapEvent {
  readonly layer: number;
  readonly group: WindowGroup;
  /** First position, counted from the start of the window. */
  readonly from: number;
  readonly count: number;
  /** Values by tap; batch-major. Probabilities are [B, heads, count, from + count]. */
  readonly taps: ReadonlyMap<LayerTap, Floats>;
  /** Where a tap of experts was asked for and the layer has some. */
  readonly experts?: ExpertRows;
}

export interface LayerRunSettings {
  readonly model: ModelDescription;
  readonly precision: 'f32' | 'f64';
  readonly rowsPerRun: number;
  readonly threads: number;
  readonly sessions: SessionPool;
  /** A simulated quantisation of the inputs of linears. */
  readonly activations?: ActivationQuantization;
}

export interface LayerRunRequest {
  readonly layer: number;
  readonly weights: ReadonlyMap<string, Floats>;
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  readonly groups: readonly WindowGroup[];
  readonly taps: readonly LayerTap[];
  readonly interventions: readonly Intervention[];
  readonly onTap?: (event: TapEvent) => void;
  /** Rows of one run; those of the settings when absent. */
  readonly rowsPerRun?: number;
}

const PREFIX = 'layer.';
/** What a later run must find in the cache. */
const CACHED: readonly LayerTap[] = ['keys', 'values'];
const EXPERT_PARTS = ['tokens', 'counts', 'weights'] as const;

/** Runs one layer over groups of windows. Layers of one kind share a session. */
export interface LayerRunner {
  run(request: LayerRunRequest): Promise<void>;
  /** Applies the interventions on the embeddings (layer -1). */
  runInput(groups: readonly WindowGroup[], interventions: readonly Intervention[]): Promise<void>;
}

export function createLayerRunner(settings: LayerRunSettings): LayerRunner {
  const { model, precision, sessions, rowsPerRun, threads, activations } = settings;
  const make = (length: number): Floats => (precision === 'f32' ? new Float32Array(length) : new Float64Array(length));
  const ropes = createRopeFeeds(model, precision);
  const shared: LayerCache = { keys: make(0), values: make(0) };
  const cores = activationCores(model, activations).map((core) => ({ columns: core, depth: core }));
  const rotationThreads = equalBitThreads(cores, 0, threads);

  const sessionFor = (
    layers: readonly LayerDescription[],
    taps: readonly LayerTap[],
    kinds: readonly InterventionKind[],
    most?: number,
  ): Promise<InferenceSession> => {
    const quantized = activationsKey(activations);
    const key = `${precision}|${layers.map(layerKey).join()}|${taps.join()}|${kinds.join()}|${quantized}`;
    const compose = (): Uint8Array =>
      composeRange({
        layers,
        prefix: () => PREFIX,
        hiddenSize: model.hiddenSize,
        norm: model.norm,
        ropes: model.ropes,
        linearLayout: model.linearLayout,
        float: precision,
        taps,
        residuals: false,
        interventions: new Map([[layers.length - 1, kinds]]),
        ...(activations && { activations }),
      });
    return sessions.get(key, compose, most);
  };

  const operatorFeeds = (
    interventions: readonly Intervention[],
    group: WindowGroup,
    from: number,
    count: number,
    prefix: string,
  ): Record<string, Tensor> => {
    const rows = group.windows.flatMap((window) =>
      Array.from({ length: count }, (_, p) => ({ window, position: from + p })),
    );
    return interventionFeeds(interventions, rows, prefix, make);
  };

  /** The cache of a layer with at least `cells` numbers; layers of a run that keeps no past share one. */
  const cacheFor = (group: WindowGroup, layer: number, cells: number): LayerCache => {
    const cache = group.caches?.[layer] ?? shared;
    if (cache.keys.length < cells) {
      cache.keys = make(cells);
      cache.values = make(cells);
    }
    return cache;
  };

  /** Query chunks of one window: at most `most` rows each, none of a single row. */
  const chunkLength = (length: number, most: number): number =>
    length % most === 1 && length > most && most > 2 ? most - 1 : Math.min(length, most);

  /** A product with a single row has other last bits than the same row among others: run it twice, keep the first. */
  const runTwin = async (request: LayerRunRequest, group: WindowGroup): Promise<void> => {
    const [window] = group.windows;
    const stream = make(2 * model.hiddenSize);
    stream.set(group.stream);
    stream.set(group.stream, model.hiddenSize);
    const twin: WindowGroup = { ...group, windows: [window, window], stream };
    const onTap = (event: TapEvent): void => {
      const { experts } = event;
      const halves = [...event.taps].map(([tap, data]) => {
        const ofExperts = experts !== undefined && EXPERT_TAPS.includes(tap);
        return [tap, ofExperts ? withoutTwin(data, experts) : data.subarray(0, data.length / 2)] as const;
      });
      const alone = experts && {
        counts: experts.counts.map((count) => count / 2),
        rows: experts.rows.filter((row) => row === 0),
        weights: withoutTwin(experts.weights, experts),
      };
      request.onTap?.({ ...event, group, taps: new Map(halves), ...(alone && { experts: alone }) });
    };
    await runner.run({ ...request, groups: [twin], onTap });
    group.stream.set(stream.subarray(0, model.hiddenSize));
  };

  const runner: LayerRunner = {
    async run(request) {
      const layer = model.layers[request.layer];
      const { attention } = layer;
      const plain = takesPlainAttention(attention, precision, new Set(request.taps));
      const kinds = request.interventions.map((intervention) => intervention.kind);
      const { dense, routed } = layerProducts(layer, model.hiddenSize);
      const routedThreads = equalBitThreads(routed, 0, threads);
      const weights: Record<string, Tensor> = {};
      for (const [role, data] of request.weights) {
        weights[PREFIX + role] = tensorOf(data, request.shapes.get(role) ?? [data.length]);
      }
      for (const group of request.groups) {
        const batch = group.windows.length;
        if (batch * group.length === 1 && !group.caches) {
          await runTwin(request, group);
          continue;
        }
        const { headDim, kvHeads } = attention;
        const step = batch === 1 ? chunkLength(group.length, request.rowsPerRun ?? rowsPerRun) : group.length;
        // Keys and values leave the graph only where a later run reads them.
        const caching = !plain && (group.caches !== undefined || step < group.length);
        const capacity = caching ? group.capacity : 0;
        const dims = [batch, kvHeads, capacity, headDim];
        const cache = plain
          ? (group.caches?.[request.layer] ?? { keys: make(0), values: make(0) })
          : cacheFor(group, request.layer, batch * kvHeads * capacity * headDim);
        const cells = batch * kvHeads * capacity * headDim;
        const outward = caching ? [...new Set([...request.taps, ...CACHED])] : request.taps;
        for (let from = 0; from < group.length; from += step) {
          const count = Math.min(step, group.length - from);
          const first = group.start + from;
          const end = first + count;
          const rows = group.stream.subarray(from * model.hiddenSize, (from + batch * count) * model.hiddenSize);
          const stream = tensorOf(rows, [batch, count, model.hiddenSize]);
          const feeds: Record<string, Tensor> = {
            resid: stream,
            ...weights,
            ...operatorFeeds(request.interventions, group, first, count, PREFIX),
          };
          const fetches: Record<string, Tensor | null> = { resid_out: stream };
          if (attention.rope !== undefined) {
            const whole = group.start + group.length;
            const [cos, sin] = ropes.feeds(attention.rope, new Int32Array(batch).fill(first), count, whole);
            feeds[`rope.${attention.rope}.cos`] = cos;
            feeds[`rope.${attention.rope}.sin`] = sin;
          }
          if (plain) {
            const past = [batch, kvHeads, first, headDim];
            feeds[`${PREFIX}past_k`] = tensorOf(cache.keys, past);
            feeds[`${PREFIX}past_v`] = tensorOf(cache.values, past);
            feeds[maskName(attention.window)] = causalMask(first, count, attention.window);
            fetches[`${PREFIX}present_k`] = null;
            fetches[`${PREFIX}present_v`] = null;
          } else {
            feeds[`${PREFIX}past_k`] = tensorOf(cache.keys.subarray(0, cells), dims);
            feeds[`${PREFIX}past_v`] = tensorOf(cache.values.subarray(0, cells), dims);
            feeds.last_key = tensorOf(new Int32Array(batch).fill(end - 1), [batch]);
            feeds.total = tensorOf(Int32Array.of(end), [1]);
          }
          for (const tap of outward) fetches[PREFIX + tap] = null;
          const ofExperts = request.taps.some((tap) => EXPERT_TAPS.includes(tap));
          if (ofExperts) for (const part of EXPERT_PARTS) fetches[`${PREFIX}expert_${part}`] = null;
          const mixing = plain
            ? [
                { columns: headDim, depth: end },
                { columns: end, depth: headDim },
              ]
            : [];
          const most = Math.min(
            routedThreads,
            rotationThreads,
            equalBitThreads(dense, batch * count, threads),
            equalBitThreads(mixing, count, threads),
          );
          const session = await sessionFor([layer], outward, kinds, most);
          const outputs = await runSession(session, feeds, fetches);
          if (plain) {
            cache.keys = floatsOf(outputs[`${PREFIX}present_k`]);
            cache.values = floatsOf(outputs[`${PREFIX}present_v`]);
          }
          if (caching) {
            const place = { batch, heads: kvHeads, headDim, capacity, first, count };
            append(cache.keys, floatsOf(outputs[`${PREFIX}keys`]), place);
            append(cache.values, floatsOf(outputs[`${PREFIX}values`]), place);
          }
          if (request.onTap && request.taps.length > 0) {
            const taps = new Map(request.taps.map((tap) => [tap, floatsOf(outputs[PREFIX + tap])]));
            const experts = ofExperts ? { experts: expertRows(outputs) } : {};
            request.onTap({ layer: request.layer, group, from: first, count, taps, ...experts });
          }
        }
      }
    },

    async runInput(groups, interventions) {
      if (interventions.length === 0) return;
      const kinds = interventions.map((intervention) => intervention.kind);
      const session = await sessionFor([], [], kinds);
      for (const group of groups) {
        const batch = group.windows.length;
        const stream = tensorOf(group.stream, [batch, group.length, model.hiddenSize]);
        const feeds = {
          resid: stream,
          ...operatorFeeds(interventions, group, group.start, group.length, 'input.'),
        };
        await runSession(session, feeds, { resid_out: stream });
      }
    },
  };
  return runner;
}

function expertRows(outputs: Awaited<ReturnType<typeof runSession>>): ExpertRows {
  return {
    counts: integersOf(outputs[`${PREFIX}expert_counts`]),
    rows: integersOf(outputs[`${PREFIX}expert_tokens`]),
    weights: floatsOf(outputs[`${PREFIX}expert_weights`]),
  };
}

/** Rows of a tap of experts without those of the second of two equal rows (see `runTwin`). */
function withoutTwin(data: Floats, experts: ExpertRows): Floats {
  const width = data.length / experts.rows.length;
  const kept = data.slice(0, data.length / 2);
  let next = 0;
  experts.rows.forEach((row, r) => {
    if (row === 0) kept.set(data.subarray(r * width, (r + 1) * width), width * next++);
  });
  return kept;
}

/** Writes rows [B, count, heads * headDim] into a cache [B, heads, capacity, headDim] from position `first` on. */
function append(
  cache: Floats,
  rows: Floats,
  place: { batch: number; heads: number; headDim: number; capacity: number; first: number; count: number },
): void {
  const { heads, headDim, capacity, first, count } = place;
  for (let line = 0; line < place.batch * count; line++) {
    const b = Math.floor(line / count);
    const position = first + line - b * count;
    for (let head = 0; head < heads; head++) {
      const from = (line * heads + head) * headDim;
      const at = ((b * heads + head) * capacity + position) * headDim;
      for (let d = 0; d < headDim; d++) cache[at + d] = rows[from + d];
    }
  }
}

/** [count, first + count]: true where the key is not after the query and inside its window. */
function causalMask(first: number, count: number, window: number | undefined): Tensor {
  const total = first + count;
  const mask = new Uint8Array(count * total);
  for (let i = 0; i < count; i++) {
    const query = first + i;
    const oldest = window === undefined ? 0 : Math.max(0, query - window + 1);
    mask.fill(1, i * total + oldest, i * total + query + 1);
  }
  return tensorOf(mask, [count, total]);
}
