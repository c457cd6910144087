/**
 * Losses of rows of logits with their gradients: cross-entropy, divergences from a teacher's softmax, comp-sum losses.
 * One pass over each row for the sums and one for the gradient; sums in float64.
 */
import { type LossRows, lossRowsReference, type RowOperation } from './loss-rows-reference.js';
import { type SparseRows, sparseRowsReference } from './sparse-rows-reference.js';

export type { Floats, LossRows, RowOperation } from './loss-rows-reference.js';
export type { LeftoverRule, SparseRows } from './sparse-rows-reference.js';

/**
 * Writes the loss of every row and adds its gradient. A row whose logits hold NaN or +Infinity, or only -Infinity, has
 * loss NaN; one whose loss is infinite has Infinity. The caller judges both.
 */
export function lossRows(operation: RowOperation, request: LossRows): void {
  lossRowsReference(operation, request);
}

/** KL(q || p_s) per row from a teacher's top-k rows to the student, at a temperature, as `LeftoverRule` says. */
export function sparseRows(request: SparseRows): void {
  sparseRowsReference(request);
}
