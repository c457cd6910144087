import { groupAroundDominants, singletonGroups } from '../grouping.js';
import type { LayerGrouping } from '../types.js';
import type { GroupingRequest, MethodGrouping } from './method.js';
import { methodBudget } from './method-budget.js';

/** Groups around the most used experts, as many a layer as the budget gives (M-SMoE 2023, section 3.2). */
export async function dominantGroups(request: GroupingRequest): Promise<MethodGrouping> {
  const { layers, settings } = request;
  const { capacity } = settings;
  const budget = methodBudget(request);
  const groupings: LayerGrouping[] = [];
  for (const [l, layer] of layers.entries()) {
    const groups = budget.groups[l];
    if (groups === layer.experts) groupings.push(singletonGroups(layer.layer, layer.usage, 'index'));
    else {
      const similarity = await layer.similarity();
      const options = capacity === undefined ? {} : { capacity };
      groupings.push(groupAroundDominants(layer.layer, layer.usage, similarity, groups, options));
    }
  }
  return { groupings, budget, warnings: [] };
}
