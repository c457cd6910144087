import type { PairwiseName, PanelShape, PanelValues, RollingName } from './panel-operators.js';

const PLAIN = { Sum: 0, Mean: 1, Max: 2, Min: 3 } as const;

const sumOf = (a: number, b: number): number => a + b;

/** The greater of two numbers; a missing one wins. Of a zero and its negative, the second. */
export const greaterOf = (a: number, b: number): number => (a > b || Number.isNaN(a) ? a : b);

/** The lesser of two numbers; a missing one wins. */
export const lesserOf = (a: number, b: number): number => (a < b || Number.isNaN(a) ? a : b);

/** Eight sums side by side, added up in pairs: the order that the native kernels keep. */
const addUp = (sums: Float64Array): number =>
  sums[0] + sums[4] + (sums[2] + sums[6]) + (sums[1] + sums[5] + (sums[3] + sums[7]));

/**
 * Windows are cut at the borders of blocks of `window` days: the last days of one block (a suffix, summed backwards) and the
 * first days of the next (a prefix). Both parts are sums of what the window holds and of nothing else, so that an element
 * costs O(1), no error is carried along, and a missing or infinite value is forgotten with the window that held it.
 */
function slidePlain(kind: 0 | 1 | 2 | 3, x: Float64Array, out: Float64Array, window: number): void {
  const days = x.length;
  const suffix = new Float64Array(window);
  const join = kind === 2 ? greaterOf : kind === 3 ? lesserOf : sumOf;
  for (let start = 0; start < days; start += window) {
    let prefix = 0;
    for (let k = 0; k < window && start + k < days; k++) {
      const t = start + k;
      prefix = k === 0 ? x[t] : join(prefix, x[t]);
      if (t < window - 1) continue;
      const sum = k === window - 1 ? prefix : join(suffix[k + 1], prefix);
      out[t] = kind === 1 ? sum / window : sum;
    }
    if (start + window > days) break;
    suffix[window - 1] = x[start + window - 1];
    for (let k = window - 2; k >= 0; k--) suffix[k] = join(x[start + k], suffix[k + 1]);
  }
}

/** Co-moments of prefix and suffix by Welford's update, joined by Chan, Golub and LeVeque's formula. */
function slideMoments(name: PairwiseName, x: Float64Array, y: Float64Array, out: Float64Array, window: number): void {
  const days = x.length;
  // Of the suffix that begins at place k: means, sums of squares and products of deviations.
  const meanX = new Float64Array(window + 1);
  const meanY = new Float64Array(window + 1);
  const squaresX = new Float64Array(window + 1);
  const squaresY = new Float64Array(window + 1);
  const products = new Float64Array(window + 1);
  for (let start = 0; start < days; start += window) {
    let mx = 0;
    let my = 0;
    let xx = 0;
    let yy = 0;
    let xy = 0;
    for (let k = 0; k < window && start + k < days; k++) {
      const t = start + k;
      const inverse = 1 / (k + 1);
      const dx = x[t] - mx;
      const dy = y[t] - my;
      mx += dx * inverse;
      my += dy * inverse;
      const rx = x[t] - mx;
      const ry = y[t] - my;
      xx += dx * rx;
      yy += dy * ry;
      xy += dx * ry;
      if (t < window - 1) continue;
      let sxx = xx;
      let syy = yy;
      let sxy = xy;
      if (k < window - 1) {
        const share = ((k + 1) * (window - 1 - k)) / window;
        const gapX = mx - meanX[k + 1];
        const gapY = my - meanY[k + 1];
        sxx = xx + squaresX[k + 1] + gapX * gapX * share;
        syy = yy + squaresY[k + 1] + gapY * gapY * share;
        sxy = xy + products[k + 1] + gapX * gapY * share;
      }
      if (name === 'Cov') out[t] = sxy / (window - 1);
      else if (name === 'Var') out[t] = sxx / (window - 1);
      else if (name === 'Std') out[t] = Math.sqrt(sxx / (window - 1));
      else out[t] = sxy / (sxx < 1e-6 || syy < 1e-6 ? 1 : Math.sqrt(sxx * syy));
    }
    if (start + window > days) break;
    meanX[window] = meanY[window] = squaresX[window] = squaresY[window] = products[window] = 0;
    for (let k = window - 1; k >= 0; k--) {
      const inverse = 1 / (window - k);
      const dx = x[start + k] - meanX[k + 1];
      const dy = y[start + k] - meanY[k + 1];
      meanX[k] = meanX[k + 1] + dx * inverse;
      meanY[k] = meanY[k + 1] + dy * inverse;
      const rx = x[start + k] - meanX[k];
      const ry = y[start + k] - meanY[k];
      squaresX[k] = squaresX[k + 1] + dx * rx;
      squaresY[k] = squaresY[k + 1] + dy * ry;
      products[k] = products[k + 1] + dx * ry;
    }
  }
}

/** Weights 0, 1, ..., window - 1 from the oldest day; the weight 0 still lets a missing value through, as a product does. */
function slideLinear(x: Float64Array, out: Float64Array, window: number): void {
  const days = x.length;
  const total = (window * (window - 1)) / 2;
  const sums = new Float64Array(window + 1);
  const weighted = new Float64Array(window + 1);
  for (let start = 0; start < days; start += window) {
    let prefix = 0;
    let prefixWeighted = 0;
    for (let k = 0; k < window && start + k < days; k++) {
      const t = start + k;
      if (k === 0) {
        prefix = x[t];
        prefixWeighted = 0;
      } else {
        prefix += x[t];
        prefixWeighted += k * x[t];
      }
      if (t < window - 1) continue;
      const oldest = 0 * x[t - window + 1];
      const sum =
        k === window - 1
          ? prefixWeighted + oldest
          : weighted[k + 1] + prefixWeighted + (window - 1 - k) * prefix + oldest;
      out[t] = sum / total;
    }
    if (start + window > days) break;
    sums[window - 1] = x[start + window - 1];
    weighted[window - 1] = 0;
    for (let k = window - 2; k >= 0; k--) {
      weighted[k] = weighted[k + 1] + sums[k + 1];
      sums[k] = x[start + k] + sums[k + 1];
    }
  }
}

/** Powers 1, a, a^2, ..., a^window. */
function powersOf(base: number, window: number): Float64Array {
  const powers = new Float64Array(window + 1).fill(1);
  for (let k = 1; k <= window; k++) powers[k] = powers[k - 1] * base;
  return powers;
}

/** Weights a^1 for the newest to a^window for the oldest day, a = 1 - 2 / (window + 1), divided by their sum. */
function slideExponential(x: Float64Array, out: Float64Array, window: number): void {
  const days = x.length;
  const decay = 1 - 2 / (window + 1);
  const powers = powersOf(decay, window);
  let total = 0;
  for (let k = 1; k <= window; k++) total += powers[k];
  const suffix = new Float64Array(window + 1);
  for (let start = 0; start < days; start += window) {
    let prefix = 0;
    for (let k = 0; k < window && start + k < days; k++) {
      const t = start + k;
      prefix = k === 0 ? x[t] : decay * prefix + x[t];
      if (t < window - 1) continue;
      const sum = k === window - 1 ? prefix : prefix + powers[k + 1] * suffix[k + 1];
      out[t] = (decay * sum) / total;
    }
    if (start + window > days) break;
    suffix[window - 1] = x[start + window - 1];
    for (let k = window - 2; k >= 0; k--) suffix[k] = suffix[k + 1] + powers[window - 1 - k] * x[start + k];
  }
}

/** Moments about the mean of the window, by two passes over it. */
function slideHigherMoments(name: 'Skew' | 'Kurt' | 'Mad', x: Float64Array, out: Float64Array, window: number): void {
  const means = new Float64Array(x.length);
  slidePlain(PLAIN.Mean, x, means, window);
  for (let t = window - 1; t < x.length; t++) {
    const mean = means[t];
    let second = 0;
    let higher = 0;
    for (let j = t - window + 1; j <= t; j++) {
      const gap = x[j] - mean;
      const square = gap * gap;
      second += square;
      higher += name === 'Mad' ? Math.abs(gap) : name === 'Skew' ? square * gap : square * square;
    }
    if (name === 'Mad') out[t] = higher / window;
    else if (name === 'Skew') {
      const variance = second / window;
      out[t] = higher / window / (variance * Math.sqrt(variance));
    } else {
      const variance = second / (window - 1);
      out[t] = higher / window / (variance * variance) - 3;
    }
  }
}

/** Lower median from a sorted window. */
function slideMedian(x: Float64Array, out: Float64Array, window: number): void {
  const sorted = new Float64Array(window);
  let held = 0;
  const place = (value: number): number => {
    let low = 0;
    let high = held;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < value) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  for (let t = 0; t < x.length; t++) {
    const gone = t >= window ? x[t - window] : Number.NaN;
    if (!Number.isNaN(gone)) {
      sorted.copyWithin(place(gone), place(gone) + 1, held);
      held--;
    }
    if (!Number.isNaN(x[t])) {
      const at = place(x[t]);
      sorted.copyWithin(at + 1, at, held);
      sorted[at] = x[t];
      held++;
    }
    if (t >= window - 1) out[t] = held < window ? Number.NaN : sorted[(window - 1) >> 1];
  }
}

/** Place of the newest value in its window. Comparisons with missing values are false: a missing newest value gives 0. */
function slideRank(x: Float64Array, out: Float64Array, window: number): void {
  for (let t = window - 1; t < x.length; t++) {
    let above = 0;
    let notBelow = 0;
    for (let j = t - window + 1; j <= t; j++) {
      if (x[t] < x[j]) above++;
      if (x[t] <= x[j]) notBelow++;
    }
    out[t] = (notBelow + above + (notBelow > above ? 1 : 0)) / (2 * window);
  }
}

/** One stock: what a window gives for every day from `window - 1` (Ref and Delta: `window`) on. */
function slideColumn(name: RollingName, x: Float64Array, out: Float64Array, window: number): void {
  switch (name) {
    case 'Ref':
      for (let t = window; t < x.length; t++) out[t] = x[t - window];
      return;
    case 'Delta':
      for (let t = window; t < x.length; t++) out[t] = x[t] - x[t - window];
      return;
    case 'Sum':
    case 'Mean':
    case 'Max':
    case 'Min':
      slidePlain(PLAIN[name], x, out, window);
      return;
    case 'Std':
    case 'Var':
      slideMoments(name, x, x, out, window);
      return;
    case 'Skew':
    case 'Kurt':
    case 'Mad':
      slideHigherMoments(name, x, out, window);
      return;
    case 'Med':
      slideMedian(x, out, window);
      return;
    case 'Rank':
      slideRank(x, out, window);
      return;
    case 'WMA':
      slideLinear(x, out, window);
      return;
    case 'EMA':
      slideExponential(x, out, window);
      return;
    default:
      throw new RangeError(`${name satisfies never} is no rolling operator`);
  }
}

/** The reference of `rollingPanel`: column by column, in f64. Days without a whole window become NaN. */
export function rollingReference(
  name: RollingName,
  x: PanelValues,
  out: PanelValues,
  { days, stocks }: PanelShape,
  window: number,
): void {
  const column = new Float64Array(days);
  const result = new Float64Array(days);
  for (let s = 0; s < stocks; s++) {
    for (let t = 0; t < days; t++) column[t] = x[t * stocks + s];
    result.fill(Number.NaN);
    slideColumn(name, column, result, window);
    for (let t = 0; t < days; t++) out[t * stocks + s] = result[t];
  }
}

/** The reference of `rollingPairPanel`. */
export function rollingPairReference(
  name: 'Cov' | 'Corr',
  x: PanelValues,
  y: PanelValues,
  out: PanelValues,
  { days, stocks }: PanelShape,
  window: number,
): void {
  const left = new Float64Array(days);
  const right = new Float64Array(days);
  const result = new Float64Array(days);
  for (let s = 0; s < stocks; s++) {
    for (let t = 0; t < days; t++) {
      left[t] = x[t * stocks + s];
      right[t] = y[t * stocks + s];
    }
    result.fill(Number.NaN);
    slideMoments(name, left, right, result, window);
    for (let t = 0; t < days; t++) out[t * stocks + s] = result[t];
  }
}

/** The reference of `normalisePanel`. */
export function normaliseReference(
  x: PanelValues,
  z: PanelValues,
  spread: Float64Array,
  { days, stocks }: PanelShape,
): void {
  const sums = new Float64Array(8);
  for (let t = 0; t < days; t++) {
    const from = t * stocks;
    sums.fill(0);
    let present = 0;
    for (let s = 0; s < stocks; s++) {
      if (Number.isNaN(x[from + s])) continue;
      sums[s % 8] += x[from + s];
      present++;
    }
    let mean = addUp(sums) / present;
    // Corrected by what is left about it: a value that is the mean must get the score 0, which is that of missing values, or
    // ranks would tell them apart.
    sums.fill(0);
    for (let s = 0; s < stocks; s++) if (!Number.isNaN(x[from + s])) sums[s % 8] += x[from + s] - mean;
    mean += addUp(sums) / present;
    sums.fill(0);
    for (let s = 0; s < stocks; s++) {
      const gap = x[from + s] - mean;
      if (!Number.isNaN(x[from + s])) sums[s % 8] += gap * gap;
    }
    const deviation = Math.sqrt(addUp(sums) / present);
    sums.fill(0);
    for (let s = 0; s < stocks; s++) {
      const score = (x[from + s] - mean) / deviation;
      z[from + s] = Number.isNaN(score) ? 0 : score;
      sums[s % 8] += z[from + s] * z[from + s];
    }
    spread[t] = Math.sqrt(addUp(sums) / stocks);
  }
}

/** The reference of `dayProducts`. */
export function dayProductsReference(
  a: PanelValues,
  b: PanelValues,
  out: Float64Array,
  { days, stocks }: PanelShape,
): void {
  const sums = new Float64Array(8);
  for (let t = 0; t < days; t++) {
    sums.fill(0);
    for (let s = 0; s < stocks; s++) sums[s % 8] += a[t * stocks + s] * b[t * stocks + s];
    out[t] = addUp(sums);
  }
}

/** The reference of `dayMoments`. */
export function dayMomentsReference(
  x: PanelValues,
  y: PanelValues,
  out: Float64Array,
  { days, stocks }: PanelShape,
): void {
  const [sumX, sumY, xx, yy, xy] = Array.from({ length: 5 }, () => new Float64Array(8));
  for (let t = 0; t < days; t++) {
    const from = t * stocks;
    for (const sums of [sumX, sumY, xx, yy, xy]) sums.fill(0);
    let n = 0;
    for (let s = 0; s < stocks; s++) {
      if (Number.isNaN(x[from + s]) || Number.isNaN(y[from + s])) continue;
      sumX[s % 8] += x[from + s];
      sumY[s % 8] += y[from + s];
      n++;
    }
    const meanX = addUp(sumX) / n;
    const meanY = addUp(sumY) / n;
    for (let s = 0; s < stocks; s++) {
      if (Number.isNaN(x[from + s]) || Number.isNaN(y[from + s])) continue;
      const dx = x[from + s] - meanX;
      const dy = y[from + s] - meanY;
      xx[s % 8] += dx * dx;
      yy[s % 8] += dy * dy;
      xy[s % 8] += dx * dy;
    }
    out.set([n, addUp(xx), addUp(yy), addUp(xy)], t * 4);
  }
}

/** The reference of `dayRanks`. */
export function dayRanksReference(
  x: PanelValues,
  beside: PanelValues | undefined,
  ties: 'average' | 'order',
  out: PanelValues,
  { days, stocks }: PanelShape,
): void {
  for (let t = 0; t < days; t++) {
    const from = t * stocks;
    const present: number[] = [];
    for (let s = 0; s < stocks; s++) {
      out[from + s] = Number.NaN;
      if (!Number.isNaN(x[from + s]) && !(beside && Number.isNaN(beside[from + s]))) present.push(s);
    }
    present.sort((a, b) => (x[from + a] < x[from + b] ? -1 : x[from + a] > x[from + b] ? 1 : a - b));
    for (let i = 0; i < present.length; ) {
      let end = i + 1;
      if (ties === 'average') while (end < present.length && x[from + present[end]] === x[from + present[i]]) end++;
      const rank = 0.5 * (i + end - 1);
      for (; i < end; i++) out[from + present[i]] = rank;
    }
  }
}
