import { didYouMean, InputError } from '../errors.js';
import { directSquaredDistances } from '../linalg/point-distances.js';
import type { Floats } from '../models/layer-runner.js';
import { labelsByFirstAppearance } from './grouping.js';

interface Sizes {
  readonly i: number;
  readonly j: number;
  readonly k: number;
}

interface LinkageRule {
  /** Works on squared distances. */
  readonly squared: boolean;
  /** Distance of the union of i and j to k, from the three distances among them (Lance and Williams 1967). */
  readonly union: (ik: number, jk: number, ij: number, sizes: Sizes) => number;
  /** What a merge is chosen by, where it is not the distance. */
  readonly criterion?: (distance: number, i: number, j: number) => number;
  /** The pair with the largest distance is merged. */
  readonly farthest?: boolean;
}

/** Squared distance of the centroids of i + j and of k. */
const centroids: LinkageRule['union'] = (ik, jk, ij, { i, j }) => {
  const n = i + j;
  return (i * ik + j * jk) / n - (i * j * ij) / (n * n);
};

/**
 * The linkages of HC-SMoE. `ward-as-released` weighs the distance of the centroids, not its square, by
 * ni nj / (ni + nj); `complete-as-released` merges the two clusters that are FARTHEST apart.
 */
const RULES = {
  average: { squared: false, union: (ik, jk, _, { i, j }) => (i * ik + j * jk) / (i + j) },
  single: { squared: false, union: (ik, jk) => Math.min(ik, jk) },
  complete: { squared: false, union: (ik, jk) => Math.max(ik, jk) },
  ward: {
    squared: true,
    union: (ik, jk, ij, { i, j, k }) => ((i + k) * ik + (j + k) * jk - k * ij) / (i + j + k),
  },
  'ward-as-released': {
    squared: true,
    union: centroids,
    criterion: (distance, i, j) => ((i * j) / (i + j)) * Math.sqrt(Math.max(0, distance)),
  },
  'complete-as-released': { squared: false, union: (ik, jk) => Math.max(ik, jk), farthest: true },
} as const satisfies Record<string, LinkageRule>;

export type Linkage = keyof typeof RULES;

export const LINKAGES = Object.keys(RULES) as readonly Linkage[];

/** @throws InputError for an unknown name */
export function parseLinkage(name: string): Linkage {
  const linkage = LINKAGES.find((known) => known === name);
  if (linkage === undefined) {
    throw new InputError(`unknown linkage "${name}"${didYouMean(name, LINKAGES)}; known: ${LINKAGES.join(', ')}`);
  }
  return linkage;
}

const doubles = (x: Floats): Float64Array => (x instanceof Float64Array ? x : Float64Array.from(x));

interface Pair {
  readonly i: number;
  readonly j: number;
}

/** The pair of active clusters that the rule merges next; of equal ones the first in row-major order. */
function nextPair(distances: Float64Array, active: readonly number[], sizes: Int32Array, rule: LinkageRule): Pair {
  const n = sizes.length;
  const sign = rule.farthest ? -1 : 1;
  let best: Pair = { i: active[0], j: active[1] };
  let least = Number.POSITIVE_INFINITY;
  for (let a = 0; a < active.length; a++) {
    const i = active[a];
    for (let b = a + 1; b < active.length; b++) {
      const j = active[b];
      const distance = distances[i * n + j];
      const value = sign * (rule.criterion === undefined ? distance : rule.criterion(distance, sizes[i], sizes[j]));
      if (value < least) {
        least = value;
        best = { i, j };
      }
    }
  }
  return best;
}

/**
 * Agglomerative clusters of n points from their squared Euclidean distances [n, n] (HC-SMoE 2025). The lower index of
 * two merged clusters stays.
 * @returns labels [n], numbered by first appearance
 * @throws InputError when `clusters` is not within 1..n
 */
function clusterDistances(squared: Float64Array, n: number, clusters: number, linkage: Linkage): Int32Array {
  if (!(Number.isInteger(clusters) && clusters >= 1 && clusters <= n)) {
    throw new InputError(`${n} experts cannot form ${clusters} clusters`);
  }
  const rule: LinkageRule = RULES[linkage];
  const distances = rule.squared ? Float64Array.from(squared) : squared.map((value) => Math.sqrt(Math.max(0, value)));
  const labels = Int32Array.from({ length: n }, (_, i) => i);
  const sizes = new Int32Array(n).fill(1);
  const active = Array.from(labels);
  while (active.length > clusters) {
    const { i, j } = nextPair(distances, active, sizes, rule);
    const ij = distances[i * n + j];
    active.splice(active.indexOf(j), 1);
    for (const k of active) {
      if (k === i) continue;
      const united = rule.union(distances[i * n + k], distances[j * n + k], ij, {
        i: sizes[i],
        j: sizes[j],
        k: sizes[k],
      });
      distances[i * n + k] = united;
      distances[k * n + i] = united;
    }
    sizes[i] += sizes[j];
    for (let e = 0; e < n; e++) if (labels[e] === j) labels[e] = i;
  }
  return labelsByFirstAppearance(labels);
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
