import type { Random } from '../../random.js';

/** ln of a Gamma(shape, 1) variate (Marsaglia & Tsang 2000); below shape 1 by Gamma(shape + 1) U^(1/shape), which may be tiny. */
export function logGammaVariate(random: Random, shape: number): number {
  if (shape < 1) return logGammaVariate(random, shape + 1) + Math.log(1 - random.uniform()) / shape;
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = random.normal();
    const root = 1 + c * x;
    if (root <= 0) continue;
    const v = root * root * root;
    if (Math.log(1 - random.uniform()) < 0.5 * x * x + d - d * v + d * Math.log(v)) return Math.log(d * v);
  }
}

/** A point of the simplex from Dirichlet(concentration), [k]. */
export function dirichlet(random: Random, concentration: ArrayLike<number>): Float64Array {
  const logs = Float64Array.from(concentration, (alpha) => logGammaVariate(random, alpha));
  const most = logs.reduce((a, b) => Math.max(a, b));
  const p = logs.map((log) => Math.exp(log - most));
  const sum = p.reduce((a, b) => a + b, 0);
  return p.map((share) => share / sum);
}
