import type { SamplerStep } from '../types.js';
import { type SamplerMethod, share } from './method.js';

/**
 * Keeps p >= share * max p (Nguyen et al. 2024).
 */
export const minP: SamplerMethod<Extract<SamplerStep, { kind: 'min-p' }>> = {
  summary: 'tokens of at least p times the largest probability',
  parameters: [{ name: 'p', default: 0.1, ...share }],
  keys: ['p'],
  filter: ({ p }) => ({ method: 'min-p', values: [p] }),
};
