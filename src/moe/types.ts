import type { Activation } from '../models/description.js';
import type { Floats } from '../models/layer-runner.js';

/** What all routed experts of a layer have in common: H = hidden, I = width. */
export interface ExpertShape {
  readonly hidden: number;
  readonly width: number;
  /** Gated: y = D (act(G x) * U x); else y = D act(U x) (Switch: U = wi, D = wo). */
  readonly gated: boolean;
  readonly activation: Activation;
}

/** Weights of one expert, row-major: gate [I, H] (gated experts alone), up [I, H], down [H, I]. */
export interface ExpertMatrices {
  readonly gate?: Floats;
  readonly up: Floats;
  readonly down: Floats;
}

/**
 * How logits z become weights. `softmax`: p = softmax(z), the k largest are chosen, ties to the lowest index. `sigmoid`
 * (DeepSeek-V3): p = sigmoid(z), chosen by p + correction bias, weighted without it.
 */
export interface RouterRule {
  readonly score: 'softmax' | 'sigmoid';
  readonly topK: number;
  /** Weights of the chosen experts are divided by their sum. */
  readonly normalizeTopK: boolean;
  /** [E], sigmoid routers alone. */
  readonly correctionBias?: Floats;
  /** The choice is among the experts of the `topkGroup` best of `nGroup` groups of neighbours (DeepSeek V2 and V3). */
  readonly groups?: { readonly nGroup: number; readonly topkGroup: number };
}

/**
 * Sums over the router logits of a layer's tokens: all fields but the first four and `entropyDeviationSum` add up, so
 * shards and batches unite (`addRoutingStatistics`). E experts, matrices [E, E] row-major. Entropies in nats.
 */
export interface RoutingStatistics {
  /** 0-based decoder layer. */
  readonly layer: number;
  readonly experts: number;
  readonly topK: number;
  readonly score: RouterRule['score'];
  readonly tokens: number;
  /** Token-slots of each expert, [E]; they sum to tokens * topK. */
  readonly counts: Float64Array;
  /** Tokens whose k-th and (k+1)-th scores are equal. */
  readonly tiedTokens: number;
  /** Sum of the entropy of softmax(z) (of p / sum p for sigmoid routers). */
  readonly entropySum: number;
  /** Sum of squared deviations of that entropy from its mean: a difference of sums of squares would lose small spreads. */
  readonly entropyDeviationSum: number;
  /** Tokens by entropy / ln E, in equal bins of [0, 1]; the last bin holds 1. */
  readonly entropyHistogram: Float64Array;
  /** Sum of the entropy of the renormalised weights of the chosen experts. */
  readonly chosenEntropySum: number;
  /** Sum over tokens of softmax(z) (of p / sum p for sigmoid routers), [E]; they sum to tokens. */
  readonly probabilitySum: Float64Array;
  /** Sum of the renormalised weights of the chosen experts, [E]; they sum to tokens. */
  readonly gateMass: Float64Array;
  /** Sum of (log sum exp z)^2. */
  readonly squaredLogNormalizerSum: number;
  /** Sum of z, [E]; sum of z z^T; the same of z minus its mean over the experts of a token. */
  readonly logitSum: Float64Array;
  readonly logitGram: Float64Array;
  readonly centredLogitGram: Float64Array;
  /** Tokens that chose both experts, [E, E]; the diagonal is `counts`. */
  readonly coActivation: Float64Array;
}

/** Bins of {@link RoutingStatistics.entropyHistogram}. */
export const ENTROPY_BINS = 64;

/**
 * Sums over what the experts of a layer saw and gave. H hidden size, I expert width, E experts; matrices row-major, one row
 * an expert. All but the maxima add up.
 */
export interface ExpertStatistics {
  readonly layer: number;
  /** Over the tokens routed to each expert: input x, |x|, x^2 by component, [E, H]. */
  readonly inputSum: Float64Array;
  readonly inputAbsoluteSum: Float64Array;
  readonly inputSquareSum: Float64Array;
  /** Squares of the inner activations (input of the down projection), [E, I]. */
  readonly hiddenSquareSum: Float64Array;
  /** ||E_e(x)||_2, unweighted and times the router's weight p_e(x) (before and after division by the sum of the k), [E]. */
  readonly outputNormSum: Float64Array;
  readonly weightedNormSum: Float64Array;
  readonly renormalizedNormSum: Float64Array;
  /** p_e(x) of the routed tokens before division, [E]; after division it is `RoutingStatistics.gateMass`. */
  readonly weightSum: Float64Array;
  /** Largest entry and largest magnitude of E_e(x), [E]; -Infinity and 0 for an expert without tokens. */
  readonly largestOutput: Float64Array;
  readonly largestMagnitude: Float64Array;
  /** Over all tokens: x^2 by component, [H]. */
  readonly allInputSquareSum: Float64Array;
  /** Where every expert ran on every token (`--outputs all`): tokens, sum of E_e(x) [E, H], sum of <E_i(x), E_j(x)> [E, E]. */
  readonly everywhere?: {
    readonly tokens: number;
    readonly outputSum: Float64Array;
    readonly outputGram: Float64Array;
  };
}

/** Statistics of one layer with experts. `outputs` are missing where only the router was watched. */
export interface LayerStatistics {
  readonly routing: RoutingStatistics;
  readonly outputs?: ExpertStatistics;
}

/** Which experts of a layer become one. */
export interface LayerGrouping {
  readonly layer: number;
  /** Group of every expert, [E], 0-based; -1 for an expert that is dropped (pruning). */
  readonly labels: Int32Array;
  /** The expert that leads each group, [G]: alignment refers to it, and its router row stands for the group. */
  readonly dominants: Int32Array;
}
