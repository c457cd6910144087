import { InputError } from '../../errors.js';
import { lineError, predictionHalfWidth, type StraightLine, straightLine } from '../../linalg/straight-line.js';

/** Entropies (nats) and performances of the points of a run, [n] each, in the order of their steps. */
export interface LawPoints {
  readonly entropy: Float64Array;
  readonly performance: Float64Array;
}

/** The law R = -a e^H + b of a run. Errors are standard errors of least squares, NaN where there are none. */
export interface LawFit {
  readonly points: number;
  readonly a: number;
  readonly b: number;
  /** b - a, the performance where the entropy is spent (H = 0). */
  readonly ceiling: number;
  readonly aError: number;
  readonly bError: number;
  readonly ceilingError: number;
  /** sqrt of the mean squared residual. */
  readonly rmse: number;
  /** NaN where the performance is constant. */
  readonly r2: number;
  /** The line of R on e^H - 1, whose value at 0 is the ceiling. */
  readonly line: StraightLine;
}

/** Above it e^H is not finite. */
const MOST_ENTROPY = 709;

/**
 * e^H - 1 of entropies in nats.
 * @throws InputError for an entropy that is negative, not finite, or above 709
 */
export function spreads(entropy: Float64Array): Float64Array {
  return entropy.map((value, i) => {
    if (value >= -1e-6 && value <= MOST_ENTROPY) return Math.expm1(value);
    throw new InputError(
      `point ${i + 1}: entropy ${value}; a mean token entropy of 0 to ${MOST_ENTROPY} nats is needed`,
    );
  });
}

/** Distinct entropies among the first `count` points. */
export function distinctEntropies(entropy: Float64Array, count = entropy.length): number {
  return new Set(entropy.subarray(0, count)).size;
}

/** Of the line of R on e^H - 1: a is its slope with the sign turned, its intercept is the ceiling. */
export function lawOfLine(line: StraightLine): LawFit {
  const a = -line.slope;
  return {
    points: line.points,
    a,
    b: line.intercept + a,
    ceiling: line.intercept,
    aError: line.slopeError,
    // b is the line at e^H - 1 = -1.
    bError: lineError(line, -1),
    ceilingError: line.interceptError,
    rmse: line.rmse,
    r2: line.r2,
    line,
  };
}

/**
 * Least squares of R = -a e^H + b over the first `count` points (spec 1.6; Cui et al. 2025): linear in e^H, so that the closed
 * form a = -S_xR / S_xx, b = mean R + a mean e^H is the unique minimum.
 * @throws InputError for fewer than 3 distinct entropies, and as {@link spreads}
 */
export function fitLaw({ entropy, performance }: LawPoints, count = entropy.length): LawFit {
  const distinct = distinctEntropies(entropy, count);
  if (distinct < 3) throw new InputError(`need at least 3 distinct entropy values, got ${distinct}`);
  const line = straightLine(spreads(entropy.subarray(0, count)), performance.subarray(0, count));
  // Entropies that differ may have the same exponential.
  if (line === undefined) throw new InputError('need at least 3 distinct entropy values, got 1 to rounding');
  return lawOfLine(line);
}

/** R = -a e^H + b at entropies in nats. */
export function predictLaw({ a, ceiling }: LawFit, entropy: Float64Array): Float64Array {
  return entropy.map((value) => ceiling - a * Math.expm1(value));
}

/** Half widths of the intervals in which new points lie with probability `level`; NaN for a fit of two points. */
export function predictionHalfWidths({ line }: LawFit, entropy: Float64Array, level: number): Float64Array {
  return entropy.map((value) => predictionHalfWidth(line, Math.expm1(value), level));
}

/** How the law of the first points predicts the rest. */
export interface EarlyPrediction {
  readonly fit: LawFit;
  /** [n - m]: predictions of the points behind the first m, and the half widths of their intervals. */
  readonly predicted: Float64Array;
  readonly halfWidth: Float64Array;
  readonly rmse: number;
  /** Mean of predicted less measured. */
  readonly bias: number;
  readonly finalAbsoluteError: number;
  /** Share of the rest within the intervals. */
  readonly coverage: number;
}

/**
 * The law of the first m points and what it says of the rest.
 * @throws InputError as {@link fitLaw}, or where no point is left
 */
export function predictFromEarly(points: LawPoints, m: number, level: number): EarlyPrediction {
  const { entropy, performance } = points;
  if (m >= entropy.length)
    throw new InputError(`an early fit of ${m} of ${entropy.length} points leaves none to predict`);
  const fit = fitLaw(points, m);
  const rest = entropy.subarray(m);
  spreads(rest);
  const predicted = predictLaw(fit, rest);
  const halfWidth = predictionHalfWidths(fit, rest, level);
  let [squares, sum, within] = [0, 0, 0];
  predicted.forEach((value, i) => {
    const error = value - performance[m + i];
    squares += error * error;
    sum += error;
    if (Math.abs(error) <= halfWidth[i]) within++;
  });
  const last = predicted.length - 1;
  return {
    fit,
    predicted,
    halfWidth,
    rmse: Math.sqrt(squares / predicted.length),
    bias: sum / predicted.length,
    finalAbsoluteError: Math.abs(predicted[last] - performance[m + last]),
    coverage: within / predicted.length,
  };
}

/** Correlation of neighbouring residuals of a fit: near 1, points say less than their number. NaN for a perfect fit. */
export function residualAutocorrelation(points: LawPoints, fit: LawFit): number {
  const predicted = predictLaw(fit, points.entropy);
  const residuals = points.performance.map((value, i) => value - predicted[i]);
  let [product, squares] = [0, 0];
  for (let i = 0; i < residuals.length; i++) {
    squares += residuals[i] ** 2;
    if (i > 0) product += residuals[i] * residuals[i - 1];
  }
  return squares > 0 ? product / squares : Number.NaN;
}
