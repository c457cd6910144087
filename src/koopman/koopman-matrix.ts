import { RunError } from '../errors.js';
import { multiply, symmetricRankK } from '../kernels/gemm.js';
import { cholesky, choleskySolve } from '../linalg/cholesky.js';
import type { LatentSequence, Sequences } from './sequences.js';

/** The ridge of the released code. */
export const RIDGE = 0.1;

/**
 * `Z⁺ Z'` `[width, width]` of one sequence, `Z⁺ = (ZᵀZ + ridge I)⁻¹ Zᵀ`; for fewer steps than latents the same matrix by
 * the smaller system, `Zᵀ (ZZᵀ + ridge I)⁻¹ Z'`.
 */
function sequenceMatrix({ steps, z, next }: LatentSequence, width: number, ridge: number): Float64Array {
  const tall = steps >= width;
  const n = tall ? width : steps;
  const gram = symmetricRankK(z, new Float64Array(n * n), { n, k: tall ? steps : width }, { transpose: tall });
  for (let i = 0; i < n; i++) gram[i * n + i] += ridge;
  const factor = cholesky(gram, n);
  if (factor === undefined) {
    throw new RunError(`the latents' second moment is not positive definite with a ridge of ${ridge}; raise --ridge`);
  }
  const result = new Float64Array(width * width);
  const right = tall
    ? multiply(z, next, new Float64Array(width * width), { m: width, n: width, k: steps }, { transposeA: true })
    : next;
  const solved = new Float64Array(n * width);
  const column = new Float64Array(n);
  for (let j = 0; j < width; j++) {
    for (let i = 0; i < n; i++) column[i] = right[i * width + j];
    const x = choleskySolve(factor, n, column);
    for (let i = 0; i < n; i++) solved[i * width + j] = x[i];
  }
  if (tall) return solved;
  return multiply(z, solved, result, { m: width, n: width, k: steps }, { transposeA: true });
}

/**
 * The Koopman matrix C `[width, width]` in row convention, z' = z C: mean over the sequences of their ridge solutions
 * (Cheng et al. 2025, released code). K of the paper's column convention is Cᵀ.
 * @throws RunError when a second moment is singular in spite of the ridge
 */
export function koopmanMatrix(sequences: Sequences, ridge = RIDGE): Float64Array {
  const { width, list } = sequences;
  const mean = new Float64Array(width * width);
  for (const sequence of list) {
    const own = sequenceMatrix(sequence, width, ridge);
    for (let i = 0; i < mean.length; i++) mean[i] += own[i] / list.length;
  }
  return mean;
}

/** Mean over all steps of `‖z' − z C‖²`. */
export function consistencyLoss(sequences: Sequences, c: Float64Array): number {
  const { width, list } = sequences;
  let sum = 0;
  let steps = 0;
  for (const { steps: count, z, next } of list) {
    const predicted = multiply(z, c, new Float64Array(count * width), { m: count, n: width, k: width });
    for (let i = 0; i < predicted.length; i++) sum += (next[i] - predicted[i]) ** 2;
    steps += count;
  }
  return sum / steps;
}

/** Covariance `[width, width]` of the residuals z' − z C around their mean, divided by the number of steps. */
export function residualCovariance(sequences: Sequences, c: Float64Array): Float64Array {
  const { width, list } = sequences;
  const moment = new Float64Array(width * width);
  const mean = new Float64Array(width);
  let steps = 0;
  for (const { steps: count, z, next } of list) {
    const residual = multiply(z, c, new Float64Array(count * width), { m: count, n: width, k: width });
    for (let i = 0; i < residual.length; i++) {
      residual[i] = next[i] - residual[i];
      mean[i % width] += residual[i];
    }
    symmetricRankK(residual, moment, { n: width, k: count }, { transpose: true, beta: 1 });
    steps += count;
  }
  for (let i = 0; i < width; i++) {
    for (let j = 0; j <= i; j++) {
      const value = moment[i * width + j] / steps - (mean[i] / steps) * (mean[j] / steps);
      moment[i * width + j] = value;
      moment[j * width + i] = value;
    }
  }
  return moment;
}
