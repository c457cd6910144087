import type { SamplerStep } from '../types.js';
import { openShare, type SamplerMethod } from './method.js';

/**
 * Keeps p >= epsilon, or the most probable token (Hewitt, Manning & Liang 2022).
 */
export const epsilon: SamplerMethod<Extract<SamplerStep, { kind: 'epsilon' }>> = {
  summary: 'tokens of probability at least epsilon',
  parameters: [{ name: 'epsilon', default: 3e-4, ...openShare }],
  keys: ['epsilon'],
  filter: ({ epsilon: least }) => ({ method: 'epsilon', values: [least] }),
};
