import { InputError } from '../errors.js';
import { cholesky, choleskySolve } from '../linalg/cholesky.js';
import { type ClusteredData, type ClusterSolve, whiten } from './clusters.js';
import type { Penalty } from './penalty.js';
import { conjugateGradient } from './proximal-conjugate-gradient.js';
import { penalisedQuadratic, type Quadratic } from './quadratic.js';

/** A penalty on the fixed effects whose `penalised` is not 0. */
export interface EffectPenalty {
  readonly penalty: Penalty;
  readonly penalised: Uint8Array;
}

/**
 * `H = sum_i w_i X_i' S_i^-1 X_i / N` and `c = sum_i w_i X_i' S_i^-1 y_i / N`: the weighted least squares of all clusters as a
 * quadratic.
 */
export function weightedNormalEquations(
  data: ClusteredData,
  solves: readonly ClusterSolve[],
  weights: ArrayLike<number>,
): Quadratic {
  const p = data.fixed;
  const h = new Float64Array(p * p);
  const c = new Float64Array(p);
  data.clusters.forEach((cluster, i) => {
    const { n } = cluster;
    const x = Float64Array.from(cluster.x);
    const y = Float64Array.from(cluster.y);
    whiten(solves[i].factor, n, x, p);
    whiten(solves[i].factor, n, y, 1);
    const weight = weights[i] / data.observations;
    for (let k = 0; k < n; k++) {
      for (let a = 0; a < p; a++) {
        const left = weight * x[k * p + a];
        c[a] += left * y[k];
        for (let b = 0; b <= a; b++) h[a * p + b] += left * x[k * p + b];
      }
    }
  });
  for (let a = 0; a < p; a++) for (let b = 0; b < a; b++) h[b * p + a] = h[a * p + b];
  return { size: p, h, c };
}

/**
 * The same for one vector `y` with correlation matrix `[n, n]`: `H = X' R^-1 X / n`, `c = X' R^-1 y / n`.
 * @throws InputError when the correlation is not positive definite
 */
export function correlatedNormalEquations(
  x: Float64Array,
  y: Float64Array,
  correlation: Float64Array,
  n: number,
): Quadratic {
  const factor = cholesky(correlation, n);
  if (factor === undefined) throw new InputError('the correlation of the observations is not positive definite');
  const cluster = { name: 'all', n, y, x, z: new Float64Array(0) };
  const data = { clusters: [cluster], observations: n, fixed: x.length / n, random: 0 };
  return weightedNormalEquations(data, [{ factor, logDeterminant: 0 }], [1]);
}

/**
 * Weighted generalised least squares, penalised where asked by proximal conjugate gradients (section G4) on
 * `sum_i w_i r_i' S_i^-1 r_i scale / 2N + sum_j w(theta_j)`.
 * @param scale what makes the quadratic free of the errors' scale: sigma^2
 * @throws InputError when the fixed effects are collinear
 */
export function fitFixedEffects(
  data: ClusteredData,
  solves: readonly ClusterSolve[],
  weights: ArrayLike<number>,
  effectPenalty?: EffectPenalty,
  scale = 1,
  start?: Float64Array,
): Float64Array {
  const quadratic = weightedNormalEquations(data, solves, weights);
  if (effectPenalty !== undefined) {
    const scaled = { ...quadratic, h: quadratic.h.map((v) => v * scale), c: quadratic.c.map((v) => v * scale) };
    const problem = penalisedQuadratic(scaled, effectPenalty.penalty, effectPenalty.penalised);
    return conjugateGradient(problem, { tolerance: 1e-11, maxIterations: 2000, ...(start && { start }) }).x;
  }
  const factor = cholesky(quadratic.h, quadratic.size);
  if (factor === undefined || collinear(factor, quadratic.h, quadratic.size)) {
    throw new InputError('fixed effects: their columns are linearly dependent; leave some out, or give a --penalty');
  }
  return choleskySolve(factor, quadratic.size, quadratic.c);
}

/** A pivot that lost all digits of its diagonal entry. */
function collinear(factor: Float64Array, h: Float64Array, size: number): boolean {
  for (let i = 0; i < size; i++) if (factor[i * size + i] ** 2 < 1e-13 * h[i * size + i]) return true;
  return false;
}
