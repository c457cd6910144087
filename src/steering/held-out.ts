import { bootstrapDocuments } from '../linalg/bootstrap.js';
import { createRandom } from '../random.js';

/** A figure with its standard error and 95 % percentile interval; NaN where it has none. */
export interface EstimatedFigure {
  readonly value: number;
  readonly se: number;
  readonly low: number;
  readonly high: number;
}

const NONE: Omit<EstimatedFigure, 'value'> = { se: Number.NaN, low: Number.NaN, high: Number.NaN };

function correlationOf([n, x, y, xx, yy, xy]: ArrayLike<number> & Iterable<number>): number {
  const covariance = xy - (x * y) / n;
  const spread = (xx - (x * x) / n) * (yy - (y * y) / n);
  return spread > 0 ? Math.max(-1, Math.min(1, covariance / Math.sqrt(spread))) : Number.NaN;
}

const mean = (values: Float64Array): number => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Pearson's correlation; NaN where one side is constant. */
export function correlation(x: Float64Array, y: Float64Array): number {
  return correlationOf(moments(x, y, mean(x), mean(y)));
}

function moments(x: ArrayLike<number>, y: ArrayLike<number>, shiftX: number, shiftY: number): Float64Array {
  const sums = new Float64Array(6);
  for (let i = 0; i < x.length; i++) {
    const a = x[i] - shiftX;
    const b = y[i] - shiftY;
    sums[0]++;
    sums[1] += a;
    sums[2] += b;
    sums[3] += a * a;
    sums[4] += b * b;
    sums[5] += a * b;
  }
  return sums;
}

/**
 * Pearson's correlation of x and y with a bootstrap over clusters: the steps of a run are not independent, so runs are
 * drawn.
 * @param clusters indices of the members of each cluster
 */
export function clusteredCorrelation(
  x: Float64Array,
  y: Float64Array,
  clusters: readonly ArrayLike<number>[],
  seed: number,
): EstimatedFigure {
  const [shiftX, shiftY] = [mean(x), mean(y)];
  const sums = new Float64Array(6 * clusters.length);
  clusters.forEach((members, k) => {
    const of = (values: Float64Array): Float64Array => Float64Array.from(members, (i) => values[i]);
    sums.set(moments(of(x), of(y), shiftX, shiftY), 6 * k);
  });
  const { intervals } = bootstrapDocuments(sums, 6, [correlationOf], { seed });
  const value = correlation(x, y);
  return { value, ...(intervals?.[0] ?? NONE) };
}

/**
 * Area under the receiver operating characteristic: the probability that a positive score lies above a negative one, ties
 * half. Its standard error counts clusters as the units (Obuchowski 1997, equation 5; with one score of each kind a
 * cluster it is DeLong's for paired scores).
 * @param clusterOf cluster of each score, 0 to the number of clusters - 1
 */
export function areaUnderCurve(
  positive: { readonly scores: ArrayLike<number>; readonly clusterOf: ArrayLike<number> },
  negative: { readonly scores: ArrayLike<number>; readonly clusterOf: ArrayLike<number> },
  clusters: number,
): { readonly value: number; readonly se: number } {
  const m = positive.scores.length;
  const n = negative.scores.length;
  if (m === 0 || n === 0) return { value: Number.NaN, se: Number.NaN };
  const sortedPositive = Float64Array.from(positive.scores).sort();
  const sortedNegative = Float64Array.from(negative.scores).sort();
  const placements = Float64Array.from(positive.scores, (score) => shareBelow(sortedNegative, score));
  const others = Float64Array.from(negative.scores, (score) => 1 - shareBelow(sortedPositive, score));
  const value = mean(placements);
  const [byPositive, byNegative] = [new Float64Array(clusters), new Float64Array(clusters)];
  for (let i = 0; i < m; i++) byPositive[positive.clusterOf[i]] += placements[i] - value;
  for (let i = 0; i < n; i++) byNegative[negative.clusterOf[i]] += others[i] - value;
  // Each cluster contributes its share of both kinds at once, so that what they have in common counts.
  let variance = 0;
  for (let k = 0; k < clusters; k++) variance += (byPositive[k] / m + byNegative[k] / n) ** 2;
  return { value, se: clusters > 1 ? Math.sqrt((variance * clusters) / (clusters - 1)) : Number.NaN };
}

/** Share of sorted values below x, those equal to it half. */
function shareBelow(sorted: Float64Array, x: number): number {
  const bound = (strict: boolean): number => {
    let [low, high] = [0, sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (strict ? sorted[middle] < x : sorted[middle] <= x) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  return (bound(true) + bound(false)) / (2 * sorted.length);
}

const FOLD_STREAM = 0x666f6c64;

/** Members 0 to count - 1 in at most `folds` parts of almost equal size, at random. */
export function randomFolds(count: number, folds: number, seed: number): number[][] {
  const parts = Array.from({ length: Math.min(count, folds) }, (): number[] => []);
  createRandom(seed)
    .fork(FOLD_STREAM)
    .permutation(count)
    .forEach((member, i) => {
      parts[i % parts.length].push(member);
    });
  return parts.map((part) => part.sort((a, b) => a - b));
}
