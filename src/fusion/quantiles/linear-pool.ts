/**
 * A distribution function that is linear between its quantiles. Beyond the outermost levels its outer pieces go on with
 * their slope until 0 and 1.
 */
function extendedKnots(
  row: Float64Array,
  levels: ArrayLike<number>,
): { readonly x: Float64Array; readonly mass: Float64Array } {
  const m = levels.length;
  const x = new Float64Array(m + 2);
  const mass = new Float64Array(m + 1);
  x.set(row, 1);
  mass[0] = levels[0];
  for (let j = 1; j < m; j++) mass[j] = levels[j] - levels[j - 1];
  mass[m] = 1 - levels[m - 1];
  const slopeLow = m > 1 ? (row[1] - row[0]) / mass[1] : 0;
  const slopeHigh = m > 1 ? (row[m - 1] - row[m - 2]) / mass[m - 1] : 0;
  x[0] = row[0] - slopeLow * mass[0];
  x[m + 1] = row[m - 1] + slopeHigh * mass[m];
  return { x, mass };
}

/**
 * Quantiles of the mixture of the models' distributions (linear pool, Stone 1961): the distribution functions are
 * averaged and the average is inverted. Quantile averaging narrows what the pool widens (Lichtendahl et al. 2013).
 * @param values z of one row `[p, m]`; models with a missing quantile take no part
 * @param weights of the models, renormalised over those that take part
 * @returns `[m]`; NaN without a model
 */
export function linearPool(
  values: ArrayLike<number>,
  start: number,
  weights: ArrayLike<number>,
  levels: ArrayLike<number>,
): Float64Array {
  const m = levels.length;
  const p = weights.length;
  // Events of the mixture's density: slope changes at knots, and jumps where quantiles coincide.
  const places: number[] = [];
  const slopes: number[] = [];
  const jumps: number[] = [];
  let total = 0;
  const row = new Float64Array(m);
  for (let k = 0; k < p; k++) {
    for (let j = 0; j < m; j++) row[j] = values[start + k * m + j];
    if (weights[k] === 0 || row.some(Number.isNaN)) continue;
    total += weights[k];
    row.sort();
    const { x, mass } = extendedKnots(row, levels);
    for (let j = 0; j <= m; j++) {
      const width = x[j + 1] - x[j];
      const share = weights[k] * mass[j];
      if (width > 0 && Number.isFinite(share / width)) {
        places.push(x[j], x[j + 1]);
        slopes.push(share / width, -share / width);
        jumps.push(0, 0);
      } else {
        places.push(x[j]);
        slopes.push(0);
        jumps.push(share);
      }
    }
  }
  const result = new Float64Array(m).fill(Number.NaN);
  if (total === 0) return result;
  const order = Array.from(places.keys()).sort((a, b) => places[a] - places[b] || a - b);
  let reached = 0;
  let density = 0;
  let at = places[order[0]];
  let level = 0;
  for (const event of order) {
    const grown = reached + density * (places[event] - at);
    while (level < m && grown >= levels[level] * total && density > 0) {
      result[level] = at + (levels[level] * total - reached) / density;
      level++;
    }
    reached = grown;
    at = places[event];
    density += slopes[event];
    reached += jumps[event];
    while (level < m && jumps[event] > 0 && reached >= levels[level] * total) result[level++] = at;
  }
  while (level < m) result[level++] = at;
  return result;
}
