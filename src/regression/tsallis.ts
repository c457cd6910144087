import { InputError } from '../errors.js';
import { logRisingFactorial } from '../linalg/special-functions.js';

/** Tsallis entropy `(1 - sum p^q) / (q - 1)` of probabilities, in nats at q = 1 (Shannon's). */
export function tsallisEntropy(probabilities: ArrayLike<number>, q: number): number {
  let sum = 0;
  for (let i = 0; i < probabilities.length; i++) {
    const p = probabilities[i];
    if (p > 0) sum += q === 1 ? -p * Math.log(p) : p ** q;
  }
  return q === 1 ? sum : (1 - sum) / (q - 1);
}

/** Entropy of two independent systems: `S_A + S_B + (1 - q) S_A S_B`. */
export function tsallisJoint(a: number, b: number, q: number): number {
  return a + b + (1 - q) * a * b;
}

/** q of an n-variate q-Gaussian with m degrees of freedom: `1 + 2 / (m + n)`. Marginals keep m, and so change q. */
export function qOfFreedom(m: number, n: number): number {
  return 1 + 2 / (m + n);
}

/**
 * Degrees of freedom `m = 2 / (q - 1) - n` of an n-variate q-Gaussian.
 * @param where names what has n observations, for the message: `cluster 4`
 * @throws InputError when q is not in (1, 1 + 2/n)
 */
export function freedomOfQ(q: number, n: number, where: string): number {
  const limit = 1 + 2 / n;
  if (q < limit && q > 1) return 2 / (q - 1) - n;
  if (!(q > 1))
    throw new InputError(`q=${q} needs q > 1; q = 1 is the normal distribution, --dof 1e8 comes next to it`);
  throw new InputError(`q=${q} needs q < 1+2/n = ${Number(limit.toPrecision(6))} for n=${n} observations in ${where}`);
}

/** What the covariance is of the scale matrix: `m / (m - 2)`; infinite for m <= 2. */
export function covarianceFactor(m: number): number {
  return m > 2 ? m / (m - 2) : Number.POSITIVE_INFINITY;
}

/**
 * `log Gamma((m + n) / 2) - log Gamma(m / 2) - (n / 2) log m`, without cancellation for large m: what the density of the
 * n-variate t has before `|pi Sigma|^(-1/2) (1 + d^2 / m)^(-(m + n) / 2)`.
 */
export function logNormaliser(m: number, n: number): number {
  const half = n / 2;
  return logRisingFactorial(m / 2, half) + half * Math.log(half) - half - half * Math.log(m);
}

/**
 * Log-density of the q-Gaussian with q = 1 + 2 / (m + n), which is the n-variate t with m degrees of freedom and scale
 * Sigma, from the squared Mahalanobis distance `x' Sigma^-1 x` and log |Sigma|.
 */
export function qGaussianLogDensity(m: number, n: number, distance2: number, logDeterminant: number): number {
  const scale = -0.5 * (n * Math.log(Math.PI) + logDeterminant);
  return logNormaliser(m, n) + scale - 0.5 * (m + n) * Math.log1p(distance2 / m);
}

/**
 * What the likelihood of one joint vector of length n still has to say about m once its scale is profiled out (d^2 = n at
 * the best sigma^2): it rises with m without end, so that m and q are not identifiable from one vector.
 */
export function jointProfileTerm(m: number, n: number): number {
  return logNormaliser(m, n) - 0.5 * (m + n) * Math.log1p(n / m);
}
