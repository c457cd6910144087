import { InputError } from '../errors.js';
import { attentionEntropy } from '../kernels/attention-entropy.js';
import type { JobReference } from '../models/engine-host.js';
import type { LanguageModel } from '../models/language-model.js';
import type { TapEvent } from '../models/layer-runner.js';
import {
  type AttentionRows,
  attentionRowEntropies,
  createAttentionRows,
  ROW_PROPER,
  visibleKeys,
} from './attention.js';
import { type AttentionStatistics, addAttentionRows, createAttentionStatistics } from './attention-statistics.js';
import type { WindowArguments } from './window-batches.js';

export interface AttentionArguments extends WindowArguments {
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
}

/** Probabilities of one run of a layer take at most this much. */
export const PROBABILITY_BYTES = 64 << 20;

/** Fewer rows would leave products of a single row, whose last bits differ. */
const LEAST_ROWS = 4;

/** The most rows that any plan gives to one run. */
const MOST_ROWS = 1024;

/** Rows of a run whose probabilities `[heads, rows, context]` stay within `PROBABILITY_BYTES`; 4 to 1,024. */
export function attentionRowsPerRun(heads: number, context: number, bytesPerValue: number): number {
  const affordable = Math.floor(PROBABILITY_BYTES / (heads * context * bytesPerValue));
  return Math.max(LEAST_ROWS, Math.min(MOST_ROWS, affordable));
}

/** Probabilities, the runtime's copies of them, and keys and values that grow from run to run; measured at 32,768 tokens. */
const PROBABILITY_COPIES = 6;
/** What the analysis holds beside the engine, in bytes. */
export function attentionReserveBytes(heads: number, context: number, bytesPerValue: number): number {
  return PROBABILITY_COPIES * heads * attentionRowsPerRun(heads, context, bytesPerValue) * context * bytesPerValue;
}

/** Largest |row sum - 1| that the softmax of the runtime may leave. */
const MASS_TOLERANCE = 1e-3;

/** Where probabilities `[heads, count, keys]` of one window lie: queries from..from+count-1, of which the first `skip` do not count. */
interface Place {
  readonly layer: number;
  readonly heads: number;
  readonly count: number;
  readonly keys: number;
  readonly from: number;
  readonly skip: number;
  readonly window: number | undefined;
}

/**
 * Entropies of the queries that count, `[heads, count - skip]`. The first key is kept apart from the others, so that the
 * entropy without it does not cancel. Undefined when the kernel refuses an entry.
 */
function rowsOfWindow(probabilities: Float32Array, place: Place, threads: number): AttentionRows | undefined {
  const { layer, heads, count, keys, from, skip, window } = place;
  const total = heads * count;
  const starts = new Int32Array(total);
  const ends = new Int32Array(total);
  for (let q = skip; q < count; q++) {
    const position = from + q;
    const oldest = position + 1 - visibleKeys(position, window);
    for (let row = q; row < total; row += count) {
      starts[row] = Math.max(1, oldest);
      ends[row] = position + 1;
    }
  }
  let rest: ReturnType<typeof attentionEntropy>;
  try {
    rest = attentionEntropy({ data: probabilities, rows: total, keys }, { starts, ends, threads });
  } catch (error) {
    if (error instanceof InputError) return undefined;
    throw error;
  }
  const kept = count - skip;
  const rows = createAttentionRows(heads * kept);
  for (let head = 0; head < heads; head++) {
    for (let q = skip; q < count; q++) {
      const row = head * count + q;
      const out = head * kept + q - skip;
      const position = from + q;
      const first = visibleKeys(position, window) === position + 1 ? probabilities[row * keys] : 0;
      const mass = rest.mass[row] + first;
      if (Number.isNaN(mass)) return undefined;
      if (!(Math.abs(mass - 1) <= MASS_TOLERANCE)) {
        throw new InputError(
          `attention layer ${layer} head ${head} query ${position} sums to ${Number(mass.toPrecision(6))} ` +
            `(tolerance ${MASS_TOLERANCE}); the model's weights give no proper attention`,
        );
      }
      const logs = rest.entropyNats[row];
      rows.entropyNats[out] = Math.max(0, first > 0 ? logs - first * Math.log(first) : logs);
      rows.firstKeyMass[out] = first;
      rows.withoutFirstKeyNats[out] =
        rest.mass[row] > 0 ? Math.max(0, Math.log(rest.mass[row]) + logs / rest.mass[row]) : Number.NaN;
    }
  }
  return rows;
}

/** The same through the reference, which takes f64 and flags rows with NaN instead of refusing them. */
function rowsByReference(probabilities: Float32Array | Float64Array, place: Place): AttentionRows {
  const { layer, heads, count, keys, from, skip } = place;
  const kept = count - skip;
  const shape = { batch: 1, heads, queries: kept, keys };
  const options = { tolerance: MASS_TOLERANCE, queryStart: from + skip, layer };
  if (skip === 0) return attentionRowEntropies(probabilities, shape, options);
  const packed = probabilities.slice(0, heads * kept * keys);
  for (let head = 0; head < heads; head++) {
    packed.set(probabilities.subarray((head * count + skip) * keys, (head + 1) * count * keys), head * kept * keys);
  }
  return attentionRowEntropies(packed, shape, options);
}

/**
 * Runs beside the engine: attention entropies of the wanted queries of a batch of windows. Probabilities exist for one
 * run of one layer at a time and are reduced where they arise.
 * @throws InputError when the layers of the model cannot be reached, or its heads differ from layer to layer
 */
export async function measureAttention(
  { engine, info }: LanguageModel,
  args: AttentionArguments,
): Promise<AttentionBatch> {
  if (!engine)
    throw new InputError(`${info.path}: attention is not reachable in an ONNX export; pass the model itself`);
  const { layers } = engine.model;
  const heads = layers[0].attention.heads;
  if (layers.some((layer) => layer.attention.heads !== heads)) {
    throw new InputError(`${info.path}: layers with different numbers of heads are not supported`);
  }
  const perWindow = layers.length * heads;
  const batch: AttentionBatch = {
    statistics: createAttentionStatistics(layers.length, heads),
    entropySums: new Float64Array(args.windows.length * perWindow),
    rowCounts: new Int32Array(args.windows.length * perWindow),
    normalisedSums: new Float64Array(args.windows.length),
    normalisedCounts: new Int32Array(args.windows.length),
  };
  const fold = ({ layer, group, from, count, taps }: TapEvent): void => {
    const probabilities = taps.get('attention_probabilities');
    if (!probabilities) return;
    const keys = from + count;
    const { window } = layers[layer].attention;
    group.windows.forEach((index, b) => {
      // The last input of a window is always scored, so that queries are left out at the front only.
      const skip = Math.max(0, args.wanted[index][0] - from);
      if (skip >= count) return;
      const cells = heads * count * keys;
      const own = probabilities.subarray(b * cells, (b + 1) * cells);
      const place: Place = { layer, heads, count, keys, from, skip, window };
      const native = own instanceof Float32Array ? rowsOfWindow(own, place, engine.threads) : undefined;
      const rows = native ?? rowsByReference(own, place);
      const shape = { batch: 1, heads, queries: count - skip, keys };
      const placement = { layer, queryStart: from + skip, ...(window !== undefined && { slidingWindow: window }) };
      addAttentionRows(batch.statistics, rows, shape, placement);
      addWindowSums(batch, index * perWindow + layer * heads, index, rows, heads, from + skip, window);
    });
  };
  const bytesPerValue = engine.precision === 'f32' ? 4 : 8;
  const affordable = attentionRowsPerRun(heads, args.context, bytesPerValue);
  await engine.forward({
    windows: args.windows,
    taps: ['attention_probabilities'],
    onTap: fold,
    rowsPerRun: Math.min(affordable, engine.plan.rowsPerRun),
  });
  return batch;
}

/** Adds the proper rows of one window and layer to the window's sums, heads from `at` on. */
function addWindowSums(
  batch: AttentionBatch,
  at: number,
  index: number,
  rows: AttentionRows,
  heads: number,
  firstQuery: number,
  window: number | undefined,
): void {
  const queries = rows.entropyNats.length / heads;
  for (let head = 0; head < heads; head++) {
    for (let q = 0; q < queries; q++) {
      const row = head * queries + q;
      if (rows.state[row] !== ROW_PROPER) continue;
      const entropy = rows.entropyNats[row];
      batch.entropySums[at + head] += entropy;
      batch.rowCounts[at + head]++;
      const visible = visibleKeys(firstQuery + q, window);
      if (visible < 2) continue;
      batch.normalisedSums[index] += entropy / Math.log(visible);
      batch.normalisedCounts[index]++;
    }
  }
}

export const MEASURE_ATTENTION: JobReference<AttentionArguments, AttentionBatch> = {
  module: import.meta.url,
  job: measureAttention,
};
