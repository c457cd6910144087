import { logGamma } from '../linalg/special-functions.js';
import type { Random } from '../random.js';

/** Random counts: binomial, multinomial, hypergeometric. */

/** Below this mean a binomial number is found by walking up from 0. */
const WALKED = 10;

/** Binomial(n, p) for p <= 1/2: inversion for small means, else Hörmann's transformed rejection BTRS (1993). */
function lowerBinomial(random: Random, n: number, p: number): number {
  if (n * p < WALKED) {
    const odds = p / (1 - p);
    let probability = Math.exp(n * Math.log1p(-p));
    let rest = random.uniform();
    let k = 0;
    while (rest > probability && k < n) {
      rest -= probability;
      k++;
      probability *= (odds * (n - k + 1)) / k;
    }
    return k;
  }
  const spread = Math.sqrt(n * p * (1 - p));
  const b = 1.15 + 2.53 * spread;
  const a = -0.0873 + 0.0248 * b + 0.01 * p;
  const centre = n * p + 0.5;
  const squeeze = 0.92 - 4.2 / b;
  const alpha = (2.83 + 5.1 / b) * spread;
  const mode = Math.floor((n + 1) * p);
  const logOdds = Math.log(p / (1 - p));
  let atMode: number | undefined;
  for (;;) {
    const u = random.uniform() - 0.5;
    const v = random.uniform();
    const edge = 0.5 - Math.abs(u);
    const k = Math.floor(((2 * a) / edge + b) * u + centre);
    if (edge >= 0.07 && v <= squeeze) return k;
    if (!(k >= 0 && k <= n)) continue;
    atMode ??= logGamma(mode + 1) + logGamma(n - mode + 1);
    const bound = atMode - logGamma(k + 1) - logGamma(n - k + 1) + (k - mode) * logOdds;
    if (Math.log((v * alpha) / (a / (edge * edge) + b)) <= bound) return k;
  }
}

/** Number of successes among `n` trials of probability `p`. */
export function drawBinomial(random: Random, n: number, p: number): number {
  if (n === 0 || p <= 0) return 0;
  if (p >= 1) return n;
  return p <= 0.5 ? lowerBinomial(random, n, p) : n - lowerBinomial(random, n, 1 - p);
}

/** `total` draws with probabilities in proportion to `weights`, as counts, [k]: one binomial number a cell. */
export function drawMultinomial(random: Random, total: number, weights: Float64Array, target: Float64Array): void {
  let weight = 0;
  for (let i = 0; i < weights.length; i++) weight += weights[i];
  let rest = total;
  for (let i = 0; i < weights.length; i++) {
    const count = rest === 0 ? 0 : drawBinomial(random, rest, weights[i] / weight);
    target[i] = count;
    rest -= count;
    weight -= weights[i];
  }
}

/** ln of the binomial coefficient. */
const logChoose = (n: number, k: number): number => logGamma(n + 1) - logGamma(k + 1) - logGamma(n - k + 1);

/** How many of `draws` without replacement are marked, of `total` of which `marked` are: inversion out from the mode. */
export function drawHypergeometric(random: Random, total: number, marked: number, draws: number): number {
  const low = Math.max(0, draws - (total - marked));
  const high = Math.min(draws, marked);
  if (low === high) return low;
  const mode = Math.min(high, Math.max(low, Math.floor(((draws + 1) * (marked + 1)) / (total + 2))));
  const atMode = Math.exp(logChoose(marked, mode) + logChoose(total - marked, draws - mode) - logChoose(total, draws));
  let rest = random.uniform() - atMode;
  if (rest <= 0) return mode;
  let [up, down] = [mode, mode];
  let [upper, lower] = [atMode, atMode];
  while (up < high || down > low) {
    if (up < high) {
      upper *= ((marked - up) * (draws - up)) / ((up + 1) * (total - marked - draws + up + 1));
      up++;
      rest -= upper;
      if (rest <= 0) return up;
    }
    if (down > low) {
      lower *= (down * (total - marked - draws + down)) / ((marked - down + 1) * (draws - down + 1));
      down--;
      rest -= lower;
      if (rest <= 0) return down;
    }
  }
  // What is left is rounding.
  return mode;
}
