import { type NpzStore, openNpz } from '../../formats/npz.js';
import type { DType, TensorInfo } from '../../formats/tensor.js';
import { widenToF64 } from '../../kernels/dtypes.js';
import { countMask, settleIds, settleValues } from '../../kernels/policy-tokens.js';
import type { DumpRow } from './dump-rows.js';
import type { Field, FieldPicker } from './fields.js';
import { isCut, layoutOf, readRange, useOf } from './read-npz.js';
import type { Segment, StoredColumn, StoredSegment } from './record-store.js';
import { createScratch, type Scratch } from './scratch.js';
import { ENTROPY_SLACK, LOG_PROB_SLACK, mostEntropy } from './token-lists.js';
import type { TokenColumn } from './types.js';

/** Tokens of a segment, unless a single record has more: what is read stays in the caches while it is worked on. */
const FLAT_TOKENS = 1 << 18;
const FLOATS: ReadonlySet<string> = new Set<DType>(['F64', 'F32', 'F16', 'BF16']);
const BYTES: ReadonlySet<string> = new Set<DType>(['U8', 'BOOL', 'I8']);
const COLUMN_OF: Partial<Record<Field, TokenColumn>> = {
  logprob: 'logProb',
  old_logprob: 'oldLogProb',
  ref_logprob: 'referenceLogProb',
  entropy: 'entropy',
  advantage: 'advantage',
};

/** An archive whose columns stay in it: they are read by range whenever a block is asked for. */
export interface FlatDump {
  readonly records: number;
  /** Columns of the archive, and those of the tokens by what they are. */
  readonly fields: readonly string[];
  readonly from: ReadonlyMap<StoredColumn, string>;
  row(record: number): DumpRow;
  readonly length: Int32Array;
  readonly counted: Int32Array;
  /** Segments of records of one step, ascending; `base` is the number of the first record of the archive. */
  segments(records: readonly number[], base: number): StoredSegment[];
  close(): void;
}

interface Columns {
  readonly values: ReadonlyMap<TokenColumn, TensorInfo>;
  readonly ids: TensorInfo | undefined;
  readonly mask: TensorInfo | undefined;
  readonly ofRecords: readonly TensorInfo[];
}

const bytesOf = (values: ArrayBufferView): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** Undefined where an array asks for more than this way can do. */
function columnsOf(store: NpzStore, picker: FieldPicker, layout: ReturnType<typeof layoutOf>): Columns | undefined {
  const values = new Map<TokenColumn, TensorInfo>();
  const ofRecords: TensorInfo[] = [];
  let [ids, mask]: (TensorInfo | undefined)[] = [];
  const all = new Map([...store.tensors].filter(([name]) => !isCut(name)));
  for (const [name, info] of all) {
    const field = picker.fieldOf(name);
    const isScalar = info.shape.length === 1 && info.shape[0] === layout.records;
    if (field === undefined && !isScalar) continue;
    const use = useOf(store, info, layout);
    if (info.shape.length !== 1) return undefined;
    if (use === 'record') {
      ofRecords.push(info);
      continue;
    }
    // Of two columns of one field the first counts.
    if (use !== 'flat' || field === undefined || picker.pick(all, field)?.column !== name) return undefined;
    if (store.deflated.has(name)) return undefined;
    const column = COLUMN_OF[field];
    if (column !== undefined && FLOATS.has(info.dtype)) values.set(column, info);
    else if (field === 'tokens' && info.dtype === 'I32') ids = info;
    else if (field === 'mask' && BYTES.has(info.dtype)) mask = info;
    else return undefined;
  }
  return { values, ids, mask, ofRecords };
}

/** Reads elements [from, to) of a column. */
function readValues(store: NpzStore, info: TensorInfo, from: number, target: Float64Array, scratch: Scratch): void {
  const width = info.byteLength / info.shape[0];
  if (info.dtype === 'F64') {
    store.readInto(info, from * 8, target.byteLength, bytesOf(target));
    return;
  }
  const bytes = scratch.bytes('stored', target.length * width);
  store.readInto(info, from * width, bytes.length, bytes);
  widenToF64(bytes, info.dtype as DType, target);
}

/**
 * Opens an .npz archive of flat stored arrays whose tokens all keep the rules of a dump. Undefined where they do not, or where the
 * archive is of another kind: the general reader then takes it, and names the fault.
 */
export function openFlatNpz(
  path: string,
  source: number,
  picker: FieldPicker,
  options: { readonly vocabularySize: number | undefined; readonly advantages: boolean },
): FlatDump | undefined {
  const store = openNpz(path);
  let found: FlatDump | undefined;
  try {
    found = flatDump(store, source, picker, options);
    return found;
  } finally {
    if (found === undefined) store.close();
  }
}

function flatDump(
  store: NpzStore,
  source: number,
  picker: FieldPicker,
  { vocabularySize, advantages }: { readonly vocabularySize: number | undefined; readonly advantages: boolean },
): FlatDump | undefined {
  const layout = layoutOf(store, picker);
  const { records, offsets } = layout;
  if (offsets === undefined || offsets[records] === 0) return undefined;
  const columns = columnsOf(store, picker, layout);
  if (columns === undefined) return undefined;
  const length = new Int32Array(records);
  for (let r = 0; r < records; r++) length[r] = offsets[r + 1] - offsets[r];
  const used = [...columns.values].filter(([name]) => name !== 'advantage' || advantages);
  const counted = length.slice();

  const readSegment = (own: Int32Array, scratch: Scratch): Segment => {
    const starts = new Int32Array(own.length + 1);
    for (let r = 0; r < own.length; r++) starts[r + 1] = starts[r] + length[own[r]];
    const tokens = starts[own.length];
    const mask = scratch.bytes('mask', tokens);
    const read = new Map<StoredColumn, Float64Array | Int32Array>();
    for (const [name] of used) read.set(name, scratch.doubles(name, tokens));
    const ids = columns.ids && scratch.integers('tokens', tokens);
    if (ids) read.set('tokens', ids);
    if (columns.mask === undefined) mask.fill(1);
    for (let r = 0; r < own.length; ) {
      // Records that follow each other are one range.
      let end = r + 1;
      while (end < own.length && own[end] === own[end - 1] + 1) end++;
      const [at, to, first] = [starts[r], starts[end], offsets[own[r]]];
      if (columns.mask) store.readInto(columns.mask, first, to - at, mask.subarray(at, to));
      for (const [name, info] of used) {
        readValues(store, info, first, (read.get(name) as Float64Array).subarray(at, to), scratch);
      }
      if (ids && columns.ids) store.readInto(columns.ids, first * 4, (to - at) * 4, bytesOf(ids.subarray(at, to)));
      r = end;
    }
    return { records: own, offsets: starts, mask, columns: read };
  };
  const limits = (name: TokenColumn): readonly [number, number] => {
    if (name === 'advantage') return [-Number.MAX_VALUE, Number.MAX_VALUE];
    if (name !== 'entropy') return [-Number.MAX_VALUE, LOG_PROB_SLACK];
    return [-ENTROPY_SLACK, Math.min(Number.MAX_VALUE, mostEntropy(vocabularySize))];
  };
  /** Clears what the mask hides. Whether all else is as it must be. */
  const settle = ({ mask, columns: read }: Segment): boolean => {
    let fits = true;
    for (const [name, values] of read) {
      if (values instanceof Int32Array) fits = settleIds(values, columns.mask && mask) && fits;
      else fits = settleValues(values, columns.mask && mask, limits(name as TokenColumn)) && fits;
    }
    return fits;
  };
  const cut = (list: readonly number[]): Int32Array[] => {
    const parts: Int32Array[] = [];
    for (let from = 0; from < list.length; ) {
      let tokens = length[list[from]];
      let to = from + 1;
      while (to < list.length && tokens + length[list[to]] <= FLAT_TOKENS) tokens += length[list[to++]];
      parts.push(Int32Array.from(list.slice(from, to)));
      from = to;
    }
    return parts;
  };

  const scratch = createScratch();
  for (const own of cut(Array.from({ length: records }, (_, r) => r))) {
    const segment = readSegment(own, scratch);
    const counts = counted.subarray(own[0], own[own.length - 1] + 1);
    if (!countMask(segment.mask, segment.offsets, counts) || counts.includes(0) || !settle(segment)) return undefined;
  }
  const facts = columns.ofRecords.map((info) => [info.name, readRange(store, info, 0, records)] as const);
  const from = new Map<StoredColumn, string>(used.map(([name, info]) => [name, info.name]));
  if (columns.ids) from.set('tokens', columns.ids.name);
  const names = [...store.tensors.keys()].filter((name) => !isCut(name));
  const known = new Set([...from.values(), ...facts.map(([name]) => name), columns.mask?.name]);
  return {
    records,
    fields: names.filter((name) => known.has(name)),
    from,
    row: (record) => ({
      source,
      line: record + 1,
      fields: new Map(facts.map(([name, values]) => [name, values[record]])),
    }),
    length,
    counted,
    segments: (list, base) =>
      cut(list).map((own) => ({
        tokens: own.reduce((sum, r) => sum + length[r], 0),
        alone: true,
        read(target = createScratch()) {
          const segment = readSegment(own, target);
          settle(segment);
          return base === 0 ? segment : { ...segment, records: own.map((r) => base + r) };
        },
      })),
    close: () => store.close(),
  };
}
