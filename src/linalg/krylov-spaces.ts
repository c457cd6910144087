import { addColumnSums, addRowSums } from '../kernels/kernel-tiles.js';
import { createRandom } from '../random.js';
import type { SymmetricOperator } from './kernel-operator.js';
import { type NodeWeights, quadratureNodes } from './quadrature-nodes.js';
import { symmetricEigen } from './symmetric-eigen.js';

/** A residual this small beside the operator ends a Krylov space. */
const BREAKDOWN = { f32: 1e-6, f64: 1e-13 } as const;
/** Most leading eigenvectors that are taken out of the noise, and how well they must be known. */
const MOST_LEADING = 16;
const LEADING_RESIDUAL = 1e-3;

type Basis = Float32Array | Float64Array;

/** Krylov spaces of a group of probes, in lockstep. */
export interface KrylovGroup {
  readonly first: number;
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

/** Random signs of probe p: a stream of its own, whatever the group. */
function signs(seed: number, probe: number, target: Float64Array): void {
  const random = createRandom(seed).fork(probe);
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
  first: number,
  count: number,
  most: number,
): KrylovGroup {
  const { n, precision } = operator;
  const current = new Float64Array(count * n);
  for (let p = 0; p < count; p++) {
    const vector = current.subarray(p * n, (p + 1) * n);
    signs(seed, first + p, vector);
    for (let i = 0; i < n; i++) vector[i] /= Math.sqrt(n);
  }
  const basis = (): Basis => (precision === 'f32' ? new Float32Array(most * n) : new Float64Array(most * n));
  return {
    first,
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

/** Bytes of the Krylov space of one probe: its basis and the vectors of the current step. */
export const bytesOfProbe = (operator: SymmetricOperator, steps: number): number =>
  operator.n * (steps * (operator.precision === 'f32' ? 4 : 8) + 4 * 8);

/** Approximate eigenvectors of large eigenvalues, out of the Krylov space of one probe. */
export interface LeadingPairs {
  /** Their eigenvalues, by falling magnitude. */
  readonly values: Float64Array;
  /** Their coordinates in the basis, `[values, steps]`. */
  readonly coordinates: Float64Array;
  /** Orthonormal rows `[steps, n]`. */
  readonly basis: Basis;
  readonly steps: number;
  readonly n: number;
}

/** The Ritz pairs of the first probe that have converged, at most 16. */
export function leadingPairs(group: KrylovGroup, n: number, most: number): LeadingPairs {
  const alphas = group.alphas[0].slice(0, most);
  const steps = alphas.length;
  const matrix = new Float64Array(steps * steps);
  alphas.forEach((alpha, k) => {
    matrix[k * (steps + 1)] = alpha;
    if (k + 1 === steps) return;
    matrix[k * (steps + 1) + 1] = group.betas[0][k];
    matrix[k * (steps + 1) + steps] = group.betas[0][k];
  });
  const { values, vectors } = symmetricEigen(matrix, steps);
  // A closed space has no next beta: its pairs are eigenpairs.
  const next = group.betas[0][steps - 1] ?? 0;
  const residual = (i: number): number => Math.abs(next * vectors[i * steps + steps - 1]);
  const chosen = Array.from({ length: steps }, (_, i) => i)
    .filter((i) => residual(i) < LEADING_RESIDUAL * Math.abs(values[i]))
    .sort((a, b) => Math.abs(values[b]) - Math.abs(values[a]))
    .slice(0, MOST_LEADING);
  const coordinates = new Float64Array(chosen.length * steps);
  chosen.forEach((i, k) => {
    coordinates.set(vectors.subarray(i * steps, (i + 1) * steps), k * steps);
  });
  const basis = group.bases[0].slice(0, steps * n);
  return { values: Float64Array.from(chosen, (i) => values[i]), coordinates, basis, steps, n };
}

/** Squared projections `(u_i · z)²` of a probe of random signs on the leading pairs; each is 1 on average. */
export function squaredProjections(
  pairs: LeadingPairs,
  group: KrylovGroup,
  probe: number,
  threads?: number,
): Float64Array {
  const { values, coordinates, basis, steps, n } = pairs;
  const start = Float64Array.from(group.bases[probe].subarray(0, n));
  const inner = new Float64Array(steps);
  addRowSums({ data: basis, rows: steps, columns: n }, inner, { weights: start, threads });
  return values.map((_, i) => {
    let sum = 0;
    for (let k = 0; k < steps; k++) sum += coordinates[i * steps + k] * inner[k];
    return n * sum * sum;
  });
}
