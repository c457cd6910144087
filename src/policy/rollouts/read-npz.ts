import { InputError } from '../../errors.js';
import { type NpzStore, openNpz } from '../../formats/npz.js';
import { DTYPE_BYTES, type DType, type TensorInfo } from '../../formats/tensor.js';
import { widenToF64 } from '../../kernels/dtypes.js';
import type { DumpRow, NumberArray } from './dump-rows.js';
import type { FieldPicker } from './fields.js';

/** Arrays that cut flat columns into records. */
const OFFSETS = ['offsets', 'cu_seqlens', 'indptr'];
const LENGTHS = ['lengths', 'length', 'response_length', 'response_lengths'];

/** Whether an array of this name cuts others into records. */
export const isCut = (name: string): boolean => OFFSETS.includes(name) || LENGTHS.includes(name);

/** Values of a batch of records. */
const BATCH_TOKENS = 1 << 19;
const BATCH_RECORDS = 4096;

/** Reads elements [from, to) of an array as f64, `to - from` in its first axis. */
export function readRange(store: NpzStore, info: TensorInfo, from: number, to: number): Float64Array {
  const inner = info.shape.slice(1).reduce((product, extent) => product * extent, 1);
  const width = DTYPE_BYTES[info.dtype as DType];
  const values = new Float64Array((to - from) * inner);
  const bytes = new Uint8Array(values.length * width);
  store.readInto(info, from * inner * width, bytes.length, bytes);
  widenToF64(bytes, info.dtype as DType, values);
  return values;
}

/** Where the records of an archive lie in its arrays. */
interface Layout {
  readonly records: number;
  /** [records + 1] positions of flat arrays; absent where arrays of tokens are matrices. */
  readonly offsets?: Float64Array;
  /** [records] positions of a row of a matrix that belong to the response; all of them when absent. */
  readonly lengths?: Float64Array;
}

const describe = (info: TensorInfo): string => `"${info.name}" [${info.shape.join(', ')}]`;

function firstOf(store: NpzStore, names: readonly string[]): TensorInfo | undefined {
  const name = names.find((one) => store.tensors.has(one));
  return name === undefined ? undefined : store.tensors.get(name);
}

/** Running sums of lengths, or offsets as they are. @throws InputError for what cannot be one */
function checkedOffsets(store: NpzStore, info: TensorInfo, isOffsets: boolean): Float64Array {
  if (info.shape.length !== 1) throw new InputError(`${store.path}: ${describe(info)}: one number a record is needed`);
  const stored = readRange(store, info, 0, info.shape[0]);
  const offsets = isOffsets ? stored : new Float64Array(stored.length + 1);
  if (!isOffsets) for (let r = 0; r < stored.length; r++) offsets[r + 1] = offsets[r] + stored[r];
  for (let r = 0; r < offsets.length; r++) {
    const least = r === 0 ? 0 : offsets[r - 1];
    if (!Number.isInteger(offsets[r]) || offsets[r] < least || (r === 0 && offsets[0] !== 0))
      throw new InputError(
        `${store.path}: "${info.name}" at ${r}: ${stored[r]} is no ${isOffsets ? 'offset (from 0, ascending)' : 'length'}`,
      );
  }
  return offsets;
}

/** Arrays with a value a token, by the fields that only tokens have. */
const TOKEN_FIELDS = new Set([
  'logprob',
  'old_logprob',
  'ref_logprob',
  'entropy',
  'tokens',
  'mask',
  'topk',
  'topk_ids',
  'topk_logprobs',
]);

/** @throws InputError for arrays that do not cut tokens into records */
export function layoutOf(store: NpzStore, picker: FieldPicker): Layout {
  const flat = firstOf(store, OFFSETS);
  const lengths = firstOf(store, LENGTHS);
  const known = [...store.tensors.values()].filter(({ name }) => TOKEN_FIELDS.has(picker.fieldOf(name) ?? ''));
  if (known.length === 0) {
    const names = [...store.tensors.keys(), ...store.refused.keys()].join(', ');
    throw new InputError(`${store.path}: no array of tokens among ${names}; name one with --map logprob=ARRAY`);
  }
  const [first] = known;
  if (flat !== undefined) {
    const offsets = checkedOffsets(store, flat, true);
    return { records: offsets.length - 1, offsets };
  }
  const isTop = picker.fieldOf(first.name)?.startsWith('topk') === true;
  const isMatrix = first.shape.length >= (isTop ? 3 : 2);
  if (!isMatrix) {
    if (lengths === undefined)
      throw new InputError(
        `${store.path}: ${describe(first)} is flat; give "offsets" [records + 1] or "lengths" [records], or matrices [records, T]`,
      );
    const offsets = checkedOffsets(store, lengths, false);
    return { records: offsets.length - 1, offsets };
  }
  const [records, most] = first.shape;
  if (lengths === undefined) return { records };
  const stored = readRange(store, lengths, 0, lengths.shape[0]);
  const fault = stored.findIndex((length) => !(Number.isInteger(length) && length >= 0 && length <= most));
  if (stored.length !== records || fault >= 0)
    throw new InputError(
      `${store.path}: ${describe(lengths)} does not fit ${describe(first)}${fault >= 0 ? `: ${stored[fault]} at ${fault}` : ''}`,
    );
  return { records, lengths: stored };
}

type Use = 'flat' | 'matrix' | 'record';

/** What an array holds, by its shape: a value a token, a row of tokens a record, or a value a record. */
export function useOf(store: NpzStore, info: TensorInfo, layout: Layout): Use {
  const { records, offsets } = layout;
  const [extent] = info.shape;
  const tokens = offsets?.[records];
  if (info.shape.length === 1 && extent === records && tokens !== records) return 'record';
  if (offsets !== undefined && extent === tokens) return 'flat';
  if (extent === records) return info.shape.length === 1 || offsets !== undefined ? 'record' : 'matrix';
  const wanted =
    tokens === undefined ? `${records} records` : `${tokens} tokens (the last offset) or ${records} records`;
  throw new InputError(
    `${store.path}: array ${describe(info)} does not fit ${wanted}: lengths of one record must agree`,
  );
}

const shaped = (values: Float64Array, shape: readonly number[]): NumberArray => ({ values, shape });

/** Positions of a padded row: its length, or up to the last one that the mask counts. */
function rowLength(layout: Layout, record: number, mask: Float64Array | undefined, most: number): number {
  if (layout.lengths) return layout.lengths[record];
  if (mask === undefined) return most;
  let length = most;
  while (length > 0 && mask[length - 1] === 0) length--;
  // All positions stay where none counts, so that the fault is named.
  return length === 0 ? most : length;
}

/**
 * Records of an .npz archive, in batches: flat arrays of tokens with `offsets` [records + 1] or `lengths` [records], or matrices
 * [records, T] whose padding a mask or `lengths` tells; arrays [records] are fields of the records. Arrays are read by range.
 * @throws InputError naming array and record
 */
export function* readNpzRows(
  path: string,
  name: string,
  source: number,
  picker: FieldPicker,
): Generator<DumpRow[], void, undefined> {
  const store = openNpz(path);
  try {
    const layout = layoutOf(store, picker);
    const arrays = [...store.tensors.values()].filter(
      (info) =>
        picker.fieldOf(info.name) !== undefined || (info.shape.length === 1 && info.shape[0] === layout.records),
    );
    const used = arrays.filter((info) => !isCut(info.name)).map((info) => ({ info, use: useOf(store, info, layout) }));
    const most = used.find(({ use }) => use === 'matrix')?.info.shape[1] ?? 0;
    for (let from = 0; from < layout.records; ) {
      const to = batchEnd(layout, from, most);
      const read = used.map(({ info, use }) => ({ info, use, values: readBatch(store, info, use, layout, from, to) }));
      yield Array.from({ length: to - from }, (_, i) => ({
        source,
        line: from + i + 1,
        fields: fieldsAt(read, layout, from, from + i, picker),
      }));
      from = to;
    }
  } catch (error) {
    throw error instanceof InputError && path !== name ? new InputError(error.message.replaceAll(path, name)) : error;
  } finally {
    store.close();
  }
}

function batchEnd({ records, offsets }: Layout, from: number, most: number): number {
  let to = from + 1;
  const tokens = (end: number): number => (offsets ? offsets[end] - offsets[from] : (end - from) * most);
  while (to < records && to - from < BATCH_RECORDS && tokens(to + 1) <= BATCH_TOKENS) to++;
  return to;
}

function readBatch(
  store: NpzStore,
  info: TensorInfo,
  use: Use,
  { offsets }: Layout,
  from: number,
  to: number,
): Float64Array {
  return use === 'flat' && offsets
    ? readRange(store, info, offsets[from], offsets[to])
    : readRange(store, info, from, to);
}

interface ReadArray {
  readonly info: TensorInfo;
  readonly use: Use;
  readonly values: Float64Array;
}

function fieldsAt(
  read: readonly ReadArray[],
  layout: Layout,
  from: number,
  record: number,
  picker: FieldPicker,
): ReadonlyMap<string, unknown> {
  const fields = new Map<string, unknown>();
  const { offsets } = layout;
  const masked = read.find(({ info, use }) => use === 'matrix' && picker.fieldOf(info.name) === 'mask');
  for (const { info, use, values } of read) {
    const inner = info.shape.slice(use === 'matrix' ? 2 : 1);
    const width = inner.reduce((product, extent) => product * extent, 1);
    if (use === 'flat' && offsets) {
      const [start, end] = [(offsets[record] - offsets[from]) * width, (offsets[record + 1] - offsets[from]) * width];
      fields.set(info.name, shaped(values.slice(start, end), [offsets[record + 1] - offsets[record], ...inner]));
    } else if (use === 'matrix') {
      const most = info.shape[1];
      const mask = masked?.values.subarray((record - from) * most, (record - from + 1) * most);
      const length = rowLength(layout, record, mask, most);
      const start = (record - from) * most * width;
      fields.set(info.name, shaped(values.slice(start, start + length * width), [length, ...inner]));
    } else if (width === 1) fields.set(info.name, values[record - from]);
    else fields.set(info.name, shaped(values.slice((record - from) * width, (record - from + 1) * width), inner));
  }
  return fields;
}
