import { InputError } from '../../errors.js';
import { addTo, createCompensatedSum, totalOf } from '../compensated-sum.js';
import { targetedTerm } from '../targeted-entropy.js';
import { touchedBySurrogate } from './effects.js';
import { ENTROPY_PARAMETER, entropiesOf } from './record-effects.js';
import { aggregationOf, choiceSetting, LOSS_PARAMETERS, numberSetting, surrogateOf } from './settings.js';
import type { Intervention } from './types.js';

/** The mean token entropy of the minibatch is held near a target from both sides. */
export const targetedEntropy: Intervention = {
  name: 'targeted-entropy',
  title: 'Confucius3: targeted entropy',
  reference: 'Confucius3-Math (2025, arXiv 2506.18330); spec 7.1',
  needs: ['logProb', 'advantage'],
  entropyOf: 'update',
  parameters: {
    target: { kind: 'number', initial: 0.55, least: 0, help: 'mean token entropy that is aimed at, nats' },
    coefficient: { kind: 'number', initial: 0.001, least: 0, help: 'weight of |mean entropy - target| in the loss' },
    entropy: ENTROPY_PARAMETER,
    ...LOSS_PARAMETERS,
  },
  prepare(step, settings, { plain }) {
    const which = choiceSetting(settings, 'entropy');
    const surrogate = surrogateOf(settings);
    const aggregation = aggregationOf(settings);
    const total = createCompensatedSum();
    let tokens = 0;
    for (const block of step.blocks()) {
      const entropy = entropiesOf(block, which, 'targeted-entropy');
      for (let i = 0; i < block.mask.length; i++) {
        if (block.mask[i] === 0) continue;
        addTo(total, entropy[i]);
        tokens++;
      }
    }
    if (tokens === 0) throw new InputError(`targeted-entropy: step ${step.step} has no valid tokens`);
    const term = targetedTerm(totalOf(total) / tokens, tokens, {
      target: numberSetting(settings, 'target'),
      coefficient: numberSetting(settings, 'coefficient'),
    });
    return {
      effect(block) {
        const entropyGradient = new Float64Array(block.mask.length);
        for (let i = 0; i < entropyGradient.length; i++) if (block.mask[i] !== 0) entropyGradient[i] = term.gradient;
        const touched = term.gradient === 0 ? touchedBySurrogate(block, surrogate, plain) : block.mask.slice();
        return { surrogate, aggregation, entropyGradient, touched };
      },
      facts: {
        mean_entropy_nats: term.meanEntropy,
        above_target_nats: term.meanEntropy - numberSetting(settings, 'target'),
        entropy_loss: term.loss,
        entropy_gradient: term.gradient,
      },
      warnings: [],
    };
  },
};
