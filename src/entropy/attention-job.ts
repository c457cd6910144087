import { InputError } from '../errors.js';
import type { Engine } from '../models/engine.js';
import type { JobReference } from '../models/engine-host.js';
import type { LanguageModel } from '../models/language-model.js';
import {
  type AttentionRows,
  attentionEntropiesFromQueryKeys,
  ROW_PROPER,
  type ScoredRows,
  visibleKeys,
} from './attention.js';
import { addPenalties, createPenalties, type PenaltySums } from './attention-penalty.js';
import { isPenalised } from './attention-regulariser.js';
import { type HeadValues, type RegulariserSettings, temperaturesOf } from './attention-settings.js';
import { type AttentionStatistics, addAttentionRows, createAttentionStatistics } from './attention-statistics.js';
import { commonHeads, type TappedQueries, visitQueries } from './attention-tap.js';
import type { WindowArguments } from './window-batches.js';

/** What is asked about the heads beside their entropies. */
export interface AttentionQuestions {
  /** Temperatures at which attention is measured; 1 when absent. */
  readonly temperatures?: HeadValues;
  readonly regulariser?: RegulariserSettings;
  /** Sums from which the gradient by temperatures follows: one a head (1), or one a position of the query. */
  readonly gradientPositions?: number;
}

export interface AttentionArguments extends WindowArguments, AttentionQuestions {
  /** Most tokens that any window of the run may have: the rows of a run follow from it, not from the batch. */
  readonly context: number;
}

/** What a batch gives: statistics of all its rows, and sums by window for the spread over documents. */
export interface AttentionBatch {
  readonly statistics: AttentionStatistics;
  /** Sum of entropies, nats, and number of proper rows: `[windows, layers * heads]`. */
  readonly entropySums: Float64Array;
  readonly rowCounts: Int32Array;
  /** Sum over heads and rows of entropy / log(visible keys), and their number: `[windows]`. */
  readonly normalisedSums: Float64Array;
  readonly normalisedCounts: Int32Array;
  /** Of every head, where there is a regulariser. */
  readonly penalties?: PenaltySums[];
  /** `[layers * heads, gradientPositions]`; see `corpusTemperatureGradient`. */
  readonly temperatureSums?: Float64Array;
}

/** The engine of a model whose layers can be reached, and its heads, equal in all layers. Throws InputError otherwise. */
export function reachableHeads({ engine, info }: LanguageModel): { engine: Engine; layers: number; heads: number } {
  if (!engine)
    throw new InputError(`${info.path}: attention is not reachable in an ONNX export; pass the model itself`);
  const heads = commonHeads(engine.model);
  if (heads === undefined) {
    throw new InputError(`${info.path}: layers with different numbers of heads are not supported`);
  }
  return { engine, layers: engine.model.layers.length, heads };
}

export function createAttentionBatch(
  windows: number,
  layers: number,
  heads: number,
  questions: AttentionQuestions,
): AttentionBatch {
  const perWindow = layers * heads;
  const { regulariser, gradientPositions } = questions;
  return {
    statistics: createAttentionStatistics(layers, heads),
    entropySums: new Float64Array(windows * perWindow),
    rowCounts: new Int32Array(windows * perWindow),
    normalisedSums: new Float64Array(windows),
    normalisedCounts: new Int32Array(windows),
    ...(regulariser && { penalties: createPenalties(perWindow) }),
    ...(gradientPositions !== undefined && { temperatureSums: new Float64Array(perWindow * gradientPositions) }),
  };
}

/** Where rows `[heads, count]` of one layer and window lie. */
export interface RowsPlace {
  readonly layer: number;
  readonly window: number;
  /** Position of the first query. */
  readonly from: number;
  readonly heads: number;
  readonly keys: number;
  readonly slidingWindow?: number;
  /** False: every query sees all keys. */
  readonly causal?: boolean;
}

/** Adds rows `[heads, count]` of one window and layer; `scoreVariance` serves gradients by temperatures. */
export function addBatchRows(
  batch: AttentionBatch,
  rows: AttentionRows & Partial<Pick<ScoredRows, 'scoreVariance'>>,
  place: RowsPlace,
  questions: AttentionQuestions,
): void {
  const { layer, heads, keys, from, slidingWindow, causal } = place;
  const shape = { batch: 1, heads, queries: rows.entropyNats.length / heads, keys };
  addAttentionRows(batch.statistics, rows, shape, {
    layer,
    queryStart: from,
    ...(slidingWindow !== undefined && { slidingWindow }),
    ...(causal !== undefined && { causal }),
  });
  addWindowSums(batch, rows, place);
  const { regulariser } = questions;
  if (!regulariser) return;
  if (batch.penalties) addPenalties(batch.penalties, rows, layer, heads, regulariser);
  if (batch.temperatureSums && rows.scoreVariance) {
    addTemperatureSums(batch.temperatureSums, rows, rows.scoreVariance, place, questions, regulariser);
  }
}

/** Where the rows of tapped queries lie. */
export function placeOf({ layer, window, from, block }: TappedQueries): RowsPlace {
  const { heads, keyCount, slidingWindow } = block;
  return { layer, window, from, heads, keys: keyCount, ...(slidingWindow !== undefined && { slidingWindow }) };
}

/**
 * Runs beside the engine: attention entropies of the wanted queries of a batch of windows, from queries and keys where
 * they arise.
 * @throws InputError when the layers of the model cannot be reached, or its heads differ from layer to layer
 */
export async function measureAttention(model: LanguageModel, args: AttentionArguments): Promise<AttentionBatch> {
  const { engine, layers, heads } = reachableHeads(model);
  const batch = createAttentionBatch(args.windows.length, layers, heads, args);
  const moments = args.gradientPositions !== undefined;
  await visitQueries(engine, args.windows, args.wanted, args.context, (tapped) => {
    const { layer, from, count, block } = tapped;
    const temperatures = args.temperatures && temperaturesOf(args.temperatures, layer, heads, from, count);
    const rows = attentionEntropiesFromQueryKeys(
      { ...block, ...(temperatures && { temperatures }) },
      { moments, threads: engine.threads },
    );
    addBatchRows(batch, rows, placeOf(tapped), args);
  });
  return batch;
}

/** Adds the proper rows of one window and layer to the window's sums. */
function addWindowSums(batch: AttentionBatch, rows: AttentionRows, place: RowsPlace): void {
  const { layer, window, from, heads, keys, slidingWindow, causal = true } = place;
  const queries = rows.entropyNats.length / heads;
  const at = window * batch.statistics.layers * heads + layer * heads;
  for (let head = 0; head < heads; head++) {
    for (let q = 0; q < queries; q++) {
      const row = head * queries + q;
      if (rows.state[row] !== ROW_PROPER) continue;
      const entropy = rows.entropyNats[row];
      batch.entropySums[at + head] += entropy;
      batch.rowCounts[at + head]++;
      const visible = causal ? visibleKeys(from + q, slidingWindow) : keys;
      if (visible < 2) continue;
      batch.normalisedSums[window] += entropy / Math.log(visible);
      batch.normalisedCounts[window]++;
    }
  }
}

function addTemperatureSums(
  sums: Float64Array,
  rows: AttentionRows,
  scoreVariance: Float64Array,
  { layer, from, heads }: RowsPlace,
  { temperatures, gradientPositions = 1 }: AttentionQuestions,
  regulariser: RegulariserSettings,
): void {
  const maximum = Math.log(regulariser.contextSize);
  const queries = rows.entropyNats.length / heads;
  const divisors = temperatures && temperaturesOf(temperatures, layer, heads, from, queries);
  for (let head = 0; head < heads; head++) {
    const place = layer * heads + head;
    const wanted = regulariser.thresholds[place] * maximum;
    for (let q = 0; q < queries; q++) {
      const row = head * queries + q;
      if (rows.state[row] !== ROW_PROPER) continue;
      const slope = scoreVariance[row] / (divisors ? divisors[row] : 1);
      const delta = rows.entropyNats[row] - wanted;
      const at = place * gradientPositions + (gradientPositions === 1 ? 0 : from + q);
      if (regulariser.reduction === 'algorithm1') sums[at] += slope;
      else if (isPenalised(delta, regulariser.gamma * maximum)) sums[at] += 2 * delta * slope;
    }
  }
}

export const MEASURE_ATTENTION: JobReference<AttentionArguments, AttentionBatch> = {
  module: import.meta.url,
  job: measureAttention,
};
