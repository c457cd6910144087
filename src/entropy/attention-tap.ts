import type { ScoreBlock } from '../kernels/attention-scores.js';
import { takesPlainAttention } from '../models/attention-graph.js';
import type { AttentionDescription, ModelDescription } from '../models/description.js';
import type { Engine } from '../models/engine.js';
import type { PositionRange } from '../models/language-model.js';
import type { Floats, TapEvent } from '../models/layer-runner.js';

/** Queries of one window that count, with all keys that they see. */
export interface TappedQueries {
  readonly layer: number;
  /** Index of the window in the caller's list. */
  readonly window: number;
  /** Position of the first query. */
  readonly from: number;
  readonly count: number;
  /** Reads the tapped arrays where they lie: copy what must outlive the visit. */
  readonly block: ScoreBlock;
}

/** Scores of the runtime's plain attention, `[heads, rows, keys]`, take at most this much in one run of a layer. */
export const SCORE_BYTES = 64 << 20;
/** Fewer rows would leave products of a single row, whose last bits differ. */
const LEAST_ROWS = 4;
/** The most rows that any plan gives to one run. */
const MOST_ROWS = 1024;
/** The runtime's copies of the scores, and keys and values that grow from run to run; measured at 32,768 tokens. */
const SCORE_COPIES = 6;
/** Buffers of packed keys that the kernel makes for a call. */
const PACKED_BYTES = 32 << 20;

function isPlain(model: ModelDescription, precision: 'f32' | 'f64'): boolean {
  return model.layers.some(({ attention }) => takesPlainAttention(attention, precision, new Set()));
}

/**
 * Rows of a run of a layer whose plain attention (f64, odd head sizes) would hold scores `[heads, rows, context]`: what
 * fits `SCORE_BYTES`, 4 to 1,024. Undefined where no layer holds scores, and the engine's own plan serves.
 */
export function plainRowsPerRun(
  model: ModelDescription,
  context: number,
  precision: 'f32' | 'f64',
): number | undefined {
  if (!isPlain(model, precision)) return undefined;
  const { heads } = model.layers[0].attention;
  const affordable = Math.floor(SCORE_BYTES / (heads * context * (precision === 'f32' ? 4 : 8)));
  return Math.max(LEAST_ROWS, Math.min(MOST_ROWS, affordable));
}

/** What tapping holds beside the engine, in bytes: keys of one window, tapped rows, sums, and plain scores. */
export function attentionReserveBytes(model: ModelDescription, context: number, precision: 'f32' | 'f64'): number {
  const width = precision === 'f32' ? 4 : 8;
  const { heads } = model.layers[0].attention;
  const keyWidth = Math.max(...model.layers.map(({ attention: a }) => a.kvHeads * a.headDim));
  const headKeys = Math.max(...model.layers.map(({ attention: a }) => a.headDim)) * context * width;
  const rowBytes = 3 * width * Math.max(...model.layers.map(({ attention: a }) => (a.heads + a.kvHeads) * a.headDim));
  const rows = plainRowsPerRun(model, context, precision);
  const scores = rows === undefined ? 0 : SCORE_COPIES * heads * rows * context * width;
  const keys = keyWidth * context * width;
  return keys + Math.min(keys, Math.max(headKeys, PACKED_BYTES)) + MOST_ROWS * (rowBytes + heads * 128) + scores;
}

/** Heads of the model, of which every layer must have as many; undefined when they differ. */
export function commonHeads(model: ModelDescription): number | undefined {
  const { heads } = model.layers[0].attention;
  return model.layers.every(({ attention }) => attention.heads === heads) ? heads : undefined;
}

/** How the scores of a layer follow from its queries and keys. */
function scoring(a: AttentionDescription) {
  return {
    heads: a.heads,
    keyHeads: a.kvHeads,
    headDim: a.headDim,
    scale: a.scale,
    ...(a.softcap !== undefined && { softcap: a.softcap }),
    ...(a.window !== undefined && { slidingWindow: a.window }),
  };
}

/**
 * Runs windows through the layers and visits the queries that count, layer by layer: after rotary embedding, norms and
 * all else that precedes the score. Keys of a window that runs in chunks are gathered as they come; scores never exist.
 * @param afterLayer called when all windows have been through a layer
 */
export async function visitQueries(
  engine: Engine,
  windows: readonly Int32Array[],
  wanted: readonly PositionRange[],
  context: number,
  visit: (tapped: TappedQueries) => void,
  afterLayer?: (layer: number) => Promise<void> | void,
): Promise<void> {
  const { layers } = engine.model;
  let gathered: Floats = engine.precision === 'f32' ? new Float32Array(0) : new Float64Array(0);
  /** Keys 0..from+count-1 of each window of a group. */
  const keysUpTo = ({ group, from, count }: TapEvent, keys: Floats, width: number): ((b: number) => Floats) => {
    if (from === 0 && count === group.length) {
      return (b) => keys.subarray(b * count * width, (b + 1) * count * width);
    }
    if (gathered.length < group.length * width) {
      const size = group.length * width;
      gathered = engine.precision === 'f32' ? new Float32Array(size) : new Float64Array(size);
    }
    gathered.set(keys, from * width);
    return () => gathered.subarray(0, (from + count) * width);
  };
  const onTap = (event: TapEvent): void => {
    const { layer, group, from, count, taps } = event;
    const queries = taps.get('queries');
    const keys = taps.get('keys');
    if (!queries || !keys) return;
    const a = layers[layer].attention;
    const keysOf = keysUpTo(event, keys, a.kvHeads * a.headDim);
    const width = a.heads * a.headDim;
    group.windows.forEach((window, b) => {
      // The last input of a window is always scored, so that queries are left out at the front only.
      const skip = Math.max(0, wanted[window][0] - from);
      if (skip >= count) return;
      const block: ScoreBlock = {
        ...scoring(a),
        queries: queries.subarray((b * count + skip) * width, (b + 1) * count * width),
        keys: keysOf(b),
        queryCount: count - skip,
        keyCount: from + count,
        queryStart: from + skip,
      };
      visit({ layer, window, from: from + skip, count: count - skip, block });
    });
  };
  const plainRows = plainRowsPerRun(engine.model, context, engine.precision);
  await engine.forward({
    windows,
    taps: ['queries', 'keys'],
    onTap,
    ...(afterLayer && { onResidual: (index) => (index === 0 ? undefined : afterLayer(index - 1)) }),
    ...(plainRows !== undefined && { rowsPerRun: Math.min(plainRows, engine.plan.rowsPerRun) }),
  });
}
