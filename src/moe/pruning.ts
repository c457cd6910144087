import { InputError } from '../errors.js';
import { type BudgetRule, descendingOrder, layerBudget } from './budget.js';
import type { LayerGrouping } from './types.js';

export interface PruningRequest {
  /** Experts that stay, on average over the pruned layers. */
  readonly keep: number;
  /** `uniform` (default): the same number in every layer; `exact`: the best scores of all layers. */
  readonly budget?: Exclude<BudgetRule, 'reference'>;
  /** Layers that are pruned, one flag a layer; default: all. */
  readonly pruned?: readonly boolean[];
  /** Under `exact`, what every pruned layer keeps at least; default 1. A router that chooses k needs k. */
  readonly least?: number;
  /** Experts that stay whatever their score ("super experts"), [L][]. They count towards what is kept. */
  readonly protectedExperts?: readonly ArrayLike<number>[];
}

/** The experts of `kept`, ascending, each a group of its own; all others dropped. */
export function keepExperts(layer: number, experts: number, kept: Iterable<number>): LayerGrouping {
  const dominants = Int32Array.from(new Set(kept)).sort();
  const labels = new Int32Array(experts).fill(-1);
  dominants.forEach((expert, group) => {
    labels[expert] = group;
  });
  return { layer, labels, dominants };
}

/** Scores with those of protected experts above all others. */
function raised(scores: Float64Array, experts: ArrayLike<number>): Float64Array {
  const copy = Float64Array.from(scores);
  for (let i = 0; i < experts.length; i++) copy[experts[i]] = Number.POSITIVE_INFINITY;
  return copy;
}

/**
 * One-shot pruning by a score of each expert: the lowest go, of equal ones the higher index (REAP 2025 and its
 * baselines; frequency pruning of M-SMoE). Router rows of dropped experts go with them, so that the others share the weight.
 * @param layers decoder layer of each entry of `scores`
 * @param scores [L][E_l], larger is better; of different layers they are compared under `exact` only
 * @throws InputError when so many cannot stay, or a layer protects more experts than it may keep
 */
export function pruneByScore(
  layers: ArrayLike<number>,
  scores: readonly Float64Array[],
  request: PruningRequest,
): LayerGrouping[] {
  const { keep, budget = 'uniform', pruned, least, protectedExperts = [] } = request;
  scores.forEach((values, i) => {
    const bad = values.findIndex((value) => Number.isNaN(value));
    if (bad >= 0) throw new InputError(`layer ${layers[i]}: the score of expert ${bad} is not a number`);
  });
  const ranked = scores.map((values, i) => raised(values, protectedExperts[i] ?? []));
  const { groups } = layerBudget(budget, ranked, { groupsPerLayer: keep, merged: pruned, least });
  return ranked.map((values, i) => {
    const guarded = protectedExperts[i]?.length ?? 0;
    if (guarded > groups[i]) {
      throw new InputError(
        `layer ${layers[i]} protects ${guarded} experts and may keep ${groups[i]}; keep more, or prune without protection`,
      );
    }
    return keepExperts(layers[i], values.length, descendingOrder(values).subarray(0, groups[i]));
  });
}

/** n over k; Infinity where it is beyond exact numbers. */
function binomial(n: number, k: number): number {
  let result = 1;
  for (let i = 1; i <= Math.min(k, n - k); i++) {
    result = (result * (n - Math.min(k, n - k) + i)) / i;
    if (result > Number.MAX_SAFE_INTEGER) return Number.POSITIVE_INFINITY;
  }
  return Math.round(result);
}

/** Error of a layer that keeps these experts, given as flags [E]. */
export type SubsetError = (kept: Uint8Array) => number;

export interface SubsetSearch {
  /** Ascending. */
  readonly kept: Int32Array;
  readonly error: number;
  readonly path: 'exact' | 'greedy';
  /** Subsets whose error was computed. */
  readonly evaluated: number;
}

/** Subsets up to which the search is exact by default: every choice of E <= 16 experts. */
const EXACT_SUBSETS = 20_000;

/** Visits the subsets of `keep` of n, ascending within and lexicographic among them; the array is reused. */
function eachSubset(n: number, keep: number, visit: (members: Int32Array) => void): void {
  const members = Int32Array.from({ length: keep }, (_, i) => i);
  for (;;) {
    visit(members);
    let place = keep - 1;
    while (place >= 0 && members[place] === n - keep + place) place--;
    if (place < 0) return;
    members[place]++;
    for (let after = place + 1; after < keep; after++) members[after] = members[after - 1] + 1;
  }
}

function exactSubset(experts: number, keep: number, errorOf: SubsetError): SubsetSearch {
  const flags = new Uint8Array(experts);
  let kept = new Int32Array(keep);
  let least = Number.POSITIVE_INFINITY;
  let evaluated = 0;
  eachSubset(experts, keep, (members) => {
    flags.fill(0);
    for (const expert of members) flags[expert] = 1;
    const error = errorOf(flags);
    if (evaluated++ > 0 && !(error < least)) return;
    least = error;
    kept = members.slice();
  });
  return { kept, error: least, path: 'exact', evaluated };
}

function greedySubset(experts: number, keep: number, errorOf: SubsetError): SubsetSearch {
  const flags = new Uint8Array(experts).fill(1);
  let error = errorOf(flags);
  let evaluated = 1;
  for (let left = experts; left > keep; left--) {
    let worst = -1;
    error = Number.POSITIVE_INFINITY;
    // Of equal errors the expert of the highest index goes.
    for (let expert = experts - 1; expert >= 0; expert--) {
      if (flags[expert] === 0) continue;
      flags[expert] = 0;
      const without = errorOf(flags);
      evaluated++;
      flags[expert] = 1;
      if (worst < 0 || without < error) {
        error = without;
        worst = expert;
      }
    }
    flags[worst] = 0;
  }
  const kept = Int32Array.from([...flags.keys()].filter((expert) => flags[expert] === 1));
  return { kept, error, path: 'greedy', evaluated };
}

/**
 * The experts to keep of a layer by its output error (NAEE 2024): every subset is tried while there are at most
 * `exactSubsets`; beyond, the expert whose loss costs least goes, one after the other. Of equal errors the
 * lexicographically first subset stays.
 * @throws InputError when `keep` is not within 1..experts
 */
export function searchSubset(
  experts: number,
  keep: number,
  errorOf: SubsetError,
  options: { readonly exactSubsets?: number } = {},
): SubsetSearch {
  if (!(Number.isInteger(keep) && keep >= 1 && keep <= experts)) {
    throw new InputError(`${keep} of ${experts} experts cannot be kept`);
  }
  const search = binomial(experts, keep) <= (options.exactSubsets ?? EXACT_SUBSETS) ? exactSubset : greedySubset;
  return search(experts, keep, errorOf);
}
