import { multiply, symmetricRankK } from '../kernels/gemm.js';
import { leadingEigenvectors } from '../linalg/leading-eigenvectors.js';
import type { Floats } from '../models/layer-runner.js';
import { permuteNeurons } from './alignment.js';
import { createCombination } from './combine.js';
import { checkExpert } from './neurons.js';
import type { ExpertMatrices, ExpertShape } from './types.js';

export interface JointSvdOptions {
  /** Directions kept of the joint left singular vectors; default all of them. */
  readonly rank?: number;
  readonly threads?: number;
}

export interface JointSvdResult {
  readonly expert: ExpertMatrices;
  /** Share of the squared singular values of the concatenation that the kept directions hold, by matrix. */
  readonly energy: { readonly gate?: number; readonly up: number; readonly down: number };
}

/** A merge by joint SVD, member after member; see {@link createJointSvd}. */
export interface JointSvdMerge {
  add(expert: ExpertMatrices, weight: number, permutation?: Int32Array): void;
  finish(): JointSvdResult;
}

type MatrixName = 'gate' | 'up' | 'down';

/**
 * Merge in a joint subspace (Sub-MoE, 2025): the members' matrices stand side by side and share one SVD,
 * [W_1 ... W_n] = U S [V_1 ... V_n]; merged W = U S sum_e w_e V_e / sum_e w_e. Since U S V_e = W_e, that is the weighted mean,
 * and with r of the directions it is the mean projected on them, U_r U_r^T mean(W), where U_r are the leading eigenvectors of
 * sum_e W_e W_e^T. So nothing is decomposed without `rank`, nor for a matrix with no more rows than that; with it, time
 * grows with rank and rows squared.
 * @throws RangeError for a rank below 1
 */
export function createJointSvd(shape: ExpertShape, options: JointSvdOptions = {}): JointSvdMerge {
  const { hidden: H, width: I } = shape;
  const { threads, rank = Math.max(H, I) } = options;
  if (!(Number.isInteger(rank) && rank >= 1)) throw new RangeError(`rank ${rank} of a joint SVD`);
  const rowsOf = (name: MatrixName): number => (name === 'down' ? H : I);
  const names: readonly MatrixName[] = shape.gated ? ['gate', 'up', 'down'] : ['up', 'down'];
  // At full rank nothing is projected, and no second moment is needed.
  const truncated = names.filter((name) => rank < rowsOf(name));
  const moments = new Map(truncated.map((name) => [name, new Float64Array(rowsOf(name) ** 2)]));
  const mean = createCombination(shape, { threads });
  return {
    add(expert, weight, permutation) {
      mean.add(expert, weight, permutation);
      checkExpert('a member', expert, shape);
      const placed = permutation === undefined ? expert : permuteNeurons(expert, shape, permutation);
      for (const [name, moment] of moments) {
        const matrix = placed[name];
        const n = rowsOf(name);
        if (matrix !== undefined) symmetricRankK(matrix, moment, { n, k: (H * I) / n }, { beta: 1, threads });
      }
    },
    finish() {
      const merged = mean.finish();
      const energy = { ...(shape.gated && { gate: 1 }), up: 1, down: 1 };
      const result: Partial<Record<MatrixName, Floats>> = { ...merged };
      for (const [name, moment] of moments) {
        const matrix = merged[name];
        if (matrix === undefined) continue;
        const n = rowsOf(name);
        const { projected, kept } = project(matrix, moment, n, rank, threads);
        result[name] = projected;
        energy[name] = kept;
      }
      return { expert: { ...merged, ...result }, energy };
    },
  };
}

/** U U^T W for the leading eigenvectors U of a second moment, its lower triangle given; W [n, columns]. */
function project(
  matrix: Floats,
  moment: Float64Array,
  n: number,
  rank: number,
  threads?: number,
): { projected: Floats; kept: number } {
  let trace = 0;
  for (let i = 0; i < n; i++) {
    trace += moment[i * n + i];
    for (let j = 0; j < i; j++) moment[j * n + i] = moment[i * n + j];
  }
  // Vectors settle to the root of what their values settle to.
  const { values, vectors } = leadingEigenvectors(moment, n, rank, { threads, tolerance: 1e-15 });
  const columns = matrix.length / n;
  const basis: Floats = matrix instanceof Float32Array ? Float32Array.from(vectors) : vectors;
  const make = (length: number): Floats =>
    matrix instanceof Float32Array ? new Float32Array(length) : new Float64Array(length);
  const inner = multiply(basis, matrix, make(rank * columns), { m: rank, n: columns, k: n }, { threads });
  const sizes = { m: n, n: columns, k: rank };
  const projected = multiply(basis, inner, make(matrix.length), sizes, { transposeA: true, threads });
  let held = 0;
  for (const value of values) held += Math.max(0, value);
  return { projected, kept: trace > 0 ? Math.min(1, held / trace) : 1 };
}
