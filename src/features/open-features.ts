import { didYouMean, InputError } from '../errors.js';
import { arrayMatrix, type FeatureMatrix, type FeatureSource, type Floats } from '../formats/feature-matrix.js';
import { readFeatureTable } from '../formats/feature-table.js';
import { DTYPE_BYTES, type DType, type TensorInfo, type TensorStore } from '../formats/tensor.js';
import { isTensorFile, openTensorFile } from '../formats/tensor-file.js';
import { widenToF32, widenToF64 } from '../kernels/dtypes.js';

function chooseTensor(store: TensorStore, path: string, wanted: string | undefined): TensorInfo {
  const names = [...store.tensors.keys()];
  if (wanted !== undefined && !/\.npy$/i.test(path)) {
    const found = store.tensors.get(wanted);
    if (found) return found;
    throw new InputError(`${path}: no array "${wanted}"${didYouMean(wanted, names)}; it holds ${names.join(', ')}`);
  }
  const matrices = names.filter((name) => store.tensors.get(name)?.shape.length === 2);
  const [only] = names.length === 1 ? names : matrices;
  if (names.length > 1 && matrices.length !== 1) {
    throw new InputError(`${path}: holds ${names.slice(0, 8).join(', ')}; name one with --tensor`);
  }
  const found = store.tensors.get(only);
  if (!found) throw new InputError(`${path}: holds no array`);
  return found;
}

/** Rows of a stored array, widened as they are read. A vector is a matrix of one column. */
function tensorMatrix(
  path: string,
  tensor: string | undefined,
  limit: number | undefined,
  flatten: boolean,
): FeatureMatrix {
  const store = openTensorFile(path);
  try {
    const info = chooseTensor(store, path, tensor);
    const { shape } = info;
    if (shape.length === 0 || (shape.length > 2 && !flatten)) {
      throw new InputError(
        `${path}: features must be [rows, columns]; array "${info.name}" is [${shape.join(', ')}]; reshape it`,
      );
    }
    const dtype = info.dtype as DType;
    const width = DTYPE_BYTES[dtype];
    const rowDims = shape.slice(1);
    const columns = rowDims.reduce((product, extent) => product * extent, 1);
    const rows = Math.min(shape[0], limit ?? shape[0]);
    if (rows === 0 || columns === 0) {
      throw new InputError(`${path}: array "${info.name}" [${shape.join(', ')}] is empty; no features`);
    }
    let bytes = new Uint8Array(0);
    return {
      name: path,
      dtype,
      rows,
      columns,
      ...(rowDims.length > 1 && { rowDims }),
      readRows(start, count, target: Floats) {
        if (start < 0 || count < 0 || start + count > rows) {
          throw new RangeError(`${path}: rows ${start}..${start + count} of ${rows}`);
        }
        const cells = count * columns;
        const direct =
          (dtype === 'F32' && target instanceof Float32Array) || (dtype === 'F64' && target instanceof Float64Array);
        if (direct) {
          const view = new Uint8Array(target.buffer, target.byteOffset, cells * width);
          store.readInto(info, start * columns * width, view.length, view);
          return;
        }
        if (bytes.length < cells * width) bytes = new Uint8Array(cells * width);
        const stored = bytes.subarray(0, cells * width);
        store.readInto(info, start * columns * width, stored.length, stored);
        if (target instanceof Float32Array) widenToF32(stored, dtype, target.subarray(0, cells));
        else widenToF64(stored, dtype, target.subarray(0, cells));
      },
      close: () => store.close(),
    };
  } catch (error) {
    store.close();
    throw error;
  }
}

/**
 * Opens a matrix of features. Arrays are read by range, tables are held in memory.
 * @throws InputError for a missing or damaged file, an unknown array or column, more than two axes (unless `flatten`), no rows
 */
export async function openFeatures(source: FeatureSource): Promise<FeatureMatrix> {
  if (source.kind === 'array') {
    return arrayMatrix(source.name, source.data, source.rows, source.columns, source.columnNames);
  }
  const { path, limit } = source;
  if (isTensorFile(path)) return tensorMatrix(path, source.tensor, limit, source.flatten === true);
  const matrix = await readFeatureTable(path, {
    ...(source.columns && { columns: source.columns }),
    ...(source.except && { except: source.except }),
    ...(limit !== undefined && { limit }),
  });
  if (matrix.rows === 0 || matrix.columns === 0) throw new InputError(`${path}: is empty; no features`);
  return matrix;
}
