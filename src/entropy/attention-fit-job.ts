import { InputError } from '../errors.js';
import type { Engine } from '../models/engine.js';
import type { JobReference } from '../models/engine-host.js';
import type { LanguageModel } from '../models/language-model.js';
import { attentionEntropiesFromQueryKeys } from './attention.js';
import {
  type AttentionBatch,
  type AttentionQuestions,
  addBatchRows,
  createAttentionBatch,
  placeOf,
  reachableHeads,
} from './attention-job.js';
import { type HeadValues, type RegulariserSettings, temperaturesOf } from './attention-settings.js';
import { type AttentionStatistics, addAttentionRows, createAttentionStatistics } from './attention-statistics.js';
import { type TappedQueries, visitQueries } from './attention-tap.js';
import { fitTemperatures } from './temperature-fit.js';
import type { WindowArguments } from './window-batches.js';

export interface FitArguments extends WindowArguments {
  readonly context: number;
  /** Where the search starts and how finely temperatures are told apart: `[layers, heads, positions]`. */
  readonly start: HeadValues;
  /** Thresholds are ignored where they are learnt. */
  readonly regulariser: RegulariserSettings;
  readonly learnThresholds: boolean;
  readonly gradientPositions?: number;
  readonly passes: number;
  /** What one layer of all windows may take. */
  readonly maxBytes: number;
}

export interface FitBatch {
  /** Rows at the starting temperatures; its penalties and gradient are of the thresholds found. */
  readonly before: AttentionBatch;
  /** Rows at the temperatures found. */
  readonly after: AttentionStatistics;
  /** `[layers, heads, positions]` */
  readonly temperatures: Float64Array;
  /** `[layers, heads]` */
  readonly thresholds: Float64Array;
  /** Penalties without lambda and shares of heads and layers, `[layers * heads]`. */
  readonly lossBefore: Float64Array;
  readonly lossAfter: Float64Array;
  /** By layer. */
  readonly passes: Int32Array;
  readonly settled: Uint8Array;
}

/** Bytes that a token takes while a layer is fitted: its queries and keys, its residual stream, rows of two passes. */
function fitBytesPerToken({ model, precision }: Engine): number {
  const width = precision === 'f32' ? 4 : 8;
  const tapped = Math.max(...model.layers.map(({ attention: a }) => (a.heads + a.kvHeads) * a.headDim));
  return (tapped + 2 * model.hiddenSize) * width + 100 * model.layers[0].attention.heads;
}

/** Queries and keys of the windows of one layer, copied so that they outlive the visit; chunks of a window are joined. */
function keep(held: Map<number, TappedQueries>, { block, ...place }: TappedQueries): void {
  const earlier = held.get(place.window);
  const keys = block.keys.slice();
  if (!earlier) {
    held.set(place.window, { ...place, block: { ...block, queries: block.queries.slice(), keys } });
    return;
  }
  const { queries } = earlier.block;
  const joined =
    block.queries instanceof Float32Array
      ? new Float32Array(queries.length + block.queries.length)
      : new Float64Array(queries.length + block.queries.length);
  joined.set(queries);
  joined.set(block.queries, queries.length);
  const count = earlier.count + place.count;
  held.set(place.window, {
    ...earlier,
    count,
    block: { ...earlier.block, queries: joined, keys, queryCount: count, keyCount: block.keyCount },
  });
}

/**
 * Runs beside the engine: fits the temperatures of every layer to the thresholds, over the scores of the model as it is.
 * Queries and keys of one layer at a time are held for all windows.
 * @throws InputError when they do not fit in `maxBytes`, or for a model without reachable heads
 */
export async function fitAttention(model: LanguageModel, args: FitArguments): Promise<FitBatch> {
  const { engine, layers, heads } = reachableHeads(model);
  const { start, regulariser, learnThresholds, windows } = args;
  const { positions } = start;
  const tokens = windows.reduce((sum, window) => sum + window.length, 0);
  const needed = tokens * fitBytesPerToken(engine);
  if (needed > args.maxBytes) {
    const fitting = Math.floor(args.maxBytes / fitBytesPerToken(engine));
    throw new InputError(
      `--fit-temperatures holds a layer of all ${tokens} tokens, ${Math.ceil(needed / 2 ** 20)} MiB: memory has room for ` +
        `${fitting} tokens; lower --limit or raise --max-memory`,
    );
  }
  const size = layers * heads;
  const thresholds = new Float64Array(size);
  const result: FitBatch = {
    before: createAttentionBatch(windows.length, layers, heads, {
      regulariser,
      ...(args.gradientPositions !== undefined && { gradientPositions: args.gradientPositions }),
    }),
    after: createAttentionStatistics(layers, heads),
    temperatures: new Float64Array(size * positions),
    thresholds,
    lossBefore: new Float64Array(size),
    lossAfter: new Float64Array(size),
    passes: new Int32Array(layers),
    settled: new Uint8Array(layers),
  };
  const held = new Map<number, TappedQueries>();
  const measure = ({ block }: TappedQueries, temperatures: Float64Array) =>
    attentionEntropiesFromQueryKeys({ ...block, temperatures }, { moments: true, threads: engine.threads });

  const fitLayer = (layer: number): void => {
    const from = layer * heads;
    const own = [...held.values()];
    held.clear();
    const fit = fitTemperatures({
      heads,
      positions,
      windows: own,
      evaluate: (w, temperatures) => measure(own[w], temperatures),
      reduction: regulariser.reduction,
      gamma: regulariser.gamma,
      contextSize: regulariser.contextSize,
      thresholds: learnThresholds ? 'learn' : regulariser.thresholds.subarray(from, from + heads),
      start: start.values.subarray(from * positions, (from + heads) * positions),
      passes: args.passes,
    });
    result.temperatures.set(fit.temperatures, from * positions);
    thresholds.set(fit.thresholds, from);
    result.lossBefore.set(fit.lossBefore, from);
    result.lossAfter.set(fit.lossAfter, from);
    result.passes[layer] = fit.passes;
    result.settled[layer] = fit.settled ? 1 : 0;
    const questions: AttentionQuestions = {
      temperatures: start,
      regulariser: { ...regulariser, thresholds },
      ...(args.gradientPositions !== undefined && { gradientPositions: args.gradientPositions }),
    };
    own.forEach((tapped, w) => {
      const { count, block } = tapped;
      const first = measure(tapped, temperaturesOf(start, layer, heads, tapped.from, count));
      addBatchRows(result.before, first, placeOf(tapped), questions);
      const shape = { batch: 1, heads, queries: count, keys: block.keyCount };
      const { slidingWindow } = block;
      addAttentionRows(result.after, fit.rows[w], shape, {
        layer,
        queryStart: tapped.from,
        ...(slidingWindow !== undefined && { slidingWindow }),
      });
    });
  };
  await visitQueries(engine, windows, args.wanted, args.context, (tapped) => keep(held, tapped), fitLayer);
  return result;
}

export const FIT_ATTENTION: JobReference<FitArguments, FitBatch> = { module: import.meta.url, job: fitAttention };
