import { digamma, trigamma } from '../linalg/special-functions.js';
import type { CountProfile } from './count-profile.js';

export interface JamesSteinEntropy {
  readonly entropyNats: number;
  /** Weight of the uniform law, 0 to 1. */
  readonly lambda: number;
}

/**
 * James-Stein shrinkage towards the uniform law over `support` symbols (Hausser & Strimmer 2009), plug-in entropy of
 * the shrunk law, nats.
 */
export function jamesSteinEntropy(profile: CountProfile, support: number): JamesSteinEntropy {
  const { total, values, multiplicities, observed } = profile;
  const uniform = 1 / support;
  const unseen = support - observed;
  let spread = 0;
  let distance = unseen * uniform * uniform;
  for (let g = 0; g < values.length; g++) {
    const u = values[g] / total;
    spread += multiplicities[g] * u * (1 - u);
    distance += multiplicities[g] * (uniform - u) ** 2;
  }
  const lambda = total <= 1 || distance === 0 ? 1 : Math.min(1, Math.max(0, spread / ((total - 1) * distance)));
  let entropy = 0;
  const add = (p: number, multiplicity: number): void => {
    if (p > 0 && multiplicity > 0) entropy -= multiplicity * p * Math.log(p);
  };
  for (let g = 0; g < values.length; g++) add(lambda * uniform + ((1 - lambda) * values[g]) / total, multiplicities[g]);
  add(lambda * uniform, unseen);
  return { entropyNats: entropy === 0 ? 0 : entropy, lambda };
}

export interface PosteriorMoments {
  readonly meanNats: number;
  /** nats² */
  readonly variance: number;
}

/**
 * Mean and variance of the entropy under the posterior Dirichlet law with `concentration` added to each of `support`
 * cells (Wolpert & Wolf 1995). The second moment is taken about the mean: with α = c + a, ν = Σα and h the mean,
 * variance = [Σ α (ψ(α+1) - ψ(ν+2) + h)² + Σ α(α+1) ψ'(α+1) + 1/(ν+1)² - 1] / (ν(ν+1)) - ψ'(ν+2), which follows from
 * their E[H²] and does not cancel as E[H²] - h² does.
 */
export function dirichletMoments(profile: CountProfile, support: number, concentration: number): PosteriorMoments {
  const { total, values, multiplicities, observed } = profile;
  if (support === 1) return { meanNats: 0, variance: 0 };
  const nu = total + support * concentration;
  const unseen = support - observed;
  let sum = 0;
  for (let g = 0; g < values.length; g++) {
    const alpha = values[g] + concentration;
    sum += multiplicities[g] * alpha * digamma(alpha + 1);
  }
  if (unseen > 0) sum += unseen * concentration * digamma(concentration + 1);
  const mean = digamma(nu + 1) - sum / nu;
  const centre = mean - digamma(nu + 2);
  let squares = 0;
  const add = (alpha: number, multiplicity: number): void => {
    const deviation = digamma(alpha + 1) + centre;
    squares += multiplicity * alpha * (deviation * deviation + (alpha + 1) * trigamma(alpha + 1));
  };
  for (let g = 0; g < values.length; g++) add(values[g] + concentration, multiplicities[g]);
  if (unseen > 0) add(concentration, unseen);
  const variance = (squares + 1 / (nu + 1) ** 2 - 1) / (nu * (nu + 1)) - trigamma(nu + 2);
  return { meanNats: mean, variance: Math.max(0, variance) };
}
