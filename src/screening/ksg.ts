import { digamma } from '../linalg/special-functions.js';
import type { Random } from '../random.js';

/** Neighbours of the estimator by default, and the noise that breaks ties, in standard deviations. */
export const DEFAULT_NEIGHBOURS = 3;
export const TIE_JITTER = 1e-10;

/** One variable made ready: jittered values, and the order of their size. */
export interface KsgVariable {
  readonly values: Float64Array;
  readonly sorted: Float64Array;
  readonly order: Int32Array;
}

/** A variable with seeded noise of 1e-10 standard deviations, so that no two values are equal. */
export function ksgVariable(x: Float64Array, random: Random): KsgVariable {
  const n = x.length;
  let mean = 0;
  for (let i = 0; i < n; i++) mean += x[i] / n;
  let squares = 0;
  for (let i = 0; i < n; i++) squares += (x[i] - mean) ** 2;
  const size = TIE_JITTER * Math.sqrt(squares / n);
  const values = x.map((value) => value + size * (random.uniform() - 0.5));
  const order = Int32Array.from({ length: n }, (_, i) => i).sort((a, b) => values[a] - values[b]);
  return { values, order, sorted: Float64Array.from(order, (i) => values[i]) };
}

/** First place in ascending values that is not below `x`. */
function lowerPlace(sorted: Float64Array, x: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < x) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** First place that is above `x`. */
function upperPlace(sorted: Float64Array, x: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= x) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Mutual information, in nats, by the first estimator of Kraskov, Stoegbauer & Grassberger (2004) in the maximum norm:
 * `psi(k) + psi(n) - <psi(n_x + 1) + psi(n_y + 1)>`, n_x counting the points strictly nearer in x than the k-th neighbour.
 * May be negative. Neighbours are found exactly, by walking from each point both ways in x.
 * @param pairing observation of y beside each of x; absent: the same
 */
export function ksgInformation(x: KsgVariable, y: KsgVariable, neighbours: number, pairing?: Int32Array): number {
  const n = x.values.length;
  const yInOrder = Float64Array.from(x.order, (i) => y.values[pairing === undefined ? i : pairing[i]]);
  const nearest = new Float64Array(neighbours);
  let sum = 0;
  for (let at = 0; at < n; at++) {
    const radius = neighbourDistance(x.sorted, yInOrder, at, neighbours, nearest);
    const px = x.sorted[at];
    const py = yInOrder[at];
    sum += digammaOfCount(upperCount(x.sorted, px, radius));
    sum += digammaOfCount(upperCount(y.sorted, py, radius));
  }
  return digamma(neighbours) + digamma(n) - sum / n;
}

/** Points strictly within `radius` of `centre`, the point itself included: n_x + 1. */
function upperCount(sorted: Float64Array, centre: number, radius: number): number {
  let low = upperPlace(sorted, centre - radius);
  let high = lowerPlace(sorted, centre + radius);
  // |x - centre| < radius as the difference is rounded, and not as the sum is.
  while (low > 0 && Math.abs(sorted[low - 1] - centre) < radius) low--;
  while (low < sorted.length && !(Math.abs(sorted[low] - centre) < radius)) low++;
  while (high < sorted.length && Math.abs(sorted[high] - centre) < radius) high++;
  while (high > low && !(Math.abs(sorted[high - 1] - centre) < radius)) high--;
  return high - low;
}

function neighbourDistance(
  x: Float64Array,
  y: Float64Array,
  at: number,
  neighbours: number,
  nearest: Float64Array,
): number {
  const n = x.length;
  nearest.fill(Number.POSITIVE_INFINITY);
  const last = neighbours - 1;
  let left = at - 1;
  let right = at + 1;
  while (left >= 0 || right < n) {
    const toLeft = left >= 0 ? x[at] - x[left] : Number.POSITIVE_INFINITY;
    const toRight = right < n ? x[right] - x[at] : Number.POSITIVE_INFINITY;
    const goLeft = toLeft <= toRight;
    const dx = goLeft ? toLeft : toRight;
    if (dx >= nearest[last]) break;
    const other = goLeft ? left-- : right++;
    const dy = Math.abs(y[other] - y[at]);
    const distance = Math.max(dx, dy);
    if (distance >= nearest[last]) continue;
    let k = last;
    while (k > 0 && nearest[k - 1] > distance) {
      nearest[k] = nearest[k - 1];
      k--;
    }
    nearest[k] = distance;
  }
  return nearest[last];
}

const digammas: number[] = [];

/** Digamma of small whole numbers comes up n times a column. */
function digammaOfCount(count: number): number {
  for (let k = digammas.length; k <= count; k++) digammas.push(k === 0 ? Number.NaN : digamma(k));
  return digammas[count];
}
