import type { RuleContext, RuleTable, VjpRule } from '../types.js';

interface Reduction {
  /** Axes as non-negative numbers, ascending. */
  readonly axes: readonly number[];
  readonly keepsAxes: boolean;
}

function reductionOf(context: RuleContext): Reduction | 'none' {
  const [x, given] = context.inputs;
  const rank = context.dims(x).length;
  const axes = given === undefined || given === '' ? context.intsAttribute('axes') : context.constantIntegers(given);
  if (given && axes === undefined) throw new TypeError(`the axes of ${context.node.name} are computed from the data`);
  const keepsAxes = context.intAttribute('keepdims', 1) === 1;
  if (axes === undefined || axes.length === 0) {
    if (context.intAttribute('noop_with_empty_axes', 0) === 1) return 'none';
    return { axes: Array.from({ length: rank }, (_, axis) => axis), keepsAxes };
  }
  return { axes: axes.map((axis) => (axis < 0 ? axis + rank : axis)).sort((a, b) => a - b), keepsAxes };
}

/** A reduced tensor with its axes of extent 1 in place, so that it broadcasts against the input. */
function withAxes(context: RuleContext, tensor: string, reduction: Reduction): string {
  if (reduction.keepsAxes) return tensor;
  return context.emit('Unsqueeze', [tensor, context.integers(reduction.axes)]);
}

/** Number of elements behind each result, as a floating-point scalar. */
function countOf(context: RuleContext, reduction: Reduction): string {
  const extents = context.emit('Gather', [context.shapeOf(context.inputs[0]), context.integers(reduction.axes)]);
  const count = context.emit('ReduceProd', [extents], { keepdims: { int: 0 } });
  return castLike(context, count);
}

const castLike = (context: RuleContext, tensor: string): string =>
  context.emit('CastLike', [tensor, context.cotangents[0] ?? '']);

/** A rule from the derivative: `write` gives it from the cotangent with its axes and the reduction. */
const reduction =
  (
    write: (context: RuleContext, g: string, reduction: Reduction) => string,
    whole: (context: RuleContext, g: string) => string,
  ): VjpRule =>
  (context) => {
    const [g] = context.cotangents;
    if (g === undefined) return [];
    const found = reductionOf(context);
    if (found === 'none') return [whole(context, g)];
    return [write(context, withAxes(context, g, found), found)];
  };

const identity = (_: RuleContext, g: string): string => g;
const times = (context: RuleContext, a: string, b: string): string => context.emit('Mul', [a, b]);
const expandToInput = (context: RuleContext, g: string): string =>
  context.emit('Expand', [g, context.shapeOf(context.inputs[0])]);

/** The result with its axes. */
const result = (context: RuleContext, found: Reduction): string => withAxes(context, context.outputs[0], found);

/** 1 where the element is the extreme one, shared equally among ties. */
function shareOfExtreme(context: RuleContext, found: Reduction): string {
  const mask = castLike(context, context.emit('Equal', [context.inputs[0], result(context, found)]));
  const ties = context.emit('ReduceSum', [mask, context.integers(found.axes)], { keepdims: { int: 1 } });
  return context.emit('Div', [mask, ties]);
}

const extreme = reduction((context, g, found) => times(context, g, shareOfExtreme(context, found)), identity);

/** a / b, and 0 where b is 0. */
function ratioOrZero(context: RuleContext, a: string, b: string): string {
  const zero = context.scalar(0);
  const isZero = context.emit('Equal', [b, zero]);
  return context.emit('Where', [
    isZero,
    zero,
    context.emit('Div', [a, context.emit('Where', [isZero, context.scalar(1), b])]),
  ]);
}

/** Product of the other elements: by prefix and suffix products, so that zeros are exact. One axis only, as in ONNX exports. */
const reduceProd: VjpRule = reduction((context, g, found) => {
  const [x] = context.inputs;
  const zero = context.emit('Equal', [x, context.scalar(0)]);
  const others = context.emit('Where', [zero, context.scalar(1), x]);
  const axes = context.integers(found.axes);
  const keep = { keepdims: { int: 1 } };
  const product = context.emit('ReduceProd', [others, axes], keep);
  const zeros = context.emit('ReduceSum', [castLike(context, zero), axes], keep);
  // Without a zero all others count; with one zero only that element; with two, nothing.
  const none = castLike(context, context.emit('Equal', [zeros, context.scalar(0)]));
  const one = castLike(context, context.emit('Equal', [zeros, context.scalar(1)]));
  const share = context.emit('Where', [zero, one, none]);
  return times(context, times(context, g, share), context.emit('Div', [product, others]));
}, identity);

export const REDUCTION_RULES: RuleTable = {
  ReduceSum: reduction((context, g) => expandToInput(context, g), identity),
  ReduceMean: reduction(
    (context, g, found) => expandToInput(context, context.emit('Div', [g, countOf(context, found)])),
    identity,
  ),
  ReduceMax: extreme,
  ReduceMin: extreme,
  ReduceProd: reduceProd,
  ReduceL1: reduction(
    (context, g) => times(context, g, context.emit('Sign', [context.inputs[0]])),
    (context, g) => times(context, g, context.emit('Sign', [context.inputs[0]])),
  ),
  ReduceL2: reduction(
    (context, g, found) => times(context, g, ratioOrZero(context, context.inputs[0], result(context, found))),
    (context, g) => times(context, g, context.emit('Sign', [context.inputs[0]])),
  ),
  ReduceSumSquare: reduction(
    (context, g) => times(context, times(context, g, context.scalar(2)), context.inputs[0]),
    (context, g) => times(context, times(context, g, context.scalar(2)), context.inputs[0]),
  ),
  ReduceLogSum: reduction(
    (context, g, found) =>
      expandToInput(context, context.emit('Div', [g, context.emit('Exp', [result(context, found)])])),
    (context, g) => context.emit('Div', [g, context.inputs[0]]),
  ),
  ReduceLogSumExp: reduction(
    (context, g, found) =>
      times(context, g, context.emit('Exp', [context.emit('Sub', [context.inputs[0], result(context, found)])])),
    identity,
  ),
};
