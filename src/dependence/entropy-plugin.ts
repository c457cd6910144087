import { roundedLog } from '../linalg/rounded-log.js';
import type { CountProfile } from './count-profile.js';

/** Plug-in entropy in nats, H0 = ln N - (1/N) Σ c ln c: never above the truth on average, low by about (k-1)/(2N). */
export function pluginEntropy(profile: CountProfile): number {
  const { total, values, multiplicities } = profile;
  let sum = 0;
  for (let g = 0; g < values.length; g++) sum += multiplicities[g] * (values[g] / total) * Math.log(total / values[g]);
  return sum;
}

/** Miller & Madow (1955), H0 + (k-1)/(2N), nats. */
export function millerMadowEntropy(profile: CountProfile): number {
  return pluginEntropy(profile) + (profile.observed - 1) / (2 * profile.total);
}

/** n ln n - (n-1) ln(n-1), without the cancellation. */
function entropyStep(n: number): number {
  return n <= 1 ? 0 : Math.log(n) - (n - 1) * Math.log1p(-1 / n);
}

/**
 * Jackknifed plug-in entropy, N H0 - (N-1) mean of H0 without one observation, nats (Zahl 1977). The sums over N ln N
 * cancel between the two terms and are left out.
 */
export function jackknifeEntropy(profile: CountProfile): number {
  const { total, values, multiplicities } = profile;
  let sum = 0;
  for (let g = 0; g < values.length; g++) {
    sum += multiplicities[g] * (values[g] / total) * (entropyStep(total) - entropyStep(values[g]));
  }
  return sum;
}

/** Standard error of the plug-in entropy by the delta method, sqrt((Σ p ln² p - H0²) / N), nats. */
export function deltaStandardError(profile: CountProfile): number {
  const { total, values, multiplicities } = profile;
  const entropy = pluginEntropy(profile);
  let sum = 0;
  for (let g = 0; g < values.length; g++) {
    const deviation = Math.log(total / values[g]) - entropy;
    sum += multiplicities[g] * (values[g] / total) * deviation * deviation;
  }
  return Math.sqrt(sum / total);
}

const logarithms = new Map<number, number>();

/** Correctly rounded, and kept: the counts of resamples come again and again. */
function logOfShare(share: number): number {
  let found = logarithms.get(share);
  if (found === undefined) {
    if (logarithms.size > 100_000) logarithms.clear();
    found = roundedLog(share);
    logarithms.set(share, found);
  }
  return found;
}

/**
 * Plug-in entropy -Σ p ln p of rows of symbols, nats, summed in the order in which the symbols first occur with
 * logarithms rounded to the nearest, so that resamples that are given as rows have the same bits everywhere. `rows` are
 * places in `codes`; without them all rows are taken in order.
 */
export function pluginOfRows(codes: Int32Array, rows?: ArrayLike<number>): number {
  const length = rows?.length ?? codes.length;
  const counts = new Map<number, number>();
  for (let i = 0; i < length; i++) {
    const code = codes[rows?.[i] ?? i];
    counts.set(code, (counts.get(code) ?? 0) + 1);
  }
  let sum = 0;
  for (const count of counts.values()) {
    const p = count / length;
    sum += p * logOfShare(p);
  }
  return sum === 0 ? 0 : -sum;
}
