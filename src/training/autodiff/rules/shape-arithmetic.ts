import { InputError } from '../../../errors.js';
import { TensorProto_DataType as Type } from '../../../formats/onnx_pb.js';
import type { AttributeValue, RuleContext } from '../types.js';

/** What helpers of forward and backward graphs alike need. */
export type Emitter = Pick<RuleContext, 'emit' | 'integers' | 'scalar' | 'shapeOf' | 'precision'>;

export const INT64: AttributeValue = { int: Type.INT64 };

/** Element type of a graph's floats, as Cast takes it. */
export const floatType = (g: Pick<RuleContext, 'precision'>): AttributeValue => ({
  int: g.precision === 'f32' ? Type.FLOAT : Type.DOUBLE,
});

/** A 0-based axis. */
export const positive = (axis: number, rank: number): number => (axis < 0 ? axis + rank : axis);

/** Axes in ascending order from 0. */
export const range = (from: number, to: number): number[] =>
  Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);

/** The extents of some axes at run time, an int64 vector. */
export function extents(g: Emitter, tensor: string, axes: readonly number[]): string {
  return g.emit('Gather', [g.shapeOf(tensor), g.integers(axes)], { axis: { int: 0 } });
}

/** Extents from axis `from` up to `to`, an int64 vector. */
export function extentsBetween(g: Emitter, tensor: string, from: number, to: number): string {
  return g.emit('Shape', [tensor], { start: { int: from }, end: { int: to } });
}

/** One int64 vector of several. */
export function joined(g: Emitter, vectors: readonly string[]): string {
  return vectors.length === 1 ? vectors[0] : g.emit('Concat', vectors, { axis: { int: 0 } });
}

/** Reshapes to exact extents; unlike a plain Reshape, 0 is an extent of 0. */
export function reshaped(g: Emitter, tensor: string, shape: string): string {
  return g.emit('Reshape', [tensor, shape], { allowzero: { int: 1 } });
}

/** The tensor with the shape of another that has as many elements. */
export function reshapedLike(g: Emitter, tensor: string, like: string): string {
  return reshaped(g, tensor, g.shapeOf(like));
}

/** Zeros of the graph's precision with the shape that an int64 vector holds. */
export function zeros(g: Emitter, shape: string): string {
  return g.emit('Expand', [g.scalar(0), shape]);
}

/** Ones as above. */
export function ones(g: Emitter, shape: string): string {
  return g.emit('Expand', [g.scalar(1), shape]);
}

/** Mean over axes, which stay with extent 1. */
export function meanOver(g: Emitter, tensor: string, axes: readonly number[]): string {
  return g.emit('ReduceMean', [tensor, g.integers(axes)], { keepdims: { int: 1 } });
}

/** Sum over axes. */
export function sumOver(g: Emitter, tensor: string, axes: readonly number[], keepDims = true): string {
  return g.emit('ReduceSum', [tensor, g.integers(axes)], { keepdims: { int: keepDims ? 1 : 0 } });
}

/** 0, 1, ..., n - 1 as an int64 vector; `count` is an int64 vector of one element. */
export function counting(g: Emitter, count: string): string {
  const none = g.integers([]);
  return g.emit('Range', [g.integers([0], true), g.emit('Reshape', [count, none]), g.integers([1], true)]);
}

/**
 * Adds `updates` into zeros of extent `extent` along an axis, where `indices` (an int64 vector as long as that axis of
 * `updates`) says which position each slice goes to. ScatterElements, not ScatterND: the runtime adds duplicate indices of
 * ScatterND on several threads without a lock, and loses some of them.
 */
export function scatteredAlong(
  g: Emitter,
  updates: string,
  indices: string,
  axis: number,
  rank: number,
  extent: string,
): string {
  const shape = g.shapeOf(updates);
  const before = g.emit('Slice', [shape, g.integers([0]), g.integers([axis])]);
  const after = g.emit('Slice', [shape, g.integers([axis + 1]), g.integers([rank])]);
  const target = zeros(g, joined(g, [before, extent, after]));
  const spread = range(0, rank).map((a) => (a === axis ? -1 : 1));
  const placed = g.emit('Expand', [g.emit('Reshape', [indices, g.integers(spread)]), shape]);
  return g.emit('ScatterElements', [target, placed, updates], { axis: { int: axis }, reduction: 'add' });
}

/** Number of elements as a floating-point scalar. */
export function elementCount(g: Emitter, tensor: string): string {
  return g.emit('Cast', [g.emit('Size', [tensor])], { to: floatType(g) });
}

/** Attributes of the node that a rule repeats. */
export function copied(
  context: Pick<RuleContext, 'attribute'>,
  names: readonly string[],
): Readonly<Record<string, AttributeValue>> {
  const found: Record<string, AttributeValue> = {};
  for (const name of names) {
    const own = context.attribute(name);
    if (own === undefined) continue;
    if (own.ints.length > 0) found[name] = { ints: own.ints.map(Number) };
    else if (own.s.length > 0) found[name] = new TextDecoder().decode(own.s);
    else found[name] = { int: Number(own.i) };
  }
  return found;
}

/** An error for a form of an operator that its rule does not cover. */
export function refused(context: Pick<RuleContext, 'node'>, reason: string): InputError {
  const { opType, name, output } = context.node;
  return new InputError(`${opType} "${name === '' ? output[0] : name}" has no gradient: ${reason}`);
}
