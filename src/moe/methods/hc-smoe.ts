import { InputError } from '../../errors.js';
import { directSquaredDistances } from '../../linalg/point-distances.js';
import { centreMembers, clusterRows, silhouette } from '../clustering.js';
import { singletonGroups } from '../grouping.js';
import type { LayerGrouping, LayerStatistics } from '../types.js';
import type { ExpertMethod, GroupingRequest, MethodGrouping } from './method.js';
import { methodBudget } from './method-budget.js';

/** Mean output of every expert over all tokens, [E, H]. @throws InputError where experts ran on their own tokens alone */
export function meanOutputs(layer: number, statistics: LayerStatistics | undefined, method: string): Float64Array {
  const everywhere = statistics?.outputs?.everywhere;
  if (everywhere === undefined || everywhere.tokens === 0) {
    throw new InputError(
      `method ${method} compares the mean outputs of experts over all tokens, which the statistics of layer ${layer} do ` +
        'not have: calibrate with --outputs all',
    );
  }
  return everywhere.outputSum.map((sum) => sum / everywhere.tokens);
}

function cluster(request: GroupingRequest): MethodGrouping {
  const { layers, settings } = request;
  const budget = methodBudget(request);
  const silhouettes: number[] = [];
  const groupings = layers.map((layer, l): LayerGrouping => {
    const groups = budget.groups[l];
    if (groups === layer.experts) {
      silhouettes.push(0);
      return singletonGroups(layer.layer, layer.usage, 'index');
    }
    const { hidden } = layer.shape;
    const features = meanOutputs(layer.layer, layer.statistics, 'hc-smoe');
    const labels = clusterRows(features, layer.experts, hidden, groups, settings.linkage);
    silhouettes.push(silhouette(directSquaredDistances(features, layer.experts, hidden), labels));
    return { layer: layer.layer, labels, dominants: centreMembers(features, hidden, labels) };
  });
  return { groupings, budget, silhouettes, warnings: [] };
}

export const hcSmoe: ExpertMethod = {
  name: 'hc-smoe',
  summary: 'clusters of the mean outputs over all tokens, mean by usage',
  reference: 'HC-SMoE, 2025 (ICML), sections 3.2 and 3.3',
  kind: 'merge',
  needs: 'everywhere',
  defaults: { linkage: 'average', align: 'none', weights: 'usage', combine: 'mean' },
  unused: ['similarity', 'capacity', 'gateWeights', 'keepSuperExperts'],
  group: cluster,
};
