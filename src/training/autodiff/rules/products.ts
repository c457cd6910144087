import type { RuleContext, RuleTable, VjpRule } from '../types.js';

/** Matrices with their last two axes exchanged. */
function transposed(context: RuleContext, tensor: string, rank: number): string {
  const perm = Array.from({ length: rank }, (_, axis) => axis);
  [perm[rank - 2], perm[rank - 1]] = [perm[rank - 1], perm[rank - 2]];
  return context.emit('Transpose', [tensor], { perm: { ints: perm } });
}

/** [..., n] as a matrix of all rows. */
const asRows = (context: RuleContext, tensor: string, rank: number): string =>
  rank === 2 ? tensor : context.emit('Flatten', [tensor], { axis: { int: rank - 1 } });

const gemm = (context: RuleContext, a: string, b: string, transA: number, transB: number, alpha = 1): string =>
  context.emit('Gemm', [a, b], { alpha, transA: { int: transA }, transB: { int: transB } });

/** Y = A W for rows of any rank and one matrix: two big products. */
function rowsTimesMatrix(context: RuleContext, g: string): (string | undefined)[] {
  const [a, weight] = context.inputs;
  const rank = context.dims(a).length;
  const rows = asRows(context, g, rank);
  const forRows = (): string => {
    const product = gemm(context, rows, weight, 0, 1);
    return rank === 2 ? product : context.emit('Reshape', [product, context.shapeOf(a)]);
  };
  return [
    context.needs(0) ? forRows() : undefined,
    context.needs(1) ? gemm(context, asRows(context, a, rank), rows, 1, 0) : undefined,
  ];
}

/** dA = g B^T, dB = A^T g, batch axes summed where they were repeated; vectors gain the axis that they lack. */
const matMul: VjpRule = (context) => {
  const [g] = context.cotangents;
  if (g === undefined) return [];
  const [a, b] = context.inputs;
  const [rankA, rankB] = [context.dims(a).length, context.dims(b).length];
  if (rankA >= 2 && rankB === 2) return rowsTimesMatrix(context, g);

  const unsqueeze = (tensor: string, axis: number): string =>
    context.emit('Unsqueeze', [tensor, context.integers([axis])]);
  const left = rankA === 1 ? unsqueeze(a, 0) : a;
  const right = rankB === 1 ? unsqueeze(b, 1) : b;
  let gradient = g;
  if (rankB === 1) gradient = unsqueeze(gradient, -1);
  if (rankA === 1) gradient = unsqueeze(gradient, -2);
  const dimsLeft = rankA === 1 ? [1, ...context.dims(a)] : context.dims(a);
  const dimsRight = rankB === 1 ? [...context.dims(b), 1] : context.dims(b);
  const batch = broadcastBatch(dimsLeft, dimsRight);

  const forOperand = (product: string, operand: string, dims: readonly number[], vectorAxis?: number): string => {
    const summed = sumBatch(context, product, batch, dims);
    return vectorAxis === undefined ? summed : context.emit('Reshape', [summed, context.shapeOf(operand)]);
  };
  return [
    context.needs(0)
      ? forOperand(
          context.emit('MatMul', [gradient, transposed(context, right, dimsRight.length)]),
          a,
          dimsLeft,
          rankA === 1 ? 0 : undefined,
        )
      : undefined,
    context.needs(1)
      ? forOperand(
          context.emit('MatMul', [transposed(context, left, dimsLeft.length), gradient]),
          b,
          dimsRight,
          rankB === 1 ? 1 : undefined,
        )
      : undefined,
  ];
};

/** Batch axes of a product of stacks of matrices, right-aligned. */
function broadcastBatch(a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length) - 2;
  return Array.from({ length: rank }, (_, axis) => {
    const ofA = a[axis - rank + a.length - 2] ?? 1;
    const ofB = b[axis - rank + b.length - 2] ?? 1;
    return ofA === 1 ? ofB : ofA;
  });
}

/** Sums the batch axes that an operand does not have or has once. */
function sumBatch(context: RuleContext, product: string, batch: readonly number[], dims: readonly number[]): string {
  const leading = batch.length + 2 - dims.length;
  const repeated = batch.flatMap((extent, axis) =>
    axis >= leading && dims[axis - leading] === 1 && extent !== 1 ? [axis] : [],
  );
  const added = Array.from({ length: leading }, (_, axis) => axis);
  let summed = product;
  if (repeated.length > 0)
    summed = context.emit('ReduceSum', [summed, context.integers(repeated)], { keepdims: { int: 1 } });
  if (added.length > 0) summed = context.emit('ReduceSum', [summed, context.integers(added)], { keepdims: { int: 0 } });
  return summed;
}

/** Y = alpha op(A) op(B) + beta C. */
const gemmRule: VjpRule = (context) => {
  const [g] = context.cotangents;
  if (g === undefined) return [];
  const [a, b, c] = context.inputs;
  const alpha = context.floatAttribute('alpha', 1);
  const beta = context.floatAttribute('beta', 1);
  const transA = context.intAttribute('transA', 0);
  const transB = context.intAttribute('transB', 0);
  const forA = (): string =>
    transA === 0 ? gemm(context, g, b, 0, 1 - transB, alpha) : gemm(context, b, g, transB, 1, alpha);
  const forB = (): string =>
    transB === 0 ? gemm(context, a, g, 1 - transA, 0, alpha) : gemm(context, g, a, 1, transA, alpha);
  const forC = (): string => {
    const scaled = beta === 1 ? g : context.emit('Mul', [g, context.scalar(beta)]);
    return context.unbroadcast(scaled, c);
  };
  return [
    context.needs(0) ? forA() : undefined,
    context.needs(1) ? forB() : undefined,
    context.needs(2) ? forC() : undefined,
  ];
};

export const PRODUCT_RULES: RuleTable = { MatMul: matMul, Gemm: gemmRule };
