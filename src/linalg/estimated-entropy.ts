import type { SymmetricOperator } from './kernel-operator.js';
import {
  combineTraces,
  type Estimate,
  type QuadratureOptions,
  type SpectralFunction,
  traceFunctions,
} from './lanczos-quadrature.js';

/** An entropy of the spectrum: Rényi's of order `order` of `p_i = |λ_i|^power / Σ_j |λ_j|^power`, nats. */
export interface EntropyRequest {
  /** The diffusion time t. Default 1. */
  readonly power?: number;
  /** 1 is Shannon's; others q give `log Σ p^q / (1 - q)`. Positive and finite. Default 1. */
  readonly order?: number;
}

export interface EntropyEstimate extends Estimate {
  readonly power: number;
  readonly order: number;
  /** How much the last steps of the quadrature changed the entropy, nats. */
  readonly quadratureChange: number;
}

export interface EstimatedEntropies {
  readonly entropies: readonly EntropyEstimate[];
  readonly probes: number;
  readonly steps: number;
  /** The largest Ritz value over the trace: p_1 from below, so -log of it is the order ∞ from above. */
  readonly largestShare: number;
  readonly trace: number;
}

/**
 * Entropies of the spectrum of a positive semi-definite operator by stochastic Lanczos quadrature, all from the same
 * products. For order 1, `S = log τ - tr(|K|^t log |K|^t) / τ` with `τ = tr |K|^t`; for order q,
 * `(log tr |K|^{tq} - q log τ) / (1 - q)`. τ is exact for t = 1, and for t = 2 where the operator knows its squared norm.
 * @throws as `traceFunctions`
 */
export async function estimateEntropies(
  operator: SymmetricOperator,
  requests: readonly EntropyRequest[],
  options: QuadratureOptions,
): Promise<EstimatedEntropies> {
  const functions: SpectralFunction[] = [];
  const indexOf = (name: string, at: (x: number) => number): number => {
    const found = functions.findIndex((one) => one.name === name);
    if (found >= 0) return found;
    return functions.push({ name, at }) - 1;
  };
  const power = (exponent: number): number => indexOf(`power ${exponent}`, (x) => Math.abs(x) ** exponent);
  const wanted = requests.map(({ power: t = 1, order: q = 1 }) => {
    if (!(t > 0 && q > 0 && Number.isFinite(t * q))) throw new RangeError(`power ${t} and order ${q} of an entropy`);
    const total = power(t);
    const part =
      q === 1
        ? indexOf(`entropy ${t}`, (x) => (x === 0 ? 0 : Math.abs(x) ** t * t * Math.log(Math.abs(x))))
        : power(t * q);
    return { t, q, total, part };
  });
  const estimates = await traceFunctions(operator, functions, options);
  const { traces, quadratureChanges, largest } = estimates;
  const entropies = wanted.map(({ t, q, total, part }): EntropyEstimate => {
    const entropy = (tau: number, sum: number): number =>
      q === 1 ? Math.log(tau) - sum / tau : (Math.log(sum) - q * Math.log(tau)) / (1 - q);
    // No sum of powers is below that of the largest eigenvalue, of which `largest` is a lower bound: high powers leave
    // little beside it, and noise must not make a trace negative.
    const atLeast = (trace: number, exponent: number): number => Math.max(trace, Math.max(0, largest) ** exponent);
    const tau = atLeast(traces[total].value, t);
    const sum = q === 1 ? traces[part].value : atLeast(traces[part].value, t * q);
    const value = Math.min(Math.log(operator.n), Math.max(0, entropy(tau, sum)));
    const derivatives = q === 1 ? [(1 + sum / tau) / tau, -1 / tau] : [q / ((q - 1) * tau), 1 / ((1 - q) * sum)];
    const parts = [total, part].map((index, k) => ({ index, derivative: derivatives[k] }));
    const change = parts.reduce((all, { index, derivative }) => all + derivative * quadratureChanges[index], 0);
    return { ...combineTraces(estimates, value, parts), power: t, order: q, quadratureChange: change };
  });
  const { probes, steps, knownTraces } = estimates;
  return { entropies, probes, steps, largestShare: largest / knownTraces.trace, trace: knownTraces.trace };
}
