import { nearestNeighbours } from '../linalg/nearest-neighbours.js';
import { thinSvd } from '../linalg/svd.js';
import { symmetricEigen } from '../linalg/symmetric-eigen.js';
import type { TiledProducts } from '../linalg/tiled-products.js';
import { createRandom } from '../random.js';

/** A symmetric sparse matrix by rows. */
export interface SparseGraph {
  readonly n: number;
  readonly starts: Int32Array;
  readonly columns: Int32Array;
  readonly weights: Float64Array;
}

/** A partition by spectral clustering. */
export interface Clusters {
  /** Cluster of every row, 0..clusters-1; some may be empty. */
  readonly codes: Int32Array;
  /** Connected components of the neighbour graph: more than clusters means that these are not determined by the graph. */
  readonly components: number;
}

/**
 * Affinity `(C + C^T) / 2` of the graph in which every row points to its neighbours `[n, k]`, without self-loops: the
 * normalised Laplacian does not see them.
 */
export function neighbourAffinity(neighbours: Int32Array, n: number, k: number): SparseGraph {
  const rows: Map<number, number>[] = Array.from({ length: n }, () => new Map());
  for (let i = 0; i < n; i++) {
    for (let e = i * k; e < (i + 1) * k; e++) {
      const j = neighbours[e];
      rows[i].set(j, (rows[i].get(j) ?? 0) + 0.5);
      rows[j].set(i, (rows[j].get(i) ?? 0) + 0.5);
    }
  }
  const starts = new Int32Array(n + 1);
  rows.forEach((row, i) => {
    starts[i + 1] = starts[i] + row.size;
  });
  const columns = new Int32Array(starts[n]);
  const weights = new Float64Array(starts[n]);
  rows.forEach((row, i) => {
    let at = starts[i];
    for (const [j, weight] of [...row].sort((a, b) => a[0] - b[0])) {
      columns[at] = j;
      weights[at++] = weight;
    }
  });
  return { n, starts, columns, weights };
}

/** Number of connected components. */
export function connectedComponents({ n, starts, columns }: SparseGraph): number {
  const seen = new Uint8Array(n);
  const queue = new Int32Array(n);
  let components = 0;
  for (let root = 0; root < n; root++) {
    if (seen[root]) continue;
    components++;
    let end = 0;
    queue[end++] = root;
    seen[root] = 1;
    for (let at = 0; at < end; at++) {
      for (let e = starts[queue[at]]; e < starts[queue[at] + 1]; e++) {
        if (seen[columns[e]]) continue;
        seen[columns[e]] = 1;
        queue[end++] = columns[e];
      }
    }
  }
  return components;
}

/** Weights over the square roots of both ends' degrees; also those roots (1 for an isolated row). */
function normalised(graph: SparseGraph): { graph: SparseGraph; roots: Float64Array } {
  const { n, starts, columns } = graph;
  const roots = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    let degree = 0;
    for (let e = starts[i]; e < starts[i + 1]; e++) degree += graph.weights[e];
    roots[i] = degree === 0 ? 1 : Math.sqrt(degree);
  }
  const weights = graph.weights.slice();
  for (let i = 0; i < n; i++)
    for (let e = starts[i]; e < starts[i + 1]; e++) weights[e] /= roots[i] * roots[columns[e]];
  return { graph: { ...graph, weights }, roots };
}

/** out = S v for `b` vectors stored as columns, `[n, b]`. */
function multiply({ n, starts, columns, weights }: SparseGraph, v: Float64Array, b: number, out: Float64Array): void {
  out.fill(0);
  for (let i = 0; i < n; i++) {
    for (let e = starts[i]; e < starts[i + 1]; e++) {
      const weight = weights[e];
      const from = columns[e] * b;
      for (let c = 0; c < b; c++) out[i * b + c] += weight * v[from + c];
    }
  }
}

/** Orthonormal columns of `v [n, b]`, in place, by modified Gram-Schmidt twice; a column that vanishes becomes zero. */
function orthonormalise(v: Float64Array, n: number, b: number): void {
  for (let c = 0; c < b; c++) {
    const before = columnNorm(v, n, b, c);
    for (let pass = 0; pass < 2; pass++) {
      for (let p = 0; p < c; p++) {
        let product = 0;
        for (let i = 0; i < n; i++) product += v[i * b + p] * v[i * b + c];
        for (let i = 0; i < n; i++) v[i * b + c] -= product * v[i * b + p];
      }
    }
    const after = columnNorm(v, n, b, c);
    const factor = after > 1e-13 * before ? 1 / after : 0;
    for (let i = 0; i < n; i++) v[i * b + c] *= factor;
  }
}

function columnNorm(v: Float64Array, n: number, b: number, c: number): number {
  let squares = 0;
  for (let i = 0; i < n; i++) squares += v[i * b + c] ** 2;
  return Math.sqrt(squares);
}

/** Orders up to which all eigenvectors are computed at once. */
const DENSE_ORDER = 128;
/** Degree of the Chebyshev filter, extra vectors of the subspace, its most steps and the residual at which it ends. */
const DEGREE = 24;
const EXTRA = 10;
const MOST_STEPS = 150;
const RESIDUAL = 1e-9;

/**
 * Eigenvectors of the `count` largest eigenvalues of a sparse symmetric matrix with spectrum in [-1, 1], as columns
 * `[n, count]`: subspace iteration with a Chebyshev filter that damps what lies below the subspace's smallest Ritz value
 * (Zhou, Saad et al. 2006). Seeded, and the same bits every time.
 */
export function sparseLeadingVectors(graph: SparseGraph, count: number, seed: number): Float64Array {
  const { n } = graph;
  if (n <= DENSE_ORDER || n <= count + EXTRA) return denseLeadingVectors(graph, count);
  const b = count + EXTRA;
  const random = createRandom(seed).fork(VECTOR_STREAM);
  let basis: Float64Array = Float64Array.from({ length: n * b }, () => random.normal());
  let image: Float64Array = new Float64Array(n * b);
  orthonormalise(basis, n, b);
  for (let step = 0; ; step++) {
    multiply(graph, basis, b, image);
    const ritz = symmetricEigen(smallProduct(basis, image, n, b), b);
    // Rows of `vectors` ascend; the largest values come first.
    basis = rotate(basis, ritz.vectors, n, b);
    image = rotate(image, ritz.vectors, n, b);
    const values = ritz.values.slice().reverse();
    if (step === MOST_STEPS || largestResidual(basis, image, values, n, b, count) < RESIDUAL) break;
    basis = filtered(graph, basis, n, b, values[b - 1]);
    orthonormalise(basis, n, b);
  }
  const leading = new Float64Array(n * count);
  for (let i = 0; i < n; i++) leading.set(basis.subarray(i * b, i * b + count), i * count);
  return leading;
}

const VECTOR_STREAM = 0x73_63;

function denseLeadingVectors({ n, starts, columns, weights }: SparseGraph, count: number): Float64Array {
  const matrix = new Float64Array(n * n);
  for (let i = 0; i < n; i++) for (let e = starts[i]; e < starts[i + 1]; e++) matrix[i * n + columns[e]] = weights[e];
  const { vectors } = symmetricEigen(matrix, n);
  const leading = new Float64Array(n * count);
  for (let c = 0; c < count; c++) for (let i = 0; i < n; i++) leading[i * count + c] = vectors[(n - 1 - c) * n + i];
  return leading;
}

/** Basis^T image `[b, b]`. */
function smallProduct(basis: Float64Array, image: Float64Array, n: number, b: number): Float64Array {
  const small = new Float64Array(b * b);
  for (let i = 0; i < n; i++) {
    for (let p = 0; p < b; p++) {
      const left = basis[i * b + p];
      for (let c = 0; c < b; c++) small[p * b + c] += left * image[i * b + c];
    }
  }
  return small;
}

/** Columns combined by the eigenvectors (rows, ascending), largest eigenvalue first. */
function rotate(v: Float64Array, vectors: Float64Array, n: number, b: number): Float64Array {
  const turned = new Float64Array(n * b);
  for (let i = 0; i < n; i++) {
    for (let c = 0; c < b; c++) {
      let sum = 0;
      for (let p = 0; p < b; p++) sum += v[i * b + p] * vectors[(b - 1 - c) * b + p];
      turned[i * b + c] = sum;
    }
  }
  return turned;
}

function largestResidual(
  basis: Float64Array,
  image: Float64Array,
  values: Float64Array,
  n: number,
  b: number,
  count: number,
): number {
  let largest = 0;
  for (let c = 0; c < count; c++) {
    let squares = 0;
    for (let i = 0; i < n; i++) squares += (image[i * b + c] - values[c] * basis[i * b + c]) ** 2;
    largest = Math.max(largest, Math.sqrt(squares));
  }
  return largest;
}

/** The Chebyshev polynomial that is at most 1 in size on [-1, cut] and grows above it, applied to the basis. */
function filtered(graph: SparseGraph, basis: Float64Array, n: number, b: number, cut: number): Float64Array {
  const centre = (cut - 1) / 2;
  const half = Math.max((cut + 1) / 2, 1e-3);
  let before = basis;
  let current = new Float64Array(n * b);
  const image = new Float64Array(n * b);
  multiply(graph, before, b, image);
  for (let i = 0; i < current.length; i++) current[i] = (image[i] - centre * before[i]) / half;
  for (let degree = 2; degree <= DEGREE; degree++) {
    multiply(graph, current, b, image);
    const next = new Float64Array(n * b);
    for (let i = 0; i < next.length; i++) next[i] = (2 * (image[i] - centre * current[i])) / half - before[i];
    before = current;
    current = next;
  }
  return current;
}

/**
 * Clusters of an embedding `[n, k]` by QR with column pivoting of its transpose, and the orthogonal factor of the k chosen
 * rows (Damle, Minden, Ying 2019): no starts, no iterations. The result is that of any rotation of the embedding.
 */
export function clusterByPivots(embedding: Float64Array, n: number, k: number): Int32Array {
  const pivots = pivotRows(embedding, n, k);
  const chosen = new Float64Array(k * k);
  pivots.forEach((row, p) => {
    for (let c = 0; c < k; c++) chosen[c * k + p] = embedding[row * k + c];
  });
  const { left, right } = thinSvd(chosen, k, k);
  const turn = new Float64Array(k * k);
  for (let c = 0; c < k; c++) {
    for (let p = 0; p < k; p++) for (let s = 0; s < k; s++) turn[c * k + p] += left[c * k + s] * right[p * k + s];
  }
  const codes = new Int32Array(n);
  for (let i = 0; i < n; i++) {
    let best = -1;
    for (let p = 0; p < k; p++) {
      let sum = 0;
      for (let c = 0; c < k; c++) sum += embedding[i * k + c] * turn[c * k + p];
      if (Math.abs(sum) > best) {
        best = Math.abs(sum);
        codes[i] = p;
      }
    }
  }
  return codes;
}

/** Rows that QR with column pivoting of the transpose picks: each the longest after the earlier ones are projected out. */
function pivotRows(embedding: Float64Array, n: number, k: number): number[] {
  const rest = embedding.slice();
  const pivots: number[] = [];
  for (let step = 0; step < k; step++) {
    let pivot = 0;
    let longest = -1;
    for (let i = 0; i < n; i++) {
      let squares = 0;
      for (let c = 0; c < k; c++) squares += rest[i * k + c] ** 2;
      if (squares > longest) {
        longest = squares;
        pivot = i;
      }
    }
    pivots.push(pivot);
    if (longest <= 0) continue;
    const direction = rest.slice(pivot * k, (pivot + 1) * k);
    for (let i = 0; i < n; i++) {
      let product = 0;
      for (let c = 0; c < k; c++) product += rest[i * k + c] * direction[c];
      product /= longest;
      for (let c = 0; c < k; c++) rest[i * k + c] -= product * direction[c];
    }
    rest.fill(0, pivot * k, (pivot + 1) * k);
  }
  return pivots;
}

/** Neighbours of the affinity, the row itself included, as in scikit-learn. */
export const CLUSTER_NEIGHBOURS = 10;

/**
 * Spectral clustering of rows `x [n, d]` with a k-nearest-neighbour affinity and `cluster_qr`, as the reference of DSMI
 * makes categories of vectors: eigenvectors of the normalised Laplacian, divided by the square roots of the degrees.
 * @throws RangeError for fewer rows than clusters or neighbours
 */
export async function spectralClusters(
  x: Float64Array,
  n: number,
  d: number,
  clusters: number,
  seed: number,
  products: TiledProducts,
): Promise<Clusters> {
  if (n < clusters || n < 2) throw new RangeError(`${n} rows for ${clusters} clusters`);
  const k = Math.min(CLUSTER_NEIGHBOURS - 1, n - 1);
  const affinity = neighbourAffinity(await nearestNeighbours(x, n, d, k, products), n, k);
  const { graph, roots } = normalised(affinity);
  const embedding = sparseLeadingVectors(graph, clusters, seed);
  for (let i = 0; i < n; i++) for (let c = 0; c < clusters; c++) embedding[i * clusters + c] /= roots[i];
  return { codes: clusterByPivots(embedding, n, clusters), components: connectedComponents(affinity) };
}
