/** Knots of one model's distribution function, whose pieces hold given shares of the mass. */
interface Pieces {
  /** `[m + 2]`, ascending */
  readonly knots: Float64Array;
  /** Share of the mixture in each piece `[m + 1]`. */
  readonly shares: Float64Array;
  /** The piece that the sweep is in; -1 before the first knot. */
  piece: number;
}

/** A distribution that is linear between its quantiles; its outer pieces go on with their slope until 0 and 1. */
function piecesOf(row: Float64Array, levels: ArrayLike<number>, weight: number): Pieces {
  const m = levels.length;
  const knots = new Float64Array(m + 2);
  const shares = new Float64Array(m + 1);
  knots.set(row, 1);
  shares[0] = levels[0];
  for (let j = 1; j < m; j++) shares[j] = levels[j] - levels[j - 1];
  shares[m] = 1 - levels[m - 1];
  const slopeLow = m > 1 ? (row[1] - row[0]) / shares[1] : 0;
  const slopeHigh = m > 1 ? (row[m - 1] - row[m - 2]) / shares[m - 1] : 0;
  knots[0] = row[0] - slopeLow * shares[0];
  knots[m + 1] = row[m - 1] + slopeHigh * shares[m];
  for (let j = 0; j <= m; j++) shares[j] *= weight;
  return { knots, shares, piece: -1 };
}

/** Density of a piece that has a width; 0 outside, and for mass on one point. */
function densityOf({ knots, shares, piece }: Pieces): number {
  if (piece < 0 || piece >= shares.length) return 0;
  const density = shares[piece] / (knots[piece + 1] - knots[piece]);
  return Number.isFinite(density) ? density : 0;
}

/** Goes past the next knot of a model; the mass that lies on that very point. */
function advance(pieces: Pieces): number {
  pieces.piece++;
  const { knots, shares, piece } = pieces;
  if (piece >= shares.length) return 0;
  return Number.isFinite(shares[piece] / (knots[piece + 1] - knots[piece])) ? 0 : shares[piece];
}

/**
 * Quantiles of the mixture of the models' distributions (linear pool, Stone 1961): the distribution functions are
 * averaged and the average is inverted. Quantile averaging narrows what the pool widens (Lichtendahl et al. 2013).
 * @param values holds z of one row `[p, m]` from `start` on; models with a missing quantile take no part
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
  const mixture: Pieces[] = [];
  let total = 0;
  const row = new Float64Array(m);
  for (let k = 0; k < weights.length; k++) {
    for (let j = 0; j < m; j++) row[j] = values[start + k * m + j];
    if (weights[k] === 0 || row.some(Number.isNaN)) continue;
    total += weights[k];
    mixture.push(piecesOf(row.sort(), levels, weights[k]));
  }
  const result = new Float64Array(m).fill(Number.NaN);
  if (mixture.length === 0) return result;
  let reached = 0;
  let at = Number.NaN;
  let level = 0;
  // The knots of all models from left to right.
  for (let left = mixture.length * (m + 2); left > 0; left--) {
    let next = mixture[0];
    let place = Number.POSITIVE_INFINITY;
    let density = 0;
    for (const pieces of mixture) {
      density += densityOf(pieces);
      const knot = pieces.piece + 1 < pieces.knots.length ? pieces.knots[pieces.piece + 1] : Number.POSITIVE_INFINITY;
      if (knot < place) {
        place = knot;
        next = pieces;
      }
    }
    const grown = density > 0 ? reached + density * (place - at) : reached;
    for (; level < m && density > 0 && grown >= levels[level] * total; level++) {
      result[level] = at + (levels[level] * total - reached) / density;
    }
    const jump = advance(next);
    at = place;
    reached = grown + jump;
    for (; level < m && jump > 0 && reached >= levels[level] * total; level++) result[level] = at;
  }
  // What rounding left of the highest levels.
  return result.fill(at, level);
}
