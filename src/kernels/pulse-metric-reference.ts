/**
 * Pulse search in a full metric: for a group x of D weights and a symmetric positive definite M [D, D] it looks for the
 * signed y with sum |y_i| = K that maximises <y, x>_M / ||y||_M, where <a, b>_M = a M b^T. Signs take part: the best y
 * may have another sign than x. No separable form exists (it is a closest-vector problem), so the search is greedy
 * with polish, from two starts.
 */
import {
  createProblem,
  DOUBLE,
  type GroupOptions,
  LEAST_IMPORTANCE,
  searchProblem,
  setProblem,
} from './pulse-search-reference.js';

export type MetricMode = 'greedy' | 'best';

export interface MetricOptions {
  readonly D: number;
  readonly K: number;
  /** `greedy`: pulse by pulse; `best`: that and the diagonal's exact point, both polished, the better one. */
  readonly mode: MetricMode;
  /** Most pulses of a coordinate; `negativeCap` where y < 0, the same by default. */
  readonly cap?: number;
  readonly negativeCap?: number;
}

interface MetricState {
  readonly length: number;
  readonly metric: Float64Array;
  /** x / max |x| and M x, [D]. */
  readonly x: Float64Array;
  readonly mx: Float64Array;
  readonly cap: number;
  readonly negativeCap: number;
}

interface MetricPoint {
  readonly y: Int32Array;
  /** M y, [D]. */
  readonly my: Float64Array;
  /** <y, x>_M and ||y||_M^2. */
  xy: number;
  yy: number;
}

const createPoint = (length: number): MetricPoint => ({
  y: new Int32Array(length),
  my: new Float64Array(length),
  xy: 0,
  yy: 0,
});

/** Whether a pulse of `sign` at `value` pulses makes the magnitude larger and stays within the caps. */
function mayAdd(state: MetricState, value: number, sign: number): boolean {
  if (sign > 0) return value >= 0 && value < state.cap;
  return value <= 0 && -value < state.negativeCap;
}

/** Adds `sign` pulses (+1 or -1) at j and keeps the products. */
function move(state: MetricState, point: MetricPoint, j: number, sign: number): void {
  const { length, metric, mx } = state;
  point.xy += sign * mx[j];
  point.yy += 2 * sign * point.my[j] + metric[j * length + j];
  point.y[j] += sign;
  for (let k = 0; k < length; k++) point.my[k] += sign * metric[j * length + k];
}

/** Products of y from scratch. */
function measure(state: MetricState, point: MetricPoint): void {
  const { length, metric, mx } = state;
  point.xy = 0;
  point.yy = 0;
  point.my.fill(0);
  for (let j = 0; j < length; j++) {
    if (point.y[j] === 0) continue;
    for (let k = 0; k < length; k++) point.my[k] += point.y[j] * metric[j * length + k];
  }
  for (let j = 0; j < length; j++) {
    point.xy += point.y[j] * mx[j];
    point.yy += point.y[j] * point.my[j];
  }
}

/** Adds `left` pulses, each where the cosine becomes greatest: lowest index, + before -, where equal. */
function addPulses(state: MetricState, point: MetricPoint, left: number): void {
  const { length, metric, mx } = state;
  for (; left > 0; left--) {
    let [best, bestSign, bestNumerator, bestDenominator] = [-1, 1, Number.NEGATIVE_INFINITY, 1];
    for (let j = 0; j < length; j++) {
      const diagonal = metric[j * length + j];
      for (const sign of [1, -1]) {
        if (!mayAdd(state, point.y[j], sign)) continue;
        const sum = point.xy + sign * mx[j];
        const numerator = sum * Math.abs(sum);
        const denominator = point.yy + (2 * sign * point.my[j] + diagonal);
        if (denominator > 0 && numerator * bestDenominator > bestNumerator * denominator) {
          [best, bestSign, bestNumerator, bestDenominator] = [j, sign, numerator, denominator];
        }
      }
    }
    if (best < 0) return;
    move(state, point, best, bestSign);
  }
}

function greedy(state: MetricState, pulses: number): MetricPoint {
  const { length, x } = state;
  const point = createPoint(length);
  let left = pulses;
  if (pulses > length >> 1) {
    let l1 = 0;
    for (let j = 0; j < length; j++) l1 += Math.abs(x[j]);
    for (let j = 0; j < length; j++) {
      const limit = Math.min(left, x[j] < 0 ? state.negativeCap : state.cap);
      const count = Math.min(limit, Math.floor((pulses * Math.abs(x[j])) / l1));
      point.y[j] = x[j] < 0 ? -count : count;
      left -= count;
    }
    measure(state, point);
  }
  addPulses(state, point, left);
  return point;
}

/** Moves single pulses while the cosine grows; a pulse may also change sides of its own coordinate. */
function polish(state: MetricState, point: MetricPoint, pulses: number): void {
  const { length, metric, mx } = state;
  const { y, my } = point;
  for (let step = 0; step < pulses + length; step++) {
    let [from, to, toSign] = [-1, -1, 1];
    let [bestNumerator, bestDenominator] = [point.xy * Math.abs(point.xy), point.yy];
    for (let i = 0; i < length; i++) {
      if (y[i] === 0) continue;
      const sign = Math.sign(y[i]);
      const freedSum = point.xy - sign * mx[i];
      const freed = point.yy - 2 * sign * my[i] + metric[i * length + i];
      for (let j = 0; j < length; j++) {
        const value = j === i ? y[i] - sign : y[j];
        const across = my[j] - sign * metric[i * length + j];
        for (const added of [1, -1]) {
          if ((j === i && added === sign) || !mayAdd(state, value, added)) continue;
          const sum = freedSum + added * mx[j];
          const numerator = sum * Math.abs(sum);
          const denominator = freed + (2 * added * across + metric[j * length + j]);
          if (denominator > 0 && numerator * bestDenominator > bestNumerator * denominator) {
            [from, to, toSign] = [i, j, added];
            [bestNumerator, bestDenominator] = [numerator, denominator];
          }
        }
      }
    }
    if (from < 0) break;
    move(state, point, from, -Math.sign(y[from]));
    move(state, point, to, toSign);
  }
  measure(state, point);
}

/** The exact point of the metric's diagonal, with the signs of x. */
function fromDiagonal(state: MetricState, pulses: number): MetricPoint {
  const { length, metric, x, cap, negativeCap } = state;
  const options: GroupOptions = { pulses, round: DOUBLE, cap, negativeCap };
  const problem = createProblem(length, options, true);
  const diagonal = Float64Array.from({ length }, (_, j) => Math.max(LEAST_IMPORTANCE, metric[j * length + j]));
  const point = createPoint(length);
  setProblem(problem, x, options, diagonal);
  searchProblem(problem, 'exact', false, point.y);
  for (let j = 0; j < length; j++) if (x[j] < 0) point.y[j] = -point.y[j];
  measure(state, point);
  return point;
}

/** `searchInMetric`; arguments as there, already checked. */
export function searchInMetricReference(
  x: Float32Array | Float64Array,
  rows: number,
  metric: Float64Array,
  options: MetricOptions,
  pulses: Int16Array,
): void {
  const { D, K, mode } = options;
  const cap = options.cap ?? K;
  const negativeCap = options.negativeCap ?? cap;
  const state: MetricState = { length: D, metric, x: new Float64Array(D), mx: new Float64Array(D), cap, negativeCap };
  for (let row = 0; row < rows; row++) {
    const group = x.subarray(row * D, (row + 1) * D);
    let most = 0;
    for (let j = 0; j < D; j++) most = Math.max(most, Math.abs(group[j]));
    for (let j = 0; j < D; j++) state.x[j] = most > 0 ? group[j] / most : 0;
    if (most === 0) {
      let left = K;
      for (let j = 0; j < D; j++) {
        pulses[row * D + j] = Math.min(left, cap);
        left -= pulses[row * D + j];
      }
      continue;
    }
    for (let j = 0; j < D; j++) {
      let sum = 0;
      for (let k = 0; k < D; k++) sum += metric[j * D + k] * state.x[k];
      state.mx[j] = sum;
    }
    let point = greedy(state, K);
    if (mode === 'best') {
      polish(state, point, K);
      const other = fromDiagonal(state, K);
      polish(state, other, K);
      if (other.xy * Math.abs(other.xy) * point.yy > point.xy * Math.abs(point.xy) * other.yy) point = other;
    }
    for (let j = 0; j < D; j++) pulses[row * D + j] = point.y[j];
  }
}
