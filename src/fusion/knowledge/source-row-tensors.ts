import { InputError } from '../../errors.js';
import { DTYPE_BYTES, elementCount, type TensorInfo, type TensorStore } from '../../formats/tensor.js';
import { openTensorFile } from '../../formats/tensor-file.js';
import { widenToF64 } from '../../kernels/dtypes.js';

/** A column of a sequence by its name: a number, a list of them, or a list of lists; undefined where there is none. */
export type Column = (name: string) => unknown;

/** Sequences that lie side by side in tensors. */
export interface RowTensors {
  readonly rows: number;
  /** Columns of one sequence: numbers, [T] as one array, [T, k] as a list of arrays. */
  column(row: number): Column;
  close(): void;
}

/** Slice `row` of the first axis. */
function readSlice(store: TensorStore, info: TensorInfo, row: number): Float64Array {
  if (!(info.dtype in DTYPE_BYTES)) throw new InputError(`${store.path}: ${info.name}: cannot read ${info.dtype}`);
  const dtype = info.dtype as keyof typeof DTYPE_BYTES;
  const count = elementCount(info.shape.slice(1));
  const bytes = new Uint8Array(count * DTYPE_BYTES[dtype]);
  store.readInto(info, row * bytes.length, bytes.length, bytes);
  const values = new Float64Array(count);
  widenToF64(bytes, dtype, values);
  return values;
}

function shaped(values: Float64Array, shape: readonly number[]): unknown {
  if (shape.length === 0) return values[0];
  if (shape.length === 1) return values;
  const width = elementCount(shape.slice(1));
  return Array.from({ length: shape[0] }, (_, i) =>
    shaped(values.subarray(i * width, (i + 1) * width), shape.slice(1)),
  );
}

/**
 * Opens a file of padded sequences.
 * @throws InputError where there is no `input_ids` [N, T], or a tensor has another number of sequences
 */
export function createRowTensors(path: string): RowTensors {
  const store = openTensorFile(path);
  const ids = store.tensors.get('input_ids');
  const rows = ids?.shape[0];
  const wrong = [...store.tensors.values()].find(({ shape }) => shape[0] !== rows);
  if (ids === undefined || ids.shape.length !== 2 || rows === undefined || wrong) {
    store.close();
    throw new InputError(
      ids === undefined || wrong === undefined || wrong === ids
        ? `${path}: no tensor input_ids [sequences, tokens]`
        : `${path}: ${wrong.name} [${wrong.shape.join(', ')}] does not have the ${rows} sequences of input_ids`,
    );
  }
  return {
    rows,
    column: (row) => (name) => {
      const info = store.tensors.get(name);
      return info && shaped(readSlice(store, info, row), info.shape.slice(1));
    },
    close: () => store.close(),
  };
}
