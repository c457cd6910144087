import { didYouMean, InputError } from '../errors.js';

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

/** A merge of an agglomeration: cluster j joins cluster i < j. */
export interface Merge {
  readonly i: number;
  readonly j: number;
  /** Distance of the two by the linkage; of Ward's its square is held, and this is the root. */
  readonly distance: number;
}

/**
 * Agglomerates n points from their squared Euclidean distances [n, n] (Lance and Williams 1967), pair after pair, until
 * `clusters` are left. The lower index of two merged clusters stays.
 */
export function agglomerate(squared: Float64Array, n: number, linkage: Linkage, clusters = 1): Merge[] {
  const rule: LinkageRule = RULES[linkage];
  const distances = rule.squared ? Float64Array.from(squared) : squared.map((value) => Math.sqrt(Math.max(0, value)));
  const sizes = new Int32Array(n).fill(1);
  const active = Array.from({ length: n }, (_, i) => i);
  const merges: Merge[] = [];
  while (active.length > clusters) {
    const { i, j } = nextPair(distances, active, sizes, rule);
    const ij = distances[i * n + j];
    merges.push({ i, j, distance: rule.squared ? Math.sqrt(Math.max(0, ij)) : ij });
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
  }
  return merges;
}

/** The points in the order of the leaves of the tree of merges: what was merged early stands together. */
export function leafOrder(merges: readonly Merge[], n: number): Int32Array {
  const leaves = Array.from({ length: n }, (_, i) => [i]);
  for (const { i, j } of merges) leaves[i] = [...leaves[i], ...leaves[j]];
  return Int32Array.from(leaves[0] ?? []);
}

/** Cluster of every point after the merges, by the lowest index of its cluster [n]. */
export function mergedLabels(merges: readonly Merge[], n: number): Int32Array {
  const labels = Int32Array.from({ length: n }, (_, i) => i);
  for (const { i, j } of merges) for (let e = 0; e < n; e++) if (labels[e] === j) labels[e] = i;
  return labels;
}
