import type { AttributeValue, RuleContext, RuleTable, VjpRule } from '../types.js';
import {
  copied,
  elementCount,
  extents,
  extentsBetween,
  floatType,
  joined,
  ones,
  range,
  refused,
  reshaped,
  reshapedLike,
  scatteredAlong,
  sumOver,
} from './shape-arithmetic.js';
import { readWindow, runtimePads, type Window } from './windows.js';

const ints = (values: readonly number[]): AttributeValue => ({ ints: values });

/** Cuts the spatial axes to the extents that a vector holds. */
function cropped(g: RuleContext, tensor: string, spatial: string, dims: number): string {
  const axes = g.integers(range(2, 2 + dims));
  return g.emit('Slice', [tensor, g.integers(new Array<number>(dims).fill(0)), spatial, axes]);
}

/** Gradient of the input [N, Cin, ...] of a convolution with explicit pads. */
function inputGradient(g: RuleContext, cotangent: string, weight: string, x: string, window: Window): string {
  const { strides, dilations, group, pads, dims } = window;
  const strided = strides.some((stride) => stride > 1);
  // Rows that no window of the forward pass reached differ by less than a stride: give all of them, and cut.
  const full = g.emit('ConvTranspose', [cotangent, weight], {
    strides: ints(strides),
    dilations: ints(dilations),
    pads: ints(pads),
    group: { int: group },
    ...(strided && { output_padding: ints(strides.map((stride) => stride - 1)) }),
  });
  return strided ? cropped(g, full, extentsBetween(g, x, 2, 2 + dims), dims) : full;
}

/** [N, C, ...] as [C / group, group N, ...], group-major in the second axis. */
function channelsFirst(g: RuleContext, tensor: string, perGroup: string, window: Window): string {
  const { group, dims } = window;
  const rest = range(2, 2 + dims);
  if (group === 1) return g.emit('Transpose', [tensor], { perm: ints([1, 0, ...rest]) });
  const spatial = extentsBetween(g, tensor, 2, 2 + dims);
  const grouped = reshaped(g, tensor, joined(g, [extents(g, tensor, [0]), g.integers([group]), perGroup, spatial]));
  const turned = g.emit('Transpose', [grouped], { perm: ints([2, 1, 0, ...rest.map((axis) => axis + 1)]) });
  return g.emit('Reshape', [turned, joined(g, [perGroup, g.integers([-1]), spatial])]);
}

/**
 * Gradient of the weight [Cout, Cin / group, ...] of a convolution of `input` [N, Cin, ...] to [N, Cout, ...]: a convolution
 * over the batch, with strides and dilations exchanged.
 */
function weightGradient(g: RuleContext, input: string, cotangent: string, weight: string, window: Window): string {
  const { strides, dilations, group, pads, dims } = window;
  const turn = [1, 0, ...range(2, 2 + dims)];
  const kernel = g.emit('Transpose', [cotangent], { perm: ints(turn) });
  const over = g.emit('Conv', [channelsFirst(g, input, extents(g, weight, [1]), window), kernel], {
    strides: ints(dilations),
    dilations: ints(strides),
    pads: ints(pads),
    group: { int: group },
  });
  const strided = strides.some((stride) => stride > 1);
  const own = strided ? cropped(g, over, extentsBetween(g, weight, 2, 2 + dims), dims) : over;
  return g.emit('Transpose', [own], { perm: ints(turn) });
}

const biasGradient = (g: RuleContext, cotangent: string, dims: number): string =>
  sumOver(g, cotangent, [0, ...range(2, 2 + dims)], false);

const conv: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x, weight, bias] = g.inputs;
  const read = readWindow(g, g.dims(weight).slice(2));
  const { dims } = read;
  const hasBias = bias !== undefined && bias !== '';
  const biasOwn = hasBias && g.needs(2) ? biasGradient(g, cotangent, dims) : undefined;
  if (!read.same) {
    return [
      g.needs(0) ? inputGradient(g, cotangent, weight, x, read) : undefined,
      g.needs(1) ? weightGradient(g, x, cotangent, weight, read) : undefined,
      biasOwn,
    ];
  }
  // Pads that depend on the extents are computed, and the rule is that of the padded input.
  const pads = runtimePads(g, x, read);
  const both = joined(g, [pads.begin, pads.end]);
  const axes = g.integers(range(2, 2 + dims));
  const padded = g.emit('Pad', [x, both, '', axes]);
  const window = { ...read, same: undefined, pads: new Array<number>(2 * dims).fill(0) };
  const own = () =>
    g.emit('Pad', [inputGradient(g, cotangent, weight, padded, window), g.emit('Neg', [both]), '', axes]);
  return [
    g.needs(0) ? own() : undefined,
    g.needs(1) ? weightGradient(g, padded, cotangent, weight, window) : undefined,
    biasOwn,
  ];
};

/** The adjoint of a convolution: input and cotangent change places. */
const convTranspose: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x, weight, bias] = g.inputs;
  const window = readWindow(g, g.dims(weight).slice(2));
  const { strides, dilations, group, pads, dims } = window;
  if (window.same || g.attribute('output_shape')) throw refused(g, 'its pads follow from its output; write them out');
  const added = g.intsAttribute('output_padding') ?? [];
  // Rows behind the last stride belong to no window.
  const used = added.some((rows, i) => rows >= strides[i])
    ? g.emit('Pad', [
        cotangent,
        g.integers([...new Array<number>(dims).fill(0), ...added.map((rows, i) => Math.min(0, strides[i] - 1 - rows))]),
        '',
        g.integers(range(2, 2 + dims)),
      ])
    : cotangent;
  const attributes = { strides: ints(strides), dilations: ints(dilations), pads: ints(pads), group: { int: group } };
  return [
    g.needs(0) ? g.emit('Conv', [used, weight], attributes) : undefined,
    g.needs(1) ? weightGradient(g, used, x, weight, window) : undefined,
    bias !== undefined && bias !== '' && g.needs(2) ? biasGradient(g, cotangent, dims) : undefined,
  ];
};

/** The runtime's indices of maxima count over the whole tensor; windows that overlap may share one. */
const maxPool: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x] = g.inputs;
  const shown = g.outputs[1] ?? '';
  const known = shown !== '' && g.intAttribute('storage_order', 0) === 0;
  const attributes = copied(g, ['auto_pad', 'ceil_mode', 'dilations', 'kernel_shape', 'pads', 'strides']);
  const places = known ? shown : g.emitMany('MaxPool', [x], 2, attributes)[1];
  const flat = (tensor: string): string => g.emit('Reshape', [tensor, g.integers([-1])]);
  const size = flat(g.emit('Size', [x]));
  return [reshapedLike(g, scatteredAlong(g, flat(cotangent), flat(places), 0, 1, size), x)];
};

/** Every element of a window gets an equal share. Shares and windows that reach over the edges are as the operator counts. */
const averagePool: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x] = g.inputs;
  const [y] = g.outputs;
  const window = readWindow(g, g.intsAttribute('kernel_shape') ?? []);
  const { strides, dilations, kernel, dims } = window;
  const axes = g.integers(range(2, 2 + dims));
  const pads = runtimePads(g, x, window);
  const extent = extentsBetween(g, x, 2, 2 + dims);
  const shown = extentsBetween(g, y, 2, 2 + dims);
  const one = g.integers([1]);
  // Extents that the windows cover: (o - 1) s + d (k - 1) + 1.
  const reach = g.integers(kernel.map((size, i) => dilations[i] * (size - 1) + 1));
  const covered = g.emit('Add', [g.emit('Mul', [g.emit('Sub', [shown, one]), g.integers(strides)]), reach]);
  const behind = g.emit('Sub', [covered, g.emit('Add', [pads.begin, extent])]);
  const kernelOnes = ones(g, g.integers([1, 1, ...kernel]));
  const attributes = { strides: ints(strides), dilations: ints(dilations) };
  const plain = !window.same && g.intAttribute('ceil_mode', 0) === 0;
  const includesPads = g.intAttribute('count_include_pad', 0) !== 0;
  const counts = (): string => {
    const inside = ones(g, joined(g, [g.integers([1, 1]), extent]));
    const counted = includesPads
      ? g.emit('Pad', [inside, joined(g, [pads.begin, pads.end]), g.scalar(1), axes])
      : inside;
    const zero = g.integers(new Array<number>(dims).fill(0));
    const before = includesPads ? zero : pads.begin;
    const after = includesPads ? g.emit('Sub', [behind, pads.end]) : behind;
    return g.emit('Conv', [g.emit('Pad', [counted, joined(g, [before, after]), '', axes]), kernelOnes], attributes);
  };
  const unpadded = window.pads.every((rows) => rows === 0);
  const count = kernel.reduce((product, size) => product * size, 1);
  const share = plain && (unpadded || includesPads) ? g.scalar(count) : counts();
  const shares = g.emit('Div', [cotangent, share]);
  const planes = g.emit('Reshape', [shares, joined(g, [g.integers([-1, 1]), shown])]);
  const spread = g.emit('ConvTranspose', [planes, kernelOnes], attributes);
  const ends = joined(g, [g.emit('Neg', [pads.begin]), g.emit('Neg', [behind])]);
  return [reshapedLike(g, g.emit('Pad', [spread, ends, '', axes]), x)];
};

const globalAveragePool: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const count = g.emit('Div', [elementCount(g, g.inputs[0]), elementCount(g, g.outputs[0])]);
  return [g.emit('Expand', [g.emit('Div', [cotangent, count]), g.shapeOf(g.inputs[0])])];
};

/** Equal maxima share equally. */
const globalMaxPool: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x] = g.inputs;
  const winners = g.emit('Cast', [g.emit('Equal', [x, g.outputs[0]])], { to: floatType(g) });
  const axes = range(2, g.dims(x).length);
  return [g.emit('Mul', [winners, g.emit('Div', [cotangent, sumOver(g, winners, axes)])])];
};

/** Operators on images and sequences [N, C, ...]. */
export const CONVOLUTION_RULES: RuleTable = {
  Conv: conv,
  ConvTranspose: convTranspose,
  MaxPool: maxPool,
  AveragePool: averagePool,
  GlobalAveragePool: globalAveragePool,
  GlobalMaxPool: globalMaxPool,
};
