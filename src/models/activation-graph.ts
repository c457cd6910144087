import { hadamardCore, type Rotation, signsFromBits } from '../linalg/hadamard.js';
import {
  type ActivationQuantization,
  activationRotation,
  LARGEST_HALF,
  LEAST_DIVISOR,
  SCALE_ROUNDS,
} from './activation-quantization.js';
import type { GraphComposer } from './graph.js';

/** TensorProto.DataType of the types that values are cast to. */
const TYPE = { f32: 1, f64: 11, f16: 10, i64: 7 } as const;
/** Order of the factors into which a Sylvester matrix is split: a product with each is shorter than one with all. */
const LARGEST_FACTOR = 64;

/**
 * Composes the quantisation of activations. The function it returns takes values [n, width] to what the linears after
 * them see; linears that read the same value share one quantisation. Without settings it gives the value back, and the
 * graph is what it was.
 */
export function createActivationQuantizer(
  g: GraphComposer,
  activations: ActivationQuantization | undefined,
): (value: string, width: number) => string {
  if (activations === undefined) return (value) => value;
  const done = new Map<string, string>();
  const quantize = (value: string, width: number): string =>
    activations.kind === 'int' ? integerRows(g, activations, value) : pyramidRows(g, activations, value, width);
  return (value, width) => {
    const known = done.get(value);
    if (known !== undefined) return known;
    let seen: string;
    if (activations.rotated) {
      const rotation = activationRotation(width);
      seen = rotateRows(g, quantize(rotateRows(g, value, rotation, 'forward'), width), rotation, 'inverse');
    } else {
      seen = quantize(value, width);
    }
    done.set(value, seen);
    return seen;
  };
}

/** Rows of symmetric integers with a step for each row. */
function integerRows(
  g: GraphComposer,
  activations: Extract<ActivationQuantization, { kind: 'int' }>,
  value: string,
): string {
  const most = 2 ** (activations.bits - 1) - 1;
  const largest = reduce(g, 'ReduceMax', g.node('Abs', [value]));
  const step = g.node('Max', [g.node('Mul', [largest, g.scalar(activations.clip / most)]), g.scalar(LEAST_DIVISOR)]);
  const codes = g.node('Round', [g.node('Div', [value, step])]);
  return g.node('Mul', [g.node('Clip', [codes, g.scalar(-most - 1), g.scalar(most)]), step]);
}

function reduce(
  g: GraphComposer,
  operator: 'ReduceMax' | 'ReduceSum',
  value: string,
  axes: readonly number[] = [-1],
): string {
  return g.node(operator, [value, g.integers(axes)], { attributes: { keepdims: { int: 1 } } });
}

/** Rows of pyramid codes, see {@link ActivationQuantization}. */
function pyramidRows(
  g: GraphComposer,
  activations: Extract<ActivationQuantization, { kind: 'pvq' }>,
  value: string,
  width: number,
): string {
  const { groupLength: d, pulses, levels } = activations;
  const groups = Math.ceil(width / d);
  const padding = groups * d - width;
  // A row of zeros more: an expert that nobody chose has none, and the runtime's TopK divides by their number.
  const padded = g.node('Pad', [value, g.integers([0, 0, 1, padding])]);
  const x = g.node('Reshape', [padded, g.integers([0, groups, d])]);
  const u = g.node('Abs', [x]);
  const y = searchPoints(g, u, d, pulses);
  const length = g.node('Sqrt', [reduce(g, 'ReduceSum', g.node('Mul', [y, y]))]);
  const gain = g.node('Div', [reduce(g, 'ReduceSum', g.node('Mul', [u, y])), length]);
  const { scale, level } = codeGains(g, { rows: x, gain, levels, width, groupLength: d });

  const signs = g.node('Where', [g.node('Less', [x, g.scalar(0)]), g.scalar(-1), g.scalar(1)]);
  const factor = g.node('Div', [g.node('Mul', [level, scale]), length]);
  const decoded = g.node('Mul', [g.node('Mul', [y, signs]), factor]);
  const flat = g.node('Reshape', [decoded, g.integers([0, groups * d])]);
  return g.node('Slice', [flat, g.integers([0, 0]), g.node('Shape', [value]), g.integers([0, 1])]);
}

/** Points y >= 0 of the pyramid for magnitudes u [n, groups, d]; of a group of zeros, all pulses on coordinate 0. */
function searchPoints(g: GraphComposer, u: string, d: number, pulses: number): string {
  const total = reduce(g, 'ReduceSum', u);
  const zero = g.node('Equal', [total, g.scalar(0)]);
  const first = g.floats(
    `first of ${d}`,
    Float64Array.from({ length: d }, (_, i) => (i === 0 ? 1 : 0)),
    [d],
  );
  const v = g.node('Where', [zero, first, u]);
  const l1 = g.node('Where', [zero, g.scalar(1), total]);
  const start = nearestPoints(g, g.node('Mul', [v, g.node('Div', [g.scalar(pulses), l1])]), d, pulses);
  const energy = reduce(g, 'ReduceSum', g.node('Mul', [start.y, start.y]));
  const product = reduce(g, 'ReduceSum', g.node('Mul', [v, start.y]));
  const next = nearestPoints(g, g.node('Mul', [v, g.node('Div', [energy, product])]), d, pulses);
  const nextEnergy = reduce(g, 'ReduceSum', g.node('Mul', [next.y, next.y]));
  const nextProduct = reduce(g, 'ReduceSum', g.node('Mul', [v, next.y]));
  // Squares of the cosines, compared by cross-multiplication.
  const square = (a: string, b: string): string => g.node('Mul', [g.node('Mul', [a, a]), b]);
  const better = g.node('Greater', [square(nextProduct, energy), square(product, nextEnergy)]);
  return g.node('Where', [g.node('And', [better, next.exact]), next.y, start.y]);
}

/**
 * The point of the pyramid nearest to b >= 0 [n, groups, d]: floor(b), and one pulse more on the largest fractions, ties to
 * the lowest coordinate. Exact where between none and d pulses are missing after the floor (`exact`, [n, groups, 1]):
 * raising a coordinate from its floor then costs less than any second raise and any lowering.
 */
function nearestPoints(g: GraphComposer, b: string, d: number, pulses: number): { y: string; exact: string } {
  const floor = g.node('Floor', [b]);
  const rest = g.node('Sub', [b, floor]);
  const missing = g.node('Sub', [g.scalar(pulses), reduce(g, 'ReduceSum', floor)]);
  const sorted = g.node('TopK', [rest, g.integers([d])], {
    attributes: { axis: { int: -1 }, largest: { int: 1 }, sorted: { int: 1 } },
    outputs: [`${rest}_sorted`, `${rest}_order`],
  });
  const rank = g.floats(
    `ranks of ${d}`,
    Float64Array.from({ length: d }, (_, i) => i),
    [d],
  );
  const raised = g.node('Cast', [g.node('Less', [rank, missing])], { attributes: { to: { int: TYPE[g.float] } } });
  const none = g.node('Sub', [sorted, sorted]);
  const raise = g.node('ScatterElements', [none, `${rest}_order`, raised], { attributes: { axis: { int: -1 } } });
  const enough = g.node('LessOrEqual', [missing, g.scalar(d)]);
  const exact = g.node('And', [g.node('GreaterOrEqual', [missing, g.scalar(0)]), enough]);
  return { y: g.node('Add', [floor, raise]), exact };
}

/**
 * The level of every group [n, groups, 1] and the scale of every token [n, 1, 1] (its f16 value times sqrt(d)). Rounds
 * of `code = nearest level to s / scale; scale = sum q s / sum q^2`, then codes for the rounded scale.
 */
function codeGains(
  g: GraphComposer,
  parts: { rows: string; gain: string; levels: readonly number[]; width: number; groupLength: number },
): { scale: string; level: string } {
  const { rows, gain, levels, width, groupLength } = parts;
  const root = g.scalar(Math.sqrt(groupLength));
  const levelOf = (a: string): string => {
    const unit = g.node('Max', [g.node('Mul', [a, root]), g.scalar(LEAST_DIVISOR)]);
    return nearestLevel(g, g.node('Div', [gain, unit]), levels);
  };
  const energy = reduce(g, 'ReduceSum', g.node('Mul', [rows, rows]), [1, 2]);
  let a = g.node('Sqrt', [g.node('Div', [energy, g.scalar(width)])]);
  for (let round = 0; round < SCALE_ROUNDS; round++) {
    const q = levelOf(a);
    const product = reduce(g, 'ReduceSum', g.node('Mul', [q, gain]), [1]);
    const squares = g.node('Mul', [reduce(g, 'ReduceSum', g.node('Mul', [q, q]), [1]), root]);
    a = g.node('Div', [product, squares]);
  }
  const cast = (value: string, to: number): string => g.node('Cast', [value], { attributes: { to: { int: to } } });
  a = cast(cast(g.node('Min', [a, g.scalar(LARGEST_HALF)]), TYPE.f16), TYPE[g.float]);
  return { scale: g.node('Mul', [a, root]), level: levelOf(a) };
}

/** The level nearest to values [n, groups, 1]; half way between two, the lower. */
function nearestLevel(g: GraphComposer, value: string, levels: readonly number[]): string {
  const count = levels.length;
  const stored = g.floats('gain levels', levels, [count]);
  const zeros = g.node('Mul', [value, g.scalar(0)]);
  if (count === 1) return g.node('Add', [zeros, stored]);
  const thresholds = levels.slice(1).map((level, i) => (levels[i] + level) / 2);
  const above = g.node('Greater', [value, g.floats('gain thresholds', thresholds, [count - 1])]);
  const passed = reduce(g, 'ReduceSum', g.node('Cast', [above], { attributes: { to: { int: TYPE.i64 } } }));
  return g.node('Gather', [stored, passed], { attributes: { axis: { int: 0 } } });
}

/** Orders of the Sylvester factors of a power of two, each at most {@link LARGEST_FACTOR}, of similar size. */
function sylvesterFactors(segment: number): number[] {
  const bits = Math.log2(segment);
  const parts = Math.ceil(bits / Math.log2(LARGEST_FACTOR));
  return Array.from({ length: parts }, (_, i) => 2 ** (Math.floor(bits / parts) + (i < bits % parts ? 1 : 0)));
}

/** [order, order], entry (a, b) = (-1)^popcount(a & b). */
function sylvester(order: number): Float64Array {
  const matrix = new Float64Array(order * order).fill(1);
  for (let size = 1; size < order; size *= 2) {
    for (let a = 0; a < size; a++) {
      for (let b = 0; b < size; b++) {
        const entry = matrix[a * order + b];
        matrix[a * order + b + size] = entry;
        matrix[(a + size) * order + b] = entry;
        matrix[(a + size) * order + b + size] = -entry;
      }
    }
  }
  return matrix;
}

/**
 * y = Q x of every row of [n, width], or x = Q^T y. Q is a product of Kronecker factors, applied one after the other to the
 * last axis, which then goes to the front: after all of them the axes are in their order again.
 */
export function rotateRows(
  g: GraphComposer,
  value: string,
  rotation: Rotation,
  direction: 'forward' | 'inverse',
): string {
  const { kind, length, core, segment, blocks, permutation } = rotation;
  if (kind === 'none') return value;
  const forward = direction === 'forward';
  const order = kind === 'blocks' ? segment : length;
  const signs = Float64Array.from(signsFromBits(rotation.signs, length), (sign) => sign / Math.sqrt(order));
  const scaled = (x: string): string => g.node('Mul', [x, g.floats(`signs of ${length}`, signs, [length])]);

  const cycle = (x: string, size: number, matrix: string | undefined): string => {
    const split = g.node('Reshape', [x, g.integers([0, length / size, size])]);
    const product = matrix === undefined ? split : g.node('MatMul', [split, matrix]);
    const moved = g.node('Transpose', [product], { attributes: { perm: { ints: [0, 2, 1] } } });
    return g.node('Reshape', [moved, g.integers([0, length])]);
  };
  let x = forward ? scaled(value) : value;
  if (forward && permutation) x = gatherColumns(g, x, permutation);
  for (const size of sylvesterFactors(segment).reverse()) {
    x = cycle(x, size, g.floats(`sylvester ${size}`, sylvester(size), [size, size]));
  }
  if (blocks > 1) x = cycle(x, blocks, undefined);
  if (core > 1 && kind !== 'blocks') x = cycle(x, core, coreMatrix(g, kind, core, forward));
  if (forward) return x;
  if (permutation) {
    const inverse = new Int32Array(length);
    permutation.forEach((from, to) => {
      inverse[from] = to;
    });
    x = gatherColumns(g, x, inverse);
  }
  return scaled(x);
}

/** The right-hand side of a product with the core along the last axis: H^T for y = Hx, H for x = H^T y. */
function coreMatrix(g: GraphComposer, kind: 'sylvester' | 'paley1' | 'paley2', core: number, forward: boolean): string {
  const matrix = hadamardCore({ kind, core });
  const entries = forward
    ? Int8Array.from(matrix, (_, at) => matrix[(at % core) * core + Math.floor(at / core)])
    : matrix;
  return g.floats(`core ${core} ${forward}`, entries, [core, core]);
}

function gatherColumns(g: GraphComposer, value: string, columns: Int32Array): string {
  return g.node('Gather', [value, g.integers(Array.from(columns))], { attributes: { axis: { int: 1 } } });
}
