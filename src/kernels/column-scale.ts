/** Half-width of the Epanechnikov kernel whose standard deviation is 1. */
export const KERNEL_SUPPORT = Math.sqrt(5);

/** IQR / standard deviation of a normal distribution, and the same for the 1st and 99th percentiles. */
const NORMAL_IQR = 1.3489795003921634;
const NORMAL_RANGE_98 = 4.6526957480816815;

/** Which kernel width: Silverman's rule for each variable, or 1 on the robustly scaled variable. */
export type BandwidthRule = 'silverman' | 'unit';

/** Centre and spread of one variable. */
export interface ColumnSpread {
  readonly minimum: number;
  readonly maximum: number;
  readonly median: number;
  readonly interquartileRange: number;
  /** Silverman's bandwidth, a standard deviation in the units of the variable. */
  readonly silverman: number;
}

/** Quantile of ascending values by linear interpolation (type 7). */
export function sortedQuantile(sorted: ArrayLike<number>, share: number): number {
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}

/**
 * Silverman's rule `min(sd, IQR / 1.349) (3n/4)^(-1/5)`, sd with n - 1. Where more than half of the values are equal the
 * IQR is 0 and the range of the central 98 % serves, and where that is 0 too the standard deviation.
 * @param sorted ascending values; a constant variable gives 0
 */
export function columnSpread(sorted: Float64Array): ColumnSpread {
  const n = sorted.length;
  let mean = 0;
  for (let i = 0; i < n; i++) mean += sorted[i];
  mean /= n;
  let squares = 0;
  for (let i = 0; i < n; i++) squares += (sorted[i] - mean) * (sorted[i] - mean);
  const deviation = n > 1 ? Math.sqrt(squares / (n - 1)) : 0;
  const interquartileRange = sortedQuantile(sorted, 0.75) - sortedQuantile(sorted, 0.25);
  let sigma = Math.min(deviation, interquartileRange / NORMAL_IQR);
  if (!(sigma > 0)) sigma = (sortedQuantile(sorted, 0.99) - sortedQuantile(sorted, 0.01)) / NORMAL_RANGE_98;
  if (!(sigma > 0)) sigma = deviation;
  return {
    minimum: sorted[0],
    maximum: sorted[n - 1],
    median: sortedQuantile(sorted, 0.5),
    interquartileRange,
    silverman: sigma * ((3 * n) / 4) ** -0.2,
  };
}

/** What a variable is divided by so that the kernel has width 1 on it. */
export function scaleDivisor(spread: ColumnSpread, rule: BandwidthRule): number {
  if (rule === 'silverman') return spread.silverman;
  return spread.interquartileRange > 0 ? spread.interquartileRange : 1;
}

/** A variable on an equidistant grid: value i lies at `index[i] + fraction[i]`, of which `index[i] + 1 < points`. */
export interface GridPlaces {
  readonly points: number;
  /** Distance of grid points, in units of the kernel's width. */
  readonly step: number;
  readonly index: Int32Array;
  readonly fraction: Float64Array;
}

/**
 * Places of the values on a grid of `points` that reaches beyond them by the kernel's support, or by 5 % of the range
 * where that is more.
 */
export function placeOnGrid(x: Float64Array, spread: ColumnSpread, divisor: number, points: number): GridPlaces {
  const range = (spread.maximum - spread.minimum) / divisor;
  const margin = Math.max(0.05 * range, KERNEL_SUPPORT);
  const step = (range + 2 * margin) / (points - 1);
  const index = new Int32Array(x.length);
  const fraction = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) {
    const at = ((x[i] - spread.minimum) / divisor + margin) / step;
    const below = Math.min(points - 2, Math.floor(at));
    index[i] = below;
    fraction[i] = at - below;
  }
  return { points, step, index, fraction };
}
