import type { SamplerStep } from '../types.js';
import type { SamplerMethod } from './method.js';

/**
 * Exclude top choices: with a probability, drops every token of at least the threshold but the least probable of them.
 */
export const xtc: SamplerMethod<Extract<SamplerStep, { kind: 'xtc' }>> = {
  summary: 'with a chance, drops all likely tokens but the least likely of them',
  parameters: [
    { name: 'probability', accepts: (v) => v >= 0 && v <= 1, range: 'a number in [0, 1]' },
    { name: 'threshold', accepts: (v) => v > 0 && v <= 0.5, range: 'a number in (0, 0.5]' },
  ],
  keys: ['probability', 'threshold'],
  filter: ({ threshold }, { acts }) => (acts ? { method: 'xtc', values: [threshold] } : undefined),
  chance: ({ probability }) => probability,
};
