import { parseLinkage } from '../../src/linalg/agglomerative.js';
import { directSquaredDistances } from '../../src/linalg/point-distances.js';
import { centreMembers, clusterRows, silhouette } from '../../src/moe/clustering.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, shapeOf } from './tensors.js';

/** The case's names of linkages: what the released code does is plain where it is right, the standard one is marked. */
const LINKAGE_OF: Readonly<Record<string, string>> = {
  ward: 'ward-as-released',
  ward_standard: 'ward',
  complete: 'complete-as-released',
  complete_standard: 'complete',
  complete_as_released: 'complete-as-released',
};

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const features = float64(inputs.mean_expert_outputs, 'mean_expert_outputs');
  const [rows, columns] = shapeOf(inputs.mean_expert_outputs, 'mean_expert_outputs');
  const clusters = number(inputs.num_clusters, 'num_clusters');
  const squared = directSquaredDistances(features, rows, columns);
  return Object.fromEntries(
    keysOf(wanted).map((name) => {
      const linkage = parseLinkage(LINKAGE_OF[name] ?? name);
      const labels = clusterRows(features, rows, columns, clusters, linkage);
      const figures = {
        labels,
        centre_experts: centreMembers(features, columns, labels),
        silhouette_reference: silhouette(squared, labels, { asReleased: true }),
        silhouette_standard: silhouette(squared, labels),
      };
      return [name, figures];
    }),
  );
}
