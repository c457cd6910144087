import type { SamplerStep } from '../types.js';
import { notNegative, positive, type SamplerMethod } from './method.js';

/**
 * Mirostat as llama.cpp has it: keeps the tokens of surprise up to mu bits; mu starts at 2 tau and learns from the surprise
 * of what is drawn, after renormalising.
 */
export const mirostatV2: SamplerMethod<Extract<SamplerStep, { kind: 'mirostat-v2' }>> = {
  summary: 'keeps a surprise of tau bits, by a bound on each token',
  parameters: [
    { name: 'tau', default: 5, ...positive },
    { name: 'eta', default: 0.1, ...notNegative },
  ],
  keys: ['tauBits', 'eta'],
  filter: (_, { muBits }) => ({ method: 'mirostat-v2', values: [muBits] }),
  target: ({ tauBits, eta }) => ({ tauBits, eta }),
};
