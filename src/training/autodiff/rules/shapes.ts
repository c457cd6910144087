import type { RuleContext, RuleTable, VjpRule } from '../types.js';
import {
  counting,
  extents,
  extentsBetween,
  INT64,
  joined,
  positive,
  range,
  refused,
  reshaped,
  reshapedLike,
  scatteredAlong,
  sumOver,
} from './shape-arithmetic.js';

/** The gradient of an operator that moves elements without changing their order. */
const reshapes: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  return [cotangent && reshapedLike(g, cotangent, g.inputs[0])];
};

const transpose: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const rank = g.dims(g.inputs[0]).length;
  const permutation = g.intsAttribute('perm') ?? range(0, rank).reverse();
  const inverse = new Array<number>(rank).fill(0);
  permutation.forEach((from, to) => {
    inverse[from] = to;
  });
  return [g.emit('Transpose', [cotangent], { perm: { ints: inverse } })];
};

const expand: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  return [cotangent && g.unbroadcast(cotangent, g.inputs[0])];
};

/** Repetitions and extents alternate in the shape of the cotangent; the repetitions are summed. */
const tile: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x, repeats] = g.inputs;
  const rank = g.dims(x).length;
  if (rank === 0) return [cotangent];
  const column = g.integers([1]);
  const pairs = [repeats, g.shapeOf(x)].map((vector) => g.emit('Unsqueeze', [vector, column]));
  const shape = g.emit('Reshape', [g.emit('Concat', pairs, { axis: { int: 1 } }), g.integers([-1])]);
  const axes = range(0, rank).map((axis) => 2 * axis);
  return [sumOver(g, reshaped(g, cotangent, shape), axes, false)];
};

const concat: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const axis = positive(g.intAttribute('axis', 0), g.dims(g.outputs[0]).length);
  const sizes = joined(
    g,
    g.inputs.map((input) => extents(g, input, [axis])),
  );
  return g.emitMany('Split', [cotangent, sizes], g.inputs.length, { axis: { int: axis } });
};

const split: VjpRule = (g) => {
  if (g.cotangents.every((cotangent) => cotangent === undefined)) return [];
  const parts = g.outputs.map((output, i) => g.cotangents[i] ?? g.zerosLike(output));
  return [parts.length === 1 ? parts[0] : g.emit('Concat', parts, { axis: { int: g.intAttribute('axis', 0) } })];
};

/** Axes that a node names by an input, all where it names none. */
function namedAxes(g: RuleContext, input: string | undefined, rank: number, count: number): readonly number[] {
  if (input === undefined || input === '') return range(0, count);
  const axes = g.constantIntegers(input);
  if (axes === undefined) throw refused(g, 'its axes depend on the data');
  return axes.map((axis) => positive(axis, rank));
}

/**
 * Constant padding is undone by the negative padding, whether it adds or crops. The other modes read an element several
 * times: padding a row of indices says from where, axis by axis.
 */
const pad: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x, pads, , axesInput] = g.inputs;
  const mode = g.stringAttribute('mode', 'constant');
  if (mode === 'constant') {
    const axes = axesInput ? [axesInput] : [];
    const own = g.emit('Pad', [cotangent, g.emit('Neg', [pads]), ...(axes.length > 0 ? ['', ...axes] : [])]);
    if (!g.needs(2)) return [own];
    const added = ['ReduceSum', 'ReduceSum'].map((sum, i) =>
      g.emit(sum, [[cotangent, own][i]], { keepdims: { int: 0 } }),
    );
    return [own, undefined, reshapedLike(g, g.emit('Sub', added), g.inputs[2])];
  }
  const rank = g.dims(x).length;
  const axes = namedAxes(g, axesInput, rank, rank);
  const fixed = g.constantIntegers(pads);
  let gradient = cotangent;
  axes.forEach((axis, i) => {
    if (fixed && fixed[i] === 0 && fixed[i + axes.length] === 0) return;
    const ends = g.emit('Gather', [pads, g.integers([i, i + axes.length])], { axis: { int: 0 } });
    const extent = extents(g, x, [axis]);
    const from = g.emit('Pad', [counting(g, extent), ends], { mode });
    gradient = scatteredAlong(g, gradient, from, axis, rank, extent);
  });
  return [gradient];
};

interface SliceBounds {
  readonly axes: readonly number[];
  readonly starts: string;
  readonly ends: string;
  /** Empty where all steps are 1. */
  readonly steps: string;
}

function sliceBounds(g: RuleContext): SliceBounds {
  const [x, starts, ends, axes, steps = ''] = g.inputs;
  const count = g.dims(starts)[0] ?? 1;
  const known = steps === '' ? [] : g.constantIntegers(steps);
  return {
    axes: namedAxes(g, axes, g.dims(x).length, count),
    starts,
    ends,
    steps: known?.every((step) => step === 1) ? '' : steps,
  };
}

const FARTHEST = 2 ** 52;

/** One element of a vector, an int64 vector of one. */
const entry = (g: RuleContext, vector: string, i: number): string => {
  const known = g.constantIntegers(vector)?.[i];
  // "To the end" is written as the largest integer, which a double cannot hold.
  const bounded = known !== undefined && Math.max(-FARTHEST, Math.min(known, FARTHEST));
  if (bounded !== false) return g.integers([bounded]);
  return g.emit('Gather', [g.emit('Cast', [vector], { to: INT64 }), g.integers([i])], { axis: { int: 0 } });
};

/** Elements in front of a slice of step 1, an int64 vector of one. */
function elementsBefore(g: RuleContext, start: string, i: number, extent: string): string {
  const zero = g.integers([0]);
  const known = g.constantIntegers(start)?.[i];
  if (known === 0) return zero;
  const value = entry(g, start, i);
  const fromEnd = g.emit('Max', [g.emit('Add', [value, extent]), zero]);
  const fromStart = g.emit('Min', [value, extent]);
  if (known !== undefined) return known < 0 ? fromEnd : fromStart;
  return g.emit('Where', [g.emit('Less', [value, zero]), fromEnd, fromStart]);
}

/** Steps of 1 are undone by padding; others scatter along one axis after another. */
const slice: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x] = g.inputs;
  const [y] = g.outputs;
  const rank = g.dims(x).length;
  const { axes, starts, ends, steps } = sliceBounds(g);
  if (steps === '') {
    const before = new Array<string>(rank).fill(g.integers([0]));
    const after = [...before];
    axes.forEach((axis, i) => {
      const extent = extents(g, x, [axis]);
      before[axis] = elementsBefore(g, starts, i, extent);
      const shown = g.emit('Add', [before[axis], extents(g, y, [axis])]);
      after[axis] = g.emit('Sub', [extent, shown]);
    });
    return [g.emit('Pad', [cotangent, joined(g, [...before, ...after])])];
  }
  let gradient = cotangent;
  axes.forEach((axis, i) => {
    const extent = extents(g, x, [axis]);
    const bounds = [starts, ends].map((vector) => entry(g, vector, i));
    const from = g.emit('Slice', [counting(g, extent), ...bounds, g.integers([0]), entry(g, steps, i)]);
    gradient = scatteredAlong(g, gradient, from, axis, rank, extent);
  });
  return [gradient];
};

const trilu: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const diagonal = g.inputs.slice(1).filter((input) => input !== '');
  return [g.emit('Trilu', [cotangent, ...diagonal], { upper: { int: g.intAttribute('upper', 1) } })];
};

const cumulativeSum: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const attributes = {
    exclusive: { int: g.intAttribute('exclusive', 0) },
    reverse: { int: 1 - g.intAttribute('reverse', 0) },
  };
  return [g.emit('CumSum', [cotangent, g.inputs[1]], attributes)];
};

/** Blocks of the plane [N, C, H b, W b] back into channels. */
const depthToSpace: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x] = g.inputs;
  const block = g.integers([g.intAttribute('blocksize', 1)]);
  const [y] = g.outputs;
  const shape = joined(g, [extentsBetween(g, y, 0, 2), extents(g, x, [2]), block, extents(g, x, [3]), block]);
  const columnFirst = g.stringAttribute('mode', 'DCR') === 'CRD';
  const perm = { ints: columnFirst ? [0, 1, 3, 5, 2, 4] : [0, 3, 5, 1, 2, 4] };
  return [reshapedLike(g, g.emit('Transpose', [reshaped(g, cotangent, shape)], { perm }), x)];
};

const spaceToDepth: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  return [g.emit('DepthToSpace', [cotangent], { blocksize: { int: g.intAttribute('blocksize', 1) }, mode: 'DCR' })];
};

/** The reversal of the first elements of every row is its own inverse. */
const reverseSequence: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const attributes = {
    batch_axis: { int: g.intAttribute('batch_axis', 1) },
    time_axis: { int: g.intAttribute('time_axis', 0) },
  };
  return [g.emit('ReverseSequence', [cotangent, g.inputs[1]], attributes)];
};

/** Operators that move elements. */
export const SHAPE_RULES: RuleTable = {
  Transpose: transpose,
  Reshape: reshapes,
  Flatten: reshapes,
  Squeeze: reshapes,
  Unsqueeze: reshapes,
  Expand: expand,
  Tile: tile,
  Concat: concat,
  Split: split,
  Pad: pad,
  Slice: slice,
  Trilu: trilu,
  CumSum: cumulativeSum,
  DepthToSpace: depthToSpace,
  SpaceToDepth: spaceToDepth,
  ReverseSequence: reverseSequence,
};
