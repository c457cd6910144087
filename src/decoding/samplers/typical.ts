import type { SamplerStep } from '../types.js';
import { type SamplerMethod, share } from './method.js';

/**
 * Locally typical sampling (Meister et al. 2023): the tokens whose surprisal lies nearest to the entropy, up to a mass. The
 * most probable token may go, by design; ties at the last score stay.
 */
export const typical: SamplerMethod<Extract<SamplerStep, { kind: 'typical' }>> = {
  summary: 'the tokens of surprisal nearest to the entropy, up to a mass',
  parameters: [{ name: 'mass', ...share }],
  keys: ['mass'],
  filter: ({ mass }) => ({ method: 'typical', values: [mass] }),
};
