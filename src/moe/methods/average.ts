import { dominantGroups } from './dominant-groups.js';
import type { ExpertMethod } from './method.js';

export const average: ExpertMethod = {
  name: 'average',
  summary: 'the groups of m-smoe, plain mean of the weights as they lie',
  reference: 'baseline of M-SMoE, 2023, section 4',
  kind: 'merge',
  needs: 'routing',
  defaults: { similarity: 'router-logits', align: 'none', weights: 'mean', combine: 'mean' },
  unused: ['linkage', 'gateWeights', 'keepSuperExperts'],
  group: dominantGroups,
};
