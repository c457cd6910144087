import {
  SEGMENT_TOKENS,
  type Segment,
  type StoredColumn,
  type StoredSegment,
  type StoredStep,
} from './record-store.js';
import { createScratch, type Scratch } from './scratch.js';
import {
  type RolloutIndex,
  type RolloutStep,
  TOKEN_COLUMNS,
  type TokenBlock,
  type TokenColumn,
  type TopTokens,
} from './types.js';

type Columns = ReadonlySet<StoredColumn | 'topTokens'>;

/** [tokens]: the advantage of every record at the tokens that count. */
function broadcast(segment: Segment, advantage: Float64Array): Float64Array {
  const { records, offsets, mask } = segment;
  const values = new Float64Array(mask.length);
  for (let r = 0; r < records.length; r++) values.fill(advantage[records[r]], offsets[r], offsets[r + 1]);
  for (let t = 0; t < mask.length; t++) if (mask[t] === 0) values[t] = 0;
  return values;
}

function concatenated<T extends Float64Array | Int32Array | Uint8Array>(parts: readonly T[]): T {
  const [first] = parts;
  if (parts.length === 1) return first;
  const whole = new (first.constructor as new (length: number) => T)(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Rows of different k as rows of the largest. */
function joinedTop(parts: readonly TopTokens[]): TopTokens {
  const k = Math.max(...parts.map((part) => part.k));
  const widened = parts.map((part) => {
    if (part.k === k) return part;
    const rows = part.ids.length / part.k;
    const ids = new Int32Array(rows * k).fill(-1);
    const logProbs = new Float64Array(rows * k).fill(Number.NEGATIVE_INFINITY);
    for (let t = 0; t < rows; t++) {
      ids.set(part.ids.subarray(t * part.k, (t + 1) * part.k), t * k);
      logProbs.set(part.logProbs.subarray(t * part.k, (t + 1) * part.k), t * k);
    }
    return { k, ids, logProbs };
  });
  return {
    k,
    ids: concatenated(widened.map(({ ids }) => ids)),
    logProbs: concatenated(widened.map(({ logProbs }) => logProbs)),
  };
}

/** Several segments as one. */
function joined(parts: readonly Segment[]): Segment {
  if (parts.length === 1) return parts[0];
  const offsets = [0];
  for (const part of parts) {
    const base = offsets[offsets.length - 1];
    for (let r = 1; r < part.offsets.length; r++) offsets.push(base + part.offsets[r]);
  }
  const columns = new Map<StoredColumn, Float64Array | Int32Array>();
  for (const column of parts[0].columns.keys()) {
    const values = parts.map((part) => part.columns.get(column));
    if (values.every((one) => one !== undefined))
      columns.set(column, concatenated(values as (Float64Array | Int32Array)[]));
  }
  const tops = parts.map((part) => part.topTokens).filter((top) => top !== undefined);
  return {
    records: concatenated(parts.map(({ records }) => records)),
    offsets: Int32Array.from(offsets),
    mask: concatenated(parts.map(({ mask }) => mask)),
    columns,
    ...(tops.length === parts.length && { topTokens: joinedTop(tops) }),
  };
}

function blockOf(segment: Segment, firstToken: number, index: RolloutIndex, shown: Columns): TokenBlock {
  const { records, offsets, mask, columns, topTokens } = segment;
  const values: Partial<Record<TokenColumn, Float64Array>> = {};
  for (const name of TOKEN_COLUMNS) {
    const column = columns.get(name);
    if (shown.has(name) && column instanceof Float64Array) values[name] = column;
  }
  if (shown.has('oldLogProb')) values.oldLogProb ??= values.logProb;
  const tokens = shown.has('tokens') ? columns.get('tokens') : undefined;
  const textIds = shown.has('textIds') ? (columns.get('textIds') ?? columns.get('tokens')) : undefined;
  const block: TokenBlock = {
    records,
    offsets,
    firstToken,
    mask,
    ...values,
    ...(tokens instanceof Int32Array && { tokens }),
    ...(textIds instanceof Int32Array && { textIds }),
    ...(shown.has('topTokens') && topTokens && { topTokens }),
  };
  const { advantage } = index;
  if (advantage === undefined) return block;
  // Not every pass asks for it.
  let wide: Float64Array | undefined;
  const recordAdvantage = new Float64Array(records.length);
  for (let r = 0; r < records.length; r++) recordAdvantage[r] = advantage[records[r]];
  return Object.defineProperty({ ...block, recordAdvantage }, 'advantage', {
    enumerable: true,
    get() {
      wide ??= broadcast(segment, advantage);
      return wide;
    },
  });
}

function* stepBlocks(
  { segments }: StoredStep,
  index: RolloutIndex,
  shown: Columns,
  scratch: Scratch | undefined,
): Generator<TokenBlock, void, undefined> {
  let firstToken = 0;
  const fits = (next: StoredSegment, tokens: number): boolean => !next.alone && tokens + next.tokens <= SEGMENT_TOKENS;
  for (let at = 0; at < segments.length; ) {
    const { alone } = segments[at];
    let tokens = segments[at].tokens;
    let end = at + 1;
    while (!alone && end < segments.length && fits(segments[end], tokens)) tokens += segments[end++].tokens;
    const parts = alone ? [segments[at].read(scratch)] : segments.slice(at, end).map((one) => one.read());
    yield blockOf(joined(parts), firstToken, index, shown);
    firstToken += tokens;
    at = end;
  }
}

/** Blocks of a step in memory that the next passes use again, unless another pass is in it. */
function* transientBlocks(
  stored: StoredStep,
  index: RolloutIndex,
  shown: Columns,
  pool: Scratch[],
): Generator<TokenBlock, void, undefined> {
  const scratch = pool.pop() ?? createScratch();
  try {
    yield* stepBlocks(stored, index, shown, scratch);
  } finally {
    pool.push(scratch);
  }
}

/** Steps of a stored dump; blocks have about `SEGMENT_TOKENS` tokens and whole records. */
export function rolloutSteps(stored: readonly StoredStep[], index: RolloutIndex, shown: Columns): RolloutStep[] {
  const recordsOf = new Map<number, number[]>(stored.map(({ step }) => [step, []]));
  for (let r = 0; r < index.records; r++) recordsOf.get(index.step[r])?.push(r);
  const pool: Scratch[] = [];
  const blocksOf =
    (one: StoredStep): RolloutStep['blocks'] =>
    (options) =>
      options?.transient ? transientBlocks(one, index, shown, pool) : stepBlocks(one, index, shown, undefined);
  return stored.map((one) => {
    const records = Int32Array.from(recordsOf.get(one.step) ?? []);
    let tokens = 0;
    let counted = 0;
    for (const r of records) {
      tokens += index.length[r];
      counted += index.counted[r];
    }
    return { step: one.step, records, tokens, counted, blocks: blocksOf(one) };
  });
}
