import { InputError } from '../../errors.js';
import { type LeastSquaresProblem, leastSquares } from '../../linalg/levenberg-marquardt.js';
import { thinSvd } from '../../linalg/svd.js';
import { createRandom, type Random } from '../../random.js';
import type { Sweep } from './types.js';

/**
 * The law of one evaluated group, L(p) = b + a exp(sum_j M_j p_j), in coordinates in which a straight law lies inside and not at
 * infinity: L(p) = offset + (exp(s V.(p - centre)) - 1) / s with M = s V, a = exp(-M.centre) / s, b = offset - 1/s. V sums to 0, which
 * fixes the gauge: proportions sum to 1, so a constant added to M only rescales a.
 */
export interface GroupLaw {
  readonly offset: number;
  /** V, [sources]. */
  readonly slope: Float64Array;
  /** s = 1 / (a exp(M.centre)); 0 for a straight law. */
  readonly curvature: number;
}

/** The log-linear static law of all evaluated groups. */
export interface LogLinearLaw {
  readonly sources: readonly string[];
  readonly evaluated: readonly string[];
  /** Mean mixture of the sweep, [sources]. */
  readonly centre: Float64Array;
  readonly groups: readonly GroupLaw[];
}

/** A straight law L_i(p) = sum_j B_ji p_j; a constant is contained, since p sums to 1. */
export interface LinearLaw {
  readonly sources: readonly string[];
  readonly evaluated: readonly string[];
  /** B [sources, evaluated]. */
  readonly coefficients: Float64Array;
}

export interface FitOptions {
  readonly seed: number;
  /** Starts of the search for each group; default 32. */
  readonly starts?: number;
}

/** Vectors M drawn for each start that is searched from. */
const DRAWN_PER_START = 16;
/** Sizes of M.(p - centre), as multiples of what the sweep spans. */
const START_SCALES = [0.3, 1, 3, 10, 30];
/** Below it the exponential is its series. */
const SMALL = 1e-5;
/** Exponents above it, relative to the centre of the sweep, are refused: the law would be a spike at one run. */
const MOST_EXPONENT = 60;

/** (exp(st) - 1) / s, and t where s is 0. */
const bent = (s: number, t: number): number => (Math.abs(s * t) < 1e-300 ? t : Math.expm1(s * t) / s);

/** d/ds of it: t^2 (z exp(z) - (exp(z) - 1)) / z^2 with z = st. */
function bentSlope(s: number, t: number): number {
  const z = s * t;
  const h = Math.abs(z) < SMALL ? 0.5 + z / 3 + (z * z) / 8 : (z * Math.exp(z) - Math.expm1(z)) / (z * z);
  return t * t * h;
}

/** The loss of one group on mixture `p`. */
export function groupLoss({ offset, slope, curvature }: GroupLaw, centre: Float64Array, p: ArrayLike<number>): number {
  let t = 0;
  for (let j = 0; j < slope.length; j++) t += slope[j] * (p[j] - centre[j]);
  return offset + bent(curvature, t);
}

/** Losses [n, evaluated] that a law predicts for mixtures [n, sources]. */
export function predictLosses(law: LogLinearLaw, mixtures: Float64Array): Float64Array {
  const k = law.sources.length;
  const width = law.groups.length;
  const count = mixtures.length / k;
  const losses = new Float64Array(count * width);
  for (let r = 0; r < count; r++) {
    const p = mixtures.subarray(r * k, (r + 1) * k);
    for (let i = 0; i < width; i++) losses[r * width + i] = groupLoss(law.groups[i], law.centre, p);
  }
  return losses;
}

export function predictLinear({ sources, evaluated, coefficients }: LinearLaw, mixtures: Float64Array): Float64Array {
  const [k, width] = [sources.length, evaluated.length];
  const count = mixtures.length / k;
  const losses = new Float64Array(count * width);
  for (let r = 0; r < count; r++) {
    for (let j = 0; j < k; j++) {
      const share = mixtures[r * k + j];
      for (let i = 0; i < width; i++) losses[r * width + i] += share * coefficients[j * width + i];
    }
  }
  return losses;
}

/** The law's b, a and M of one group; a and b are null where the law is straight. */
export function lawConstants(
  { offset, slope, curvature }: GroupLaw,
  centre: Float64Array,
): { readonly a: number | null; readonly b: number | null; readonly M: Float64Array } {
  const M = slope.map((entry) => curvature * entry);
  if (curvature === 0) return { a: null, b: null, M };
  const shift = M.reduce((sum, entry, j) => sum + entry * centre[j], 0);
  const a = Math.exp(-shift) / curvature;
  const b = offset - 1 / curvature;
  return Number.isFinite(a) && Number.isFinite(b) ? { a, b, M } : { a: null, b: null, M };
}

/** @throws InputError for too few runs, proportions that do not sum to 1, losses that are no numbers, each with its row */
export function checkSweep({ count, sources, evaluated, mixtures, losses }: Sweep): void {
  const [k, width] = [sources.length, evaluated.length];
  if (k < 2) throw new InputError(`a sweep over ${k} group${k === 1 ? '' : 's'}: mixing needs two or more`);
  if (count < k + 1) {
    throw new InputError(
      `${count} runs for ${k} groups: a law has ${k + 1} constants a group; run ${k + 1} mixtures or more`,
    );
  }
  for (let r = 0; r < count; r++) {
    let sum = 0;
    for (let j = 0; j < k; j++) {
      const share = mixtures[r * k + j];
      if (!(share >= 0 && share <= 1 + 1e-9)) {
        throw new InputError(`run ${r + 1}: the proportion of ${sources[j]} is ${share}; it must lie in [0, 1]`);
      }
      sum += share;
    }
    if (Math.abs(sum - 1) > 1e-3) throw new InputError(`run ${r + 1}: the proportions sum to ${sum}, not to 1`);
    for (let i = 0; i < width; i++) {
      const loss = losses[r * width + i];
      if (!Number.isFinite(loss)) throw new InputError(`run ${r + 1}: the loss of ${evaluated[i]} is ${loss}`);
    }
  }
}

/**
 * Fits the log-linear static law of Ye et al. (2024) by least squares. Groups decouple. For each, vectors M are drawn at five
 * scales, a and b of each solved for (variable projection); from the best of them and from the straight law, Levenberg-Marquardt
 * goes on in all constants, the offset projected out. The least sum of squares is kept.
 * @throws InputError as `checkSweep` does
 */
export function fitLogLinearLaw(sweep: Sweep, options: FitOptions): LogLinearLaw {
  checkSweep(sweep);
  const { count, sources, evaluated, mixtures, losses } = sweep;
  const k = sources.length;
  const width = evaluated.length;
  const centre = columnMeans(mixtures, count, k);
  const basis = centredBasis(k);
  const coordinates = projected(mixtures, centre, basis, k);
  const groups = evaluated.map((_, i) => {
    const values = Float64Array.from({ length: count }, (__, r) => losses[r * width + i]);
    return fitGroup(values, coordinates, basis, k, createRandom(options.seed).fork(i), options.starts ?? 32);
  });
  return { sources, evaluated, centre, groups };
}

/** Least squares of the straight law; the shortest coefficients where the mixtures do not decide. */
export function fitLinearLaw(sweep: Sweep): LinearLaw {
  const { count, sources, evaluated, mixtures, losses } = sweep;
  const [k, width] = [sources.length, evaluated.length];
  const { left, values, right } = thinSvd(mixtures, count, k);
  const rank = values.length;
  const coefficients = new Float64Array(k * width);
  for (let s = 0; s < rank; s++) {
    if (!(values[s] > 1e-12 * values[0])) continue;
    for (let i = 0; i < width; i++) {
      let inner = 0;
      for (let r = 0; r < count; r++) inner += left[r * rank + s] * losses[r * width + i];
      for (let j = 0; j < k; j++) coefficients[j * width + i] += (right[j * rank + s] * inner) / values[s];
    }
  }
  return { sources, evaluated, coefficients };
}

function columnMeans(rows: Float64Array, count: number, columns: number): Float64Array {
  const means = new Float64Array(columns);
  for (let e = 0; e < count * columns; e++) means[e % columns] += rows[e] / count;
  return means;
}

/** Orthonormal vectors [k, k - 1] that sum to 0 (Helmert). */
function centredBasis(k: number): Float64Array {
  const basis = new Float64Array(k * (k - 1));
  for (let d = 0; d < k - 1; d++) {
    const norm = Math.sqrt((d + 1) * (d + 2));
    for (let j = 0; j <= d; j++) basis[j * (k - 1) + d] = 1 / norm;
    basis[(d + 1) * (k - 1) + d] = -(d + 1) / norm;
  }
  return basis;
}

/** (p - centre) in coordinates of the basis: [n, k - 1]. */
function projected(mixtures: Float64Array, centre: Float64Array, basis: Float64Array, k: number): Float64Array {
  const count = mixtures.length / k;
  const u = new Float64Array(count * (k - 1));
  for (let r = 0; r < count; r++) {
    for (let j = 0; j < k; j++) {
      const away = mixtures[r * k + j] - centre[j];
      for (let d = 0; d < k - 1; d++) u[r * (k - 1) + d] += away * basis[j * (k - 1) + d];
    }
  }
  return u;
}

function fitGroup(
  values: Float64Array,
  u: Float64Array,
  basis: Float64Array,
  k: number,
  random: Random,
  starts: number,
): GroupLaw {
  const count = values.length;
  const mean = values.reduce((sum, y) => sum + y, 0) / count;
  const spread = Math.sqrt(values.reduce((sum, y) => sum + (y - mean) ** 2, 0) / count);
  if (!(spread > 1e-14 * Math.max(1, Math.abs(mean))))
    return { offset: mean, slope: new Float64Array(k), curvature: 0 };
  const y = values.map((value) => (value - mean) / spread);
  const problem = lawProblem(y, u, k - 1);
  let best: { readonly point: Float64Array; readonly sumOfSquares: number } | undefined;
  for (const start of startPoints(y, u, k - 1, random, starts)) {
    const found = leastSquares(problem, start);
    if (best === undefined || found.sumOfSquares < best.sumOfSquares) best = found;
  }
  const point = best?.point ?? new Float64Array(k);
  const slope = new Float64Array(k);
  for (let j = 0; j < k; j++) {
    for (let d = 0; d < k - 1; d++) slope[j] += spread * point[d] * basis[j * (k - 1) + d];
  }
  const curvature = point[k - 1] / spread;
  // The offset that was projected out: residuals of the fit have mean 0.
  let shift = 0;
  for (let r = 0; r < count; r++) shift += bent(point[k - 1], exponentOf(point, u, r, k - 1)) / count;
  return { offset: mean - spread * shift, slope, curvature };
}

function exponentOf(point: Float64Array, u: Float64Array, row: number, width: number): number {
  let t = 0;
  for (let d = 0; d < width; d++) t += point[d] * u[row * width + d];
  return t;
}

/** Residuals of y on (exp(s v.u) - 1) / s, both centred; unknowns v [width] and s. */
function lawProblem(y: Float64Array, u: Float64Array, width: number): LeastSquaresProblem {
  const count = y.length;
  const unknowns = width + 1;
  return {
    unknowns,
    residuals: count,
    evaluate(x, residuals, jacobian) {
      const s = x[width];
      let mean = 0;
      const means = new Float64Array(unknowns);
      for (let r = 0; r < count; r++) {
        const t = exponentOf(x, u, r, width);
        residuals[r] = s * t > MOST_EXPONENT ? Number.NaN : bent(s, t);
        mean += residuals[r] / count;
        if (!jacobian) continue;
        const slope = Math.exp(s * t);
        for (let d = 0; d < width; d++) jacobian[r * unknowns + d] = slope * u[r * width + d];
        jacobian[r * unknowns + width] = bentSlope(s, t);
        for (let d = 0; d < unknowns; d++) means[d] += jacobian[r * unknowns + d] / count;
      }
      for (let r = 0; r < count; r++) {
        residuals[r] -= mean + y[r];
        if (jacobian) for (let d = 0; d < unknowns; d++) jacobian[r * unknowns + d] -= means[d];
      }
    },
  };
}

/** The straight law, and the best of many vectors M with a solved for. */
function startPoints(
  y: Float64Array,
  u: Float64Array,
  width: number,
  random: Random,
  starts: number,
): readonly Float64Array[] {
  const count = y.length;
  const size = Math.sqrt(u.reduce((sum, x) => sum + x * x, 0) / (count * width)) || 1;
  const drawn: { readonly point: Float64Array; readonly error: number }[][] = START_SCALES.map(() => []);
  for (let n = 0; n < starts * DRAWN_PER_START; n++) {
    const kind = n % START_SCALES.length;
    const scale = START_SCALES[kind] / (size * Math.sqrt(width));
    const m = Float64Array.from({ length: width }, () => scale * random.normal());
    const basisValues = Float64Array.from({ length: count }, (_, r) => Math.expm1(exponentOf(m, u, r, width)));
    const mean = basisValues.reduce((sum, x) => sum + x, 0) / count;
    let [cross, power, total] = [0, 0, 0];
    for (let r = 0; r < count; r++) {
      cross += (basisValues[r] - mean) * y[r];
      power += (basisValues[r] - mean) ** 2;
      total += y[r] * y[r];
    }
    const a = cross / power;
    if (!Number.isFinite(a) || a === 0) continue;
    const point = new Float64Array(width + 1);
    for (let d = 0; d < width; d++) point[d] = a * m[d];
    point[width] = 1 / a;
    drawn[kind].push({ point, error: total - a * cross });
  }
  // The best of each scale: wide exponents are seldom good where they begin.
  const best = drawn.flatMap((ofScale) =>
    ofScale.sort((one, other) => one.error - other.error).slice(0, Math.ceil(starts / START_SCALES.length)),
  );
  const straight = leastSquares(straightProblem(y, u, width), new Float64Array(width)).point;
  return [Float64Array.from([...straight, 0]), ...best.map(({ point }) => point)];
}

function straightProblem(y: Float64Array, u: Float64Array, width: number): LeastSquaresProblem {
  return {
    unknowns: width,
    residuals: y.length,
    evaluate(x, residuals, jacobian) {
      jacobian?.set(u);
      for (let r = 0; r < y.length; r++) residuals[r] = exponentOf(x, u, r, width) - y[r];
    },
  };
}
