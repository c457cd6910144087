import { createRandom } from '../random.js';

/** A figure with the ends of its bootstrap interval of 95 % over seeds. */
export interface Estimate {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** Slope of the least-squares line through (x, y). */
export function slopeOf(x: readonly number[], y: readonly number[]): number {
  const mean = (values: readonly number[]): number => values.reduce((sum, v) => sum + v, 0) / values.length;
  const [mx, my] = [mean(x), mean(y)];
  let cross = 0;
  let square = 0;
  x.forEach((value, i) => {
    cross += (value - mx) * (y[i] - my);
    square += (value - mx) ** 2;
  });
  return cross / square;
}

/**
 * `min sum w (a u + b v - y)^2` over a, b >= 0: the free solution where it is allowed, else the better edge.
 */
export function nonNegativePair(
  u: readonly number[],
  v: readonly number[],
  y: readonly number[],
  w: readonly number[],
): { a: number; b: number } {
  let [uu, uv, vv, uy, vy] = [0, 0, 0, 0, 0];
  y.forEach((target, i) => {
    uu += w[i] * u[i] * u[i];
    uv += w[i] * u[i] * v[i];
    vv += w[i] * v[i] * v[i];
    uy += w[i] * u[i] * target;
    vy += w[i] * v[i] * target;
  });
  const determinant = uu * vv - uv * uv;
  if (determinant > 1e-14 * uu * vv) {
    const a = (vv * uy - uv * vy) / determinant;
    const b = (uu * vy - uv * uy) / determinant;
    if (a >= 0 && b >= 0) return { a, b };
  }
  const a = Math.max(0, uy / uu);
  const b = Math.max(0, vy / vv);
  // The fall of the objective on each edge.
  return uy * a >= vy * b ? { a, b: 0 } : { a: 0, b };
}

/** Risks of all seeds at the points of a curve: `[seeds, points]`, row-major. */
export interface SeedRisks {
  readonly seeds: number;
  readonly points: number;
  readonly risks: Float64Array;
}

/** Means over the seeds that `counts` repeats. */
function meansOf({ seeds, points, risks }: SeedRisks, counts: Int32Array | null): Float64Array {
  const means = new Float64Array(points);
  for (let s = 0; s < seeds; s++) {
    const weight = (counts?.[s] ?? 1) / seeds;
    for (let p = 0; p < points; p++) means[p] += weight * risks[s * points + p];
  }
  return means;
}

/**
 * A statistic of the mean risks with its percentile interval over resampled seeds. Resamples in which it has no value
 * are left out.
 */
export function bootstrapSeeds(
  table: SeedRisks,
  statistic: (means: Float64Array) => number,
  resamples: number,
  seed: number,
): Estimate {
  const root = createRandom(seed);
  const drawn: number[] = [];
  const counts = new Int32Array(table.seeds);
  for (let b = 0; b < resamples; b++) {
    const random = root.fork(b);
    counts.fill(0);
    for (let s = 0; s < table.seeds; s++) counts[random.integer(table.seeds)]++;
    const value = statistic(meansOf(table, counts));
    if (Number.isFinite(value)) drawn.push(value);
  }
  drawn.sort((a, b) => a - b);
  const quantile = (share: number): number => {
    if (drawn.length === 0) return Number.NaN;
    const at = share * (drawn.length - 1);
    const below = Math.floor(at);
    return drawn[below] + (at - below) * (drawn[Math.min(drawn.length - 1, below + 1)] - drawn[below]);
  };
  return { value: statistic(meansOf(table, null)), low: quantile(0.025), high: quantile(0.975) };
}

/** Slope of log mean risk on log n, over the points whose mean risk is positive; NaN for fewer than two. */
export function logSlope(n: readonly number[], means: ArrayLike<number>): number {
  const x: number[] = [];
  const y: number[] = [];
  n.forEach((value, i) => {
    if (!(means[i] > 0)) return;
    x.push(Math.log(value));
    y.push(Math.log(means[i]));
  });
  return x.length < 2 ? Number.NaN : slopeOf(x, y);
}

/**
 * The smallest n, between points of the grid on log scales, from which the second curve is the lower one for good.
 * NaN when it never is, or is from the first point on (then that point).
 */
export function crossover(n: readonly number[], first: ArrayLike<number>, second: ArrayLike<number>): number {
  let at = Number.NaN;
  for (let i = n.length - 1; i >= 0; i--) {
    if (second[i] < first[i]) {
      at = n[i];
      continue;
    }
    if (i === n.length - 1) return Number.NaN;
    const gap = (k: number): number => Math.log(first[k]) - Math.log(second[k]);
    const share = gap(i) / (gap(i) - gap(i + 1));
    return Number.isFinite(share) ? Math.exp(Math.log(n[i]) + share * (Math.log(n[i + 1]) - Math.log(n[i]))) : at;
  }
  return at;
}
