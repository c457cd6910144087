import { InputError } from '../errors.js';
import { finalizeRows, type RowStatistics } from '../kernels/row-statistics.js';
import type { ActivationQuantization } from './activation-quantization.js';
import { createCachedRunner, takesCachedRunner } from './cached-runner.js';
import { advanceState, type DecodingState, emptyState } from './decoding-state.js';
import type { ModelDescription } from './description.js';
import { createHeadRunner, type HeadRunner, type LogitsPart, type StatisticsRequest } from './head-runner.js';
import { EXPERT_TAPS, type LayerTap } from './layer-parts.js';
import { createLayerRunner, type Floats, type Intervention, type TapEvent, type WindowGroup } from './layer-runner.js';
import { HEAD_ROWS, type MemoryPlan, planMemory } from './memory-plan.js';
import type { ModelFiles } from './model-files.js';
import { createSessionPool, type Device } from './sessions.js';
import { createWeightReader, type StoredWeight } from './weights.js';

export interface EngineOptions {
  readonly threads: number;
  /** Limit of the process's peak resident memory, weights included. */
  readonly maxMemoryBytes: number;
  readonly device: Device;
  readonly precision: 'f32' | 'f64';
  /** Longest window that will be asked for. */
  readonly context: number;
  /** Bytes that what runs beside the engine will take; the plan leaves them free. */
  readonly reserveBytes?: number;
  /** Simulates quantised activations: the input of every linear but router and head is quantised and dequantised. */
  readonly activations?: ActivationQuantization;
  /** Safetensors file of weights that replace those of the model: see `replaceWeights`. Not for ONNX exports. */
  readonly replacements?: string;
  /** Overrides of what the memory limit would choose; for measurements. */
  readonly plan?: Partial<MemoryPlan>;
}

/** One forward pass over any number of windows of any lengths. */
export interface ForwardRequest {
  readonly windows: readonly Int32Array[];
  readonly taps?: readonly LayerTap[];
  /** Layers whose taps are wanted; all when absent. */
  readonly tapLayers?: readonly number[];
  readonly onTap?: (event: TapEvent) => void;
  /** Rows of one run of a layer, where taps are large; the plan's when absent. */
  readonly rowsPerRun?: number;
  /** Called with the residual stream after layer l (0 = embeddings, l = output of block l-1) of every group. */
  readonly onResidual?: (index: number, groups: readonly WindowGroup[]) => Promise<void> | void;
  readonly interventions?: readonly Intervention[];
  /** Earlier positions: caches and the number of positions they hold, all windows alike. */
  readonly past?: DecodingState;
  /**
   * Where the residual streams are laid out, [total tokens, hidden] at least, so that batches reuse one buffer. The
   * groups of an earlier pass over the same buffer are then lost.
   */
  readonly streams?: Floats;
  /** Layers to run; all when absent. */
  readonly layers?: readonly [from: number, to: number];
  /**
   * The pass goes on from `streams`, which an earlier pass over the same windows left after layer `layers[0]` - 1 (of a
   * single length, or in the same order); embeddings are not read.
   */
  readonly continues?: boolean;
  /**
   * Called with every weight of a layer before the layer runs; what it returns, of the same length, is used in this pass
   * instead. `data` belongs to the engine and must not be changed: a copy is, and none is made of what is returned as it is.
   */
  readonly adjustWeights?: (layer: number, role: string, data: Floats) => Floats;
}

export type { DecodingState } from './decoding-state.js';

/** The model, ready to run in the calling thread. Everything heavy is behind these few functions. */
export interface Engine {
  readonly model: ModelDescription;
  readonly plan: MemoryPlan;
  readonly threads: number;
  readonly precision: 'f32' | 'f64';
  /** Runs the layers; returns the groups with their final residual streams (before the final norm). */
  forward(request: ForwardRequest): Promise<WindowGroup[]>;
  /** Final norm in place over rows [n, hidden]. */
  normalize(rows: Floats): Promise<void>;
  /** Statistics of the next-token distribution of normed rows against targets. */
  statistics(rows: Floats, targets: Int32Array, request: StatisticsRequest): Promise<RowStatistics>;
  /** Logits [n, vocabulary] of normed rows [n, hidden]. */
  logits(rows: Floats): Promise<Floats>;
  /** Visits the logits of sets of normed rows, [n, hidden] each with one n, block by block of the vocabulary. */
  visitLogits(sets: readonly Floats[], visit: (part: LogitsPart) => void): Promise<void>;
  /** An empty cache for a batch of sequences. */
  startDecoding(capacity: number): DecodingState;
  close(): Promise<void>;
}

/** Opens the files of a decoder model as an engine. */
export async function createEngine(files: ModelFiles, options: EngineOptions): Promise<Engine> {
  const { description: model, weights } = files;
  const { precision, threads } = options;
  const planned = planMemory({
    model,
    precision,
    maxBytes: options.maxMemoryBytes,
    context: Math.min(options.context, model.maxPositions),
    processBytes: process.memoryUsage.rss() + (options.reserveBytes ?? 0),
    quantizedActivations: options.activations !== undefined,
  });
  const plan: MemoryPlan = { ...planned, ...options.plan };
  const make = (length: number): Floats => (precision === 'f32' ? new Float32Array(length) : new Float64Array(length));
  const sessions = createSessionPool({ threads, device: options.device, arena: plan.layersResident, precision });
  const reader = createWeightReader(threads);
  const { activations } = options;
  const running = {
    model,
    precision,
    threads,
    sessions,
    rowsPerRun: plan.rowsPerRun,
    ...(activations && { activations }),
  };
  const runner = createLayerRunner(running);
  const cachedRunner = takesCachedRunner(model, precision) ? createCachedRunner(running) : undefined;
  const readWhole = (weight: StoredWeight): Floats => {
    const data = make(weight.shape.reduce((a, b) => a * b, 1));
    reader.read(weight, data);
    return data;
  };
  const head: HeadRunner = createHeadRunner({
    model,
    precision,
    sessions,
    reader,
    threads,
    headBlock: plan.headBlock,
    rowsPerRun: Math.min(plan.rowsPerRun, HEAD_ROWS),
    resident: plan.headResident,
    weight: weights.head,
    finalNorm: readWhole(weights.finalNorm),
    ...(weights.finalNormBias && { finalNormBias: readWhole(weights.finalNormBias) }),
  });

  const shapes = weights.layers.map(
    (layer) => new Map([...layer].map(([role, weight]) => [role, weight.shape] as const)),
  );
  const residentLayers = new Map<number, ReadonlyMap<string, Floats>>();
  let reused: Map<string, Floats> | undefined;
  let reusedLayer: number | undefined;

  /** Weights of one layer, widened. Streamed layers of one shape reuse the same buffers. */
  const layerWeights = (index: number): ReadonlyMap<string, Floats> => {
    const found = reusedLayer === index ? reused : residentLayers.get(index);
    if (found) return found;
    reusedLayer = undefined;
    const loaded = new Map<string, Floats>();
    for (const [role, weight] of weights.layers[index]) {
      const length = weight.shape.reduce((a, b) => a * b, 1);
      const previous = reused?.get(role);
      const target = previous && previous.length === length ? previous : make(length);
      reader.read(weight, target);
      loaded.set(role, target);
    }
    if (plan.layersResident) residentLayers.set(index, loaded);
    else {
      reused = loaded;
      reusedLayer = index;
    }
    return loaded;
  };

  const adjusted = (layer: number, adjust: ForwardRequest['adjustWeights']): ReadonlyMap<string, Floats> => {
    const own = layerWeights(layer);
    if (!adjust) return own;
    return new Map([...own].map(([role, data]) => [role, adjust(layer, role, data)]));
  };

  const embed = (tokens: Int32Array, start: number, stream: Floats, at: number): void => {
    const hidden = model.hiddenSize;
    const position = make(hidden);
    for (let p = 0; p < tokens.length; p++) {
      const id = tokens[p];
      if (id < 0 || id >= model.vocabularySize) {
        throw new InputError(
          `${files.path}: token id ${id} is outside the vocabulary of ${model.vocabularySize}; ` +
            'the tokenizer does not belong to this model',
        );
      }
      const row = stream.subarray((at + p) * hidden, (at + p + 1) * hidden);
      reader.read(weights.embedding, row, id, 1);
      if (model.embeddingScale !== 1) for (let j = 0; j < hidden; j++) row[j] *= model.embeddingScale;
      if (weights.positions) {
        reader.read(weights.positions, position, start + p, 1);
        for (let j = 0; j < hidden; j++) row[j] += position[j];
      }
    }
  };

  const makeGroups = (request: ForwardRequest): WindowGroup[] => {
    const start = request.past?.length ?? 0;
    if (request.continues && !request.streams) throw new RangeError('a pass that continues needs its streams');
    const byLength = new Map<number, number[]>();
    request.windows.forEach((window, index) => {
      if (window.length === 0) throw new InputError('a window without tokens cannot be run');
      const same = byLength.get(window.length);
      if (same) same.push(index);
      else byLength.set(window.length, [index]);
    });
    const groups: WindowGroup[] = [];
    let laidOut = 0;
    for (const [length, members] of byLength) {
      if (weights.positions && start + length > model.maxPositions) {
        throw new InputError(
          `a window of ${start + length} tokens is longer than the model's ${model.maxPositions} positions; ` +
            'pass a smaller --context',
        );
      }
      const rowsPerRun = request.rowsPerRun ?? plan.rowsPerRun;
      const together = request.past ? members.length : Math.max(1, Math.floor(rowsPerRun / length));
      for (let first = 0; first < members.length; first += together) {
        const windows = members.slice(first, first + together);
        const size = windows.length * length * model.hiddenSize;
        const stream = request.streams ? request.streams.subarray(laidOut, laidOut + size) : make(size);
        laidOut += size;
        if (!request.continues) {
          windows.forEach((index, b) => {
            embed(request.windows[index], request.past?.lengths?.[index] ?? start, stream, b * length);
          });
        }
        groups.push({
          windows,
          length,
          start,
          stream,
          capacity: request.past?.capacity ?? length,
          ...(request.past && { caches: request.past.caches }),
        });
      }
    }
    return groups;
  };

  return {
    model,
    plan,
    threads,
    precision,

    async forward(request) {
      const groups = makeGroups(request);
      const interventions = request.interventions ?? [];
      const [from, to] = request.layers ?? [0, model.layers.length];
      await runner.runInput(
        groups,
        interventions.filter((intervention) => intervention.layer === -1),
      );
      await request.onResidual?.(0, groups);
      if (request.past && cachedRunner && !request.taps?.length && groups.length === 1) {
        const { past } = request;
        const [group] = groups;
        await cachedRunner.run({
          group,
          state: past,
          starts: past.lengths ?? new Int32Array(group.windows.length).fill(past.length),
          layers: [from, to],
          weights: (layer) => adjusted(layer, request.adjustWeights),
          shapes,
          interventions,
          joined: plan.layersResident && !request.adjustWeights,
          ...(request.onResidual && { afterLayer: (layer) => request.onResidual?.(layer + 1, groups) }),
        });
        if (to === model.layers.length) advanceState(past, group.length);
        return groups;
      }
      for (let layer = from; layer < to; layer++) {
        const tapped = request.tapLayers === undefined || request.tapLayers.includes(layer);
        await runner.run({
          layer,
          weights: adjusted(layer, request.adjustWeights),
          shapes: shapes[layer],
          groups,
          taps: tapped ? tapsOf(model, layer, request.taps ?? []) : [],
          interventions: interventions.filter((intervention) => intervention.layer === layer),
          ...(request.onTap && { onTap: request.onTap }),
          ...(request.rowsPerRun !== undefined && { rowsPerRun: request.rowsPerRun }),
        });
        await request.onResidual?.(layer + 1, groups);
      }
      if (request.past && to === model.layers.length) advanceState(request.past, groups[0]?.length ?? 0);
      return groups;
    },

    normalize: (rows) => head.normalize(rows),

    async statistics(rows, targets, request) {
      return finalizeRows(await head.statistics(rows, targets, request), model.vocabularySize);
    },

    logits: (rows) => head.logits(rows),

    visitLogits: (sets, visit) => head.visitLogits(sets, visit),

    startDecoding(capacity) {
      return emptyState(model, precision, capacity);
    },

    close: () => sessions.close(),
  };
}

/** Of the taps asked for those that the layer has: the router and experts exist in layers with experts alone. */
function tapsOf(model: ModelDescription, layer: number, taps: readonly LayerTap[]): readonly LayerTap[] {
  const { mlp } = model.layers[layer];
  const routed: readonly LayerTap[] = ['router_logits', ...EXPERT_TAPS];
  return taps.filter((tap) => {
    if (routed.includes(tap)) return mlp.kind === 'moe';
    if (tap === 'shared_hidden') return mlp.kind === 'moe' && mlp.shared !== undefined;
    return (tap !== 'mlp_hidden' && tap !== 'mlp_preactivation') || mlp.kind === 'dense';
  });
}
