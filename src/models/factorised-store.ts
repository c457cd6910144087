import { InputError } from '../errors.js';
import { quoted } from '../formats/files.js';
import { elementCount, type TensorInfo, type TensorStore } from '../formats/tensor.js';
import { multiply } from '../kernels/gemm.js';
import { createUnitReader } from './decoded-units.js';
import { createWeightReader } from './weights.js';

/**
 * A matrix W [out, in] stored as a low rank and a structured sparse part, W = L R + S, where S has few rows that are not
 * zero (LoSparse, 2023). Of a matrix `<name>` a file holds
 *
 * - `<name>.low_rank_left` L [out, r] and `<name>.low_rank_right` R [r, in];
 * - `<name>.sparse_rows` [s], I32: the rows of S in ascending order, and `<name>.sparse_values` [s, in]: those rows.
 *   Both are left out where S is zero.
 *
 * and says so in its metadata: `surprisal_factorised` is JSON, `{"version":1}`. Parts are of any floating-point type.
 */
export const FACTORISED_KEY = 'surprisal_factorised';

const VERSION = 1;
const PART = /^(.+)\.(low_rank_left|low_rank_right|sparse_rows|sparse_values)$/;
const FLOATS: readonly string[] = ['F64', 'F32', 'F16', 'BF16'];

type Part = 'low_rank_left' | 'low_rank_right' | 'sparse_rows' | 'sparse_values';

/** Where the parts of one matrix lie. */
interface FactorisedMatrix {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  readonly rank: number;
  readonly left: TensorInfo;
  readonly right: TensorInfo;
  readonly sparse?: { readonly rows: TensorInfo; readonly values: TensorInfo; readonly count: number };
}

/** A store that shows factorised matrices under their own names, as F32 [out, in]. */
export interface FactorisedStore extends TensorStore {
  /** Names of the matrices that are factorised. */
  readonly factorised: ReadonlySet<string>;
  /** The store with the parts as they lie in the files. */
  readonly parts: TensorStore;
}

/** Whether a store holds factorised matrices that it multiplies out. */
export function isFactorisedStore(store: TensorStore): store is FactorisedStore {
  return 'factorised' in store;
}

/**
 * Multiplies out the factorised matrices of `store` as they are read: products in f32 of the kernel whose bits depend on
 * nothing but the entry, plus the sparse rows. All other tensors pass through, and a store without any factorised matrix
 * is returned as it is. The factors of the last matrix are kept.
 * @throws InputError naming the tensor that is missing, of a wrong type or shape, or in a file that does not say that it
 * holds factors; while reading, for sparse rows out of order or range. The store is closed when it is refused
 */
export function decodeFactorisedStore(store: TensorStore, threads?: number): TensorStore {
  let matrices: Map<string, FactorisedMatrix>;
  try {
    matrices = findMatrices(store);
  } catch (error) {
    store.close();
    throw error;
  }
  if (matrices.size === 0) return store;
  const tensors = new Map<string, TensorInfo>();
  for (const info of store.tensors.values()) {
    const matrix = matrices.get(PART.exec(info.name)?.[1] ?? '');
    if (!matrix) tensors.set(info.name, info);
    else if (info === matrix.left) tensors.set(matrix.name, shownInfo(matrix));
  }
  const read = createReader(store, threads);
  const decorated: FactorisedStore = {
    ...store,
    tensors,
    factorised: new Set(matrices.keys()),
    parts: store,
    readInto(tensor, start, length, target): void {
      const matrix = matrices.get(tensor.name);
      if (!matrix) {
        store.readInto(tensor, start, length, target);
        return;
      }
      if (start < 0 || length < 0 || start + length > 4 * matrix.rows * matrix.columns || length > target.length) {
        throw new RangeError(`${store.path}: bytes ${start}..${start + length} are not in tensor ${tensor.name}`);
      }
      read(matrix, start, target.subarray(0, length));
    },
    close: () => store.close(),
  };
  return decorated;
}

function shownInfo({ name, rows, columns, left }: FactorisedMatrix): TensorInfo {
  return { ...left, name, dtype: 'F32', shape: [rows, columns], byteLength: 4 * rows * columns };
}

function findMatrices(store: TensorStore): Map<string, FactorisedMatrix> {
  const found = new Map<string, Map<Part, TensorInfo>>();
  const checked = new Set<string>();
  for (const info of store.tensors.values()) {
    const [, name, part] = PART.exec(info.name) ?? [];
    if (name === undefined) continue;
    if (!checked.has(info.file)) checkVersion(store, info);
    checked.add(info.file);
    const parts = found.get(name) ?? new Map<Part, TensorInfo>();
    found.set(name, parts.set(part as Part, info));
  }
  const matrices = new Map<string, FactorisedMatrix>();
  for (const [name, parts] of found) matrices.set(name, matrixOf(store, name, parts));
  return matrices;
}

function checkVersion(store: TensorStore, info: TensorInfo): void {
  const text = (store.fileMetadata?.get(info.file) ?? store.metadata)[FACTORISED_KEY];
  if (text === undefined) {
    throw new InputError(
      `${info.file}: tensor ${quoted(info.name)} looks like a part of a factorised matrix, but the file's metadata has no ` +
        `"${FACTORISED_KEY}"`,
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new InputError(`${info.file}: metadata "${FACTORISED_KEY}" is not valid JSON: ${text}`);
  }
  const version = typeof value === 'object' && value !== null ? (value as { version?: unknown }).version : undefined;
  if (version !== VERSION) {
    throw new InputError(
      `${info.file}: factorised matrices of version ${JSON.stringify(version) ?? 'none'}; this surprisal reads version ` +
        `${VERSION}: update it`,
    );
  }
}

function matrixOf(store: TensorStore, name: string, parts: ReadonlyMap<Part, TensorInfo>): FactorisedMatrix {
  const [any] = parts.values();
  const plain = store.tensors.get(name);
  if (plain) {
    throw new InputError(
      `${plain.file}: tensor ${quoted(name)} is stored as it is and as factors: which one is meant?`,
    );
  }
  const need = (part: Part): TensorInfo => {
    const info = parts.get(part);
    if (info) return info;
    throw new InputError(`${any.file}: tensor ${quoted(`${name}.${part}`)} is missing; ${quoted(any.name)} needs it`);
  };
  const matrixShape = (info: TensorInfo): readonly number[] => {
    if (!FLOATS.includes(info.dtype)) {
      throw new InputError(
        `${info.file}: tensor ${quoted(info.name)} is of ${info.dtype}; expected ${FLOATS.join(', ')}`,
      );
    }
    if (info.shape.length === 2) return info.shape;
    throw new InputError(`${info.file}: tensor ${quoted(info.name)} has shape [${info.shape}]; expected a matrix`);
  };
  const left = need('low_rank_left');
  const right = need('low_rank_right');
  const [rows, rank] = matrixShape(left);
  const [inner, columns] = matrixShape(right);
  if (inner !== rank) {
    throw new InputError(
      `${right.file}: tensor ${quoted(right.name)} has shape [${right.shape}], but ${quoted(left.name)} has rank ${rank}`,
    );
  }
  const matrix = { name, rows, columns, rank, left, right };
  if (!parts.has('sparse_rows') && !parts.has('sparse_values')) return matrix;
  const indices = need('sparse_rows');
  const values = need('sparse_values');
  if (indices.dtype !== 'I32' || indices.shape.length !== 1) {
    throw new InputError(
      `${indices.file}: tensor ${quoted(indices.name)} is ${indices.dtype} [${indices.shape}]; expected I32 [rows]`,
    );
  }
  const [count] = indices.shape;
  const [given, width] = matrixShape(values);
  if (given !== count || width !== columns) {
    throw new InputError(
      `${values.file}: tensor ${quoted(values.name)} has shape [${values.shape}]; expected [${count},${columns}], a row ` +
        `for each of ${quoted(indices.name)}`,
    );
  }
  return { ...matrix, sparse: { rows: indices, values, count } };
}

/** Factors of a matrix, widened, and the rows of its sparse part. */
interface Factors {
  readonly matrix: FactorisedMatrix;
  readonly left: Float32Array;
  readonly right: Float32Array;
  readonly sparseRows: Int32Array;
}

function createReader(
  store: TensorStore,
  threads: number | undefined,
): (matrix: FactorisedMatrix, start: number, target: Uint8Array) => void {
  const reader = createWeightReader(threads ?? 1);
  let kept: Factors | undefined;

  const widened = (tensor: TensorInfo, firstRow = 0, rowCount = tensor.shape[0]): Float32Array => {
    const { shape, byteLength } = tensor;
    const values = new Float32Array(elementCount([rowCount, ...shape.slice(1)]));
    if (values.length > 0) reader.read({ store, tensor, start: 0, byteLength, shape }, values, firstRow, rowCount);
    return values;
  };
  const factorsOf = (matrix: FactorisedMatrix): Factors => {
    if (kept?.matrix === matrix) return kept;
    kept = undefined;
    const sparseRows = matrix.sparse ? readRows(store, matrix, matrix.sparse.rows) : new Int32Array(0);
    kept = { matrix, left: widened(matrix.left), right: widened(matrix.right), sparseRows };
    return kept;
  };

  return createUnitReader<FactorisedMatrix>({
    unitBytes: ({ columns }) => 4 * columns,
    decode(matrix, first, count, target) {
      const { rank, columns, sparse } = matrix;
      const { left, right, sparseRows } = factorsOf(matrix);
      const band = left.subarray(first * rank, (first + count) * rank);
      if (rank === 0) target.fill(0);
      else multiply(band, right, target, { m: count, n: columns, k: rank }, threads === undefined ? {} : { threads });
      if (!sparse) return;
      const from = lowerBound(sparseRows, first);
      const to = lowerBound(sparseRows, first + count);
      const values = widened(sparse.values, from, to - from);
      for (let s = from; s < to; s++) {
        const row = target.subarray((sparseRows[s] - first) * columns, (sparseRows[s] - first + 1) * columns);
        for (let j = 0; j < columns; j++) row[j] += values[(s - from) * columns + j];
      }
    },
  });
}

/** @throws InputError for a row that is not above the one before it, or not a row of the matrix */
function readRows(store: TensorStore, { rows }: FactorisedMatrix, tensor: TensorInfo): Int32Array {
  const indices = new Int32Array(tensor.shape[0]);
  store.readInto(tensor, 0, tensor.byteLength, new Uint8Array(indices.buffer));
  let before = -1;
  indices.forEach((row, s) => {
    if (row <= before || row >= rows) {
      throw new InputError(
        `${tensor.file}: tensor ${quoted(tensor.name)}: entry ${s} is ${row}; expected rows from 0 to ${rows - 1} in ` +
          'ascending order',
      );
    }
    before = row;
  });
  return indices;
}

/** Number of entries of ascending `values` that are below `limit`. */
function lowerBound(values: Int32Array, limit: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < limit) low = middle + 1;
    else high = middle;
  }
  return low;
}
