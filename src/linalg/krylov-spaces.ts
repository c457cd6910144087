import { addColumnSums, addRowSums } from '../kernels/kernel-tiles.js';
import { createRandom } from '../random.js';
import type { SymmetricOperator } from './kernel-operator.js';
import { type NodeWeights, quadratureNodes } from './quadrature-nodes.js';
import { symmetricEigen } from './symmetric-eigen.js';

/** A residual this small beside the operator ends a Krylov space. */
const BREAKDOWN = { f32: 1e-6, f64: 1e-13 } as const;
/** Most leading eigenvectors that are taken out of the noise. */
const MOST_LEADING = 32;
/** Residual of a vector over its eigenvalue, at most: any vector leaves the mean without bias, near ones serve better. */
const LEADING_RESIDUAL = 0.05;
/** A Ritz vector of which less is left beside those before it is one of them again. */
const NEW_DIRECTION = 0.1;

type Basis = Float32Array | Float64Array;

/** Krylov spaces of a group of random vectors, in lockstep. */
export interface KrylovGroup {
  readonly count: number;
  readonly bases: Basis[];
  /** Diagonals and off-diagonals of the tridiagonal matrices, one a probe. */
  readonly alphas: number[][];
  readonly betas: number[][];
  /** Probes whose space is closed under K: their quadrature is exact. */
  readonly closed: boolean[];
  /** The current basis vectors `[count, n]`. */
  readonly current: Float64Array;
  readonly image: Float64Array;
}

/** Random signs: a stream of their own, whatever the group. */
function signs(seed: number, stream: number, target: Float64Array): void {
  const random = createRandom(seed).fork(stream);
  for (let i = 0; i < target.length; i += 64) {
    let word = random.next64();
    for (let j = i; j < Math.min(i + 64, target.length); j++) {
      target[j] = (word & 1n) === 1n ? 1 : -1;
      word >>= 1n;
    }
  }
}

export function startGroup(
  operator: SymmetricOperator,
  seed: number,
  streams: readonly number[],
  most: number,
): KrylovGroup {
  const { n, precision } = operator;
  const count = streams.length;
  const current = new Float64Array(count * n);
  streams.forEach((stream, p) => {
    const vector = current.subarray(p * n, (p + 1) * n);
    signs(seed, stream, vector);
    for (let i = 0; i < n; i++) vector[i] /= Math.sqrt(n);
  });
  const basis = (): Basis => (precision === 'f32' ? new Float32Array(most * n) : new Float64Array(most * n));
  return {
    count,
    bases: Array.from({ length: count }, basis),
    alphas: Array.from({ length: count }, () => []),
    betas: Array.from({ length: count }, () => []),
    closed: Array.from({ length: count }, () => false),
    current,
    image: new Float64Array(count * n),
  };
}

function norm(vector: Float64Array): number {
  const sums = new Float64Array(1);
  addRowSums({ data: vector, rows: 1, columns: vector.length }, sums, { power: 2, threads: 1 });
  return Math.sqrt(sums[0]);
}

/**
 * One step of every space: w = K q, alpha = q·w, then w is made orthogonal to the whole basis, twice, and its length is
 * beta. Full orthogonalisation keeps every weight of the quadrature where short recurrences would repeat nodes.
 */
export async function advance(
  operator: SymmetricOperator,
  group: KrylovGroup,
  step: number,
  threads?: number,
): Promise<void> {
  const { n, precision } = operator;
  const { count, bases, alphas, betas, closed, current, image } = group;
  await operator.multiply(current, count, image);
  for (let p = 0; p < count; p++) {
    const vector = current.subarray(p * n, (p + 1) * n);
    if (closed[p]) continue;
    const basis = bases[p];
    basis.set(vector, step * n);
    const residual = image.subarray(p * n, (p + 1) * n);
    const tile = { data: basis, rows: step + 1, columns: n };
    for (let pass = 0; pass < 2; pass++) {
      const coefficients = new Float64Array(step + 1);
      addRowSums(tile, coefficients, { weights: residual, threads });
      if (pass === 0) alphas[p].push(coefficients[step]);
      for (let k = 0; k <= step; k++) coefficients[k] = -coefficients[k];
      addColumnSums(tile, residual, { weights: coefficients, threads });
    }
    const beta = norm(residual);
    const size = Math.max(...alphas[p].map(Math.abs), ...betas[p], beta);
    if (!Number.isFinite(beta)) throw new RangeError('the operator gives values that are not finite');
    if (step + 1 >= n || beta <= BREAKDOWN[precision] * size) {
      closed[p] = true;
      vector.fill(0);
      continue;
    }
    betas[p].push(beta);
    for (let i = 0; i < n; i++) vector[i] = residual[i] / beta;
  }
}

/** Nodes and weights of a probe after at most `steps` steps. */
export function nodesOf(group: KrylovGroup, probe: number, steps: number): NodeWeights {
  const alphas = group.alphas[probe].slice(0, steps);
  return quadratureNodes(alphas, group.betas[probe].slice(0, alphas.length - 1));
}

/** Bytes of one Krylov space: its basis and the vectors of the current step. */
export const bytesOfSpace = (operator: SymmetricOperator, steps: number): number =>
  operator.n * (steps * (operator.precision === 'f32' ? 4 : 8) + 4 * 8);

/** Approximate eigenvectors of large eigenvalues, orthonormal. */
export interface LeadingVectors {
  /** Their eigenvalues. */
  readonly values: Float64Array;
  /** `[values, n]` */
  readonly vectors: Basis;
}

/** Bytes of the most leading vectors that are kept. */
export const bytesOfLeading = (operator: SymmetricOperator): number =>
  operator.n * MOST_LEADING * (operator.precision === 'f32' ? 4 : 8);

interface RitzPair {
  readonly value: number;
  readonly space: number;
  /** Coordinates in the basis of its space. */
  readonly coordinates: Float64Array;
}

/** The Ritz pairs of a space near to eigenpairs, after at most `most` steps. */
function ritzPairs(group: KrylovGroup, space: number, most: number): RitzPair[] {
  const alphas = group.alphas[space].slice(0, most);
  const betas = group.betas[space];
  const steps = alphas.length;
  const matrix = new Float64Array(steps * steps);
  alphas.forEach((alpha, k) => {
    matrix[k * (steps + 1)] = alpha;
    if (k + 1 === steps) return;
    matrix[k * (steps + 1) + 1] = betas[k];
    matrix[k * (steps + 1) + steps] = betas[k];
  });
  const { values, vectors } = symmetricEigen(matrix, steps);
  // A closed space has no next beta: its pairs are eigenpairs.
  const next = betas[steps - 1] ?? 0;
  return Array.from(values, (value, i) => ({
    value,
    space,
    coordinates: vectors.subarray(i * steps, (i + 1) * steps),
  })).filter(({ value, coordinates }) => Math.abs(next * coordinates[steps - 1]) < LEADING_RESIDUAL * Math.abs(value));
}

/**
 * Leading eigenvectors out of the Krylov spaces of the first `scouts` vectors: their Ritz vectors near to one, by falling
 * eigenvalue, each made orthogonal to those before it. A Krylov space holds one vector of every eigenspace, so that
 * several are needed where eigenvalues are nearly equal, as those of separate clusters are. What is left of a Ritz vector
 * has its Ritz value as Rayleigh quotient.
 */
export function leadingVectors(
  group: KrylovGroup,
  operator: SymmetricOperator,
  scouts: number,
  steps: number,
  threads?: number,
): LeadingVectors {
  const { n, precision } = operator;
  const pairs = Array.from({ length: scouts }, (_, s) => ritzPairs(group, s, steps)).flat();
  pairs.sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const vectors = precision === 'f32' ? new Float32Array(MOST_LEADING * n) : new Float64Array(MOST_LEADING * n);
  const values: number[] = [];
  for (const { value, space, coordinates } of pairs) {
    if (values.length === MOST_LEADING) break;
    const vector = new Float64Array(n);
    const tile = { data: group.bases[space], rows: coordinates.length, columns: n };
    addColumnSums(tile, vector, { weights: Float64Array.from(coordinates), threads });
    const found = { data: vectors, rows: values.length, columns: n };
    for (let pass = 0; pass < 2; pass++) {
      const shares = new Float64Array(values.length);
      addRowSums(found, shares, { weights: vector, threads });
      addColumnSums(found, vector, { weights: shares.map((share) => -share), threads });
    }
    const length = norm(vector);
    if (length < NEW_DIRECTION) continue;
    const from = values.length * n;
    for (let i = 0; i < n; i++) vectors[from + i] = vector[i] / length;
    values.push(value);
  }
  return { values: Float64Array.from(values), vectors: vectors.slice(0, values.length * n) };
}

/** Squared projections `(u_i · z)²` of a vector of random signs on the leading vectors; each is 1 on average. */
export function squaredProjections(
  leading: LeadingVectors,
  group: KrylovGroup,
  space: number,
  n: number,
  threads?: number,
): Float64Array {
  const { values, vectors } = leading;
  const start = Float64Array.from(group.bases[space].subarray(0, n));
  const inner = new Float64Array(values.length);
  addRowSums({ data: vectors, rows: values.length, columns: n }, inner, { weights: start, threads });
  return inner.map((product) => n * product * product);
}
