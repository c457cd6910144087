import { touchedBySurrogate } from './effects.js';
import { aggregationOf, LOSS_PARAMETERS, surrogateOf } from './settings.js';
import type { Intervention } from './types.js';

/** The plain rule: clipped surrogate on group-relative advantages, and nothing else. */
export const grpo: Intervention = {
  name: 'grpo',
  title: 'Plain GRPO',
  reference: 'Shao et al. 2024, DeepSeekMath (arXiv 2402.03300); clip of Schulman et al. 2017; spec 0.4',
  needs: ['logProb', 'advantage'],
  parameters: LOSS_PARAMETERS,
  prepare(_step, settings, { plain }) {
    const surrogate = surrogateOf(settings);
    const aggregation = aggregationOf(settings);
    return {
      effect: (block) => ({ surrogate, aggregation, touched: touchedBySurrogate(block, surrogate, plain) }),
      facts: {},
      warnings: [],
    };
  },
};
