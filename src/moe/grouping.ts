import { InputError } from '../errors.js';
import { descendingOrder } from './budget.js';
import type { LayerGrouping } from './types.js';

export interface GroupingOptions {
  /** Most members of a group, its dominant counted. Default: no limit. */
  readonly capacity?: number;
  /** Groups are numbered by the usage of their dominants, descending (as published), or by the dominants' index. */
  readonly order?: 'usage' | 'index';
}

/**
 * Groups around the most used experts (M-SMoE 2023, section 3.2): the first `groups` experts by usage lead, and every
 * other expert, in the order of usage, follows the dominant it is most similar to. Of equally similar ones the first in
 * the order of the groups is taken; of equally used experts the one of lower index comes first.
 * @param usage f of the layer's experts, [E]
 * @param similarity [E, E] row-major; larger is more similar
 * @throws InputError when the groups cannot hold all experts under `capacity`
 */
export function groupAroundDominants(
  layer: number,
  usage: Float64Array,
  similarity: Float64Array,
  groups: number,
  options: GroupingOptions = {},
): LayerGrouping {
  const experts = usage.length;
  const { capacity = Number.POSITIVE_INFINITY, order = 'usage' } = options;
  if (!(groups >= 1 && groups <= experts)) {
    throw new InputError(`layer ${layer}: ${groups} groups cannot be made of ${experts} experts`);
  }
  if (groups * capacity < experts) {
    throw new InputError(
      `layer ${layer}: ${groups} groups of at most ${capacity} experts do not hold its ${experts} experts; raise the capacity`,
    );
  }
  const ranked = descendingOrder(usage);
  const dominants = ranked.slice(0, groups);
  if (order === 'index') dominants.sort();
  const labels = new Int32Array(experts).fill(-1);
  const sizes = new Int32Array(groups).fill(1);
  dominants.forEach((expert, group) => {
    labels[expert] = group;
  });
  for (const expert of ranked.subarray(groups)) {
    let best = -1;
    for (let group = 0; group < groups; group++) {
      if (sizes[group] >= capacity) continue;
      const value = similarity[expert * experts + dominants[group]];
      if (best < 0 || value > similarity[expert * experts + dominants[best]]) best = group;
    }
    labels[expert] = best;
    sizes[best]++;
  }
  return { layer, labels, dominants };
}

/** Every expert a group of its own: what an excluded layer keeps. */
export function singletonGroups(
  layer: number,
  usage: Float64Array,
  order: GroupingOptions['order'] = 'usage',
): LayerGrouping {
  const dominants = order === 'usage' ? descendingOrder(usage) : Int32Array.from(usage, (_, e) => e);
  const labels = new Int32Array(usage.length);
  dominants.forEach((expert, group) => {
    labels[expert] = group;
  });
  return { layer, labels, dominants };
}

/** Random groups of sizes as equal as can be, the baseline of a study: the order of the experts is drawn. */
export function randomGroups(layer: number, permutation: Int32Array, groups: number): LayerGrouping {
  const experts = permutation.length;
  if (!(groups >= 1 && groups <= experts)) {
    throw new InputError(`layer ${layer}: ${groups} groups cannot be made of ${experts} experts`);
  }
  const raw = new Int32Array(experts);
  permutation.forEach((expert, place) => {
    raw[expert] = place % groups;
  });
  const labels = labelsByFirstAppearance(raw);
  return { layer, labels, dominants: Int32Array.from({ length: groups }, (_, group) => labels.indexOf(group)) };
}

/** The same groups, numbered in the order in which they first appear. Negative labels stay. */
export function labelsByFirstAppearance(labels: Int32Array): Int32Array {
  const numbers = new Map<number, number>();
  return labels.map((label) => {
    if (label < 0) return label;
    const number = numbers.get(label) ?? numbers.size;
    numbers.set(label, number);
    return number;
  });
}

/** Experts of every group, ascending, [G][]. Dropped experts are in none. */
export function membersOf({ labels, dominants }: Pick<LayerGrouping, 'labels' | 'dominants'>): Int32Array[] {
  const members: number[][] = Array.from(dominants, () => []);
  labels.forEach((label, expert) => {
    if (label >= 0) members[label].push(expert);
  });
  return members.map((list) => Int32Array.from(list));
}

/** The most used member of every group (ties: lower index), [G]. */
export function mostUsedMembers(labels: Int32Array, groups: number, usage: Float64Array): Int32Array {
  const best = new Int32Array(groups).fill(-1);
  labels.forEach((label, expert) => {
    if (label >= 0 && (best[label] < 0 || usage[expert] > usage[best[label]])) best[label] = expert;
  });
  return best;
}
