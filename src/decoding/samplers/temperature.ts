import type { SamplerStep } from '../types.js';
import { notNegative, type SamplerMethod } from './method.js';

/**
 * Divides the logits by T. T = 0 keeps the most probable token alone (of equal ones the lowest id).
 */
export const temperature: SamplerMethod<Extract<SamplerStep, { kind: 'temperature' }>> = {
  summary: 'logits over T; 0 keeps the most probable token',
  parameters: [{ name: 'temperature', ...notNegative }],
  keys: ['temperature'],
  filter: ({ temperature: t }) => ({ method: 'temperature', values: [t] }),
};
