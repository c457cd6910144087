import path from 'node:path';
import { InputError } from '../errors.js';
import type { AtomicOptions } from '../formats/atomic.js';
import type { HashedFile } from '../formats/hash.js';
import { hashWindows } from '../models/calibration-windows.js';
import { type ModelDescription, routerOutputs } from '../models/description.js';
import type { EngineHost } from '../models/engine-host.js';
import { END_STATISTICS, OUTPUT_BYTES, START_STATISTICS, STATISTICS_PASS } from './calibrate-job.js';
import {
  createStatisticsWriter,
  type MoeStatistics,
  type StatisticsHeader,
  type WatchedOutputs,
} from './statistics-file.js';
import type { LayerStatistics } from './types.js';

/** Share of the memory that residual streams may take before they go to a file. */
const STREAM_SHARE = 0.5;
/** Rows that go through a layer together, at most. */
const TAPPED_ROWS = 512;

export interface StatisticsOptions {
  /** Token ids of the whole text, see `calibrationWindows`. */
  readonly windows: readonly Int32Array[];
  /** Tokens of a window, for the header; the longest window when absent. */
  readonly windowTokens?: number;
  /** See `hashModel`. */
  readonly modelSha256: string;
  readonly outputs: WatchedOutputs;
  readonly precision: 'f32' | 'f64';
  /** Part of the windows: those whose place leaves `index` when divided by `count`. */
  readonly shard?: { readonly index: number; readonly count: number };
  /** Memory beside what the engine's plan takes, see `statisticsReserve`. */
  readonly memoryBytes: number;
  /** Where residual streams go that do not fit. */
  readonly scratchDirectory: string;
  /** Called with the work that is done and all of it, in tokens times layers. */
  readonly progress?: (done: number, all: number) => void;
}

/** 0-based decoder layers with routed experts. @throws InputError for a dense model */
export function expertLayers(model: ModelDescription, name: string): number[] {
  const found = model.layers.flatMap(({ mlp }, layer) => (mlp.kind === 'moe' ? [layer] : []));
  if (found.length > 0) return found;
  throw new InputError(
    `${name}: a dense model (${model.modelType}): none of its ${model.layers.length} layers has a router with experts`,
  );
}

/** Numbers that the statistics of one layer hold. */
function statisticsLength(model: ModelDescription, layer: number, outputs: WatchedOutputs): number {
  const { mlp } = model.layers[layer];
  if (mlp.kind !== 'moe') return 0;
  const routed = routerOutputs(mlp);
  const routing = 3 * routed * routed + 4 * routed;
  if (outputs === 'none') return routing;
  const { hiddenSize } = model;
  const experts = mlp.experts * (3 * hiddenSize + mlp.width + 6) + hiddenSize;
  return routing + experts + (outputs === 'all' ? mlp.experts * (hiddenSize + mlp.experts) : 0);
}

/** Bytes of a folder of statistics, but for headers. */
export function statisticsBytes(model: ModelDescription, outputs: WatchedOutputs): number {
  return model.layers.reduce((sum, _, layer) => sum + 8 * statisticsLength(model, layer, outputs), 0);
}

/** Bytes of what the taps of a layer show of the rows that go through it together. */
function tapBytes(model: ModelDescription, layer: number, outputs: WatchedOutputs, width: number): number {
  const { mlp } = model.layers[layer];
  if (mlp.kind !== 'moe') return 0;
  const { hiddenSize } = model;
  const shown = outputs === 'none' ? 0 : hiddenSize;
  const routed = outputs === 'routed' ? mlp.expertsPerToken * (hiddenSize + mlp.width) : 0;
  return TAPPED_ROWS * width * (routerOutputs(mlp) + shown + routed);
}

/**
 * Memory that calibration asks for beside the engine (`EngineOptions.reserveBytes`, and then `memoryBytes` here): the sums
 * of the largest layer, what its taps show, a block of outputs of all experts, and the residual streams, but no more than
 * half of the limit.
 */
export function statisticsReserve(
  model: ModelDescription,
  request: {
    readonly tokens: number;
    readonly outputs: WatchedOutputs;
    readonly maxMemoryBytes: number;
    readonly precision: 'f32' | 'f64';
  },
): number {
  const { tokens, outputs, maxMemoryBytes, precision } = request;
  const width = precision === 'f32' ? 4 : 8;
  // The sums are copied once when a layer is finished.
  const own = model.layers.map(
    (_, layer) => 16 * statisticsLength(model, layer, outputs) + tapBytes(model, layer, outputs, width),
  );
  const block = outputs === 'all' ? 2 * OUTPUT_BYTES : 0;
  const streams = (tokens * model.hiddenSize * width) / STREAM_SHARE;
  return Math.ceil(Math.min(Math.max(...own) + block + streams, maxMemoryBytes / 2));
}

/** The windows of a shard. @throws InputError when it has none */
function shardWindows({ windows, shard }: StatisticsOptions): readonly Int32Array[] {
  const own = shard ? windows.filter((_, w) => w % shard.count === shard.index) : windows;
  if (own.length > 0) return own;
  throw new InputError(
    windows.length === 0 || !shard
      ? 'statistics without tokens: give --data with text, and --calib-tokens'
      : `--shard ${shard.index}/${shard.count}: the text has only ${windows.length} windows`,
  );
}

function tokensOf(windows: readonly Int32Array[]): number {
  return windows.reduce((sum, window) => sum + window.length, 0);
}

function headerOf(model: ModelDescription, options: StatisticsOptions): StatisticsHeader {
  const { windows, modelSha256, precision, outputs, shard = { index: 0, count: 1 } } = options;
  const tokens = tokensOf(shardWindows(options));
  const windowTokens = options.windowTokens ?? Math.max(...windows.map((window) => window.length));
  const part = { textSha256: hashWindows(windows), tokens, windowTokens, shard };
  return { modelType: model.modelType, modelSha256, precision, outputs, tokens, parts: [part] };
}

/** Runs the layers up to the last that is not done. */
async function watchLayers(
  host: EngineHost,
  model: ModelDescription,
  options: StatisticsOptions,
  sink: { readonly done: readonly LayerStatistics[]; write(layer: LayerStatistics): void },
): Promise<LayerStatistics[]> {
  const wanted = expertLayers(model, host.info.path);
  const layers = new Map(sink.done.map((layer) => [layer.routing.layer, layer]));
  const missing = wanted.filter((layer) => !layers.has(layer));
  const windows = shardWindows(options);
  const passes = missing.length === 0 ? 0 : missing[missing.length - 1] + 1;
  const all = passes * tokensOf(windows);
  let done = 0;
  const step = (tokens: unknown): void => {
    done += Number(tokens);
    options.progress?.(done, all);
  };
  const { scratchDirectory, memoryBytes, outputs } = options;
  try {
    if (passes > 0) {
      await host.run(START_STATISTICS, { windows, streamBytes: STREAM_SHARE * memoryBytes, scratchDirectory });
    }
    for (let layer = 0; layer < passes; layer++) {
      const watched = missing.includes(layer) ? { outputs } : {};
      const found = await host.run(STATISTICS_PASS, { layer, ...watched }, step);
      if (!found) continue;
      sink.write(found);
      layers.set(layer, found);
    }
  } finally {
    await host.run(END_STATISTICS, undefined).catch(() => undefined);
  }
  return wanted.flatMap((layer) => layers.get(layer) ?? []);
}

/**
 * Runs windows through the model, layer by layer, and sums what its routers and experts do: one pass over the text a layer,
 * nothing is kept per token. The figures are the same bits for any memory and number of threads.
 * @throws InputError for a dense model, an ONNX export, windows that are empty or longer than the model's positions, and
 * activations that are not finite
 */
export async function collectStatistics(
  host: EngineHost,
  model: ModelDescription,
  options: StatisticsOptions,
): Promise<MoeStatistics> {
  const header = headerOf(model, options);
  return { header, layers: await watchLayers(host, model, options, { done: [], write: () => undefined }) };
}

/**
 * {@link collectStatistics} into a folder (`createStatisticsWriter`); `readStatistics` of it gives the same bits.
 * @throws InputError also when the folder exists, or an interrupted run there was another one
 */
export async function calibrateToFolder(
  host: EngineHost,
  model: ModelDescription,
  options: Omit<StatisticsOptions, 'scratchDirectory'> & { readonly folder: string; readonly write?: AtomicOptions },
): Promise<{ readonly statistics: MoeStatistics; readonly files: readonly HashedFile[] }> {
  const { folder, write } = options;
  const scratchDirectory = path.dirname(path.resolve(folder));
  const full = { ...options, scratchDirectory };
  const header = headerOf(model, full);
  const writer = createStatisticsWriter(folder, header, write);
  try {
    const layers = await watchLayers(host, model, full, writer);
    return { statistics: { header, layers }, files: writer.commit() };
  } catch (error) {
    writer.abort();
    throw error;
  }
}
