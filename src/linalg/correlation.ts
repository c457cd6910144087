/** Pearson's correlation of two variables; NaN where one is constant. */
export function pearson(x: Float64Array, y: Float64Array): number {
  const n = x.length;
  let meanX = 0;
  let meanY = 0;
  for (let i = 0; i < n; i++) {
    meanX += x[i];
    meanY += y[i];
  }
  meanX /= n;
  meanY /= n;
  let xx = 0;
  let yy = 0;
  let xy = 0;
  for (let i = 0; i < n; i++) {
    const dx = x[i] - meanX;
    const dy = y[i] - meanY;
    xx += dx * dx;
    yy += dy * dy;
    xy += dx * dy;
  }
  if (!(xx > 0 && yy > 0)) return Number.NaN;
  return Math.max(-1, Math.min(1, xy / Math.sqrt(xx * yy)));
}

/** Mutual information of two jointly normal variables with correlation r: `-log(1 - r^2) / 2`, in nats. */
export function gaussianInformation(r: number): number {
  return -0.5 * Math.log1p(-r * r);
}

/** Linfoot's coefficient `sqrt(1 - exp(-2 I))`: the |r| of a normal pair with that information. */
export function linfoot(informationNats: number): number {
  return Math.sqrt(-Math.expm1(-2 * Math.max(0, informationNats)));
}

/** Standard error of Pearson's correlation, `(1 - r^2) / sqrt(n - 1)`. */
export function pearsonError(r: number, n: number): number {
  return (1 - r * r) / Math.sqrt(n - 1);
}

/** Ranks with ties at their mean, from 1. */
export function midRanks(values: Float64Array): Float64Array {
  const order = Int32Array.from(values, (_, i) => i).sort((a, b) => values[a] - values[b]);
  const ranks = new Float64Array(values.length);
  for (let i = 0; i < order.length; ) {
    let j = i;
    while (j < order.length && values[order[j]] === values[order[i]]) j++;
    for (let p = i; p < j; p++) ranks[order[p]] = (i + j + 1) / 2;
    i = j;
  }
  return ranks;
}

/** Spearman's correlation: Pearson's of the ranks, ties at their mean; NaN where one variable is constant. */
export function spearman(x: Float64Array, y: Float64Array): number {
  return pearson(midRanks(x), midRanks(y));
}
