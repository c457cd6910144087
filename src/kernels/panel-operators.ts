import { kernelThreads, nativeKernels } from './native.js';
import {
  dayMomentsReference,
  dayProductsReference,
  dayRanksReference,
  greaterOf,
  lesserOf,
  normaliseReference,
  rollingPairReference,
  rollingReference,
} from './panel-operators-reference.js';

/** Values of a panel `[days, stocks]`, row-major; missing ones are NaN. Arithmetic is in f64 whatever they are stored in. */
export type PanelValues = Float32Array | Float64Array;

export interface PanelShape {
  readonly days: number;
  readonly stocks: number;
}

export const ROLLING_NAMES = [
  'Ref',
  'Delta',
  'Sum',
  'Mean',
  'Max',
  'Min',
  'Std',
  'Var',
  'Skew',
  'Kurt',
  'Mad',
  'Med',
  'Rank',
  'WMA',
  'EMA',
] as const;
export type RollingName = (typeof ROLLING_NAMES)[number];
export type PairwiseName = 'Cov' | 'Corr' | 'Std' | 'Var';

export const ELEMENTWISE_NAMES = ['Abs', 'Sign', 'Log', 'Add', 'Sub', 'Mul', 'Div', 'Pow', 'Greater', 'Less'] as const;
export type ElementwiseName = (typeof ELEMENTWISE_NAMES)[number];

function checkShape({ days, stocks }: PanelShape, ...arrays: readonly { readonly length: number }[]): void {
  for (const { length } of arrays) {
    if (length !== days * stocks) throw new RangeError(`${length} values are no panel of ${days} x ${stocks}`);
  }
}

function checkWindow(window: number): void {
  if (!(Number.isInteger(window) && window >= 1)) throw new RangeError(`a window of ${window} days`);
}

/**
 * A rolling operator along the days of every stock. Windows of `window` days end at their day; days before the first whole
 * window become NaN. Ref and Delta look `window` days back. A missing value in a window makes its result missing, but for
 * Rank, whose comparisons it fails. O(1) an element but for Skew, Kurt, Mad, Med and Rank, which take O(window).
 * The same bits for any number of threads.
 * @throws RangeError when sizes do not fit or the window is below 1
 */
export function rollingPanel(
  name: RollingName,
  x: PanelValues,
  out: PanelValues,
  shape: PanelShape,
  window: number,
  threads?: number,
): void {
  checkShape(shape, x, out);
  checkWindow(window);
  const native = nativeKernels();
  if (native === undefined) rollingReference(name, x, out, shape, window);
  else {
    const code = ROLLING_NAMES.indexOf(name);
    native.panelRolling(code, x, null, out, shape.days, shape.stocks, window, kernelThreads(threads));
  }
}

/** Rolling covariance (n - 1) or correlation of two panels; the divisor is 1 where a sum of squares is below 1e-6. */
export function rollingPairPanel(
  name: 'Cov' | 'Corr',
  x: PanelValues,
  y: PanelValues,
  out: PanelValues,
  shape: PanelShape,
  window: number,
  threads?: number,
): void {
  checkShape(shape, x, y, out);
  checkWindow(window);
  const native = nativeKernels();
  if (native === undefined) rollingPairReference(name, x, y, out, shape, window);
  else {
    const code = ROLLING_NAMES.length + (name === 'Cov' ? 0 : 1);
    native.panelRolling(code, x, y, out, shape.days, shape.stocks, window, kernelThreads(threads));
  }
}

/** x to the power y as C has it: 1 for x = 1 and for y = 0, also beside a missing value. */
const power = (x: number, y: number): number => (x === 1 || (x === -1 && Math.abs(y) === Infinity) ? 1 : x ** y);

/** The reference of `elementwisePanel`: a number stands for a panel of that number. */
function elementwiseReference(name: ElementwiseName, x: PanelValues, y: PanelValues, out: PanelValues): void {
  const n = out.length;
  const dx = x.length === 1 ? 0 : 1;
  const dy = y.length === 1 ? 0 : 1;
  switch (name) {
    case 'Abs':
      for (let i = 0; i < n; i++) out[i] = Math.abs(x[i * dx]);
      return;
    case 'Sign':
      for (let i = 0; i < n; i++) out[i] = (x[i * dx] > 0 ? 1 : 0) - (x[i * dx] < 0 ? 1 : 0);
      return;
    case 'Log':
      for (let i = 0; i < n; i++) out[i] = Math.log(x[i * dx]);
      return;
    case 'Add':
      for (let i = 0; i < n; i++) out[i] = x[i * dx] + y[i * dy];
      return;
    case 'Sub':
      for (let i = 0; i < n; i++) out[i] = x[i * dx] - y[i * dy];
      return;
    case 'Mul':
      for (let i = 0; i < n; i++) out[i] = x[i * dx] * y[i * dy];
      return;
    case 'Div':
      for (let i = 0; i < n; i++) out[i] = x[i * dx] / y[i * dy];
      return;
    case 'Pow':
      for (let i = 0; i < n; i++) out[i] = power(x[i * dx], y[i * dy]);
      return;
    case 'Greater':
      for (let i = 0; i < n; i++) out[i] = greaterOf(x[i * dx], y[i * dy]);
      return;
    case 'Less':
      for (let i = 0; i < n; i++) out[i] = lesserOf(x[i * dx], y[i * dy]);
      return;
    default:
      throw new RangeError(`${name satisfies never} is no operator on elements`);
  }
}

/**
 * An operator on every element. An array of length 1 stands for a constant. Log of 0 is -inf and of less NaN, Sign of a
 * missing value 0, Greater and Less of a missing value missing.
 * @param y the second operand; ignored by Abs, Sign and Log
 */
export function elementwisePanel(
  name: ElementwiseName,
  x: PanelValues,
  y: PanelValues,
  out: PanelValues,
  threads?: number,
): void {
  for (const { length } of [x, y]) {
    if (length !== 1 && length !== out.length) throw new RangeError(`${length} values beside ${out.length}`);
  }
  const native = nativeKernels();
  // Logarithms and powers stay with one library, so that figures do not depend on whether the addon is there.
  if (native === undefined || name === 'Log' || name === 'Pow') elementwiseReference(name, x, y, out);
  else {
    const code = ELEMENTWISE_NAMES.indexOf(name);
    const left = x.length === out.length ? x : null;
    const right = y.length === out.length ? y : null;
    native.panelElementwise(code, left, x[0], right, y[0], out, kernelThreads(threads));
  }
}

/**
 * Z-scores of every day over its present stocks, with the population standard deviation; what has none (missing stocks,
 * days of one value or with an infinite one) becomes 0.
 * @param spread [days]: root mean square of the z-scores over all stocks: 0 on a day without variation
 */
export function normalisePanel(
  x: PanelValues,
  z: PanelValues,
  spread: Float64Array,
  shape: PanelShape,
  threads?: number,
): void {
  checkShape(shape, x, z);
  if (spread.length !== shape.days) throw new RangeError(`${spread.length} spreads for ${shape.days} days`);
  const native = nativeKernels();
  if (native === undefined) normaliseReference(x, z, spread, shape);
  else native.panelNormalise(x, z, spread, shape.days, shape.stocks, kernelThreads(threads));
}

/** Sum over the stocks of a times b for every day, `[days]`. */
export function dayProducts(a: PanelValues, b: PanelValues, shape: PanelShape, threads?: number): Float64Array {
  checkShape(shape, a, b);
  const out = new Float64Array(shape.days);
  const native = nativeKernels();
  if (native === undefined) dayProductsReference(a, b, out, shape);
  else native.panelDayProducts(a, b, out, shape.days, shape.stocks, kernelThreads(threads));
  return out;
}

/**
 * For every day, over the stocks that are present in both: their number, and the sums of squares of x, of y, and of products,
 * about the means, `[days, 4]`.
 */
export function dayMoments(x: PanelValues, y: PanelValues, shape: PanelShape, threads?: number): Float64Array {
  checkShape(shape, x, y);
  const out = new Float64Array(shape.days * 4);
  const native = nativeKernels();
  if (native === undefined) dayMomentsReference(x, y, out, shape);
  else native.panelDayMoments(x, y, out, shape.days, shape.stocks, kernelThreads(threads));
  return out;
}

/**
 * Ranks from 0 within every day; NaN where x, or `beside`, is missing.
 * @param ties `average` of the ranks, or by `order` of the stocks
 */
export function dayRanks(
  x: PanelValues,
  beside: PanelValues | undefined,
  ties: 'average' | 'order',
  out: PanelValues,
  shape: PanelShape,
  threads?: number,
): void {
  checkShape(shape, x, out, ...(beside ? [beside] : []));
  const native = nativeKernels();
  if (native === undefined) dayRanksReference(x, beside, ties, out, shape);
  else {
    const average = ties === 'average' ? 1 : 0;
    native.panelDayRanks(x, beside ?? null, average, out, shape.days, shape.stocks, kernelThreads(threads));
  }
}
