import { didYouMean, InputError } from '../errors.js';
import { readFeatureTable } from '../formats/feature-table.js';
import { type Labels, readLabels } from '../formats/labels.js';
import { DTYPE_BYTES, type DType, type TensorStore } from '../formats/tensor.js';
import { isTensorFile, openTensorFile } from '../formats/tensor-file.js';
import { widenToF64 } from '../kernels/dtypes.js';

/** Sequences of rows, one after another: `[sum of lengths, width]`. */
export interface TrajectoryData {
  readonly name: string;
  readonly data: Float64Array;
  readonly width: number;
  readonly lengths: readonly number[];
  readonly columnNames?: readonly string[];
}

export interface TrajectoryOptions {
  /** Which array of an .npz or .safetensors file. */
  readonly tensor?: string;
  /** Columns of a table that are coordinates; all but the sequence column when absent. */
  readonly columns?: readonly string[];
  /** Column of a table that names the sequence of a row; rows of one sequence follow each other in time. */
  readonly sequenceColumn?: string;
}

/** One stored array, widened, with its shape. */
export function readArray(store: TensorStore, name: string): { data: Float64Array; shape: readonly number[] } {
  const names = [...store.tensors.keys()];
  const info = store.tensors.get(name);
  if (!info)
    throw new InputError(`${store.path}: no array "${name}"${didYouMean(name, names)}; it holds ${names.join(', ')}`);
  if (!(info.dtype in DTYPE_BYTES))
    throw new InputError(`${store.path}: array "${name}" is ${info.dtype}, no plain numbers`);
  const bytes = new Uint8Array(info.byteLength);
  store.readInto(info, 0, bytes.length, bytes);
  const data = new Float64Array(info.byteLength / DTYPE_BYTES[info.dtype as DType]);
  widenToF64(bytes, info.dtype as DType, data);
  return { data, shape: info.shape };
}

function requireFinite(found: TrajectoryData): TrajectoryData {
  const { data, width, lengths } = found;
  const bad = data.findIndex((value) => !Number.isFinite(value));
  if (bad < 0) return found;
  let row = Math.floor(bad / width);
  let sequence = 0;
  while (row >= lengths[sequence]) row -= lengths[sequence++];
  let count = 0;
  for (let r = 0; r < data.length; r += width) {
    if (data.subarray(r, r + width).some((value) => !Number.isFinite(value))) count++;
  }
  throw new InputError(
    `${found.name}: ${count} steps hold NaN or an infinite value, the first is step ${row} of sequence ${sequence}, ` +
      `column ${found.columnNames?.[bad % width] ?? bad % width}; remove or impute them`,
  );
}

function fromStore(path: string, wanted: string | undefined): TrajectoryData {
  const store = openTensorFile(path);
  try {
    const names = [...store.tensors.keys()];
    const usual = names.filter((name) => ['z', 'x', 'latents', 'states', 'trajectories'].includes(name));
    const name =
      /\.npy$/i.test(path) || names.length === 1 ? names[0] : (wanted ?? (usual.length === 1 ? usual[0] : undefined));
    if (name === undefined)
      throw new InputError(`${path}: holds ${names.join(', ')}; name the trajectories with --tensor`);
    const { data, shape } = readArray(store, name);
    if (shape.length !== 2 && shape.length !== 3) {
      throw new InputError(
        `${path}: trajectories must be [steps, width] or [sequences, steps, width], got [${shape.join(', ')}]`,
      );
    }
    const width = shape[shape.length - 1];
    const steps = shape[shape.length - 2];
    const sequences = shape.length === 3 ? shape[0] : 1;
    if (data.length === 0) throw new InputError(`${path}: array "${name}" [${shape.join(', ')}] is empty`);
    return { name: path, data, width, lengths: new Array<number>(sequences).fill(steps) };
  } finally {
    store.close();
  }
}

/** Runs of equal codes. */
function runLengths(path: string, labels: Labels): number[] {
  const codes = labels.kind === 'classes' ? labels.codes : labels.values;
  const lengths: number[] = [];
  const seen = new Set<number>();
  for (let row = 0; row < codes.length; row++) {
    if (row > 0 && codes[row] === codes[row - 1]) lengths[lengths.length - 1]++;
    else {
      if (seen.has(codes[row])) {
        throw new InputError(
          `${path}: row ${row} goes back to an earlier sequence; sort the rows by sequence and time`,
        );
      }
      seen.add(codes[row]);
      lengths.push(1);
    }
  }
  return lengths;
}

/**
 * Reads trajectories: an array `[steps, width]` or `[sequences, steps, width]`, or a table with one row a step.
 * @throws InputError for other shapes, a sequence that is interrupted, or entries that are not finite (step named)
 */
export async function readTrajectories(path: string, options: TrajectoryOptions = {}): Promise<TrajectoryData> {
  if (isTensorFile(path)) return requireFinite(fromStore(path, options.tensor));
  const { sequenceColumn, columns } = options;
  const table = await readFeatureTable(path, {
    ...(columns && { columns }),
    ...(sequenceColumn !== undefined && { except: [sequenceColumn] }),
  });
  if (table.rows === 0) throw new InputError(`${path}: is empty`);
  const data = new Float64Array(table.rows * table.columns);
  table.readRows(0, table.rows, data);
  const lengths =
    sequenceColumn === undefined
      ? [table.rows]
      : runLengths(path, await readLabels(path, { kind: 'classes', column: sequenceColumn }));
  return requireFinite({
    name: path,
    data,
    width: table.columns,
    lengths,
    ...(table.columnNames && { columnNames: table.columnNames }),
  });
}
