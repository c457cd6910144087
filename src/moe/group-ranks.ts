import { symmetricRankK } from '../kernels/gemm.js';
import { symmetricSpectrum } from '../kernels/symmetric-spectrum.js';
import { rankMeasures, singularValuesOfGram } from '../linalg/rank-measures.js';
import type { Floats } from '../models/layer-runner.js';
import type { RankRecord } from './merge-record.js';
import type { ExpertMatrices, ExpertShape } from './types.js';

/** The smaller side of an expert's matrices up to which ranks are told without being asked for. */
export const CHEAP_RANK_SIDE = 1024;

/**
 * Stable rank ||W||_F^2 / sigma_1^2 and effective rank exp(H(sigma^2 / sum)), means over the matrices of an expert, from
 * the eigenvalues of the smaller Gram matrix. The paper's observation (MC-SMoE 2023, section 3.3): merging lowers them.
 */
export function expertRanks(expert: ExpertMatrices, shape: ExpertShape, threads?: number): RankRecord {
  const { hidden, width } = shape;
  const matrices: [Floats, number][] = [
    ...(expert.gate ? [[expert.gate, width] as [Floats, number]] : []),
    [expert.up, width],
    [expert.down, hidden],
  ];
  let stable = 0;
  let effective = 0;
  for (const [matrix, rows] of matrices) {
    const columns = matrix.length / rows;
    const n = Math.min(rows, columns);
    const doubles = matrix instanceof Float64Array ? matrix : Float64Array.from(matrix);
    const options = { transpose: rows > columns, ...(threads !== undefined && { threads }) };
    const gram = symmetricRankK(doubles, new Float64Array(n * n), { n, k: Math.max(rows, columns) }, options);
    for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) gram[j * n + i] = gram[i * n + j];
    const measures = rankMeasures(singularValuesOfGram(symmetricSpectrum(gram, n), n));
    stable += measures.stableRank / matrices.length;
    effective += measures.effectiveRankSquared / matrices.length;
  }
  return { stable_rank: stable, effective_rank: effective };
}
