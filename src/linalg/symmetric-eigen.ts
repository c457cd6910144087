import { EigenvalueDecomposition, Matrix } from 'ml-matrix';

/** Eigenvalues ascending, and their eigenvectors: row i of `vectors` `[n, n]` belongs to `values[i]`. */
export interface SymmetricEigen {
  readonly values: Float64Array;
  readonly vectors: Float64Array;
}

/** Row-major `[rows, columns]` entries as ml-matrix's matrix. */
export function matrixOf(entries: ArrayLike<number>, rows: number, columns: number): Matrix {
  const matrix = new Matrix(rows, columns);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) matrix.set(i, j, entries[i * columns + j]);
  return matrix;
}

/**
 * Eigendecomposition of a symmetric matrix `[n, n]`, row-major; the mean of the two triangles is taken. Householder
 * tridiagonalisation and implicit QL (ml-matrix), O(n^3).
 * @throws RangeError when the entries do not make a square matrix or are not finite
 */
export function symmetricEigen(entries: ArrayLike<number>, n: number): SymmetricEigen {
  if (entries.length !== n * n) throw new RangeError(`${entries.length} entries are no ${n} x ${n} matrix`);
  const matrix = new Matrix(n, n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      const value = 0.5 * (entries[i * n + j] + entries[j * n + i]);
      if (!Number.isFinite(value)) throw new RangeError(`entry (${i}, ${j}) of a symmetric matrix is ${value}`);
      matrix.set(i, j, value);
      matrix.set(j, i, value);
    }
  }
  const decomposition = new EigenvalueDecomposition(matrix, { assumeSymmetric: true });
  const eigenvalues = decomposition.realEigenvalues;
  const order = Array.from({ length: n }, (_, i) => i).sort((a, b) => eigenvalues[a] - eigenvalues[b]);
  const values = Float64Array.from(order, (i) => eigenvalues[i]);
  const vectors = new Float64Array(n * n);
  order.forEach((column, i) => {
    for (let k = 0; k < n; k++) vectors[i * n + k] = decomposition.eigenvectorMatrix.get(k, column);
  });
  return { values, vectors };
}
