import type { SamplerStep } from '../types.js';
import { notNegative, positive, type SamplerMethod } from './method.js';

/**
 * T = Tmin + (Tmax - Tmin) (H/ln n)^exponent, Tmin = max(0, T0 - range), Tmax = T0 + range, with the entropy H of the n
 * tokens that are left: sure steps run colder, open ones hotter. As llama.cpp does it.
 */
export const dynamicTemperature: SamplerMethod<Extract<SamplerStep, { kind: 'dynamic-temperature' }>> = {
  summary: 'temperature that grows with the entropy of the step',
  parameters: [
    { name: 'temperature', ...positive },
    { name: 'range', ...notNegative },
    { name: 'exponent', default: 1, ...positive },
  ],
  keys: ['temperature', 'range', 'exponent'],
  filter: ({ temperature, range, exponent }) => ({
    method: 'dynamic-temperature',
    values: [temperature, range, exponent],
  }),
};
