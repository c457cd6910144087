import { lowRankProduct } from '../linalg/low-rank.js';
import { widened } from './compress-matrix.js';
import type { ExpertMatrixPlan } from './compress-plan.js';
import { encodeValues } from './expert-encoding.js';
import type { ExpertModel } from './expert-model.js';
import { turnBlock } from './expert-reader.js';
import type { MatrixFactors } from './factor-journal.js';

/** W' = L R + S as it is stored, [rows, columns], and ||W - W'||^2. Rows that stay are those of W. */
export function multipliedOut(
  plan: ExpertMatrixPlan,
  weight: Float32Array,
  { left, right }: Pick<MatrixFactors, 'left' | 'right'>,
  kept: Int32Array,
  threads?: number,
): { readonly values: Float32Array; readonly errorSquares: number } {
  const { rows, columns, rank, dtype, name } = plan;
  const [l, r] = [left, right].map((bytes) => widened(bytes, 'F32', threads));
  const product = Float32Array.from(lowRankProduct(l, r, { rows, columns, rank }, threads));
  for (const row of kept) product.set(weight.subarray(row * columns, (row + 1) * columns), row * columns);
  const values = widened(encodeValues(product, dtype, name, threads), dtype, threads);
  let errorSquares = 0;
  for (let i = 0; i < values.length; i++) errorSquares += (weight[i] - values[i]) ** 2;
  return { values, errorSquares };
}

/** Matrices of one tensor by expert: [gate, up] or a single one. */
function byExpert(matrices: readonly ExpertMatrixPlan[]): ExpertMatrixPlan[][] {
  const experts = new Map<number, ExpertMatrixPlan[]>();
  for (const matrix of matrices) experts.set(matrix.expert, [...(experts.get(matrix.expert) ?? []), matrix]);
  return [...experts.values()];
}

/**
 * Bytes of a stored tensor, expert by expert, from matrices [out, in]: as they are, or turned and side by side where the files
 * hold [in, out].
 */
export function* denseTensorBytes(
  layout: ExpertModel['layout'],
  matrices: readonly ExpertMatrixPlan[],
  valuesOf: (matrix: ExpertMatrixPlan) => Float32Array,
  threads?: number,
): Generator<Uint8Array, void, undefined> {
  for (const own of byExpert(matrices)) {
    if (layout !== 'fused-columns') {
      for (const matrix of own) yield encodeValues(valuesOf(matrix), matrix.dtype, matrix.name, threads);
      continue;
    }
    const [{ columns: height, dtype, name }] = own;
    const width = own.reduce((sum, { rows }) => sum + rows, 0);
    const block = new Float32Array(height * width);
    let from = 0;
    for (const matrix of own) {
      const source = { stride: height, from: 0, rows: matrix.rows, columns: height };
      turnBlock(valuesOf(matrix), source, block, width, from);
      from += matrix.rows;
    }
    yield encodeValues(block, dtype, name, threads);
  }
}
