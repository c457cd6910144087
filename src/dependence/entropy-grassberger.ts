import { digamma, EULER_GAMMA } from '../linalg/special-functions.js';
import type { CountProfile } from './count-profile.js';

/** Counts up to this have G(n) from the recursion, which is exact to rounding. */
const TABLE = 4096;
let table: Float64Array | undefined;

/** G(1) = -γ - ln 2, G(2) = 2 - γ - ln 2, G(2n+1) = G(2n), G(2n+2) = G(2n) + 2/(2n+1). */
function recursion(): Float64Array {
  const values = new Float64Array(TABLE + 1);
  values[1] = -EULER_GAMMA - Math.LN2;
  values[2] = 2 + values[1];
  for (let n = 3; n <= TABLE; n++) values[n] = n % 2 === 1 ? values[n - 1] : values[n - 2] + 2 / (n - 1);
  return values;
}

/** Grassberger's G(n) = ψ(n) + (-1)^n/2 [ψ((n+1)/2) - ψ(n/2)] for whole n >= 1. */
export function grassbergerG(n: number): number {
  table ??= recursion();
  if (n <= TABLE) return table[n];
  const sign = n % 2 === 0 ? 0.5 : -0.5;
  return digamma(n) + sign * (digamma((n + 1) / 2) - digamma(n / 2));
}

/** G of 1988, ψ(n) + (-1)^n / (n(n+1)). */
export function grassbergerG1988(n: number): number {
  return digamma(n) + (n % 2 === 0 ? 1 : -1) / (n * (n + 1));
}

function entropyWith(profile: CountProfile, g: (n: number) => number): number {
  const { total, values, multiplicities } = profile;
  const logTotal = Math.log(total);
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += multiplicities[i] * (values[i] / total) * (logTotal - g(values[i]));
  return sum;
}

/** Grassberger (2003), ln N - (1/N) Σ c G(c), nats: the corrected estimator that serves where none is named. */
export function grassbergerEntropy(profile: CountProfile): number {
  return entropyWith(profile, grassbergerG);
}

/** Grassberger (1988), nats. */
export function grassberger1988Entropy(profile: CountProfile): number {
  return entropyWith(profile, grassbergerG1988);
}
