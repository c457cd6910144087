import { type SamplerStep, TOP_H_RULES } from '../types.js';
import { type SamplerMethod, share } from './method.js';

/**
 * Top-H (Potraghloo et al. 2025): the longest prefix of most probable tokens whose entropy stays within alpha of the model's
 * own. Three rules: the paper's; `reference` and `transformers`, the partial sums that are published as code.
 */
export const topH: SamplerMethod<Extract<SamplerStep, { kind: 'top-h' }>> = {
  summary: 'the longest prefix of entropy up to alpha times the whole',
  parameters: [
    { name: 'alpha', default: 0.4, ...share },
    { name: 'rule', default: 'paper', words: TOP_H_RULES },
  ],
  keys: ['alpha', 'rule'],
  filter: ({ alpha, rule }) => ({ method: `top-h-${rule}`, values: [alpha] }),
};
