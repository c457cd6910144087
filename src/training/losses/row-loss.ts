import { lossRows, type RowOperation } from '../../kernels/loss-rows.js';
import type { GraphComposer } from '../../models/graph.js';
import type { Loss, LossGradients, LossGraphInputs, LossInput, LossOutput } from '../types.js';
import { checkRows, denseTeacher, refuseRow } from './checks.js';
import { composeRowOperation } from './row-loss-graph.js';

/**
 * Output of a loss of rows.
 *
 * @param allowInfinite an infinite loss is what the definition says, not an error
 * @throws InputError naming tensor, row and column when a row's loss is NaN, or infinite where that is an error
 */
export function rowOutput(
  input: LossInput,
  loss: string,
  perRow: Float64Array,
  validRows: number,
  allowInfinite = false,
): LossOutput {
  let sum = 0;
  for (let row = 0; row < input.rows; row++) {
    const value = perRow[row];
    if (Number.isNaN(value) || (!allowInfinite && !Number.isFinite(value))) refuseRow(input, row, loss, value);
    sum += value;
  }
  return { sum, validRows, perRow };
}

/** A loss computed by one operation of `lossRows`. */
interface KernelLoss {
  readonly name: string;
  readonly operation: RowOperation;
  /** Factor of value and gradient. */
  readonly factor?: number;
  readonly labels: boolean;
  readonly teacher: boolean;
  readonly allowInfinite?: boolean;
}

/** Evaluates a kernel's loss on dense rows. */
export function evaluateRows(plan: KernelLoss, input: LossInput, gradients?: LossGradients): LossOutput {
  const { name, operation, factor = 1 } = plan;
  const validRows = checkRows(input, name, plan.labels);
  const teacher = plan.teacher ? denseTeacher(input, name).logits : undefined;
  const { rows, classes, student, labels } = input;
  const losses = new Float64Array(rows);
  const scale = (gradients?.scale ?? 1) * factor;
  lossRows(operation, { rows, classes, student, teacher, labels, losses, gradient: gradients?.logits, scale });
  if (factor !== 1) for (let row = 0; row < rows; row++) losses[row] *= factor;
  return rowOutput(input, name, losses, validRows, plan.allowInfinite);
}

/** The same in a graph. */
export function composeRows(
  g: GraphComposer,
  { operation, factor = 1 }: Pick<KernelLoss, 'operation' | 'factor'>,
  inputs: LossGraphInputs,
): string {
  const losses = composeRowOperation(g, operation, inputs);
  return factor === 1 ? losses : g.node('Mul', [losses, g.scalar(factor)]);
}

/** The loss of a kernel's operation over labels, full teacher logits, or both. */
export function kernelLoss(plan: KernelLoss): Omit<Loss, 'label'> {
  return {
    scope: 'row',
    reads: { teacher: plan.teacher ? 'dense' : 'none', labels: plan.labels, features: false },
    evaluate: (input, gradients) => evaluateRows(plan, input, gradients),
    compose: (g, inputs) => composeRows(g, plan, inputs),
  };
}
