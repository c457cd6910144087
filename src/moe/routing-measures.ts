import type { RoutingStatistics } from './types.js';

/** Routing statistics without the sums of logits, which no entropy needs. */
export interface RoutingTotals extends Omit<RoutingStatistics, 'logitSum' | 'logitGram' | 'centredLogitGram'> {
  /** In a merged model whose router chooses among the experts of before: the merged expert of each, -1 = dropped, [E]. */
  readonly expertMap?: readonly number[];
}

/** How evenly a load is spread over E experts. NaN throughout for a load of zero. */
export interface UsageMeasures {
  /** H(f) of the shares f. */
  readonly entropyNats: number;
  /** exp(H(f)). */
  readonly effectiveExperts: number;
  /** 1 / sum f^2. */
  readonly inverseSimpson: number;
  /** KL(f || uniform) = ln E - H(f). */
  readonly klToUniformNats: number;
  /** Population standard deviation over mean. */
  readonly variation: number;
  /** Gini coefficient, 0 (equal) to (E - 1) / E (one expert has all). */
  readonly gini: number;
  readonly maxOverMean: number;
  /** Experts without any load, ascending. */
  readonly dead: readonly number[];
}

function totalOf(values: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
}

/** Entropy -sum p log p of masses divided by their sum, nats; NaN for a sum of zero. */
export function massEntropy(masses: ArrayLike<number>): number {
  const total = totalOf(masses);
  if (!(total > 0)) return Number.NaN;
  let entropy = 0;
  for (let i = 0; i < masses.length; i++) {
    const p = masses[i] / total;
    if (p > 0) entropy -= p * Math.log(p);
  }
  return Math.max(0, entropy);
}

/** Masses divided by their sum; NaN for a sum of zero. */
export function sharesOf(masses: ArrayLike<number>): Float64Array {
  const total = totalOf(masses);
  return Float64Array.from(masses, (mass) => mass / total);
}

/** Gini coefficient: 2 sum_i i x_(i) / (n sum x) - (n + 1) / n over the ascending x_(i), i from 1. */
function giniOf(load: ArrayLike<number>, total: number): number {
  const n = load.length;
  const ascending = Float64Array.from(load).sort();
  let weighted = 0;
  for (let i = 0; i < n; i++) weighted += (i + 1) * ascending[i];
  return (2 * weighted) / (n * total) - (n + 1) / n;
}

/** Measures of the load of experts (counts of token-slots, or masses), [E]. */
export function usageMeasures(load: ArrayLike<number>): UsageMeasures {
  const experts = load.length;
  const total = totalOf(load);
  const mean = total / experts;
  const entropyNats = massEntropy(load);
  const dead: number[] = [];
  let squares = 0;
  let spread = 0;
  let largest = 0;
  for (let e = 0; e < experts; e++) {
    if (load[e] === 0) dead.push(e);
    squares += (load[e] / total) ** 2;
    spread += (load[e] - mean) ** 2;
    largest = Math.max(largest, load[e]);
  }
  return {
    entropyNats,
    effectiveExperts: Math.exp(entropyNats),
    inverseSimpson: 1 / squares,
    klToUniformNats: Math.log(experts) - entropyNats,
    variation: Math.sqrt(spread / experts) / mean,
    gini: giniOf(load, total),
    maxOverMean: largest / mean,
    dead,
  };
}

/** Load of the groups that experts became: sums of the load by label, [G]; experts labelled -1 are left out. */
export function groupedLoad(load: ArrayLike<number>, labels: ArrayLike<number>, groups: number): Float64Array {
  const grouped = new Float64Array(groups);
  for (let e = 0; e < load.length; e++) if (labels[e] >= 0) grouped[labels[e]] += load[e];
  return grouped;
}

/**
 * Standard error of the usage entropy H(f) with tokens as independent units, by the delta method: a token that chose S
 * moves H by -sum_{e in S} (ln f_e + H) / (k T), and the sum of the squares over tokens follows from co-activation alone.
 */
function usageEntropyError({ counts, coActivation, tokens, topK, experts }: RoutingTotals, entropy: number): number {
  const slots = tokens * topK;
  const slope = Float64Array.from(counts, (count) => (count > 0 ? -Math.log(count / slots) - entropy : 0));
  let variance = 0;
  for (let a = 0; a < experts; a++) {
    for (let b = 0; b < experts; b++) variance += coActivation[a * experts + b] * slope[a] * slope[b];
  }
  return Math.sqrt(Math.max(0, variance)) / slots;
}

/** A pair of experts that tokens chose together. */
export interface ExpertPair {
  readonly expert: number;
  readonly other: number;
  /** Tokens that chose both. */
  readonly tokens: number;
  /** Of all chosen pairs. */
  readonly share: number;
  /** What usage alone explains: 2 f_a f_b / (1 - sum f^2). */
  readonly expectedShare: number;
}

/** What pairs are counted from. */
export type PairCounts = Pick<RoutingTotals, 'counts' | 'coActivation' | 'experts' | 'topK'>;

/** All pairs a < b of a layer's experts by what they share; none for top-1 routers. */
export function expertPairs({ counts, coActivation, experts, topK }: PairCounts): ExpertPair[] {
  if (topK < 2) return [];
  const usage = sharesOf(counts);
  let pairs = 0;
  let together = 1;
  for (let a = 0; a < experts; a++) {
    together -= usage[a] * usage[a];
    for (let b = a + 1; b < experts; b++) pairs += coActivation[a * experts + b];
  }
  const found: ExpertPair[] = [];
  for (let expert = 0; expert < experts; expert++) {
    for (let other = expert + 1; other < experts; other++) {
      const tokens = coActivation[expert * experts + other];
      const expectedShare = (2 * usage[expert] * usage[other]) / together;
      found.push({ expert, other, tokens, share: tokens / pairs, expectedShare });
    }
  }
  return found;
}

/** KL of the chosen pairs from what usage alone explains, nats; NaN where no pair was chosen. */
function pairDivergence(pairs: readonly ExpertPair[]): number {
  if (pairs.length === 0) return Number.NaN;
  let divergence = 0;
  for (const { share, expectedShare } of pairs) {
    if (Number.isNaN(share)) return Number.NaN;
    if (share > 0) divergence += share * Math.log(share / expectedShare);
  }
  return Math.max(0, divergence);
}

/** The measures of one layer's router; entropies in nats. NaN where there is no token (or, of pairs, no pair). */
export interface RoutingMeasures {
  /** Mean over tokens of H(p), its population standard deviation, and the mean over ln E (0 for one expert). */
  readonly mean_token_entropy: number;
  readonly std_token_entropy: number;
  readonly mean_token_entropy_normalized: number;
  /** Mean entropy of the renormalised weights of the chosen experts. */
  readonly mean_topk_weight_entropy: number;
  readonly usage_entropy: number;
  readonly effective_experts_usage: number;
  readonly inverse_simpson_usage: number;
  readonly usage_kl_to_uniform: number;
  readonly usage_cv: number;
  readonly usage_gini: number;
  readonly max_over_mean_load: number;
  /** Entropy of the mean of p over tokens, and how far it lies above the mean entropy: I(token; expert) >= 0. */
  readonly mean_probability_entropy: number;
  readonly token_expert_mutual_information: number;
  /** Of the renormalised weights of the chosen experts, summed over tokens. */
  readonly gate_mass_entropy: number;
  readonly effective_experts_gate_mass: number;
  /** E sum_e f_e pbar_e, 1 at uniform (Switch Transformer, Fedus et al. 2022, equation 4, without its coefficient). */
  readonly switch_balance_loss: number;
  /** Mean of (log sum exp z)^2 (ST-MoE, Zoph et al. 2022, equation 5). */
  readonly router_z_loss: number;
  readonly co_activation_kl: number;
}

export type RoutingMeasure = keyof RoutingMeasures;

/** What follows from sums that add up over documents: a resample of documents gives all of these. */
export interface AdditiveSums {
  readonly tokens: number;
  readonly entropySum: number;
  readonly chosenEntropySum: number;
  readonly squaredLogNormalizerSum: number;
  readonly counts: ArrayLike<number>;
  readonly probabilitySum: ArrayLike<number>;
  readonly gateMass: ArrayLike<number>;
}

/** Token-expert mutual information: H(mean p) - mean H(p), at least 0. */
function mutualInformation(meanProbabilityEntropy: number, meanEntropy: number): number {
  return Math.max(0, meanProbabilityEntropy - meanEntropy);
}

function balanceLoss({ counts, probabilitySum, tokens }: AdditiveSums): number {
  const usage = sharesOf(counts);
  let loss = 0;
  for (let e = 0; e < usage.length; e++) loss += usage[e] * (probabilitySum[e] / tokens);
  return usage.length * loss;
}

/** Measures whose document bootstrap is reported, as functions of the sums. */
export const BOOTSTRAPPED: Readonly<Partial<Record<RoutingMeasure, (sums: AdditiveSums) => number>>> = {
  mean_token_entropy: ({ entropySum, tokens }) => entropySum / tokens,
  mean_topk_weight_entropy: ({ chosenEntropySum, tokens }) => chosenEntropySum / tokens,
  usage_entropy: ({ counts }) => massEntropy(counts),
  effective_experts_usage: ({ counts }) => Math.exp(massEntropy(counts)),
  token_expert_mutual_information: ({ probabilitySum, entropySum, tokens }) =>
    mutualInformation(massEntropy(probabilitySum), entropySum / tokens),
  gate_mass_entropy: ({ gateMass }) => massEntropy(gateMass),
  switch_balance_loss: balanceLoss,
  router_z_loss: ({ squaredLogNormalizerSum, tokens }) => squaredLogNormalizerSum / tokens,
};

/**
 * The measures of one layer from its sums.
 * Entropies are of softmax(z); of p / sum p with p = sigmoid(z) for sigmoid routers.
 */
export function routingMeasures(totals: RoutingTotals): RoutingMeasures {
  const { tokens, experts, entropySum, entropyDeviationSum, chosenEntropySum } = totals;
  const usage = usageMeasures(totals.counts);
  const meanEntropy = entropySum / tokens;
  const meanProbabilityEntropy = massEntropy(totals.probabilitySum);
  const gateMassEntropy = massEntropy(totals.gateMass);
  return {
    mean_token_entropy: meanEntropy,
    std_token_entropy: Math.sqrt(entropyDeviationSum / tokens),
    mean_token_entropy_normalized: experts === 1 && tokens > 0 ? 0 : meanEntropy / Math.log(experts),
    mean_topk_weight_entropy: chosenEntropySum / tokens,
    usage_entropy: usage.entropyNats,
    effective_experts_usage: usage.effectiveExperts,
    inverse_simpson_usage: usage.inverseSimpson,
    usage_kl_to_uniform: usage.klToUniformNats,
    usage_cv: usage.variation,
    usage_gini: usage.gini,
    max_over_mean_load: usage.maxOverMean,
    mean_probability_entropy: meanProbabilityEntropy,
    token_expert_mutual_information: mutualInformation(meanProbabilityEntropy, meanEntropy),
    gate_mass_entropy: gateMassEntropy,
    effective_experts_gate_mass: Math.exp(gateMassEntropy),
    switch_balance_loss: balanceLoss(totals),
    router_z_loss: totals.squaredLogNormalizerSum / tokens,
    co_activation_kl: pairDivergence(expertPairs(totals)),
  };
}

/** Standard errors that take tokens as independent, nats. NaN for fewer than two tokens. */
export interface TokenErrors {
  readonly mean_token_entropy: number;
  readonly usage_entropy: number;
  readonly effective_experts_usage: number;
}

export function tokenErrors(totals: RoutingTotals): TokenErrors {
  const { tokens, entropyDeviationSum, counts } = totals;
  if (tokens < 2) {
    return {
      mean_token_entropy: Number.NaN,
      usage_entropy: Number.NaN,
      effective_experts_usage: Number.NaN,
    };
  }
  const usageEntropy = massEntropy(counts);
  const usageError = usageEntropyError(totals, usageEntropy);
  return {
    mean_token_entropy: Math.sqrt(entropyDeviationSum / (tokens - 1) / tokens),
    usage_entropy: usageError,
    effective_experts_usage: Math.exp(usageEntropy) * usageError,
  };
}
