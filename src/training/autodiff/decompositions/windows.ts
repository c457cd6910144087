import { counting, extents, INT64, joined, ones, range } from '../rules/shape-arithmetic.js';
import { readWindow, runtimePads, type Window } from '../rules/windows.js';
import type { Decomposition, DecompositionContext } from '../types.js';
import { erfGraph } from './erf.js';

/** Opens an operator only where the runtime has no double kernel of it. */
const inDouble =
  (write: (g: DecompositionContext) => string | undefined): Decomposition =>
  (g) => {
    if (g.precision !== 'f64') return false;
    const value = write(g);
    if (value === undefined) return false;
    g.define(0, value);
    return true;
  };

const times = (g: DecompositionContext, x: string, factor: number): string => g.emit('Mul', [x, g.scalar(factor)]);

/** x Phi(x), with the error function or the tanh approximation. */
export function geluGraph(g: DecompositionContext, x: string, approximation: string): string {
  const inner =
    approximation === 'tanh'
      ? g.emit('Tanh', [
          times(
            g,
            g.emit('Add', [x, times(g, g.emit('Mul', [x, g.emit('Mul', [x, x])]), 0.044715)]),
            Math.sqrt(2 / Math.PI),
          ),
        ])
      : errorFunction(g, times(g, x, Math.SQRT1_2));
  return g.emit('Mul', [times(g, x, 0.5), g.emit('Add', [inner, g.scalar(1)])]);
}

const errorFunction = (g: DecompositionContext, x: string): string =>
  g.precision === 'f64' ? erfGraph(g, x) : g.emit('Erf', [x]);

/** All offsets inside a kernel, row-major. */
function offsetsOf(kernel: readonly number[]): number[][] {
  let offsets: number[][] = [[]];
  for (const size of kernel) offsets = offsets.flatMap((before) => range(0, size).map((at) => [...before, at]));
  return offsets;
}

/** What every window sees at one offset of its kernel: [N, C, o...] of a padded input. */
function seenAt(g: DecompositionContext, padded: string, offset: readonly number[], window: Window): string {
  const { kernel, strides, dilations, dims } = window;
  const starts = offset.map((at, i) => at * dilations[i]);
  // From the end: what the last offset of the kernel still reaches beyond this one.
  const ends = offset.map((at, i) => (at === kernel[i] - 1 ? 2 ** 31 - 1 : -(kernel[i] - 1 - at) * dilations[i]));
  const vectors = [starts, ends, range(2, 2 + dims), strides].map((values) => g.integers(values));
  return g.emit('Slice', [padded, ...vectors]);
}

function padded(g: DecompositionContext, x: string, window: Window, value: number): string {
  if (window.same === undefined && window.pads.every((rows) => rows === 0)) return x;
  const { begin, end } = runtimePads(g, x, window);
  return g.emit('Pad', [x, joined(g, [begin, end]), g.scalar(value), g.integers(range(2, 2 + window.dims))]);
}

/** Convolution of a padded input as products of patches: [N, Cin, ...] with [Cout, Cin / group, k...]. */
function convolved(g: DecompositionContext, x: string, weight: string, window: Window): string {
  const { kernel, group, dims } = window;
  const offsets = offsetsOf(kernel);
  const seen = offsets.map((offset) => seenAt(g, x, offset, window));
  const place = g.integers([2]);
  const patches = g.emit(
    'Concat',
    seen.map((slice) => g.emit('Unsqueeze', [slice, place])),
    { axis: { int: 2 } },
  );
  const depth = g.emit('Mul', [extents(g, weight, [1]), g.integers([offsets.length])]);
  const grouped = g.integers([group]);
  const rest = g.integers([-1]);
  const batch = extents(g, x, [0]);
  const columns = g.emit('Reshape', [patches, joined(g, [batch, grouped, depth, rest])]);
  const rows = g.emit('Reshape', [weight, joined(g, [grouped, rest, depth])]);
  const product = g.emit('MatMul', [rows, columns]);
  const spatial = extents(g, seen[0], range(2, 2 + dims));
  return g.emit('Reshape', [product, joined(g, [batch, extents(g, weight, [0]), spatial])]);
}

function withBias(g: DecompositionContext, y: string, bias: string | undefined, dims: number): string {
  if (bias === undefined || bias === '') return y;
  return g.emit('Add', [y, g.emit('Reshape', [bias, g.integers([-1, ...new Array<number>(dims).fill(1)])])]);
}

function conv(g: DecompositionContext): string | undefined {
  const [x, weight, bias] = g.inputs;
  const window = readWindow(g, []);
  if (window.dims === 0) return undefined;
  return withBias(g, convolved(g, padded(g, x, window, 0), weight, window), bias, window.dims);
}

/** Rows of zeros between the rows of every spatial axis, stride - 1 of them. */
function spread(g: DecompositionContext, x: string, { strides, dims }: Window): string {
  let result = x;
  strides.forEach((stride, i) => {
    if (stride === 1) return;
    const axis = 2 + i;
    const behind = g.emit('Unsqueeze', [result, g.integers([axis + 1])]);
    const zeros = g.emit('Pad', [behind, g.integers([0, stride - 1]), g.scalar(0), g.integers([axis + 1])]);
    const around = range(0, 2 + dims).map((a) => extents(g, result, [a]));
    around[axis] = g.emit('Mul', [around[axis], g.integers([stride])]);
    const merged = g.emit('Reshape', [zeros, joined(g, around)]);
    const vectors = [[0], [1 - stride], [axis]].map((values) => g.integers(values));
    result = g.emit('Slice', [merged, ...vectors]);
  });
  return result;
}

/** The convolution of the spread input with the turned kernel. */
function convTranspose(g: DecompositionContext): string | undefined {
  const [x, weight, bias] = g.inputs;
  const window = readWindow(g, []);
  const { kernel, dilations, pads, group, dims } = window;
  if (dims === 0 || window.same !== undefined || g.attribute('output_shape')) return undefined;
  const added = g.intsAttribute('output_padding') ?? kernel.map(() => 0);
  const reach = kernel.map((size, i) => dilations[i] * (size - 1));
  const around = [
    ...reach.map((rows, i) => rows - pads[i]),
    ...reach.map((rows, i) => rows - pads[dims + i] + added[i]),
  ];
  const wide = g.emit('Pad', [spread(g, x, window), g.integers(around), g.scalar(0), g.integers(range(2, 2 + dims))]);
  const axes = range(0, dims);
  const backwards = [axes.map(() => -1), axes.map(() => -(2 ** 31) + 1), axes.map((a) => a + 2), axes.map(() => -1)];
  const turned = g.emit('Slice', [weight, ...backwards.map((values) => g.integers(values))]);
  const spatial = g.integers(kernel);
  const rest = g.integers([-1]);
  const outputs = extents(g, weight, [1]);
  const grouped = g.emit('Reshape', [turned, joined(g, [g.integers([group]), rest, outputs, spatial])]);
  const perm = { ints: [0, 2, 1, ...axes.map((a) => a + 3)] };
  const inputs = g.emit('Div', [extents(g, weight, [0]), g.integers([group])]);
  const kernels = g.emit('Reshape', [g.emit('Transpose', [grouped], { perm }), joined(g, [rest, inputs, spatial])]);
  const plain: Window = { ...window, strides: axes.map(() => 1), pads: new Array<number>(2 * dims).fill(0) };
  return withBias(g, convolved(g, wide, kernels, plain), bias, dims);
}

const total = (g: DecompositionContext, terms: readonly string[]): string =>
  terms.length === 1 ? terms[0] : g.emit('Sum', terms);

function averagePool(g: DecompositionContext): string | undefined {
  const [x] = g.inputs;
  const window = readWindow(g, []);
  const { dims, kernel } = window;
  if (dims === 0 || g.intAttribute('ceil_mode', 0) !== 0) return undefined;
  const offsets = offsetsOf(kernel);
  const sumOf = (tensor: string): string =>
    total(
      g,
      offsets.map((offset) => seenAt(g, tensor, offset, window)),
    );
  const sum = sumOf(padded(g, x, window, 0));
  const unpadded = window.same === undefined && window.pads.every((rows) => rows === 0);
  const whole = unpadded || g.intAttribute('count_include_pad', 0) !== 0;
  if (whole) return g.emit('Div', [sum, g.scalar(offsets.length)]);
  const inside = ones(g, joined(g, [g.integers([1, 1]), extents(g, x, range(2, 2 + dims))]));
  return g.emit('Div', [sum, sumOf(padded(g, inside, window, 0))]);
}

/** A pool over all spatial axes, whatever their number: [N, C, ...] to [N, C, 1, ...]. */
function globalPool(g: DecompositionContext, reduction: string): string {
  const [x] = g.inputs;
  const flat = g.emit('Reshape', [x, g.integers([0, 0, -1])]);
  const reduced = g.emit(reduction, [flat, g.integers([2])], { keepdims: { int: 1 } });
  const rank = g.emit('Shape', [g.shapeOf(x)]);
  const trailing = g.emit('Expand', [g.integers([1]), g.emit('Sub', [rank, g.integers([2])])]);
  return g.emit('Reshape', [reduced, joined(g, [extents(g, x, [0, 1]), trailing])]);
}

/** The hot class lies on the last axis; others need the rank. */
function oneHot(g: DecompositionContext): string | undefined {
  const [indices, depth, values] = g.inputs;
  if (g.intAttribute('axis', -1) !== -1) return undefined;
  const count = g.emit('Reshape', [g.emit('Cast', [depth], { to: INT64 }), g.integers([1])]);
  const places = g.emit('Unsqueeze', [g.emit('Cast', [indices], { to: INT64 }), g.integers([-1])]);
  const wrapped = g.emit('Where', [g.emit('Less', [places, g.integers([0])]), g.emit('Add', [places, count]), places]);
  const [off, on] = [0, 1].map((i) => g.emit('Gather', [values, g.integers([i])], { axis: { int: 0 } }));
  return g.emit('Where', [g.emit('Equal', [wrapped, counting(g, count)]), on, off]);
}

/** Operators of which the runtime has no double kernel, in operators of which it has one. */
export const WINDOW_DECOMPOSITIONS: Readonly<Record<string, Decomposition>> = {
  Erf: inDouble((g) => erfGraph(g, g.inputs[0])),
  Gelu: inDouble((g) => geluGraph(g, g.inputs[0], g.stringAttribute('approximate', 'none'))),
  'com.microsoft::Gelu': inDouble((g) => geluGraph(g, g.inputs[0], 'none')),
  PRelu: inDouble((g) => {
    const [x, slope] = g.inputs;
    return g.emit('Where', [g.emit('Greater', [x, g.scalar(0)]), x, g.emit('Mul', [x, slope])]);
  }),
  Conv: inDouble(conv),
  ConvTranspose: inDouble(convTranspose),
  AveragePool: inDouble(averagePool),
  GlobalAveragePool: inDouble((g) => globalPool(g, 'ReduceMean')),
  GlobalMaxPool: inDouble((g) => globalPool(g, 'ReduceMax')),
  OneHot: inDouble(oneHot),
};
