import { didYouMean, InputError } from '../errors.js';
import { readRecords } from './documents.js';
import { isTensorFile, openTensorFile } from './tensor-file.js';

/** What the rows of a feature matrix are labelled with. */
export type Labels =
  | {
      readonly kind: 'classes';
      /** Class of every row, an index into `names`. */
      readonly codes: Int32Array;
      /** In the order of numbers where all names are numbers, else by code point. */
      readonly names: readonly string[];
    }
  | { readonly kind: 'numbers'; readonly values: Float64Array };

/** Whether numbers are classes or amounts; `auto`: text and whole numbers are classes. */
export type LabelKind = 'auto' | 'classes' | 'numbers';

/** Reads a label file's `tensor` of an .npz or .safetensors, or `column` of a table. */
export interface LabelOptions {
  readonly column?: string;
  readonly kind?: LabelKind;
  readonly limit?: number;
}

/**
 * Labels from plain values.
 * @param where begins every message
 * @throws InputError for a missing label (row named), or text where numbers are needed
 */
export function labelsFrom(values: readonly unknown[], where: string, kind: LabelKind = 'auto'): Labels {
  const numbers = new Float64Array(values.length);
  let numeric = true;
  let whole = true;
  values.forEach((value, row) => {
    if (
      value === null ||
      value === undefined ||
      value === '' ||
      (typeof value === 'number' && !Number.isFinite(value))
    ) {
      throw new InputError(`${where}: row ${row} has no label`);
    }
    const number = typeof value === 'string' ? (value.trim() === '' ? Number.NaN : Number(value)) : Number(value);
    numbers[row] = number;
    if (!Number.isFinite(number)) numeric = false;
    else if (!Number.isInteger(number)) whole = false;
    if (kind === 'numbers' && !Number.isFinite(number)) {
      throw new InputError(`${where}: row ${row} has the label ${JSON.stringify(value)}, which is no number`);
    }
  });
  if (kind === 'numbers' || (kind === 'auto' && numeric && !whole)) return { kind: 'numbers', values: numbers };
  const texts = numeric ? Array.from(numbers, String) : values.map(String);
  const names = [...new Set(texts)].sort((a, b) => (numeric ? Number(a) - Number(b) : a < b ? -1 : a > b ? 1 : 0));
  const codeOf = new Map(names.map((name, code) => [name, code]));
  return { kind: 'classes', codes: Int32Array.from(texts, (text) => codeOf.get(text) ?? 0), names };
}

/** Rows of labels. */
export function labelCount(labels: Labels): number {
  return labels.kind === 'classes' ? labels.codes.length : labels.values.length;
}

/** Labels of the rows `indices`, in that order; classes keep their codes. */
export function takeLabels(labels: Labels, indices: ArrayLike<number>): Labels {
  return labels.kind === 'classes'
    ? { ...labels, codes: Int32Array.from(indices, (row) => labels.codes[row]) }
    : { kind: 'numbers', values: Float64Array.from(indices, (row) => labels.values[row]) };
}

/** @throws InputError when there are not as many labels as rows */
export function checkLabelCount(labels: Labels, rows: number, labelPath: string, matrixName: string): void {
  const count = labelCount(labels);
  if (count === rows) return;
  throw new InputError(`${labelPath}: ${count} labels, but ${matrixName} has ${rows} rows; give one label a row`);
}

/** The entries of one stored vector, as numbers. */
function readVector(path: string, wanted: string | undefined): number[] {
  const store = openTensorFile(path);
  try {
    const names = [...store.tensors.keys()];
    if (wanted === undefined && names.length > 1) {
      throw new InputError(`${path}: holds ${names.join(', ')}; name the labels with --label-column`);
    }
    const name = store.path.toLowerCase().endsWith('.npy') ? names[0] : (wanted ?? names[0]);
    const info = store.tensors.get(name);
    if (!info) throw new InputError(`${path}: no array "${name}"${didYouMean(name, names)}`);
    const long = info.shape.filter((extent) => extent !== 1);
    if (long.length > 1) throw new InputError(`${path}: labels [${info.shape.join(', ')}] must be one vector`);
    const bytes = new Uint8Array(info.byteLength);
    store.readInto(info, 0, bytes.length, bytes);
    const view = new DataView(bytes.buffer);
    const readers: Readonly<Record<string, [number, (at: number) => number]>> = {
      F64: [8, (at) => view.getFloat64(at, true)],
      F32: [4, (at) => view.getFloat32(at, true)],
      I64: [8, (at) => Number(view.getBigInt64(at, true))],
      U64: [8, (at) => Number(view.getBigUint64(at, true))],
      I32: [4, (at) => view.getInt32(at, true)],
      U32: [4, (at) => view.getUint32(at, true)],
      I16: [2, (at) => view.getInt16(at, true)],
      U16: [2, (at) => view.getUint16(at, true)],
      I8: [1, (at) => view.getInt8(at)],
      U8: [1, (at) => view.getUint8(at)],
      BOOL: [1, (at) => view.getUint8(at)],
    };
    const reader = readers[info.dtype];
    if (!reader) throw new InputError(`${path}: labels of type ${info.dtype} are not read; save integers or f32`);
    const [width, read] = reader;
    return Array.from({ length: bytes.length / width }, (_, i) => read(i * width));
  } finally {
    store.close();
  }
}

/**
 * Labels of a file: a vector (.npy .npz .safetensors), one label a line (.txt), or a column of a table (.csv .tsv .parquet
 * .jsonl); the only column when none is named.
 * @throws InputError for a missing column or label
 */
export async function readLabels(path: string, options: LabelOptions = {}): Promise<Labels> {
  const { column, kind = 'auto', limit } = options;
  if (isTensorFile(path)) {
    const values = readVector(path, column);
    return labelsFrom(limit === undefined ? values : values.slice(0, limit), path, kind);
  }
  const values: unknown[] = [];
  const plain = /\.(txt|text|md)(\.gz)?$/i.test(path);
  const settings = {
    ...(limit !== undefined && { limit }),
    ...(plain && { textSplit: 'line' as const, textField: 'label' }),
  };
  for await (const { record } of readRecords([path], settings)) {
    values.push(plain ? String(record.label).trim() : record[chooseColumn(path, Object.keys(record), column)]);
  }
  return labelsFrom(values, path, kind);
}

function chooseColumn(path: string, present: readonly string[], wanted: string | undefined): string {
  if (wanted !== undefined) {
    if (present.includes(wanted)) return wanted;
    throw new InputError(`${path}: no column "${wanted}"${didYouMean(wanted, present)}`);
  }
  if (present.length === 1) return present[0];
  const usual = present.find((name) => /^(label|labels|class|target|y)$/i.test(name));
  if (usual !== undefined) return usual;
  throw new InputError(
    `${path}: has ${present.length} columns; name the one that holds the labels with --label-column`,
  );
}
