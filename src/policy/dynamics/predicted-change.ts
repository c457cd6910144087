import { pearson } from '../../linalg/correlation.js';

/** Straight line through the origin from a predictor to the measured change of entropy. */
export interface OriginFit {
  /** Pairs of a step and the next one in which both values are known. */
  readonly pairs: number;
  /** dH = -eta predictor; NaN without pairs or where the predictor is 0 throughout. */
  readonly eta: number;
  readonly etaSe: number;
  /** 1 - sum residual^2 / sum dH^2: against no change at all, since the line has no intercept. */
  readonly r2: number;
  /** Share of pairs in which -predictor and dH have one sign, among those where neither is 0. */
  readonly signAgreement: number;
  /** Correlation of -predictor and dH. */
  readonly correlation: number;
  /** Correlation of the running sum of -predictor with the entropy relative to the first step. */
  readonly runningCorrelation: number;
}

/**
 * H of the next step less H of each one, [steps]; NaN for the last. Steps that were not logged are not filled in: the change is
 * that from one logged step to the next.
 */
export function measuredChange(entropy: Float64Array): Float64Array {
  return entropy.map((value, t) => (t + 1 < entropy.length ? entropy[t + 1] - value : Number.NaN));
}

function runningSum(values: readonly number[]): Float64Array {
  let sum = 0;
  return Float64Array.from(values, (value) => {
    sum += value;
    return sum;
  });
}

/**
 * Fits dH_t = -eta x_t by least squares through the origin (spec 1.3, offline estimate), x_t a covariance or Omega's mean.
 * @param predictor [steps], NaN where it is not known.
 * @param change [steps], `measuredChange`.
 */
export function fitThroughOrigin(predictor: Float64Array, change: Float64Array): OriginFit {
  const pairs: { x: number; y: number }[] = [];
  for (let t = 0; t < change.length; t++) {
    if (Number.isFinite(predictor[t]) && Number.isFinite(change[t])) pairs.push({ x: -predictor[t], y: change[t] });
  }
  let [xx, xy, yy, same, signed] = [0, 0, 0, 0, 0];
  for (const { x, y } of pairs) {
    xx += x * x;
    xy += x * y;
    yy += y * y;
    if (x === 0 || y === 0) continue;
    signed++;
    if (x > 0 === y > 0) same++;
  }
  const eta = xx > 0 ? xy / xx : Number.NaN;
  const residual = pairs.reduce((sum, { x, y }) => sum + (y - eta * x) ** 2, 0);
  const xs = pairs.map(({ x }) => x);
  const ys = pairs.map(({ y }) => y);
  return {
    pairs: pairs.length,
    eta,
    etaSe: pairs.length > 1 ? Math.sqrt(residual / (pairs.length - 1) / xx) : Number.NaN,
    r2: yy > 0 ? 1 - residual / yy : Number.NaN,
    signAgreement: signed > 0 ? same / signed : Number.NaN,
    correlation: pearson(Float64Array.from(xs), Float64Array.from(ys)),
    runningCorrelation: pearson(runningSum(xs), runningSum(ys)),
  };
}
