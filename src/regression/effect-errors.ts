import { cholesky, choleskySolve } from '../linalg/cholesky.js';
import type { ClusteredFit } from './clustered-t.js';
import { type ClusteredData, residualsOf, whiten } from './clusters.js';

/** Standard errors of the fixed effects. */
export interface EffectErrors {
  /** From the expected information of the multivariate t, `sum (m + n_i) / (m + n_i + 2) X_i' S_i^-1 X_i`. */
  readonly information: Float64Array;
  /** Sandwich of the observed information and the scores of the clusters: right also where the model is not. */
  readonly sandwich: Float64Array;
}

/**
 * Standard errors of theta; scales and m are orthogonal to it under symmetry. Effects whose `active` is 0 (zeros of a
 * penalised fit) have NaN, and the others are treated as if they had been chosen beforehand.
 */
export function effectErrors(
  data: ClusteredData,
  fit: Pick<ClusteredFit, 'theta' | 'm' | 'solves' | 'weights'>,
  active?: Uint8Array,
): EffectErrors {
  const all = data.fixed;
  const chosen = Array.from({ length: all }, (_, j) => j).filter((j) => active === undefined || active[j] !== 0);
  const p = chosen.length;
  const expected = new Float64Array(p * p);
  const observed = new Float64Array(p * p);
  const scores = new Float64Array(p * p);
  data.clusters.forEach((cluster, i) => {
    const { n } = cluster;
    const residual = residualsOf(cluster, fit.theta);
    const x = new Float64Array(n * p);
    for (let k = 0; k < n; k++) for (let a = 0; a < p; a++) x[k * p + a] = cluster.x[k * all + chosen[a]];
    whiten(fit.solves[i].factor, n, x, p);
    whiten(fit.solves[i].factor, n, residual, 1);
    const weight = fit.weights[i];
    const normal = fit.m === Number.POSITIVE_INFINITY;
    const shrink = normal ? 1 : (fit.m + n) / (fit.m + n + 2);
    const curvature = normal ? 0 : (2 * weight * weight) / (fit.m + n);
    const score = new Float64Array(p);
    for (let k = 0; k < n; k++) for (let a = 0; a < p; a++) score[a] += x[k * p + a] * residual[k];
    for (let a = 0; a < p; a++) {
      for (let b = 0; b < p; b++) {
        let sum = 0;
        for (let k = 0; k < n; k++) sum += x[k * p + a] * x[k * p + b];
        expected[a * p + b] += shrink * sum;
        observed[a * p + b] += weight * sum - curvature * score[a] * score[b];
        scores[a * p + b] += weight * weight * score[a] * score[b];
      }
    }
  });
  const spread = (values: Float64Array): Float64Array => {
    const out = new Float64Array(all).fill(Number.NaN);
    chosen.forEach((j, a) => {
      out[j] = Math.sqrt(values[a]);
    });
    return out;
  };
  return { information: spread(inverseDiagonal(expected, p)), sandwich: spread(sandwichDiagonal(observed, scores, p)) };
}

function columnsOfInverse(a: Float64Array, p: number): Float64Array[] | undefined {
  const factor = cholesky(a, p);
  if (factor === undefined) return undefined;
  return Array.from({ length: p }, (_, j) => {
    const unit = new Float64Array(p);
    unit[j] = 1;
    return choleskySolve(factor, p, unit);
  });
}

function inverseDiagonal(a: Float64Array, p: number): Float64Array {
  const columns = columnsOfInverse(a, p);
  return Float64Array.from({ length: p }, (_, j) => columns?.[j][j] ?? Number.NaN);
}

function sandwichDiagonal(bread: Float64Array, meat: Float64Array, p: number): Float64Array {
  const columns = columnsOfInverse(bread, p);
  return Float64Array.from({ length: p }, (_, j) => {
    if (columns === undefined) return Number.NaN;
    let sum = 0;
    for (let a = 0; a < p; a++) for (let b = 0; b < p; b++) sum += columns[j][a] * meat[a * p + b] * columns[j][b];
    return sum;
  });
}
