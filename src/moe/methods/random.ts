import { createRandom } from '../../random.js';
import { randomGroups, singletonGroups } from '../grouping.js';
import type { ExpertMethod } from './method.js';
import { methodBudget } from './method-budget.js';

export const random: ExpertMethod = {
  name: 'random',
  summary: 'groups of equal size, drawn; plain mean',
  reference: 'baseline of M-SMoE, 2023, section 4',
  kind: 'merge',
  needs: 'none',
  defaults: { align: 'none', weights: 'mean', combine: 'mean' },
  unused: ['similarity', 'capacity', 'linkage', 'gateWeights', 'keepSuperExperts'],
  group(request) {
    const { layers, settings } = request;
    const budget = methodBudget(request);
    const draws = createRandom(settings.seed);
    const groupings = layers.map(({ layer, experts, usage: own }, l) => {
      if (budget.groups[l] === experts) return singletonGroups(layer, own, 'index');
      return randomGroups(layer, draws.fork(layer).permutation(experts), budget.groups[l]);
    });
    return { groupings, budget, warnings: [] };
  },
};
