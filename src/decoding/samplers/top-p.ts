import type { SamplerStep } from '../types.js';
import { type SamplerMethod, share } from './method.js';

/**
 * Nucleus sampling (Holtzman et al. 2020): the smallest set of most probable tokens whose mass reaches p; of equal tokens
 * the lower ids.
 */
export const topP: SamplerMethod<Extract<SamplerStep, { kind: 'top-p' }>> = {
  summary: 'the smallest set of most probable tokens with mass p',
  parameters: [{ name: 'p', default: 0.9, ...share }],
  keys: ['p'],
  filter: ({ p }) => ({ method: 'top-p', values: [p] }),
};
