import { InputError } from '../errors.js';
import { quoted } from '../formats/files.js';
import { DTYPE_BYTES, type DType } from '../formats/tensor.js';
import { widenToF32 } from '../kernels/dtypes.js';
import { symmetricRankK } from '../kernels/gemm.js';
import { symmetricSpectrum } from '../kernels/symmetric-spectrum.js';
import { lowRankFactors, sparseResidual } from '../linalg/low-rank.js';
import { truncatedSvd } from '../linalg/randomized-svd.js';
import { singularValuesOfGram } from '../linalg/rank-measures.js';
import type { Floats } from '../models/layer-runner.js';
import type { CompressSettings, ExpertMatrixPlan } from './compress-plan.js';
import { encodeValues } from './expert-encoding.js';
import type { MatrixFactors } from './factor-journal.js';
import { rowScores, spectrumFigures } from './losparse.js';

/** What the rows of a matrix are weighed with, see `rowScores`. */
export interface RowWeights {
  /** Norms of the inputs [columns] or gradients [rows, columns]. */
  readonly values: Floats;
  /** The expert saw no token: its inputs have no norm. */
  readonly unused: boolean;
}

/** The type factors are stored in: that of the matrix, or what they are multiplied in where the product is stored. */
export const factorType = (form: CompressSettings['form'], dtype: DType): DType => (form === 'dense' ? 'F32' : dtype);

export function widened(bytes: Uint8Array, dtype: DType, threads?: number): Float32Array {
  const values = new Float32Array(bytes.length / DTYPE_BYTES[dtype]);
  widenToF32(bytes, dtype, values, threads);
  return values;
}

/** All singular values, through the Gram matrix of the smaller side. */
function wholeSpectrum(weight: Float32Array, rows: number, columns: number, threads?: number): Float64Array {
  const n = Math.min(rows, columns);
  const gram = new Float64Array(n * n);
  const sizes = { n, k: Math.max(rows, columns) };
  symmetricRankK(weight, gram, sizes, { transpose: columns < rows, strideX: columns, ...(threads && { threads }) });
  return singularValuesOfGram(symmetricSpectrum(gram, n, { ...(threads && { threads }) }), n);
}

function checkFinite({ name }: ExpertMatrixPlan, weight: Float32Array): void {
  for (let i = 0; i < weight.length; i++) {
    if (!Number.isFinite(weight[i])) throw new InputError(`tensor ${quoted(name)}: value ${i} is ${weight[i]}`);
  }
}

/**
 * L and R of a matrix as they will be stored, and what each row of S = W - L R is worth, S of the factors as they are
 * stored.
 * @throws InputError naming the tensor for a value that is not finite
 */
export function factoriseMatrix(
  plan: ExpertMatrixPlan,
  weight: Float32Array,
  settings: CompressSettings,
  weights: RowWeights | undefined,
  threads?: number,
): MatrixFactors {
  const { name, rows, columns, rank } = plan;
  checkFinite(plan, weight);
  const { oversamples, powerIterations, seed } = settings;
  const options = { oversamples, powerIterations, seed, ...(threads !== undefined && { threads }) };
  const { left, right, svd } = lowRankFactors(weight, rows, columns, rank, options);
  const type = factorType(settings.form, plan.dtype);
  const stored = {
    left: encodeValues(Float32Array.from(left), type, `${name}.low_rank_left`, threads),
    right: encodeValues(Float32Array.from(right), type, `${name}.low_rank_right`, threads),
  };
  const residual = sparseResidual(
    weight,
    widened(stored.left, type, threads),
    widened(stored.right, type, threads),
    { rows, columns, rank },
    threads,
  );
  // Without tokens no row of an expert is worth anything; among themselves they are told apart by their size.
  const byMagnitude = weights?.unused === true && settings.scope === 'matrix';
  const score = byMagnitude ? 'magnitude' : settings.score;
  const spectrum = svd.spectrum ?? (settings.spectra ? wholeSpectrum(weight, rows, columns, threads) : undefined);
  return {
    ...stored,
    scores: rowScores(score, residual, rows, columns, weights?.values),
    residualSquares: rowSquares(residual, rows, columns),
    figures: {
      norm: svd.norm,
      largest: spectrum?.[0] ?? svd.values[0] ?? truncatedSvd(weight, rows, columns, 1, options).values[0],
      keptSquares: svd.values.reduce((sum, value) => sum + value * value, 0),
      effectiveRank: spectrum === undefined ? Number.NaN : spectrumFigures(spectrum).effectiveRank,
      exact: svd.path === 'exact' ? 1 : 0,
      unused: weights?.unused ? 1 : 0,
    },
  };
}

function rowSquares(residual: Floats, rows: number, columns: number): Float64Array {
  return Float64Array.from({ length: rows }, (_, row) => {
    let sum = 0;
    for (let c = 0; c < columns; c++) sum += residual[row * columns + c] ** 2;
    return sum;
  });
}

/** Rows of S that stay, as stored, and the square of what rounding changes. */
export interface SparseValues {
  readonly bytes: Uint8Array;
  readonly errorSquares: number;
}

/** S of the rows that stay, [rows kept, columns], rounded once to the type of the matrix. */
export function encodeSparseRows(
  plan: ExpertMatrixPlan,
  weight: Float32Array,
  factors: Pick<MatrixFactors, 'left' | 'right'>,
  kept: Int32Array,
  threads?: number,
): SparseValues {
  const { name, columns, rank, dtype } = plan;
  const rows = kept.length;
  const left = widened(factors.left, dtype, threads);
  const chosenLeft = new Float32Array(rows * rank);
  const chosen = new Float32Array(rows * columns);
  kept.forEach((row, i) => {
    chosenLeft.set(left.subarray(row * rank, (row + 1) * rank), i * rank);
    chosen.set(weight.subarray(row * columns, (row + 1) * columns), i * columns);
  });
  const right = widened(factors.right, dtype, threads);
  const residual = Float32Array.from(sparseResidual(chosen, chosenLeft, right, { rows, columns, rank }, threads));
  const bytes = encodeValues(residual, dtype, `${name}.sparse_values`, threads);
  const read = widened(bytes, dtype, threads);
  let errorSquares = 0;
  for (let i = 0; i < read.length; i++) errorSquares += (residual[i] - read[i]) ** 2;
  return { bytes, errorSquares };
}
