import { type MirostatCut, mirostatCut } from '../../kernels/token-cuts.js';
import type { LogitRow } from '../../kernels/token-filter.js';
import type { SamplerStep } from '../types.js';
import { count, notNegative, positive, type SamplerMethod } from './method.js';

/**
 * Mirostat (Basu et al. 2021): fits Zipf's law to the most probable tokens and keeps as many as have the surprise mu, which
 * learns from the surprise of what is drawn; mu starts at 2 tau.
 */
export const mirostatV1: SamplerMethod<Extract<SamplerStep, { kind: 'mirostat-v1' }>> = {
  summary: 'keeps a surprise of tau bits, by a fit of a power law',
  parameters: [
    { name: 'tau', default: 5, ...positive },
    { name: 'eta', default: 0.1, ...notNegative },
    { name: 'candidates', default: 100, ...count },
  ],
  keys: ['tauBits', 'eta', 'candidates'],
  filter: ({ candidates }, { muBits }) => ({ method: 'mirostat-v1', values: [muBits, candidates] }),
  target: ({ tauBits, eta }) => ({ tauBits, eta }),
};

/**
 * What Mirostat v1 reads from one row: the fitted exponent and the count it gives.
 * @param logits one row [vocabulary]
 */
export function mirostatEstimate(
  logits: LogitRow,
  { muBits, candidates = 100, temperature = 1 }: { muBits: number; candidates?: number; temperature?: number },
): MirostatCut {
  const sorted = Float64Array.from(logits)
    .filter((x) => x > Number.NEGATIVE_INFINITY)
    .sort()
    .reverse();
  const top = sorted.subarray(0, candidates).map((x) => x / temperature);
  return mirostatCut(top, logits.length, muBits);
}
