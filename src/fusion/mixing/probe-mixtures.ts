import { InputError } from '../../errors.js';

/**
 * Probe mixtures of Aioli (Chen et al. 2025): q^(j) gives group j the share gamma and every other one
 * c = (1 - gamma) / (k - 1). As rows they make W = (gamma - c) I + c 1 1^T, whose rows sum to 1.
 */
export interface ProbeMixtures {
  readonly groups: number;
  /** Share of the group that is probed ("one_hot_factor"). */
  readonly gamma: number;
  /** Share of each of the others. */
  readonly others: number;
  /** Condition number of W in the spectral norm: its eigenvalues are 1 and, k - 1 times, gamma - c. */
  readonly condition: number;
}

/** Below this distance of gamma from 1/k, relative, W is taken as singular. */
const SINGULAR = 1e-9;

/** @throws InputError for k < 2, gamma outside (0, 1], and gamma = 1/k, where all probes are the same mixture */
export function probeMixtures(groups: number, gamma: number): ProbeMixtures {
  if (!(Number.isInteger(groups) && groups >= 2)) {
    throw new InputError(`probes of ${groups} group${groups === 1 ? '' : 's'}: mixing needs two or more`);
  }
  if (!(gamma > 0 && gamma <= 1)) throw new InputError(`gamma ${gamma}: must lie in (0, 1]`);
  const others = (1 - gamma) / (groups - 1);
  const gap = Math.abs(gamma - others);
  if (gap < SINGULAR) {
    throw new InputError(
      `gamma ${gamma} is 1/k for ${groups} groups: all probes are the uniform mixture and W is singular; raise gamma`,
    );
  }
  return { groups, gamma, others, condition: 1 / gap };
}

/** The mixture that probes group j: [k]. */
export function probeMixture({ groups, gamma, others }: ProbeMixtures, j: number): Float64Array {
  return new Float64Array(groups).fill(others).fill(gamma, j, j + 1);
}

/**
 * Solves W A_i = G_i for every row i of G [k, k] by the closed form W^-1 = (I - c 1 1^T) / (gamma - c), in O(k^2); A = G
 * where gamma is 1.
 * @param drops G, row i = evaluated group, column j = probe j
 */
export function solveProbes(mixtures: ProbeMixtures, drops: Float64Array): Float64Array {
  const { groups: k, gamma, others } = mixtures;
  if (gamma === 1) return drops.slice();
  const a = new Float64Array(k * k);
  for (let i = 0; i < k; i++) {
    let sum = 0;
    for (let j = 0; j < k; j++) sum += drops[i * k + j];
    for (let j = 0; j < k; j++) a[i * k + j] = (drops[i * k + j] - others * sum) / (gamma - others);
  }
  return a;
}

/** A_ii = G_ii / gamma, others 0: what a probe says of its own group alone. */
export function diagonalProbes({ groups: k, gamma }: ProbeMixtures, drops: Float64Array): Float64Array {
  const a = new Float64Array(k * k);
  for (let i = 0; i < k; i++) a[i * k + i] = drops[i * k + i] / gamma;
  return a;
}
