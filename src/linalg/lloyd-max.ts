import { normalCdf, normalQuantile } from './special-functions.js';

/** A continuous law on the line as scalar quantisation needs it. `State` is what it knows of a boundary. */
export interface ScalarLaw<State> {
  /** The ends of its support. */
  readonly low: number;
  readonly high: number;
  at(boundary: number): State;
  /** Integral of x^p between two boundaries, p = 0, 1, 2. */
  moment(from: State, to: State, p: 0 | 1 | 2): number;
  density(x: number): number;
}

const LLOYD_SWEEPS = 8;
const NEWTON_STEPS = 200;
const SETTLED = 1e-13;

type CellMoments = readonly [Float64Array, Float64Array, Float64Array];

/** Partial moments of the cells between midpoints of the levels, [count] each, for p = 0, 1, 2. */
function cellMoments<State>(law: ScalarLaw<State>, levels: Float64Array): CellMoments {
  const count = levels.length;
  const moments = [new Float64Array(count), new Float64Array(count), new Float64Array(count)] as const;
  let from = law.at(law.low);
  for (let i = 0; i < count; i++) {
    const to = law.at(i === count - 1 ? law.high : 0.5 * (levels[i] + levels[i + 1]));
    for (const p of [0, 1, 2] as const) moments[p][i] = law.moment(from, to, p);
    from = to;
  }
  return moments;
}

function errorOf(levels: Float64Array, moments: CellMoments): number {
  let error = 0;
  for (let i = 0; i < levels.length; i++) {
    const q = levels[i];
    error += moments[2][i] - q * (2 * moments[1][i] - q * moments[0][i]);
  }
  return Math.max(0, error);
}

/** E (x - q(x))^2 for ascending levels with thresholds at their midpoints. */
export function scalarError<State>(law: ScalarLaw<State>, levels: Float64Array): number {
  return errorOf(levels, cellMoments(law, levels));
}

/** Solves A x = b for a symmetric tridiagonal A; undefined where a pivot is not positive. */
function solveTridiagonal(diagonal: Float64Array, off: Float64Array, right: Float64Array): Float64Array | undefined {
  const n = diagonal.length;
  const pivot = new Float64Array(n);
  const x = right.slice();
  for (let i = 0; i < n; i++) {
    const factor = i === 0 ? 0 : off[i - 1] / pivot[i - 1];
    pivot[i] = diagonal[i] - (i === 0 ? 0 : factor * off[i - 1]);
    if (!(pivot[i] > 0)) return undefined;
    if (i > 0) x[i] -= factor * x[i - 1];
  }
  for (let i = n - 1; i >= 0; i--) x[i] = (x[i] - (i < n - 1 ? off[i] * x[i + 1] : 0)) / pivot[i];
  return x;
}

/**
 * The step of Newton's method on the stationary equations M1 - q M0 = 0 of all cells. The boundaries move with the
 * levels, so neighbours are coupled: the derivative is symmetric and tridiagonal.
 */
function newtonStep<State>(
  law: ScalarLaw<State>,
  levels: Float64Array,
  [mass, first]: CellMoments,
): Float64Array | undefined {
  const count = levels.length;
  const diagonal = mass.slice();
  const off = new Float64Array(Math.max(0, count - 1));
  for (let i = 0; i + 1 < count; i++) {
    const half = 0.5 * (levels[i + 1] - levels[i]);
    const coupling = 0.5 * half * law.density(0.5 * (levels[i] + levels[i + 1]));
    diagonal[i] -= coupling;
    diagonal[i + 1] -= coupling;
    off[i] = -coupling;
  }
  const residual = first.map((moment, i) => moment - levels[i] * mass[i]);
  return solveTridiagonal(diagonal, off, residual);
}

function ascends<State>(law: ScalarLaw<State>, levels: Float64Array): boolean {
  return levels.every((level, i) => level > (i === 0 ? law.low : levels[i - 1]) && level < law.high);
}

/** Largest change relative to the greatest level. */
function relativeChange(from: Float64Array, to: Float64Array): number {
  let most = 0;
  let scale = 0;
  for (let i = 0; i < from.length; i++) {
    most = Math.max(most, Math.abs(to[i] - from[i]));
    scale = Math.max(scale, Math.abs(to[i]));
  }
  return most === 0 ? 0 : most / scale;
}

/** `levels + step / 2^k` with the least k that keeps the order and does not raise the error; undefined after 30. */
function dampedStep<State>(
  law: ScalarLaw<State>,
  levels: Float64Array,
  step: Float64Array,
  error: number,
): Float64Array | undefined {
  for (let scale = 1; scale > 1e-9; scale /= 2) {
    const next = levels.map((level, i) => level + scale * step[i]);
    // The last digits of the error are rounding.
    if (ascends(law, next) && scalarError(law, next) <= error * (1 + 1e-9)) return next;
  }
  return undefined;
}

/**
 * Levels of the least mean squared error near `start`, ascending: each is the centroid of its cell, and cells meet
 * halfway between levels (Lloyd 1957; Max 1960). A few of Lloyd's sweeps, then Newton's method, for the sweeps alone
 * converge linearly, the slower the more levels there are; to about 1e-13 of the greatest level. The levels are unique
 * where the logarithm of the density is concave (Fleischer 1964).
 */
export function lloydMax<State>(law: ScalarLaw<State>, start: Float64Array): Float64Array {
  let levels = start;
  let before = Number.POSITIVE_INFINITY;
  for (let iteration = 0; iteration < NEWTON_STEPS; iteration++) {
    const moments = cellMoments(law, levels);
    const [mass, first] = moments;
    const step = iteration < LLOYD_SWEEPS ? undefined : newtonStep(law, levels, moments);
    const damped = step === undefined ? undefined : dampedStep(law, levels, step, errorOf(levels, moments));
    const held = levels;
    levels = damped ?? first.map((moment, i) => (mass[i] > 0 ? moment / mass[i] : held[i]));
    if (damped === undefined) continue;
    const change = relativeChange(held, levels);
    // Below 1e-9 a step that no longer shrinks is rounding.
    if (change <= SETTLED || (change < 1e-9 && change > before / 2)) break;
    before = change;
  }
  return levels;
}

/** What the standard normal law knows of a boundary x: its tails, its density and x times that. */
interface NormalState {
  readonly lower: number;
  readonly upper: number;
  readonly density: number;
  readonly product: number;
}

const normalDensity = (x: number): number => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);

export const STANDARD_NORMAL: ScalarLaw<NormalState> = {
  low: Number.NEGATIVE_INFINITY,
  high: Number.POSITIVE_INFINITY,
  at(x) {
    const density = normalDensity(x);
    return { lower: normalCdf(x), upper: normalCdf(-x), density, product: Number.isFinite(x) ? x * density : 0 };
  },
  moment(from, to, p) {
    if (p === 1) return from.density - to.density;
    const mass = to.lower <= 0.5 ? to.lower - from.lower : from.upper - to.upper;
    return p === 0 ? mass : mass + from.product - to.product;
  },
  density: normalDensity,
};

/** A scalar quantiser of the standard normal law. */
export interface NormalQuantizer {
  /** [count], ascending and antisymmetric. */
  readonly levels: Float64Array;
  /** Mean squared error. */
  readonly error: number;
}

const normalQuantizers = new Map<number, NormalQuantizer>();

/**
 * The quantiser of N(0, 1) with `count` levels of least mean squared error (Max 1960).
 * @throws RangeError when `count` is no positive integer
 */
export function normalLloydMax(count: number): NormalQuantizer {
  if (!Number.isInteger(count) || count < 1) throw new RangeError(`no quantiser has ${count} levels`);
  const known = normalQuantizers.get(count);
  if (known !== undefined) return known;
  // At high resolution the levels have density f^(1/3), the quantiles of N(0, 3) (Panter & Dite 1951).
  const start = Float64Array.from({ length: count }, (_, i) => Math.sqrt(3) * normalQuantile((i + 0.5) / count));
  const found = lloydMax(STANDARD_NORMAL, start);
  const levels = found.map((level, i) => (level - found[count - 1 - i]) / 2);
  const quantizer = { levels, error: scalarError(STANDARD_NORMAL, levels) };
  normalQuantizers.set(count, quantizer);
  return quantizer;
}
