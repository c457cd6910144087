import type { SamplerStep } from '../types.js';
import { count, type SamplerMethod } from './method.js';

/**
 * Keeps x >= the k-th largest x: ties at the boundary all stay.
 */
export const topK: SamplerMethod<Extract<SamplerStep, { kind: 'top-k' }>> = {
  summary: 'the k most probable tokens and ties',
  parameters: [{ name: 'k', ...count }],
  keys: ['k'],
  filter: ({ k }) => ({ method: 'top-k', values: [k] }),
};
