import { createRandom } from '../../random.js';
import { mostUsedMembers, singletonGroups } from '../grouping.js';
import { kMeans } from '../k-means.js';
import type { LayerGrouping } from '../types.js';
import { meanOutputs } from './hc-smoe.js';
import type { ExpertMethod, GroupingRequest, MethodGrouping } from './method.js';
import { methodBudget } from './method-budget.js';

function cluster(request: GroupingRequest): MethodGrouping {
  const { layers, settings } = request;
  const budget = methodBudget(request);
  const draws = createRandom(settings.seed);
  const groupings = layers.map((layer, l): LayerGrouping => {
    const groups = budget.groups[l];
    if (groups === layer.experts) return singletonGroups(layer.layer, layer.usage, 'index');
    const features = meanOutputs(layer.layer, layer.statistics, 'sub-moe');
    const labels = kMeans(features, layer.experts, layer.shape.hidden, groups, draws.fork(layer.layer));
    return { layer: layer.layer, labels, dominants: mostUsedMembers(labels, groups, layer.usage) };
  });
  return { groupings, budget, warnings: [] };
}

export const subMoe: ExpertMethod = {
  name: 'sub-moe',
  summary: 'k-means of the mean outputs; one SVD of the members side by side, right factors averaged by usage',
  reference: 'Sub-MoE, 2025, as re-implemented publicly',
  kind: 'merge',
  needs: 'everywhere',
  defaults: { align: 'none', weights: 'usage', combine: 'joint-svd' },
  unused: ['similarity', 'capacity', 'linkage', 'gateWeights', 'keepSuperExperts'],
  group: cluster,
};
