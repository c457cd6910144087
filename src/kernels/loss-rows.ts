/**
 * Losses of rows of logits with their gradients: cross-entropy, divergences from a teacher's softmax, comp-sum losses.
 * All sums are in float64; rows are independent, so the bits are the same for any number of threads.
 */
import { type Floats, type LossRows, lossRowsReference, type RowOperation } from './loss-rows-reference.js';
import { kernelThreads, nativeKernels } from './native.js';
import { type SparseRows, sparseRowsReference } from './sparse-rows-reference.js';

export type { Floats, LossRows, RowOperation } from './loss-rows-reference.js';
export type { LeftoverRule, SparseRows } from './sparse-rows-reference.js';

/** Operations in the order of the native kernel's numbers. */
const ROW_OPERATIONS: readonly RowOperation['kind'][] = [
  'cross-entropy',
  'forward-kl',
  'reverse-kl',
  'jsd',
  'total-variation',
  'comp-sum',
];

/** The operation's two numbers, as the native kernel takes them. */
function numbersOf(operation: RowOperation): readonly [number, number] {
  switch (operation.kind) {
    case 'cross-entropy':
      return [operation.smoothing, 0];
    case 'comp-sum':
      return [operation.tau, 0];
    case 'jsd':
      return [operation.temperature, operation.beta];
    default:
      return [operation.temperature, 0];
  }
}

const readsTeacher = ({ kind }: RowOperation): boolean => kind !== 'cross-entropy' && kind !== 'comp-sum';

const doubles = (values: Floats): Float64Array => (values instanceof Float64Array ? values : Float64Array.from(values));

/** Whether all arrays have one width, which the native kernel needs. */
const sameWidth = (first: Floats, ...others: readonly (Floats | undefined)[]): boolean =>
  others.every((other) => other === undefined || other instanceof Float64Array === first instanceof Float64Array);

/**
 * Writes the loss of every row and adds its gradient. A row whose logits hold NaN or +Infinity, or only -Infinity, has
 * loss NaN; one whose loss is infinite has Infinity. The caller judges both. Labels are below `classes`.
 */
export function lossRows(operation: RowOperation, request: LossRows, threads?: number): void {
  const { rows, classes, student, labels, losses, gradient, scale = 1 } = request;
  const teacher = readsTeacher(operation) ? request.teacher : undefined;
  const native = nativeKernels();
  const labelled = readsTeacher(operation) || labels !== undefined;
  if (native === undefined || !labelled || classes < 1 || !sameWidth(student, teacher, gradient)) {
    lossRowsReference(operation, request);
    return;
  }
  const [first, second] = numbersOf(operation);
  const wide = student instanceof Float64Array ? 1 : 0;
  native.lossRows(
    ...([wide, ROW_OPERATIONS.indexOf(operation.kind), rows, classes, student, teacher ?? null] as const),
    ...([labels ?? null, losses, gradient ?? null, scale, first, second, kernelThreads(threads)] as const),
  );
}

/** KL(q || p_s) per row from a teacher's top-k rows to the student, at a temperature, as `LeftoverRule` says. */
export function sparseRows(request: SparseRows, threads?: number): void {
  const { rows, classes, student, k, ids, labels, losses, gradient, scale = 1, temperature } = request;
  const native = nativeKernels();
  if (native === undefined || classes < 1 || !sameWidth(student, gradient)) {
    sparseRowsReference(request);
    return;
  }
  const wide = student instanceof Float64Array ? 1 : 0;
  const grouped = request.rule === 'symmetric-uniform' ? 1 : 0;
  native.sparseRows(
    ...([wide, rows, classes, student, k, ids, doubles(request.logProbs), doubles(request.leftover)] as const),
    ...([labels ?? null, losses, gradient ?? null, scale, temperature, grouped, kernelThreads(threads)] as const),
  );
}
