import { InputError } from '../errors.js';
import { agglomerate, type Linkage, mergedLabels } from '../linalg/agglomerative.js';
import { directSquaredDistances } from '../linalg/point-distances.js';
import type { Floats } from '../models/layer-runner.js';
import { labelsByFirstAppearance } from './grouping.js';

const doubles = (x: Floats): Float64Array => (x instanceof Float64Array ? x : Float64Array.from(x));

/**
 * Agglomerative clusters of n points from their squared Euclidean distances [n, n] (HC-SMoE 2025).
 * @returns labels [n], numbered by first appearance
 * @throws InputError when `clusters` is not within 1..n
 */
function clusterDistances(squared: Float64Array, n: number, clusters: number, linkage: Linkage): Int32Array {
  if (!(Number.isInteger(clusters) && clusters >= 1 && clusters <= n)) {
    throw new InputError(`${n} experts cannot form ${clusters} clusters`);
  }
  return labelsByFirstAppearance(mergedLabels(agglomerate(squared, n, linkage, clusters), n));
}

/**
 * Agglomerative clusters of the rows of `features` [rows, columns] by their Euclidean distances: for HC-SMoE the mean
 * output of every expert over ALL calibration tokens.
 * @returns labels [rows], numbered by first appearance
 * @throws InputError when `clusters` is not within 1..rows
 */
export function clusterRows(
  features: Floats,
  rows: number,
  columns: number,
  clusters: number,
  linkage: Linkage,
): Int32Array {
  return clusterDistances(directSquaredDistances(doubles(features), rows, columns), rows, clusters, linkage);
}

function meanOfMembers(x: Float64Array, columns: number, members: readonly number[]): Float64Array {
  const mean = new Float64Array(columns);
  for (const member of members) for (let c = 0; c < columns; c++) mean[c] += x[member * columns + c];
  return mean.map((sum) => sum / members.length);
}

/**
 * The member of every cluster that lies nearest to its mean, [clusters]. The two members of a pair are equally near up to
 * rounding: sums run over the columns in order, in f64, and the first of equal distances is taken, as in the released code.
 */
export function centreMembers(features: Floats, columns: number, labels: Int32Array): Int32Array {
  const x = doubles(features);
  const clusters = Math.max(...labels) + 1;
  return Int32Array.from({ length: clusters }, (_, cluster) => {
    const members = [...labels.keys()].filter((e) => labels[e] === cluster);
    const mean = meanOfMembers(x, columns, members);
    let best = members[0];
    let least = Number.POSITIVE_INFINITY;
    for (const member of members) {
      let sum = 0;
      for (let c = 0; c < columns; c++) {
        const difference = x[member * columns + c] - mean[c];
        sum += difference * difference;
      }
      // Roots, since two squares that differ may have the same root.
      const distance = Math.sqrt(sum);
      if (distance < least) {
        least = distance;
        best = member;
      }
    }
    return best;
  });
}

/**
 * Mean silhouette (Rousseeuw 1987) of clusters of points with these squared distances [n, n]. A point alone in its cluster
 * counts 0, or 1 `asReleased` in the code of HC-SMoE. NaN when there is one cluster only.
 */
export function silhouette(squared: Float64Array, labels: Int32Array, options: { asReleased?: boolean } = {}): number {
  const n = labels.length;
  const clusters = Math.max(...labels) + 1;
  if (clusters < 2) return Number.NaN;
  const sizes = new Int32Array(clusters);
  for (const label of labels) sizes[label]++;
  let total = 0;
  for (let i = 0; i < n; i++) {
    if (sizes[labels[i]] === 1) {
      total += options.asReleased ? 1 : 0;
      continue;
    }
    const sums = new Float64Array(clusters);
    for (let j = 0; j < n; j++) sums[labels[j]] += Math.sqrt(squared[i * n + j]);
    const within = sums[labels[i]] / (sizes[labels[i]] - 1);
    let nearest = Number.POSITIVE_INFINITY;
    for (let c = 0; c < clusters; c++) if (c !== labels[i]) nearest = Math.min(nearest, sums[c] / sizes[c]);
    const larger = Math.max(within, nearest);
    total += larger === 0 ? 0 : (nearest - within) / larger;
  }
  return total / n;
}
