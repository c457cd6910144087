import { didYouMean, InputError } from '../errors.js';
import type { RoutingStatistics } from './types.js';

/**
 * How many groups each layer keeps. `uniform`: the same number in every layer. `exact`: the most used experts of all
 * layers, after a fixed least number in each. `reference`: the released code of M-SMoE (2023), with its strict
 * threshold, which keeps fewer groups where frequencies tie.
 */
export type BudgetRule = 'uniform' | 'exact' | 'reference';

export const BUDGET_RULES: readonly BudgetRule[] = ['uniform', 'exact', 'reference'];

/** @throws InputError for an unknown name */
export function parseBudgetRule(name: string): BudgetRule {
  const rule = BUDGET_RULES.find((known) => known === name);
  if (rule === undefined) {
    throw new InputError(
      `unknown budget "${name}"${didYouMean(name, BUDGET_RULES)}; known: ${BUDGET_RULES.join(', ')}`,
    );
  }
  return rule;
}

export interface BudgetRequest {
  /** Average number of groups of the layers that are merged; an integer under `uniform`. */
  readonly groupsPerLayer: number;
  /** Layers that are merged, one flag a layer; the others keep every expert. Default: all. */
  readonly merged?: readonly boolean[];
  /** Under `exact`, the groups that every merged layer keeps at least; default 1. */
  readonly least?: number;
}

export interface LayerBudget {
  /** Groups of each layer, [L]. */
  readonly groups: Int32Array;
  /** Groups that were to be kept over the merged layers. `reference` may keep fewer. */
  readonly wanted: number;
  /** Under `reference`: experts used more than this lead a group. */
  readonly threshold?: number;
}

/**
 * Share of a layer's token-slots that each expert took, f [E]: sums to 1, or is zero everywhere in a layer that saw no
 * token.
 */
export function usageFrequencies(routing: Pick<RoutingStatistics, 'counts'>): Float64Array {
  let total = 0;
  for (const count of routing.counts) total += count;
  return total === 0 ? new Float64Array(routing.counts.length) : routing.counts.map((count) => count / total);
}

/** Indices by descending value, equal values by ascending index. */
export function descendingOrder(values: ArrayLike<number>): Int32Array {
  return Int32Array.from({ length: values.length }, (_, i) => i).sort((a, b) => values[b] - values[a] || a - b);
}

interface Layers {
  readonly usage: readonly Float64Array[];
  readonly merged: readonly boolean[];
  readonly least: number;
  /** Groups over the merged layers. */
  readonly wanted: number;
}

function uniformBudget({ usage, merged }: Layers, groupsPerLayer: number): LayerBudget {
  if (!Number.isInteger(groupsPerLayer)) {
    throw new InputError(`the budget "uniform" needs a whole number of groups in a layer, not ${groupsPerLayer}`);
  }
  usage.forEach(({ length }, layer) => {
    if (merged[layer] && groupsPerLayer > length) {
      throw new InputError(`layer ${layer} has ${length} experts, fewer than the ${groupsPerLayer} groups to keep`);
    }
  });
  const groups = Int32Array.from(usage, ({ length }, layer) => (merged[layer] ? groupsPerLayer : length));
  return { groups, wanted: groupsPerLayer * merged.filter(Boolean).length };
}

function exactBudget({ usage, merged, least, wanted }: Layers): LayerBudget {
  const layers = merged.filter(Boolean).length;
  if (wanted < least * layers) {
    throw new InputError(`${wanted} groups are too few: ${layers} layers keep at least ${least} each`);
  }
  const groups = Int32Array.from(usage, ({ length }, layer) => (merged[layer] ? Math.min(least, length) : length));
  const candidates: { layer: number; expert: number; frequency: number }[] = [];
  usage.forEach((frequencies, layer) => {
    if (!merged[layer]) return;
    const order = descendingOrder(frequencies);
    for (const expert of order.subarray(groups[layer])) {
      candidates.push({ layer, expert, frequency: frequencies[expert] });
    }
  });
  candidates.sort((a, b) => b.frequency - a.frequency || a.layer - b.layer || a.expert - b.expert);
  const forced = groups.reduce((sum, count, layer) => (merged[layer] ? sum + count : sum), 0);
  for (const { layer } of candidates.slice(0, wanted - forced)) groups[layer]++;
  return { groups, wanted };
}

/**
 * The released rule: one dominant of every layer counts as used always, experts of layers outside as well; tau is the
 * frequency after the B-th of all, and only what is larger than tau leads a group.
 */
function referenceBudget({ usage, merged, wanted }: Layers): LayerBudget {
  const raised = usage.map((frequencies, layer) => {
    if (!merged[layer]) return new Float64Array(frequencies.length).fill(1);
    const copy = Float64Array.from(frequencies);
    copy[descendingOrder(frequencies)[0]] = 1;
    return copy;
  });
  const sorted = Float64Array.from(raised.flatMap((values) => [...values]))
    .sort()
    .reverse();
  const kept = wanted + raised.reduce((sum, { length }, layer) => (merged[layer] ? sum : sum + length), 0);
  const threshold = sorted[kept === sorted.length ? kept - 1 : kept];
  if (threshold === 1) {
    throw new InputError(
      `too many groups: the threshold of the budget "reference" is 1 for ${wanted} groups over the merged layers; use "exact"`,
    );
  }
  const groups = Int32Array.from(raised, (values) =>
    values.reduce((sum, value) => sum + (value > threshold ? 1 : 0), 0),
  );
  return { groups, wanted, threshold };
}

/**
 * Groups of every layer (M-SMoE 2023, section 3; the spec's `reference`, `exact` and `uniform`). Frequencies are compared
 * over layers as they are, each normalised within its layer: layers with flat routing keep few groups under `exact` and
 * `reference`.
 * @param usage f of each layer, [L][E_l], see {@link usageFrequencies}
 * @throws InputError when so many or so few groups cannot be
 */
export function layerBudget(rule: BudgetRule, usage: readonly Float64Array[], request: BudgetRequest): LayerBudget {
  const merged = request.merged ?? usage.map(() => true);
  if (merged.length !== usage.length) throw new RangeError(`${merged.length} flags for ${usage.length} layers`);
  const { groupsPerLayer, least = 1 } = request;
  const experts = usage.reduce((sum, { length }, layer) => (merged[layer] ? sum + length : sum), 0);
  const wanted = Math.round(groupsPerLayer * merged.filter(Boolean).length);
  if (!(groupsPerLayer > 0)) throw new InputError(`${groupsPerLayer} groups in a layer: at least 1 must be kept`);
  if (rule === 'uniform') return uniformBudget({ usage, merged, least, wanted }, groupsPerLayer);
  if (wanted > experts) {
    throw new InputError(`${wanted} groups are more than the ${experts} experts of the merged layers`);
  }
  const layers = { usage, merged, least, wanted };
  return rule === 'exact' ? exactBudget(layers) : referenceBudget(layers);
}
