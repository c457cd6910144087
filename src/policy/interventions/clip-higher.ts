import type { TokenBlock } from '../rollouts/types.js';
import { HELD_HIGH, PLAIN_SURROGATE, surrogateTerms } from '../surrogate.js';
import { touchedBySurrogate } from './effects.js';
import { aggregationOf, LOSS_PARAMETERS, surrogateOf } from './settings.js';
import type { Facts, Intervention } from './types.js';

/** Clip-higher: more room for likelier tokens than for less likely ones. */
export const clipHigher: Intervention = {
  name: 'clip-higher',
  title: 'Clip-higher',
  reference: 'Yu et al. 2025, DAPO (arXiv 2503.14476), decoupled clip; spec 0.4',
  needs: ['logProb', 'oldLogProb', 'advantage'],
  parameters: {
    ...LOSS_PARAMETERS,
    'clip-high': { kind: 'number', initial: 0.28, least: 0, help: 'the ratio is held below 1 + this' },
  },
  prepare(step, settings, { plain = PLAIN_SURROGATE }) {
    const surrogate = surrogateOf(settings);
    const aggregation = aggregationOf(settings);
    let facts: Facts | undefined;
    const count = (): Facts => {
      let released = 0;
      let held = 0;
      let releasedProbability = 0;
      for (const block of step.blocks()) {
        const { oldLogProb, advantage } = block;
        if (!oldLogProb || !advantage) continue;
        const ours = surrogateTerms(block, surrogate, advantage).held;
        const plains = surrogateTerms(block, plain, advantage).held;
        for (let i = 0; i < ours.length; i++) {
          if (ours[i] & HELD_HIGH) held++;
          else if (plains[i] & HELD_HIGH) {
            released++;
            releasedProbability += Math.exp(oldLogProb[i]);
          }
        }
      }
      return {
        released,
        still_clipped_high: held,
        ...(released > 0 && { released_old_probability_mean: releasedProbability / released }),
      };
    };
    return {
      effect: (block: TokenBlock) => ({
        surrogate,
        aggregation,
        touched: touchedBySurrogate(block, surrogate, plain),
      }),
      get facts() {
        facts ??= count();
        return facts;
      },
      warnings: [],
    };
  },
};
