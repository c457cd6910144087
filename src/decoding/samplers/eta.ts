import type { SamplerStep } from '../types.js';
import { openShare, type SamplerMethod } from './method.js';

/**
 * Keeps p >= min(epsilon, sqrt(epsilon) e^-H), H in nats (Hewitt, Manning & Liang 2022).
 */
export const eta: SamplerMethod<Extract<SamplerStep, { kind: 'eta' }>> = {
  summary: 'tokens of probability at least min(epsilon, sqrt(epsilon) exp(-H))',
  parameters: [{ name: 'epsilon', default: 3e-4, ...openShare }],
  keys: ['epsilon'],
  filter: ({ epsilon }) => ({ method: 'eta', values: [epsilon] }),
};
