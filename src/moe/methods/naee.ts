import { singletonGroups } from '../grouping.js';
import { keepExperts, searchSubset } from '../pruning.js';
import type { LayerGrouping } from '../types.js';
import type { ExpertMethod, GroupingRequest, MethodGrouping } from './method.js';
import { methodBudget } from './method-budget.js';
import { MERGING } from './score-pruning.js';

async function search(request: GroupingRequest): Promise<MethodGrouping> {
  const { layers } = request;
  const budget = methodBudget(request);
  const groupings: LayerGrouping[] = [];
  const warnings: string[] = [];
  for (const [l, layer] of layers.entries()) {
    const kept = budget.groups[l];
    if (kept === layer.experts) {
      groupings.push(singletonGroups(layer.layer, layer.usage, 'index'));
      continue;
    }
    const found = searchSubset(layer.experts, kept, await layer.subsetError());
    groupings.push(keepExperts(layer.layer, layer.experts, found.kept));
    if (found.path === 'greedy') {
      warnings.push(`layer ${layer.layer}: too many subsets to try all; ${found.evaluated} were, greedily`);
    }
  }
  return { groupings, budget, warnings };
}

export const naee: ExpertMethod = {
  name: 'naee',
  summary: 'keeps the subset of experts with the least error of the layer output on the text; every subset is tried',
  reference: 'Not All Experts are Equal, 2024 (ACL), section 3.1',
  kind: 'prune',
  needs: 'routing',
  needsText: true,
  defaults: {},
  unused: [...MERGING, 'gateWeights', 'keepSuperExperts'],
  group: search,
};
