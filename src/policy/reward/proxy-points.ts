import { InputError } from '../../errors.js';
import { distanceToHull } from '../../linalg/convex-hull.js';
import { pearson } from '../../linalg/correlation.js';
import { quantileOfSorted } from '../../linalg/quantile-sketch.js';
import { createRandom } from '../../random.js';
import { quadraticTerms } from './quadratic-surface.js';
import { boxMaximum, type FittedSurface, fitSurface, refitSurface, type SurfaceOptions } from './surfaces.js';
import type { DataBox, ScoredRuns } from './types.js';

/** Column i of a matrix [rows, n], row-major. */
export function columnOf(data: Float64Array, n: number, i: number): Float64Array {
  return Float64Array.from({ length: data.length / n }, (_, r) => data[r * n + i]);
}

/** Smallest and largest value of each of n columns. */
export function boxOf(data: Float64Array, n: number): DataBox {
  const low = new Float64Array(n).fill(Number.POSITIVE_INFINITY);
  const high = new Float64Array(n).fill(Number.NEGATIVE_INFINITY);
  data.forEach((value, at) => {
    low[at % n] = Math.min(low[at % n], value);
    high[at % n] = Math.max(high[at % n], value);
  });
  return { low, high };
}

/** Where a surface is highest. */
export interface SurfacePoint {
  /** The proxy point: the stationary maximum where there is one within the data, else the maximum on the box of the data. */
  readonly point: Float64Array;
  readonly score: number;
  /** The surface has a maximum inside the box and inside the convex hull of the data. */
  readonly interior: boolean;
  /** `stationary`, or the side on which the box holds it, or where the hull of the data does not reach. */
  readonly status: 'interior' | 'on the border of the data box' | 'outside the convex hull of the data';
  /** Distance to the convex hull, in units of the sides of the box; 0 inside. */
  readonly hullDistance: number;
}

/** A percentile interval; NaN where no draw gave a value. */
export interface Interval {
  readonly low: number;
  readonly high: number;
}

export interface FittedPoint extends SurfacePoint {
  readonly fitted: FittedSurface;
  readonly rmse: number;
  readonly r2: number;
  readonly leftOutRmse: number;
  readonly leftOutR2: number;
  /** [point], from resampled rows; absent without draws. */
  readonly intervals?: readonly Interval[];
  /** Share of the draws that had an interior maximum in the box. */
  readonly interiorShare?: number;
}

/** Proxy points of single rewards and of all together (spec 9.1). */
export interface ProxyPoints {
  readonly box: DataBox;
  /** One a reward: the maximum of the score as a function of it alone. */
  readonly individual: readonly FittedPoint[];
  readonly joint: FittedPoint;
  /** [n]: joint less individual, with intervals. */
  readonly shift: Float64Array;
  readonly shiftIntervals?: readonly Interval[];
  /** [n, n] Pearson correlations, with intervals. */
  readonly correlation: Float64Array;
  readonly correlationIntervals?: readonly Interval[];
  readonly draws: number;
  /** Draws whose rows did not determine a surface and were drawn again. */
  readonly redrawn: number;
}

export interface ProxyOptions extends SurfaceOptions {
  readonly seed: number;
  /** Resamples; 0 for none. */
  readonly draws: number;
  /** Coverage of the intervals. */
  readonly level: number;
}

/** A side of the box within this part of its length holds a point. */
const BORDER = 1e-6;
/** Of the sides of the box. */
const HULL_TOLERANCE = 1e-9;
const MOST_TRIES = 1000;

/** Rows that a proxy fit of n rewards needs: the terms of the quadratic and five. */
export const leastRows = (n: number): number => quadraticTerms(n) + 5;

/** @throws InputError for too few rows, values that are not finite, constant rewards */
export function checkRuns({ names, rows, rewards, score }: ScoredRuns): void {
  const n = names.length;
  if (rows < leastRows(n)) {
    throw new InputError(
      `a quadratic in ${n} reward${n === 1 ? '' : 's'} (${names.join(', ')}) needs ${leastRows(n)} rows or more, got ${rows}`,
    );
  }
  const bad = [...rewards, ...score].findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw new InputError('rewards and scores must be finite');
  const { low, high } = boxOf(rewards, n);
  const constant = names.find((_, i) => low[i] === high[i]);
  if (constant !== undefined)
    throw new InputError(`reward "${constant}" is the same in all rows: it has no proxy point`);
}

interface Problem {
  readonly x: Float64Array;
  readonly score: Float64Array;
  readonly box: DataBox;
  /** Sides of the box as the unit, for distances to the hull. */
  readonly unit: Float64Array;
  readonly starts: readonly Float64Array[];
}

function problemOf(x: Float64Array, score: Float64Array, n: number): Problem {
  const box = boxOf(x, n);
  const unit = x.map((value, at) => (value - box.low[at % n]) / (box.high[at % n] - box.low[at % n]));
  // The rows of the highest scores, and the middle of the box.
  const order = Array.from(score.keys()).sort((a, b) => score[b] - score[a] || a - b);
  const starts = order.slice(0, 4).map((row) => x.slice(row * n, (row + 1) * n));
  return { x, score, box, unit, starts: [...starts, box.low.map((low, i) => 0.5 * (low + box.high[i]))] };
}

const onBorder = (point: Float64Array, { low, high }: DataBox): boolean =>
  point.some((value, i) => Math.min(value - low[i], high[i] - value) < BORDER * (high[i] - low[i]));

function pointOf(fitted: FittedSurface, { box, unit, score, starts }: Problem): SurfacePoint {
  const n = box.low.length;
  const point = boxMaximum(fitted, box, starts);
  const place = point.map((value, i) => (value - box.low[i]) / (box.high[i] - box.low[i]));
  const distance = n === 1 ? 0 : distanceToHull(unit, score.length, n, place);
  const hullDistance = distance <= HULL_TOLERANCE ? 0 : distance;
  const border = onBorder(point, box);
  const interior = !border && hullDistance === 0;
  return {
    point,
    score: fitted.surface.predict(point),
    interior,
    status: border ? 'on the border of the data box' : interior ? 'interior' : 'outside the convex hull of the data',
    hullDistance,
  };
}

function fitPoint(problem: Problem, options: SurfaceOptions): FittedPoint {
  const { x, score, box } = problem;
  const n = box.low.length;
  const fitted = fitSurface(x, score, box, options);
  const predicted = score.map((_, r) => fitted.surface.predict(x.subarray(r * n, (r + 1) * n)));
  const mean = score.reduce((sum, value) => sum + value, 0) / score.length;
  const squares = (from: Float64Array): number => score.reduce((sum, value, r) => sum + (value - from[r]) ** 2, 0);
  const total = score.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const [own, left] = [squares(predicted), squares(fitted.leftOut)];
  return {
    ...pointOf(fitted, problem),
    fitted,
    rmse: Math.sqrt(own / score.length),
    r2: total > 0 ? 1 - own / total : Number.NaN,
    leftOutRmse: Math.sqrt(left / score.length),
    leftOutR2: total > 0 ? 1 - left / total : Number.NaN,
  };
}

/** Percentile intervals, one an array of draws; draws without a value (a correlation with a constant) are left out. */
function intervalsOf(draws: readonly Float64Array[], level: number): Interval[] {
  return draws.map((values) => {
    const sorted = values.filter((value) => !Number.isNaN(value)).sort();
    return {
      low: quantileOfSorted(sorted, 0.5 * (1 - level)),
      high: quantileOfSorted(sorted, 0.5 * (1 + level)),
    };
  });
}

/**
 * Individual and joint proxy points of component rewards: where the score is highest as a smooth function of one reward, and of
 * all (spec 9.1; Moskovitz et al. 2023). Intervals are percentiles over resampled rows; the point of a draw is the highest one
 * on the box of all the data, so that draws without an interior maximum stand at its border.
 * @throws InputError as {@link checkRuns} and {@link fitSurface}
 */
export function proxyPoints(runs: ScoredRuns, options: ProxyOptions, progress?: (draws: number) => void): ProxyPoints {
  checkRuns(runs);
  const { names, rewards, score } = runs;
  const n = names.length;
  const columns = names.map((_, i) => columnOf(rewards, n, i));
  const all = problemOf(rewards, score, n);
  // With one reward the joint point is the individual one.
  const problems = n === 1 ? [all] : [...columns.map((column) => problemOf(column, score, 1)), all];
  const points = problems.map((problem) => fitPoint(problem, options));
  const individual = points.slice(0, n);
  const joint = points[points.length - 1];
  const shift = joint.point.map((value, i) => value - individual[i].point[0]);
  const correlation = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) correlation[i * n + j] = i === j ? 1 : pearson(columns[i], columns[j]);
  const base = { box: all.box, shift, correlation, draws: options.draws };
  if (options.draws === 0) return { ...base, individual, joint, redrawn: 0 };

  const bootstrap = drawPoints(problems, points, columns, options, progress);
  const judged = points.map((point, p) => ({
    ...point,
    intervals: intervalsOf(bootstrap.points[p], options.level),
    interiorShare: bootstrap.interior[p] / options.draws,
  }));
  return {
    ...base,
    individual: judged.slice(0, n),
    joint: judged[judged.length - 1],
    shiftIntervals: intervalsOf(bootstrap.shift, options.level),
    correlationIntervals: intervalsOf(bootstrap.correlation, options.level),
    redrawn: bootstrap.redrawn,
  };
}

/** What resampled rows gave, one array of draws a figure. */
interface Draws {
  readonly points: Float64Array[][];
  /** Draws with a point off the border of the box. */
  readonly interior: number[];
  readonly shift: Float64Array[];
  readonly correlation: Float64Array[];
  redrawn: number;
}

function drawPoints(
  problems: readonly Problem[],
  points: readonly FittedPoint[],
  columns: readonly Float64Array[],
  options: ProxyOptions,
  progress?: (draws: number) => void,
): Draws {
  const [n, rows, count] = [columns.length, columns[0].length, options.draws];
  const empty = (size: number): Float64Array[] => Array.from({ length: size }, () => new Float64Array(count));
  const result: Draws = {
    points: points.map(({ point }) => empty(point.length)),
    interior: points.map(() => 0),
    shift: empty(n),
    correlation: empty(n * n),
    redrawn: 0,
  };
  const root = createRandom(options.seed).fork(0x9e1);
  const sample = new Int32Array(rows);
  for (let draw = 0; draw < count; draw++) {
    const random = root.fork(draw);
    let refits: FittedSurface[] | undefined;
    for (let tries = 0; refits === undefined; tries++) {
      if (tries > MOST_TRIES) {
        throw new InputError('resampled rows do not determine the surface; use more rows, or --draws 0');
      }
      if (tries > 0) result.redrawn++;
      for (let r = 0; r < rows; r++) sample[r] = random.integer(rows);
      const found = problems.map(({ x, box }, p) =>
        refitSurface(points[p].fitted, x, problems[p].score, box, sample, options),
      );
      refits = found.every((refit) => refit !== undefined) ? found : undefined;
    }
    const highest = refits.map((refit, p) => {
      const { box, starts } = problems[p];
      // The search of a draw begins at the point of all rows, and at the best row.
      const point = boxMaximum(refit, box, [points[p].point, starts[0]], 1e-3);
      point.forEach((value, i) => {
        result.points[p][i][draw] = value;
      });
      if (!onBorder(point, box)) result.interior[p]++;
      return point;
    });
    const last = highest[highest.length - 1];
    const drawn = columns.map((column) => Float64Array.from(sample, (row) => column[row]));
    for (let i = 0; i < n; i++) {
      result.shift[i][draw] = last[i] - highest[i][0];
      result.correlation[i * n + i][draw] = 1;
      for (let j = 0; j < i; j++) {
        result.correlation[i * n + j][draw] = pearson(drawn[i], drawn[j]);
        result.correlation[j * n + i][draw] = result.correlation[i * n + j][draw];
      }
    }
    progress?.(draw + 1);
  }
  return result;
}
