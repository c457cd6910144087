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
} from './shape-arithmetic.js';

/** Adds cotangents of gathered slices at their places. Repeated indices add, negative ones count from the end. */
const gather: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x, indices] = g.inputs;
  const rank = g.dims(x).length;
  const axis = positive(g.intAttribute('axis', 0), rank);
  const extent = extents(g, x, [axis]);
  const known = g.constantIntegers(indices);
  if (known?.length === 1) return [singleSlice(g, cotangent, known[0], axis, rank, extent)];
  const count = g.emit('Reshape', [g.emit('Size', [indices]), g.integers([1])]);
  const shape = joined(g, [extentsBetween(g, x, 0, axis), count, extentsBetween(g, x, axis + 1, rank)]);
  const places = g.emit('Cast', [g.emit('Reshape', [indices, g.integers([-1])])], { to: INT64 });
  return [scatteredAlong(g, reshaped(g, cotangent, shape), places, axis, rank, extent)];
};

/** One known slice is put in its place by padding. */
function singleSlice(
  g: RuleContext,
  cotangent: string,
  index: number,
  axis: number,
  rank: number,
  extent: string,
): string {
  const [x] = g.inputs;
  const one = g.integers([1]);
  const shape = joined(g, [extentsBetween(g, x, 0, axis), one, extentsBetween(g, x, axis + 1, rank)]);
  const place = g.integers([index]);
  const before = index < 0 ? g.emit('Add', [place, extent]) : place;
  const after = g.emit('Sub', [g.emit('Sub', [extent, before]), one]);
  const none = (count: number): string => g.integers(new Array<number>(count).fill(0));
  const pads = joined(g, [none(axis), before, none(rank - 1 - axis), none(axis), after, none(rank - 1 - axis)]);
  return g.emit('Pad', [reshaped(g, cotangent, shape), pads]);
}

const gatherElements: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x, indices] = g.inputs;
  const attributes = { axis: { int: g.intAttribute('axis', 0) }, reduction: 'add' };
  return [g.emit('ScatterElements', [g.zerosLike(x), indices, cotangent], attributes)];
};

/**
 * Places of the rows that an index tensor of GatherND or ScatterND [..., depth] names, in a tensor of which the first
 * `depth` axes (behind `batchDims` axes that run along) are one: an int64 vector.
 */
function rowPlaces(g: RuleContext, x: string, indices: string, batchDims: number, depth: number): string {
  const columns = g.integers([-1, depth]);
  const rows = g.emit('Reshape', [indices, columns]);
  const bounds = extentsBetween(g, x, batchDims, batchDims + depth);
  const zero = g.integers([0]);
  const wrapped = g.emit('Where', [g.emit('Less', [rows, zero]), g.emit('Add', [rows, bounds]), rows]);
  // Strides of the indexed axes: products of the extents behind each.
  let stride = g.integers([1]);
  let places = '';
  for (let column = depth - 1; column >= 0; column--) {
    const own = g.emit('Gather', [wrapped, g.integers([column], true)], { axis: { int: 1 } });
    const scaled = g.emit('Mul', [own, stride]);
    places = places === '' ? scaled : g.emit('Add', [places, scaled]);
    stride = g.emit('Mul', [stride, extents(g, x, [batchDims + column])]);
  }
  if (batchDims === 0) return places;
  // Every batch has as many rows of indices, and its own stretch of the target.
  const batches = product(g, extentsBetween(g, x, 0, batchDims));
  const grid = g.emit('Reshape', [places, joined(g, [batches, g.integers([-1])])]);
  const first = g.emit('Unsqueeze', [g.emit('Mul', [counting(g, batches), stride]), g.integers([1])]);
  return g.emit('Reshape', [g.emit('Add', [grid, first]), g.integers([-1])]);
}

const product = (g: RuleContext, vector: string): string =>
  g.emit('ReduceProd', [vector, g.integers([0])], { keepdims: { int: 1 } });

const gatherNd: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x, indices] = g.inputs;
  const rank = g.dims(x).length;
  const batchDims = g.intAttribute('batch_dims', 0);
  const depth = g.dims(indices)[g.dims(indices).length - 1];
  const places = rowPlaces(g, x, indices, batchDims, depth);
  const width = product(g, joined(g, [extentsBetween(g, x, batchDims + depth, rank), g.integers([1])]));
  const rows = reshaped(g, cotangent, joined(g, [g.shapeOf(places), width]));
  const extent = product(g, joined(g, [extentsBetween(g, x, 0, batchDims + depth), g.integers([1])]));
  return [reshapedLike(g, scatteredAlong(g, rows, places, 0, 2, extent), x)];
};

/** What is overwritten has no gradient; what is added to has. */
function scatterReduction(g: RuleContext): 'none' | 'add' {
  const reduction = g.stringAttribute('reduction', 'none');
  if (reduction !== 'none' && reduction !== 'add') throw refused(g, `reduction "${reduction}" (none and add have one)`);
  return reduction;
}

const scatterNd: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [, indices, updates] = g.inputs;
  const kept = scatterReduction(g) === 'add';
  const own = () => (kept ? cotangent : g.emit('ScatterND', [cotangent, indices, g.zerosLike(updates)]));
  return [g.needs(0) ? own() : undefined, undefined, g.needs(2) ? g.emit('GatherND', [cotangent, indices]) : undefined];
};

const scatterElements: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [, indices, updates] = g.inputs;
  const axis = { axis: { int: g.intAttribute('axis', 0) } };
  const kept = scatterReduction(g) === 'add';
  const own = () => (kept ? cotangent : g.emit('ScatterElements', [cotangent, indices, g.zerosLike(updates)], axis));
  return [
    g.needs(0) ? own() : undefined,
    undefined,
    g.needs(2) ? g.emit('GatherElements', [cotangent, indices], axis) : undefined,
  ];
};

/** Values go back to where they came from; the second output, their places, is an integer. */
const topK: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x] = g.inputs;
  const axis = { int: g.intAttribute('axis', -1) };
  const indices = g.outputs[1] ?? '';
  const places =
    indices !== ''
      ? indices
      : g.emitMany('TopK', g.inputs, 2, {
          axis,
          largest: { int: g.intAttribute('largest', 1) },
          sorted: { int: g.intAttribute('sorted', 1) },
        })[1];
  return [g.emit('ScatterElements', [g.zerosLike(x), places, cotangent], { axis })];
};

/** The gradient of the two values [off, on], by the hot places. */
const oneHot: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined || !g.needs(2)) return [];
  const [indices, depth] = g.inputs;
  const rank = g.dims(g.outputs[0]).length;
  const axis = positive(g.intAttribute('axis', -1), rank);
  const wide = (vector: string): string =>
    g.emit('Reshape', [g.emit('Cast', [vector], { to: INT64 }), g.integers([-1])]);
  const count = wide(depth);
  const places = g.emit('Unsqueeze', [g.emit('Cast', [indices], { to: INT64 }), g.integers([axis])]);
  const wrapped = g.emit('Where', [g.emit('Less', [places, g.integers([0])]), g.emit('Add', [places, count]), places]);
  const spread = g.integers(range(0, rank).map((a) => (a === axis ? -1 : 1)));
  const hot = g.emit('Equal', [wrapped, g.emit('Reshape', [counting(g, count), spread])]);
  const total = (cold: boolean): string => {
    const parts = cold ? [g.scalar(0), cotangent] : [cotangent, g.scalar(0)];
    const sum = g.emit('ReduceSum', [g.emit('Where', [hot, ...parts])], { keepdims: { int: 0 } });
    return g.emit('Reshape', [sum, g.integers([1])]);
  };
  return [undefined, undefined, joined(g, [total(true), total(false)])];
};

/** Slices that a condition picked out go back to where they came from. */
const compress: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const [x, condition] = g.inputs;
  const places = g.emit('Reshape', [g.emit('NonZero', [condition]), g.integers([-1])]);
  if (g.attribute('axis') === undefined) {
    const size = g.emit('Reshape', [g.emit('Size', [x]), g.integers([1])]);
    return [reshapedLike(g, scatteredAlong(g, cotangent, places, 0, 1, size), x)];
  }
  const rank = g.dims(x).length;
  const axis = positive(g.intAttribute('axis', 0), rank);
  return [scatteredAlong(g, cotangent, places, axis, rank, extents(g, x, [axis]))];
};

/** Operators that read or write places named by integers. */
export const INDEXING_RULES: RuleTable = {
  Gather: gather,
  GatherElements: gatherElements,
  GatherND: gatherNd,
  ScatterND: scatterNd,
  ScatterElements: scatterElements,
  TopK: topK,
  OneHot: oneHot,
  Compress: compress,
};
