import { openBlockFile } from './block-file.js';
import type { Scratch } from './scratch.js';
import type { TokenColumn, TopTokens } from './types.js';

/** Arrays with one value a token that are stored; `tokens` and `textIds` are whole numbers. */
export type StoredColumn = TokenColumn | 'tokens' | 'textIds';

type Values = Float64Array | Int32Array;
const isWhole = (column: StoredColumn): boolean => column === 'tokens' || column === 'textIds';

/** A checked record on its way into the store. */
export interface StoredRecord {
  readonly record: number;
  readonly step: number;
  readonly length: number;
  /** All tokens count when absent. */
  readonly mask?: Uint8Array;
  readonly columns: ReadonlyMap<StoredColumn, Values>;
  readonly topTokens?: TopTokens;
}

/** Whole records of one step, one behind another. */
export interface Segment {
  readonly records: Int32Array;
  /** [records + 1], from 0. */
  readonly offsets: Int32Array;
  readonly mask: Uint8Array;
  readonly columns: ReadonlyMap<StoredColumn, Values>;
  readonly topTokens?: TopTokens;
}

/** A segment in memory, in the work file, or in the dump itself. */
export interface StoredSegment {
  readonly tokens: number;
  /** Large enough for a block of its own. */
  readonly alone?: boolean;
  /** May lie in `scratch`, where that is given. */
  read(scratch?: Scratch): Segment;
}

/** Segments of a step in the order of the dump. */
export interface StoredStep {
  readonly step: number;
  readonly segments: readonly StoredSegment[];
}

export interface RecordStore {
  append(record: StoredRecord): void;
  /** Takes segments that lie in the dump. */
  refer(step: number, segments: readonly StoredSegment[]): void;
  /** A column that some record lacks is not stored any more. */
  drop(column: StoredColumn | 'topTokens'): void;
  /** Ends the writing. Steps in ascending order. */
  finish(): readonly StoredStep[];
  readonly held: 'memory' | 'file';
  close(): void;
}

export interface RecordStoreOptions {
  /** Tokens and bytes that may be held in memory; more go to a file. */
  readonly mostTokens: number;
  readonly mostBytes: number;
  readonly directory: string;
}

/** Tokens of a segment, unless a single record has more. */
export const SEGMENT_TOKENS = 1 << 20;
/** Bytes of unfinished segments of all steps together, once a file holds the finished ones. */
const PENDING_BYTES = 64 << 20;

/** A segment that grows. */
interface Builder {
  records: number[];
  offsets: number[];
  capacity: number;
  mask: Uint8Array;
  columns: Map<StoredColumn, Values>;
  top?: { k: number; ids: Int32Array; logProbs: Float64Array };
}

const createBuilder = (): Builder => ({
  records: [],
  offsets: [0],
  capacity: 0,
  mask: new Uint8Array(0),
  columns: new Map(),
});

const tokensOf = (builder: Builder): number => builder.offsets[builder.offsets.length - 1];

function resized<T extends Values | Uint8Array>(values: T, length: number): T {
  const larger = new (values.constructor as new (length: number) => T)(length);
  larger.set(values.length > length ? values.subarray(0, length) : values);
  return larger;
}

/** Rows of k1 tokens as rows of k2 >= k1, filled with -1 and -Infinity. */
function widened(top: NonNullable<Builder['top']>, tokens: number, k: number, capacity: number): Builder['top'] {
  const ids = new Int32Array(capacity * k).fill(-1);
  const logProbs = new Float64Array(capacity * k).fill(Number.NEGATIVE_INFINITY);
  for (let t = 0; t < tokens; t++) {
    ids.set(top.ids.subarray(t * top.k, (t + 1) * top.k), t * k);
    logProbs.set(top.logProbs.subarray(t * top.k, (t + 1) * top.k), t * k);
  }
  return { k, ids, logProbs };
}

function reserve(builder: Builder, tokens: number): void {
  if (tokens <= builder.capacity) return;
  const capacity = Math.max(tokens, Math.min(2 * builder.capacity, SEGMENT_TOKENS), 256);
  builder.mask = resized(builder.mask, capacity);
  for (const [column, values] of builder.columns) builder.columns.set(column, resized(values, capacity));
  if (builder.top) builder.top = widened(builder.top, tokensOf(builder), builder.top.k, capacity);
  builder.capacity = capacity;
}

function appendTop(builder: Builder, top: TopTokens, start: number, first: boolean): void {
  const k = Math.max(builder.top?.k ?? 0, top.k);
  if (builder.top === undefined) {
    if (!first) return;
    builder.top = widened({ k, ids: new Int32Array(0), logProbs: new Float64Array(0) }, 0, k, builder.capacity);
  } else if (builder.top.k < k) builder.top = widened(builder.top, start, k, builder.capacity);
  const target = builder.top as NonNullable<Builder['top']>;
  const rows = top.ids.length / top.k;
  for (let t = 0; t < rows; t++) {
    target.ids.set(top.ids.subarray(t * top.k, (t + 1) * top.k), (start + t) * k);
    target.logProbs.set(top.logProbs.subarray(t * top.k, (t + 1) * top.k), (start + t) * k);
  }
}

function appendTo(builder: Builder, record: StoredRecord): void {
  const start = tokensOf(builder);
  const first = builder.records.length === 0;
  reserve(builder, start + record.length);
  if (record.mask) builder.mask.set(record.mask, start);
  else builder.mask.fill(1, start, start + record.length);
  for (const [column, values] of record.columns) {
    let target = builder.columns.get(column);
    if (target === undefined) {
      if (!first) continue;
      target = isWhole(column) ? new Int32Array(builder.capacity) : new Float64Array(builder.capacity);
      builder.columns.set(column, target);
    }
    target.set(values, start);
  }
  if (record.topTokens) appendTop(builder, record.topTokens, start, first);
  builder.records.push(record.record);
  builder.offsets.push(start + record.length);
}

function finished(builder: Builder): Segment {
  const tokens = tokensOf(builder);
  const exact = <T extends Values | Uint8Array>(values: T, length: number): T =>
    values.length === length ? values : resized(values, length);
  const columns = new Map<StoredColumn, Values>();
  for (const [column, values] of builder.columns) columns.set(column, exact(values, tokens));
  const { top } = builder;
  return {
    records: Int32Array.from(builder.records),
    offsets: Int32Array.from(builder.offsets),
    mask: exact(builder.mask, tokens),
    columns,
    ...(top && {
      topTokens: { k: top.k, ids: exact(top.ids, tokens * top.k), logProbs: exact(top.logProbs, tokens * top.k) },
    }),
  };
}

function bytesOf(record: StoredRecord): number {
  let bytes = record.length;
  for (const values of record.columns.values()) bytes += values.byteLength;
  return bytes + (record.topTokens ? record.topTokens.ids.byteLength * 3 : 0);
}

/**
 * Keeps the tokens of a dump by step. They stay in memory up to a number of tokens and bytes; beyond it finished segments go to
 * a work file without a name and are read back by range. A segment has about `SEGMENT_TOKENS` tokens and whole records.
 */
export function createRecordStore(options: RecordStoreOptions): RecordStore {
  const builders = new Map<number, Builder>();
  const segments = new Map<number, StoredSegment[]>();
  let inMemory: { step: number; place: number; segment: Segment }[] = [];
  let file: ReturnType<typeof openBlockFile> | undefined;
  let tokens = 0;
  let bytes = 0;
  let pending = 0;
  const dropped = new Set<StoredColumn | 'topTokens'>();

  const place = (step: number, entry: StoredSegment): number => {
    const list = segments.get(step) ?? [];
    segments.set(step, list);
    return list.push(entry) - 1;
  };
  const keep = (step: number, builder: Builder): void => {
    const segment = finished(builder);
    if (file) {
      const stored = file;
      const at = stored.write(segment);
      place(step, { tokens: segment.mask.length, read: () => stored.read(at) });
    } else {
      const at = place(step, { tokens: segment.mask.length, read: () => segment });
      inMemory.push({ step, place: at, segment });
    }
  };
  const spill = (): void => {
    file = openBlockFile(options.directory);
    const stored = file;
    for (const { step, place: at, segment } of inMemory) {
      const offset = stored.write(segment);
      (segments.get(step) ?? [])[at] = { tokens: segment.mask.length, read: () => stored.read(offset) };
    }
    inMemory = [];
  };
  const flushAll = (): void => {
    for (const [step, builder] of builders) keep(step, builder);
    builders.clear();
    pending = 0;
  };
  return {
    get held() {
      return file ? 'file' : 'memory';
    },
    append(record) {
      tokens += record.length;
      const added = bytesOf(record);
      bytes += added;
      if (file === undefined && (tokens > options.mostTokens || bytes > options.mostBytes)) spill();
      let builder = builders.get(record.step);
      if (builder && builder.records.length > 0 && tokensOf(builder) + record.length > SEGMENT_TOKENS) {
        keep(record.step, builder);
        builder = undefined;
      }
      if (builder === undefined) {
        builder = createBuilder();
        builders.set(record.step, builder);
      }
      appendTo(builder, record);
      pending += added;
      if (file !== undefined && pending > PENDING_BYTES) flushAll();
    },
    refer(step, list) {
      // What came before stands before.
      const builder = builders.get(step);
      if (builder) keep(step, builder);
      builders.delete(step);
      for (const one of list) place(step, one);
    },
    drop(column) {
      if (dropped.has(column)) return;
      dropped.add(column);
      for (const builder of builders.values()) {
        if (column === 'topTokens') builder.top = undefined;
        else builder.columns.delete(column);
      }
    },
    finish() {
      flushAll();
      return [...segments.entries()].sort((a, b) => a[0] - b[0]).map(([step, list]) => ({ step, segments: list }));
    },
    close: () => file?.close(),
  };
}
