import { hadamardCore, type Rotation, signsFromBits } from '../linalg/hadamard.js';
import { rotateRowsReference } from './hadamard-reference.js';
import { kernelThreads, nativeKernels } from './native.js';

/** Inputs of a core that share a table of their sixteen signed sums. */
const GROUP = 4;

const coreCodes = new Map<string, Uint8Array>();

/**
 * Signs of a core, or of its transpose, as codes [core, core / 4]: bit i of code (r, g) is set where entry
 * (r, 4g + i) is -1. Null for widths without a core.
 */
function codesOf(rotation: Rotation, inverse: boolean): Uint8Array | null {
  const { kind, core } = rotation;
  if (kind !== 'paley1' && kind !== 'paley2') return null;
  const key = `${kind}-${core}-${inverse}`;
  const known = coreCodes.get(key);
  if (known !== undefined) return known;
  const matrix = hadamardCore({ kind, core });
  const groups = core / GROUP;
  const codes = new Uint8Array(core * groups);
  for (let r = 0; r < core; r++) {
    for (let j = 0; j < core; j++) {
      const entry = inverse ? matrix[j * core + r] : matrix[r * core + j];
      if (entry < 0) codes[r * groups + (j >> 2)] |= 1 << (j & 3);
    }
  }
  coreCodes.set(key, codes);
  return codes;
}

/** Signs over the root of the order of the Hadamard matrix. */
function diagonalOf(rotation: Rotation, single: boolean): Float32Array | Float64Array {
  const { length: n, core, segment, signs } = rotation;
  const factor = 1 / Math.sqrt(core * segment);
  const values = signsFromBits(signs, n);
  const diagonal = single ? new Float32Array(n) : new Float64Array(n);
  for (let i = 0; i < n; i++) diagonal[i] = values[i] * factor;
  return diagonal;
}

function checkRows(x: Float32Array | Float64Array, rows: number, n: number): void {
  if (!Number.isInteger(rows) || rows < 0 || x.length !== rows * n) {
    throw new RangeError(`${x.length} entries are no ${rows} rows of ${n}`);
  }
}

/**
 * Rotates every row of x [rows, n], row-major, in place: x <- Qx, or x <- Qᵀx for 'inverse'. Butterflies for the power
 * of two, additions alone for the core: O(n log n + n core / 4) a row. Sums are as wide as x. Results are the same bits
 * whatever the number of threads and the instruction set.
 * @throws RangeError when x does not hold [rows, n]
 */
export function rotateRows(
  x: Float32Array | Float64Array,
  rows: number,
  rotation: Rotation,
  direction: 'forward' | 'inverse',
  threads?: number,
): void {
  checkRows(x, rows, rotation.length);
  if (rotation.kind === 'none' || rows === 0) return;
  const inverse = direction === 'inverse';
  const codes = codesOf(rotation, inverse);
  const diagonal = diagonalOf(rotation, x instanceof Float32Array);
  const native = nativeKernels();
  if (native === undefined) {
    rotateRowsReference(x, rows, rotation, inverse, diagonal, codes);
    return;
  }
  const { length, core, segment, permutation } = rotation;
  native.rotateRows(
    x,
    rows,
    length,
    core,
    segment,
    codes,
    diagonal,
    permutation ?? null,
    inverse ? 1 : 0,
    kernelThreads(threads),
  );
}

/** Mirrors the lower triangle of a square matrix to the upper one. */
function mirrorLower(matrix: Float64Array, n: number): void {
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) matrix[j * n + i] = matrix[i * n + j];
  }
}

function transposeSquare(matrix: Float64Array, n: number): void {
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      const held = matrix[i * n + j];
      matrix[i * n + j] = matrix[j * n + i];
      matrix[j * n + i] = held;
    }
  }
}

/**
 * H <- Q H Qᵀ for a symmetric H [n, n] in f64, in place; its lower triangle is read, both are written, equal to the
 * last bit. Rows are rotated, the matrix is turned, rows are rotated again: no second matrix is held.
 * @throws RangeError when `hessian` holds no [n, n]
 */
export function rotateHessian(hessian: Float64Array, rotation: Rotation, threads?: number): void {
  const n = rotation.length;
  checkRows(hessian, n, n);
  const native = nativeKernels();
  const change = (kind: 'mirror' | 'transpose'): void => {
    if (typeof native?.foldSquare === 'function')
      native.foldSquare(hessian, n, kind === 'mirror' ? 0 : 1, kernelThreads(threads));
    else if (kind === 'mirror') mirrorLower(hessian, n);
    else transposeSquare(hessian, n);
  };
  change('mirror');
  if (rotation.kind === 'none') return;
  rotateRows(hessian, n, rotation, 'forward', threads);
  change('transpose');
  rotateRows(hessian, n, rotation, 'forward', threads);
  change('mirror');
}
