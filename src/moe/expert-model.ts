import type { DType, TensorStore } from '../formats/tensor.js';
import type { Config } from '../models/config-reader.js';
import type { ExpertShape, RouterRule } from './types.js';

/**
 * How the experts of a model lie in its files. `separate`: a tensor for each matrix of each expert. `fused-rows`:
 * `gate_up_proj` [E, 2I, H], first I rows gate, and `down_proj` [E, H, I]. `fused-columns`: `gate_up_proj` [E, H, 2I], first
 * I columns gate, and `down_proj` [E, I, H].
 */
export type ExpertArrangement = 'separate' | 'fused-rows' | 'fused-columns';

/** Names of the tensors of a layer's experts; `{e}` stands for the expert in separate files. */
export interface ExpertTensorNames {
  readonly gate?: string;
  /** Absent where `gateUp` holds both. */
  readonly up?: string;
  readonly gateUp?: string;
  readonly down: string;
}

/** One decoder layer (or block of an encoder) that has routed experts. */
export interface ExpertLayer {
  /** 0-based decoder layer. Switch: encoder blocks first, then decoder blocks. */
  readonly layer: number;
  /** 'layers.3', 'encoder.block.1'. */
  readonly name: string;
  /** Experts that are stored. */
  readonly experts: number;
  /** Rows of the router; more than `experts` only in a merged model of form `remap`. */
  readonly routerRows: number;
  /** Merged models of form `remap`: the stored expert that runs for each router row, -1 for none, [routerRows]. */
  readonly map?: Int32Array;
  readonly rule: RouterRule;
  readonly shape: ExpertShape;
  /** Element type of the expert matrices. */
  readonly dtype: DType;
  readonly tensors: ExpertTensorNames;
  /** Router matrix, [routerRows, H]. */
  readonly router: string;
  /** Bias of the router's logits, [routerRows] (Switch with `router_bias`). */
  readonly routerBias?: string;
  /** Bias of the choice alone, [routerRows] (DeepSeek-V3, GLM-4.5). */
  readonly correctionBias?: string;
  /** Experts are chosen within the best `topkGroup` of `nGroup` groups of neighbours. */
  readonly groups?: { readonly nGroup: number; readonly topkGroup: number };
}

/** A model directory with routed experts. Only headers are in memory. */
export interface ExpertModel {
  readonly path: string;
  readonly config: Config;
  /** Key of the part of the config that describes the decoder, where it is nested. */
  readonly configKey?: string;
  /** `model_type` of the family: mixtral, qwen2_moe, deepseek_v3, ... */
  readonly family: string;
  readonly layout: ExpertArrangement;
  /** Whether this tool has its forward pass; else its weights are merged with statistics from elsewhere. */
  readonly runs: boolean;
  /** What a report should say about how the files were read. */
  readonly notes: readonly string[];
  readonly store: TensorStore;
  readonly layers: readonly ExpertLayer[];
  /** Prefix of the layers beyond `num_hidden_layers` that predict further tokens and are no part of the model. */
  readonly extraLayers: readonly string[];
  close(): void;
}

/** Names of the stored tensors that hold the experts of a layer, experts in order. */
export function expertTensorNames(tensors: ExpertTensorNames, experts: number): string[] {
  const templates = [tensors.gateUp, tensors.gate, tensors.up, tensors.down].filter((name) => name !== undefined);
  if (tensors.gateUp !== undefined) return templates;
  return Array.from({ length: experts }, (_, e) => templates.map((name) => name.replace('{e}', String(e)))).flat();
}

/** Name of the map from router rows to stored experts, beside the router. */
export function expertMapName(router: string): string {
  return router.replace(/\.weight$/, '.expert_map');
}
