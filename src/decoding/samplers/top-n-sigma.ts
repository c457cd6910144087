import type { SamplerStep } from '../types.js';
import { positive, type SamplerMethod } from './method.js';

/**
 * Keeps x >= max x - n sigma, sigma the population deviation of the finite logits of the whole vocabulary, before any
 * temperature and whatever was cut before; the set does not depend on the temperature. As llama.cpp does it.
 */
export const topNSigma: SamplerMethod<Extract<SamplerStep, { kind: 'top-n-sigma' }>> = {
  summary: 'logits within n standard deviations of the largest',
  parameters: [{ name: 'n', default: 1, ...positive }],
  keys: ['n'],
  filter: ({ n }) => ({ method: 'top-n-sigma', values: [n] }),
};
