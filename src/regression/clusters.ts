import { InputError } from '../errors.js';
import { cholesky, choleskyLogDeterminant } from '../linalg/cholesky.js';

/** One cluster of a mixed-effects model: y = X theta + Z b + e. Row-major. */
export interface Cluster {
  readonly name: string;
  readonly n: number;
  readonly y: Float64Array;
  /** `[n, p]` */
  readonly x: Float64Array;
  /** `[n, r]` */
  readonly z: Float64Array;
}

export interface ClusteredData {
  readonly clusters: readonly Cluster[];
  readonly observations: number;
  /** Fixed effects p and random effects r. */
  readonly fixed: number;
  readonly random: number;
}

/** Scale matrices: Psi of the random effects `[r, r]`, sigma^2 of the errors. */
export interface Scales {
  readonly psi: Float64Array;
  readonly sigma2: number;
}

/**
 * Correlation of the errors within a cluster, `rho^|i - j|` in the order of its rows; 0 is none. R and its factor depend on
 * the size alone.
 */
export interface ErrorCorrelation {
  readonly rho: number;
  /** R `[n, n]`. */
  matrix(n: number): Float64Array;
  /** R^-1 `[n, n]`. */
  inverse(n: number): Float64Array;
  logDeterminant(n: number): number;
}

/** `rho^|i - j|` `[n, n]`. */
export function decayingCorrelation(rho: number, n: number): Float64Array {
  const matrix = new Float64Array(n * n);
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) matrix[i * n + j] = rho ** Math.abs(i - j);
  return matrix;
}

/** @throws InputError when rho is not in (-1, 1) */
export function errorCorrelation(rho = 0): ErrorCorrelation {
  if (!(Math.abs(rho) < 1)) throw new InputError(`error correlation ${rho}: must lie between -1 and 1`);
  const determinant = 1 - rho * rho;
  return {
    rho,
    matrix: (n) => decayingCorrelation(rho, n),
    // The precision of an autoregression of order one is tridiagonal.
    inverse(n) {
      const inverse = new Float64Array(n * n);
      for (let i = 0; i < n; i++) {
        const inner = i > 0 && i < n - 1;
        inverse[i * n + i] = n === 1 ? 1 : (inner ? 1 + rho * rho : 1) / determinant;
        if (i + 1 < n) {
          inverse[i * n + i + 1] = -rho / determinant;
          inverse[(i + 1) * n + i] = -rho / determinant;
        }
      }
      return inverse;
    },
    logDeterminant: (n) => (n - 1) * Math.log(determinant),
  };
}

/** Rows of a table gathered into clusters, in the order in which the clusters first appear. */
export function gatherClusters(
  y: Float64Array,
  x: Float64Array,
  z: Float64Array,
  group: Int32Array,
  names: readonly string[],
): ClusteredData {
  const rows = y.length;
  const fixed = x.length / rows;
  const random = z.length / rows;
  const members = new Map<number, number[]>();
  for (let i = 0; i < rows; i++) {
    const list = members.get(group[i]);
    if (list) list.push(i);
    else members.set(group[i], [i]);
  }
  const clusters = [...members].map(([code, list]): Cluster => {
    const pick = (source: Float64Array, width: number): Float64Array => {
      const picked = new Float64Array(list.length * width);
      list.forEach((row, i) => {
        picked.set(source.subarray(row * width, (row + 1) * width), i * width);
      });
      return picked;
    };
    return { name: names[code] ?? String(code), n: list.length, y: pick(y, 1), x: pick(x, fixed), z: pick(z, random) };
  });
  return { clusters, observations: rows, fixed, random };
}

/** What all updates need of one cluster at given scales. */
export interface ClusterSolve {
  /** Lower Cholesky factor of S = Z Psi Z' + sigma^2 R, `[n, n]`. */
  readonly factor: Float64Array;
  readonly logDeterminant: number;
}

/** S = Z Psi Z' + sigma^2 R. */
export function clusterScale(cluster: Cluster, scales: Scales, correlation: ErrorCorrelation): Float64Array {
  const { n, z } = cluster;
  const r = z.length / n;
  const s = correlation.matrix(n);
  const half = new Float64Array(r);
  for (let i = 0; i < n * n; i++) s[i] *= scales.sigma2;
  for (let i = 0; i < n; i++) {
    for (let b = 0; b < r; b++) {
      half[b] = 0;
      for (let a = 0; a < r; a++) half[b] += z[i * r + a] * scales.psi[a * r + b];
    }
    for (let j = 0; j < n; j++) for (let b = 0; b < r; b++) s[i * n + j] += half[b] * z[j * r + b];
  }
  return s;
}

/** @throws InputError naming the cluster when S is not positive definite */
export function factorCluster(cluster: Cluster, scales: Scales, correlation: ErrorCorrelation): ClusterSolve {
  const { n } = cluster;
  const factor = cholesky(clusterScale(cluster, scales, correlation), n);
  if (factor === undefined) {
    throw new InputError(
      `cluster ${cluster.name}: its scale Z Psi Z' + sigma^2 R is not positive definite; give a larger sigma^2, or Psi positive semidefinite`,
    );
  }
  return { factor, logDeterminant: choleskyLogDeterminant(factor, n) };
}

/** `L^-1 A` in place for A `[n, width]`. */
export function whiten(factor: Float64Array, n: number, a: Float64Array, width: number): void {
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) {
      const l = factor[i * n + k];
      if (l === 0) continue;
      for (let c = 0; c < width; c++) a[i * width + c] -= l * a[k * width + c];
    }
    for (let c = 0; c < width; c++) a[i * width + c] /= factor[i * n + i];
  }
}

/** y - X theta. */
export function residualsOf(cluster: Cluster, theta: Float64Array): Float64Array {
  const p = theta.length;
  return cluster.y.map((value, i) => {
    let sum = value;
    for (let j = 0; j < p; j++) sum -= cluster.x[i * p + j] * theta[j];
    return sum;
  });
}

/** Squared Mahalanobis distances `r' S^-1 r` of all clusters, `[clusters]`. */
export function mahalanobis(data: ClusteredData, solves: readonly ClusterSolve[], theta: Float64Array): Float64Array {
  return Float64Array.from(data.clusters, (cluster, i) => {
    const r = residualsOf(cluster, theta);
    whiten(solves[i].factor, cluster.n, r, 1);
    return r.reduce((sum, value) => sum + value * value, 0);
  });
}
