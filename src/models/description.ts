/**
 * What a decoder-only transformer computes, as data. `src/models/architectures.ts` turns a `config.json` or GGUF
 * metadata into one of these; `src/models/layer-graph.ts` turns it into ONNX; nothing else knows an architecture.
 */

export type Activation = 'silu' | 'gelu' | 'gelu_tanh' | 'relu' | 'relu2';

/** Rotary embedding: frequencies per pair of dimensions and a factor on cos and sin. */
export interface RopeDescription {
  readonly type: 'default' | 'linear' | 'dynamic' | 'llama3' | 'yarn' | 'longrope';
  readonly theta: number;
  /** Rotated dimensions of each head (even); the others pass through. */
  readonly dims: number;
  readonly factor?: number;
  readonly attentionFactor?: number;
  readonly originalMaxPositions?: number;
  readonly maxPositions: number;
  readonly lowFrequencyFactor?: number;
  readonly highFrequencyFactor?: number;
  readonly betaFast?: number;
  readonly betaSlow?: number;
  readonly mscale?: number;
  readonly mscaleAllDims?: number;
  readonly truncate?: boolean;
  readonly shortFactors?: readonly number[];
  readonly longFactors?: readonly number[];
  /** Factors per pair that divide the frequencies (GGUF stores llama3 scaling this way). */
  readonly frequencyFactors?: readonly number[];
}

export interface AttentionDescription {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Factor on the scores q.k before softmax. */
  readonly scale: number;
  /** Scores become c * tanh(score / c). */
  readonly softcap?: number;
  /** A query sees at most this many keys, itself included. */
  readonly window?: number;
  /** Index into `ModelDescription.ropes`; absent for layers without rotary embedding. */
  readonly rope?: number;
  /** How q, k, v are stored: three matrices; one with rows q, k, v; one with rows q, k, v of each head in turn. */
  readonly projection: 'separate' | 'fused' | 'fused-by-head';
  readonly qkvBias: boolean;
  readonly outputBias: boolean;
  /** RMSNorm on queries and keys before rotary embedding: over each head, or over the whole projection. */
  readonly qkNorm?: 'head' | 'full';
  /** Queries, keys and values are clamped to [-c, c]. */
  readonly clip?: number;
}

export interface DenseMlpDescription {
  readonly kind: 'dense';
  readonly width: number;
  /** Gated: down(act(gate x) * up x); else down(act(up x)). */
  readonly gated: boolean;
  /** Gate and up stored in one matrix, rows gate then up. */
  readonly fusedGateUp: boolean;
  readonly activation: Activation;
  readonly bias: boolean;
}

export interface MoeMlpDescription {
  readonly kind: 'moe';
  /** Experts that are stored and run. */
  readonly experts: number;
  /**
   * Outputs of a router that still chooses among the experts of before a merge: a map [routerOutputs] says which stored
   * expert runs in the place of each. Absent where the router chooses among the stored experts.
   */
  readonly routerOutputs?: number;
  readonly expertsPerToken: number;
  readonly width: number;
  readonly activation: Activation;
  /** Router weights of the chosen experts are divided by their sum. */
  readonly normalizeTopK: boolean;
  /** An expert that every token visits; `gated` multiplies it with a sigmoid of a learned score. */
  readonly shared?: { readonly width: number; readonly gated: boolean };
}

export interface LayerDescription {
  readonly attention: AttentionDescription;
  readonly mlp: DenseMlpDescription | MoeMlpDescription;
  /** Norms on the branch outputs before they are added (Gemma 2 and 3). */
  readonly branchNorms: boolean;
  /** Attention and MLP read the same residual and are added together (GPT-NeoX). */
  readonly parallel: boolean;
}

export interface NormDescription {
  readonly kind: 'rms' | 'layer';
  readonly epsilon: number;
  /** The stored weight w stands for 1 + w (Gemma). */
  readonly plusOne: boolean;
}

export interface ModelDescription {
  readonly modelType: string;
  readonly hiddenSize: number;
  readonly vocabularySize: number;
  readonly maxPositions: number;
  readonly norm: NormDescription;
  readonly layers: readonly LayerDescription[];
  readonly ropes: readonly RopeDescription[];
  /** Embeddings are multiplied by this. */
  readonly embeddingScale: number;
  /** A learned embedding of the position is added (GPT-2). */
  readonly learnedPositions: boolean;
  /** Linear weights are stored [in, out] (GPT-2's Conv1D). */
  readonly linearLayout: 'out-in' | 'in-out';
  /** The head shares the embedding matrix. */
  readonly tiedHead: boolean;
  /** Logits become c * tanh(logit / c). */
  readonly logitSoftcap?: number;
  readonly bosId?: number;
  readonly eosIds: readonly number[];
}

/** What a weight does in a layer. Experts carry their index: `expert.3.down`. */
export type LayerRole = string;

/** Role of the map from a router's outputs to the merged experts that run in their place. */
export const EXPERT_MAP: LayerRole = 'router.expert_map';

/** Two layers with equal keys compute the same function of their weights and can share a session. */
export function layerKey(layer: LayerDescription): string {
  return JSON.stringify(layer);
}

/** Rows of the router's matrix. */
export function routerOutputs(mlp: MoeMlpDescription): number {
  return mlp.routerOutputs ?? mlp.experts;
}

/** Number of weights that one layer of this description holds. */
export function layerParameterCount(layer: LayerDescription, hiddenSize: number): number {
  const { heads, kvHeads, headDim } = layer.attention;
  const attention = hiddenSize * headDim * (2 * heads + 2 * kvHeads);
  const mlp = layer.mlp;
  if (mlp.kind === 'dense') return attention + hiddenSize * mlp.width * (mlp.gated ? 3 : 2);
  const routed = mlp.experts * 3 * hiddenSize * mlp.width + routerOutputs(mlp) * hiddenSize;
  const shared = mlp.shared ? 3 * hiddenSize * mlp.shared.width : 0;
  return attention + routed + shared;
}
