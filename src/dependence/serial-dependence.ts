import { normalCdf } from '../linalg/special-functions.js';
import type { Segments } from './row-orders.js';

/** Dependence of a column on its own last row. */
export interface SerialTest {
  /** Autocorrelation of numbers; of symbols the share of rows equal to the last less what chance gives. */
  readonly statistic: number;
  readonly z: number;
  /** Two-sided. */
  readonly pValue: number;
}

const judged = (statistic: number, z: number): SerialTest => ({ statistic, z, pValue: 2 * normalCdf(-Math.abs(z)) });

/** Visits neighbouring rows of the same segment. */
function eachStep(segments: Segments, visit: (before: number, after: number) => void): number {
  let steps = 0;
  const { rows, starts } = segments;
  for (let s = 0; s + 1 < starts.length; s++) {
    for (let i = starts[s] + 1; i < starts[s + 1]; i++) {
      visit(rows[i - 1], rows[i]);
      steps++;
    }
  }
  return steps;
}

/** Lag-1 autocorrelation of numbers; r sqrt(steps) is standard normal for exchangeable rows. Undefined for too few. */
export function serialNumbers(values: Float64Array, segments: Segments): SerialTest | undefined {
  let mean = 0;
  for (const value of values) mean += value / values.length;
  let variance = 0;
  for (const value of values) variance += (value - mean) ** 2 / values.length;
  let covariance = 0;
  const steps = eachStep(segments, (a, b) => {
    covariance += (values[a] - mean) * (values[b] - mean);
  });
  if (steps < 10 || variance === 0) return undefined;
  const correlation = covariance / steps / variance;
  return judged(correlation, correlation * Math.sqrt(steps));
}

/**
 * Repeats of symbols: the number of rows equal to the last has mean n Σp² and variance n (q - q²) + 2n (Σp³ - q²), q =
 * Σp², for exchangeable rows. Good for any number of symbols.
 */
export function serialSymbols(codes: Int32Array, size: number, segments: Segments): SerialTest | undefined {
  const counts = new Float64Array(size);
  for (let i = 0; i < codes.length; i++) counts[codes[i]]++;
  const n = codes.length;
  let pairs = 0;
  let triples = 0;
  for (const count of counts) {
    pairs += (count / n) * ((count - 1) / (n - 1));
    triples += (count / n) * ((count - 1) / (n - 1)) * ((count - 2) / (n - 2));
  }
  let repeats = 0;
  const steps = eachStep(segments, (a, b) => {
    if (codes[a] === codes[b]) repeats++;
  });
  const variance = steps * (pairs - pairs * pairs) + 2 * steps * (triples - pairs * pairs);
  if (steps < 10 || !(variance > 0)) return undefined;
  return judged(repeats / steps - pairs, (repeats - steps * pairs) / Math.sqrt(variance));
}
