import { digamma, scaledExponentialIntegral } from '../linalg/special-functions.js';
import type { CountProfile } from './count-profile.js';

/**
 * Chao & Shen (2003), nats: the plug-in sum over probabilities shrunk by the coverage, each term divided by the
 * probability that its symbol is seen at all (Horvitz-Thompson).
 */
export function chaoShenEntropy(profile: CountProfile): number {
  const { total, values, multiplicities, singles } = profile;
  // With nothing but singletons the coverage would be 0.
  const coverage = 1 - (singles === total ? total - 1 : singles) / total;
  let sum = 0;
  for (let g = 0; g < values.length; g++) {
    const p = (coverage * values[g]) / total;
    const seen = -Math.expm1(total * Math.log1p(-p));
    sum -= (multiplicities[g] * p * Math.log(p)) / seen;
  }
  return sum === 0 ? 0 : sum;
}

/** Terms of the tail that are added one by one before the asymptotic form is good. */
const DIRECT_TERMS = 60;
/** B_2m / (2m)! for m = 1, 2, ... */
const BERNOULLI = [1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000];

/**
 * Σ_{j>=1} x^j / (n - 1 + j), 0 <= x < 1. With x = e^-λ it is the integral of e^{-sn} / (e^{s+λ} - 1) e^{s}, whose
 * first term is e^{λn} E₁(λn); the others follow from the Bernoulli numbers.
 */
export function logarithmicTail(x: number, complement: number, n: number): number {
  const lambda = -Math.log1p(-complement);
  let sum = 0;
  let power = 1;
  const direct = lambda > 0.5 ? Math.ceil(40 / lambda) : Math.max(0, DIRECT_TERMS - n);
  for (let j = 1; j <= direct; j++) {
    power *= x;
    sum += power / (n - 1 + j);
  }
  if (lambda > 0.5) return sum;
  const m = n + direct;
  // 1/(1 - e^-y) = 1/y + 1/2 + y/12 - y³/720 + ..., y = λ + s, integrated against e^{-sm}.
  let rest = scaledExponentialIntegral(lambda * m) + 0.5 / m;
  for (let b = 0; b < BERNOULLI.length; b++) {
    const degree = 2 * b + 1;
    // ∫ (λ+s)^p e^{-sm} ds = Σ_i p!/(p-i)! λ^{p-i} / m^{i+1}
    let integral = 0;
    let factor = 1 / m;
    for (let i = 0; i <= degree; i++) {
      integral += factor * lambda ** (degree - i);
      factor *= (degree - i) / m;
    }
    rest += BERNOULLI[b] * integral;
  }
  return sum + power * x * rest;
}

/**
 * Chao, Wang & Jost (2013), nats: Σ (c/N)(ψ(N) - ψ(c)) and, for the symbols not seen, the tail
 * (f1/N) Σ_{r>=N} (1-A)^{r-N+1} / r, which their closed form gives as a difference that cancels.
 */
export function chaoWangJostEntropy(profile: CountProfile): number {
  const { total, values, multiplicities, singles, doubles } = profile;
  const top = digamma(total);
  let sum = 0;
  for (let g = 0; g < values.length; g++) {
    sum += multiplicities[g] * (values[g] / total) * (top - digamma(values[g]));
  }
  if (singles === 0) return sum;
  const rest = doubles > 0 ? (total - 1) * singles : (total - 1) * (singles - 1);
  const found = doubles > 0 ? 2 * doubles : 2;
  const a = found / (rest + found);
  if (a >= 1) return sum;
  return sum + (singles / total) * logarithmicTail(rest / (rest + found), a, total);
}
