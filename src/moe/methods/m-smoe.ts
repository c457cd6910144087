import { dominantGroups } from './dominant-groups.js';
import type { ExpertMethod } from './method.js';

export const mSmoe: ExpertMethod = {
  name: 'm-smoe',
  summary: 'the most used experts lead; the others join the one the router treats most alike; aligned, mean by usage',
  reference: 'M-SMoE: Merge, Then Compress, 2023 (ICLR 2024), section 3',
  kind: 'merge',
  needs: 'routing',
  defaults: { similarity: 'router-logits', align: 'weights', weights: 'usage', combine: 'mean' },
  variants: {
    paper: { budget: 'exact', router: 'remap' },
    // The path for SwiGLU experts of the released code averages neurons as they lie.
    code: { budget: 'reference', router: 'remap', align: 'none', referenceEpsilon: 1e-7 },
  },
  unused: ['linkage', 'gateWeights', 'keepSuperExperts'],
  group: dominantGroups,
};
