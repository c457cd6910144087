import { studentQuantile } from './special-functions.js';

/** A least-squares line y = intercept + slope x. Standard errors are NaN for two points. */
export interface StraightLine {
  readonly slope: number;
  readonly intercept: number;
  readonly points: number;
  readonly slopeError: number;
  readonly interceptError: number;
  readonly meanX: number;
  /** Sum of squares of x about its mean. */
  readonly sumOfSquaresX: number;
  /** sqrt(sum of squared residuals / n). */
  readonly rmse: number;
  /** sqrt(sum of squared residuals / (n - 2)); NaN for two points. */
  readonly residualDeviation: number;
  /** NaN where y is constant. */
  readonly r2: number;
}

/**
 * Least squares of y [n] on x [n], in the order of `rows` where given (a resample may name a row twice). Undefined where x is
 * constant. Sums are about the means.
 */
export function straightLine(
  x: ArrayLike<number>,
  y: ArrayLike<number>,
  rows?: ArrayLike<number>,
): StraightLine | undefined {
  const n = rows?.length ?? x.length;
  const at = (i: number): number => (rows === undefined ? i : rows[i]);
  // Differences to one of the points: a common offset costs no digits.
  const [originX, originY] = [x[at(0)], y[at(0)]];
  let [sumX, sumY] = [0, 0];
  for (let i = 0; i < n; i++) {
    sumX += x[at(i)] - originX;
    sumY += y[at(i)] - originY;
  }
  const [shiftX, shiftY] = [sumX / n, sumY / n];
  let [xx, xy, yy, distinct] = [0, 0, 0, false];
  for (let i = 0; i < n; i++) {
    const dx = x[at(i)] - originX - shiftX;
    const dy = y[at(i)] - originY - shiftY;
    xx += dx * dx;
    xy += dx * dy;
    yy += dy * dy;
    if (x[at(i)] !== originX) distinct = true;
  }
  if (!distinct || !(xx > 0)) return undefined;
  const slope = xy / xx;
  let squares = 0;
  for (let i = 0; i < n; i++) {
    const residual = y[at(i)] - originY - shiftY - slope * (x[at(i)] - originX - shiftX);
    squares += residual * residual;
  }
  const [meanX, meanY] = [originX + shiftX, originY + shiftY];
  const residualDeviation = n > 2 ? Math.sqrt(squares / (n - 2)) : Number.NaN;
  return {
    slope,
    intercept: meanY - slope * meanX,
    points: n,
    slopeError: residualDeviation / Math.sqrt(xx),
    interceptError: residualDeviation * Math.sqrt(1 / n + (meanX * meanX) / xx),
    meanX,
    sumOfSquaresX: xx,
    rmse: Math.sqrt(squares / n),
    residualDeviation,
    r2: yy > 0 ? 1 - squares / yy : Number.NaN,
  };
}

/** Standard error of the line at x. */
export function lineError(line: StraightLine, x: number): number {
  return line.residualDeviation * Math.sqrt(1 / line.points + (x - line.meanX) ** 2 / line.sumOfSquaresX);
}

/**
 * Half width of the interval in which a new point at x lies with probability `level`, errors being independent and normal:
 * t_{n-2} s sqrt(1 + 1/n + (x - mean x)^2 / S_xx). NaN for two points.
 */
export function predictionHalfWidth(line: StraightLine, x: number, level: number): number {
  const quantile = studentQuantile(0.5 + 0.5 * level, line.points - 2);
  return quantile * Math.hypot(line.residualDeviation, lineError(line, x));
}
