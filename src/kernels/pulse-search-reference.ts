/**
 * Pulse search: for a group x of D weights, the point y of the pyramid P(D, K) (integers, sum of magnitudes K) whose
 * direction is nearest to that of x. With u = |x| and weights h > 0 it maximises
 *
 *   c(y) = <u, y>_h / (||u||_h ||y||_h),   <a, b>_h = sum_i h_i a_i b_i,   y >= 0, sum y = K, y_i <= cap_i
 *
 * and gives y the signs of x (that of 0 is +). Everything here runs in an arithmetic that rounds every operation to
 * single or double precision: in single precision it gives the bits of the native kernels, whatever their vectors.
 *
 * Facts used below, each true for any finite set of points, so for caps too:
 * - L2-nearest: sum h (alpha u - y)^2 with sum y = K is separable and convex, so pulses added to (or taken from) the
 *   minimum without that condition, cheapest first, give the exact minimum. That condition's multiplier tau moves
 *   the start to round(alpha u + tau / h) without changing the answer.
 * - The best point y* is nearest to alpha* u for alpha* = ||y*||^2 / <u, y*> (fixed point).
 * - From near(alpha) to near(alpha + 0) single pulses move from i to j with h_j u_j > h_i u_i, in the order of
 *   alpha' = [h_j (2 y_j + 1) - h_i (2 y_i - 1)] / (2 (h_j u_j - h_i u_i)): the transfer path holds y*.
 * - If some point has angle theta0 to u, then y* has no more, and sum y = K bounds its length: with
 *   cos(phi) = ||u||_1 / (M ||u||_h), M^2 = sum 1/h: alpha* = K / (M ||u||_h cos(theta) cos(theta -+ phi)).
 *
 * Fischer, "A pyramid vector quantizer", IEEE Trans. IT 32(4), 1986; greedy search as in the Opus and Daala codecs.
 */

/** Rounds a result to the precision of the arithmetic. */
export type Rounding = (value: number) => number;

export const DOUBLE: Rounding = (value) => value;
export const SINGLE: Rounding = Math.fround;

export type SearchMode = 'greedy' | 'fixed-point' | 'best' | 'exact';

/** One group, ready to be searched. All values are of the precision of `round`. */
export interface PulseProblem {
  readonly round: Rounding;
  /** D. */
  readonly length: number;
  /** K. */
  readonly pulses: number;
  /** u / max u, [D]. */
  readonly u: Float64Array;
  /** h / max h, [D]; all 1 where the search is not weighted. */
  readonly h: Float64Array;
  readonly weighted: boolean;
  /** Most pulses of every coordinate, [D]. */
  readonly caps: Int32Array;
  /** h u, [D]. */
  readonly hu: Float64Array;
  /** sum u, sum 1/h, sum h u^2 and least h. */
  l1: number;
  inverseSum: number;
  energy: number;
  leastWeight: number;
}

/** <u, y>_h and ||y||_h^2. */
interface Products {
  xy: number;
  yy: number;
}

/** Fixed-point iterations at most. */
const ITERATIONS = 8;
/** Least weight of a coordinate, relative to the heaviest of its group: dead inputs do not swallow pulses. */
export const LEAST_IMPORTANCE = 2 ** -20;
/** Room for rounding in the bounds of alpha; single precision needs it, double precision does not mind. */
const ANGLE_MARGIN = 1e-5;
const RANGE_MARGIN = 1e-4;

export interface GroupOptions {
  readonly pulses: number;
  readonly round: Rounding;
  /** Most pulses of a coordinate where x >= 0, and where x < 0; 0 for no limit. */
  readonly cap: number;
  readonly negativeCap: number;
}

export function createProblem(length: number, options: GroupOptions, weighted: boolean): PulseProblem {
  return {
    round: options.round,
    length,
    pulses: options.pulses,
    u: new Float64Array(length),
    h: new Float64Array(length).fill(1),
    weighted,
    caps: new Int32Array(length).fill(options.pulses),
    hu: new Float64Array(length),
    l1: 0,
    inverseSum: length,
    energy: 0,
    leastWeight: 1,
  };
}

/**
 * Fills `problem` from x [D] and, when it is weighted, importance [D].
 * @returns false for a group of zeros, which has no direction
 */
export function setProblem(
  problem: PulseProblem,
  x: ArrayLike<number>,
  options: GroupOptions,
  importance?: ArrayLike<number>,
): boolean {
  const { length, round, u, h, hu, caps, pulses } = problem;
  let most = 0;
  for (let j = 0; j < length; j++) most = Math.max(most, Math.abs(x[j]));
  const { cap, negativeCap } = options;
  for (let j = 0; j < length; j++) {
    const limit = x[j] < 0 ? negativeCap : cap;
    caps[j] = limit > 0 ? limit : pulses;
  }
  if (most === 0) return false;
  if (importance !== undefined) setWeights(problem, importance);
  problem.l1 = 0;
  problem.energy = 0;
  for (let j = 0; j < length; j++) {
    u[j] = round(Math.abs(x[j]) / most);
    hu[j] = round(h[j] * u[j]);
    problem.l1 = round(problem.l1 + u[j]);
    problem.energy = round(problem.energy + round(hu[j] * u[j]));
  }
  return true;
}

function setWeights(problem: PulseProblem, importance: ArrayLike<number>): void {
  const { length, round, h } = problem;
  let heaviest = 0;
  for (let j = 0; j < length; j++) heaviest = Math.max(heaviest, round(importance[j]));
  problem.inverseSum = 0;
  problem.leastWeight = 1;
  for (let j = 0; j < length; j++) {
    h[j] = heaviest > 0 ? Math.max(LEAST_IMPORTANCE, round(round(importance[j]) / heaviest)) : 1;
    problem.inverseSum = round(problem.inverseSum + round(1 / h[j]));
    problem.leastWeight = Math.min(problem.leastWeight, h[j]);
  }
}

function products({ length, round, h, hu }: PulseProblem, y: Int32Array): Products {
  let xy = 0;
  let yy = 0;
  for (let j = 0; j < length; j++) {
    xy = round(xy + round(hu[j] * y[j]));
    yy = round(yy + round(round(h[j] * y[j]) * y[j]));
  }
  return { xy, yy };
}

/** Whether a has a larger cosine than b. */
function exceeds(round: Rounding, a: Products, b: Products): boolean {
  return round(round(a.xy * a.xy) * b.yy) > round(round(b.xy * b.xy) * a.yy);
}

/** All pulses at the first coordinate, or, under caps, at the first ones that hold them. */
function fillFromFirst({ length, pulses, caps }: PulseProblem, y: Int32Array): void {
  let left = pulses;
  for (let j = 0; j < length; j++) {
    y[j] = Math.min(left, caps[j]);
    left -= y[j];
  }
}

/**
 * Greedy search: from floor(K u / ||u||_1) when K > floor(D/2), else from nothing, one pulse at a time where the
 * cosine grows most; equal ones go to the lowest index.
 */
function greedy(problem: PulseProblem, y: Int32Array): Products {
  const { length, pulses, round, u, h, hu, caps, l1 } = problem;
  y.fill(0);
  let left = pulses;
  if (pulses > length >> 1) {
    for (let j = 0; j < length; j++) {
      y[j] = Math.min(caps[j], left, Math.floor(round(round(pulses * u[j]) / l1)));
      left -= y[j];
    }
  }
  let { xy, yy } = products(problem, y);
  for (; left > 0; left--) {
    let [bestNumerator, bestDenominator, best] = [-1, 1, -1];
    for (let j = 0; j < length; j++) {
      if (y[j] >= caps[j]) continue;
      const sum = round(xy + hu[j]);
      const numerator = round(sum * sum);
      const denominator = round(yy + round(h[j] * (2 * y[j] + 1)));
      if (round(numerator * bestDenominator) > round(bestNumerator * denominator)) {
        [bestNumerator, bestDenominator, best] = [numerator, denominator, j];
      }
    }
    xy = round(xy + hu[best]);
    yy = bestDenominator;
    y[best]++;
  }
  return products(problem, y);
}

/** Where a pulse is added (`sign` 1) or taken away (-1) at the least cost of sum h (a - y)^2. */
function cheapest(problem: PulseProblem, a: Float64Array, y: Int32Array, sign: number): number {
  const { length, round, h, caps, weighted } = problem;
  let best = -1;
  let most = Number.NEGATIVE_INFINITY;
  for (let j = 0; j < length; j++) {
    if (sign > 0 ? y[j] >= caps[j] : y[j] <= 0) continue;
    const residual = sign * round(a[j] - y[j]);
    const value = weighted ? round(h[j] * round(residual - 0.5)) : residual;
    if (value > most) {
      most = value;
      best = j;
    }
  }
  return best;
}

/** The point nearest to alpha u: rounded about the multiplier, then corrected pulse by pulse. */
function near(problem: PulseProblem, alpha: number, scaled: Float64Array, y: Int32Array): Products {
  const { length, pulses, round, u, h, caps, l1, inverseSum, weighted } = problem;
  const tau = round(round(pulses - round(alpha * l1)) / inverseSum);
  let left = pulses;
  for (let j = 0; j < length; j++) {
    scaled[j] = round(alpha * u[j]);
    const centre = round(scaled[j] + (weighted ? round(tau / h[j]) : tau));
    y[j] = Math.max(0, Math.min(caps[j], Math.ceil(round(centre - 0.5))));
    left -= y[j];
  }
  for (; left > 0; left--) y[cheapest(problem, scaled, y, 1)]++;
  for (; left < 0; left++) y[cheapest(problem, scaled, y, -1)]--;
  return products(problem, y);
}

/** Iterates alpha = ||y||^2 / <u, y>, y = near(alpha) from alpha = K / ||u||_1 and keeps the best. */
function fixedPoint(problem: PulseProblem, y: Int32Array): Products {
  const { length, pulses, round, l1 } = problem;
  const scaled = new Float64Array(length);
  const trial = new Int32Array(length);
  let best: Products = { xy: 0, yy: 1 };
  let alpha = round(pulses / l1);
  for (let step = 0; step < ITERATIONS; step++) {
    const found = near(problem, alpha, scaled, trial);
    if (exceeds(round, found, best)) {
      best = found;
      y.set(trial);
    }
    const next = round(found.yy / found.xy);
    if (next === alpha) break;
    alpha = next;
  }
  return best;
}

/** Moves single pulses while the cosine grows, the move of most gain first. */
function exchange(problem: PulseProblem, y: Int32Array, start: Products): Products {
  const { length, pulses, round, h, hu, caps } = problem;
  let { xy, yy } = start;
  // Rounded sums could go round in circles: bounded.
  for (let step = 0; step < pulses + length; step++) {
    let [bestNumerator, bestDenominator, from, to] = [round(xy * xy), yy, -1, -1];
    let bestSum = xy;
    for (let i = 0; i < length; i++) {
      if (y[i] === 0) continue;
      const freed = round(h[i] * (2 * y[i] - 1));
      for (let j = 0; j < length; j++) {
        if (j === i || y[j] >= caps[j]) continue;
        const sum = round(xy + round(hu[j] - hu[i]));
        const numerator = round(sum * sum);
        const denominator = round(yy + round(round(h[j] * (2 * y[j] + 1)) - freed));
        if (sum > 0 && round(numerator * bestDenominator) > round(bestNumerator * denominator)) {
          [bestNumerator, bestDenominator, from, to] = [numerator, denominator, i, j];
          bestSum = sum;
        }
      }
    }
    if (from < 0) break;
    y[from]--;
    y[to]++;
    xy = bestSum;
    yy = bestDenominator;
  }
  return products(problem, y);
}

/** Bounds of alpha* from the angle of a point that is known. */
function alphaRange(problem: PulseProblem, { xy, yy }: Products): { low: number; high: number } {
  const { pulses, round, l1, energy, inverseSum, leastWeight } = problem;
  const square = Math.min(1, round(round(xy * xy) / round(yy * energy)));
  const cosine = round(Math.sqrt(square));
  const sine = round(Math.sqrt(round(round(1 - square) + round(ANGLE_MARGIN))));
  const product = round(inverseSum * energy);
  const across = round(Math.sqrt(Math.max(0, round(product - round(l1 * l1)))));
  const along = round(l1 * cosine);
  const aside = round(across * sine);
  const span = round(cosine * round(along - aside));
  const length = round(cosine * round(Math.sqrt(energy)));
  const high = round(pulses / Math.max(span, length));
  // cos(theta) cos(theta - phi) grows up to theta = phi / 2.
  const tangent = round(sine * round(round(Math.sqrt(product)) + l1));
  const low =
    tangent < round(across * cosine)
      ? round(pulses / round(cosine * round(along + aside)))
      : round(round(2 * pulses) / round(round(Math.sqrt(product)) + l1));
  const least = round(Math.sqrt(round(round(leastWeight * pulses) / energy)));
  return { low: round(Math.max(low, least) * round(1 - RANGE_MARGIN)), high: round(high * round(1 + RANGE_MARGIN)) };
}

interface Transfer {
  from: number;
  to: number;
  alpha: number;
}

/**
 * The transfer of least alpha', if that is below `high`: min of N/d over pairs, d > 0, by Dinkelbach's iteration. For a
 * given alpha the pair that minimises N - alpha d is found in one pass, because it splits into a part of i and a part of j.
 */
function nextTransfer(problem: PulseProblem, y: Int32Array, high: number): Transfer | undefined {
  const { length, round, h, u, hu, caps, weighted } = problem;
  let found: Transfer | undefined;
  let alpha = high;
  for (;;) {
    let [to, from] = [-1, -1];
    let [most, least] = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
    for (let j = 0; j < length; j++) {
      const residual = weighted ? round(round(alpha * hu[j]) - round(h[j] * y[j])) : round(round(alpha * u[j]) - y[j]);
      const half = weighted ? round(0.5 * h[j]) : 0;
      const gain = weighted ? round(residual - half) : residual;
      const loss = weighted ? round(residual + half) : residual;
      if (y[j] < caps[j] && gain > most) [most, to] = [gain, j];
      if (y[j] > 0 && loss < least) [least, from] = [loss, j];
    }
    if (to < 0 || from < 0 || !(round(most - least) > (weighted ? 0 : 1))) return found;
    const growth = round(hu[to] - hu[from]);
    if (!(growth > 0)) return found;
    const cost = weighted
      ? round(round(h[to] * (y[to] + 0.5)) - round(h[from] * (y[from] - 0.5)))
      : y[to] - y[from] + 1;
    const ratio = round(cost / growth);
    if (!(ratio < alpha)) return found;
    alpha = ratio;
    found = { from, to, alpha };
  }
}

/** The point of greatest cosine: along the transfer path, between bounds of alpha*. */
function exact(problem: PulseProblem, y: Int32Array): Products {
  const { length, pulses, round, h, hu, l1 } = problem;
  const scaled = new Float64Array(length);
  const trial = new Int32Array(length);
  let best = near(problem, round(pulses / l1), scaled, trial);
  y.set(trial);
  const { low, high } = alphaRange(problem, best);
  let { xy, yy } = near(problem, low, scaled, trial);
  for (;;) {
    if (exceeds(round, { xy, yy }, best)) {
      best = { xy, yy };
      y.set(trial);
    }
    const move = nextTransfer(problem, trial, high);
    if (move === undefined) return products(problem, y);
    const { from, to } = move;
    xy = round(xy + round(hu[to] - hu[from]));
    const freed = round(h[from] * (2 * trial[from] - 1));
    yy = round(yy + round(round(h[to] * (2 * trial[to] + 1)) - freed));
    trial[from]--;
    trial[to]++;
  }
}

function best(problem: PulseProblem, y: Int32Array): Products {
  const other = new Int32Array(problem.length);
  const first = exchange(problem, y, greedy(problem, y));
  const second = exchange(problem, other, fixedPoint(problem, other));
  if (!exceeds(problem.round, second, first)) return first;
  y.set(other);
  return second;
}

/** Magnitudes of the pulses, y [D]. */
export function searchProblem(problem: PulseProblem, mode: SearchMode, polish: boolean, y: Int32Array): void {
  if (mode === 'exact') exact(problem, y);
  else if (mode === 'best') best(problem, y);
  else {
    const found = mode === 'greedy' ? greedy(problem, y) : fixedPoint(problem, y);
    if (polish) exchange(problem, y, found);
  }
}

export interface MatrixSearch {
  readonly D: number;
  readonly K: number;
  readonly mode: SearchMode;
  readonly cap?: number;
  readonly negativeCap?: number;
  readonly importance?: Float32Array | Float64Array;
  readonly exchange?: boolean;
}

/** `searchPulses` in the precision of x; arguments as there, already checked. */
export function searchPulsesReference(
  x: Float32Array | Float64Array,
  rows: number,
  columns: number,
  options: MatrixSearch,
  pulses: Int16Array,
): void {
  const { D, K, mode, importance } = options;
  const round = x instanceof Float32Array ? SINGLE : DOUBLE;
  const cap = options.cap ?? 0;
  const group = { pulses: K, round, cap, negativeCap: options.negativeCap ?? cap };
  const problem = createProblem(D, group, importance !== undefined);
  const groups = Math.ceil(columns / D);
  const padded = new Float64Array(D);
  const weights = importance === undefined ? undefined : new Float64Array(D);
  const y = new Int32Array(D);
  for (let at = 0; at < rows * groups; at++) {
    const start = (at % groups) * D;
    const width = Math.min(D, columns - start);
    const row = Math.floor(at / groups) * columns;
    padded.fill(0).set(x.subarray(row + start, row + start + width));
    if (weights !== undefined && importance !== undefined) {
      // What is padded weighs as much as the heaviest: pulses there would be free otherwise.
      const own = importance.subarray(start, start + width);
      let most = 0;
      for (const value of own) most = Math.max(most, value);
      weights.fill(most).set(own);
    }
    if (setProblem(problem, padded, group, weights)) searchProblem(problem, mode, options.exchange ?? false, y);
    else fillFromFirst(problem, y);
    for (let j = 0; j < D; j++) pulses[at * D + j] = padded[j] < 0 ? -y[j] : y[j];
  }
}

/**
 * The pyramid point nearest to alpha |x| in the L2 norm, with the signs of x, [D]; f64.
 * @param alpha K / ||x||_1 by default
 */
export function nearestPulses(x: ArrayLike<number>, pulses: number, alpha?: number): Int32Array {
  const length = x.length;
  const options: GroupOptions = { pulses, round: DOUBLE, cap: 0, negativeCap: 0 };
  const problem = createProblem(length, options, false);
  const y = new Int32Array(length);
  if (!setProblem(problem, x, options)) {
    fillFromFirst(problem, y);
    return y;
  }
  let most = 0;
  for (let j = 0; j < length; j++) most = Math.max(most, Math.abs(x[j]));
  near(problem, alpha === undefined ? pulses / problem.l1 : alpha * most, new Float64Array(length), y);
  return y.map((value, j) => (x[j] < 0 ? -value : value));
}

/** Cosine of the angle between x and y [D], f64; 0 where one of them is zero. */
export function cosine(x: ArrayLike<number>, y: ArrayLike<number>): number {
  let most = 0;
  for (let j = 0; j < x.length; j++) most = Math.max(most, Math.abs(x[j]));
  let [xy, xx, yy] = [0, 0, 0];
  for (let j = 0; j < x.length; j++) {
    const v = most > 0 ? x[j] / most : 0;
    xy += v * y[j];
    xx += v * v;
    yy += y[j] * y[j];
  }
  return xx > 0 && yy > 0 ? xy / Math.sqrt(xx * yy) : 0;
}
