import { InputError } from '../errors.js';
import type { TensorInfo } from '../formats/tensor.js';
import { describeModel } from './architectures.js';
import type { ModelDescription, RopeDescription } from './description.js';

/** GGUF architectures and the `model_type` whose description they share. */
const MODEL_TYPE: Readonly<Record<string, string>> = {
  llama: 'llama',
  qwen2: 'qwen2',
  qwen3: 'qwen3',
  gemma2: 'gemma2',
  gemma3: 'gemma3_text',
  phi3: 'phi3',
  gpt2: 'gpt2',
  gptneox: 'gpt_neox',
  qwen2moe: 'qwen2_moe',
  qwen3moe: 'qwen3_moe',
  olmoe: 'olmoe',
  smollm3: 'smollm3',
};

/** Architectures whose q and k rows are stored permuted for interleaved rotary embedding. */
const INTERLEAVED = new Set(['llama', 'smollm3']);

/** Config keys and the metadata keys (after `<architecture>.`) that carry them. */
const KEYS: Readonly<Record<string, string>> = {
  hidden_size: 'embedding_length',
  num_hidden_layers: 'block_count',
  num_attention_heads: 'attention.head_count',
  num_key_value_heads: 'attention.head_count_kv',
  head_dim: 'attention.key_length',
  intermediate_size: 'feed_forward_length',
  moe_intermediate_size: 'expert_feed_forward_length',
  shared_expert_intermediate_size: 'expert_shared_feed_forward_length',
  num_experts: 'expert_count',
  num_local_experts: 'expert_count',
  num_experts_per_tok: 'expert_used_count',
  max_position_embeddings: 'context_length',
  n_positions: 'context_length',
  rms_norm_eps: 'attention.layer_norm_rms_epsilon',
  layer_norm_epsilon: 'attention.layer_norm_epsilon',
  layer_norm_eps: 'attention.layer_norm_epsilon',
  rope_theta: 'rope.freq_base',
  rope_local_base_freq: 'rope.freq_base_swa',
  sliding_window: 'attention.sliding_window',
  attn_logit_softcapping: 'attn_logit_softcapping',
  final_logit_softcapping: 'final_logit_softcapping',
  clip_qkv: 'attention.clamp_kqv',
  use_parallel_residual: 'use_parallel_residual',
};

export interface GgufModel {
  readonly description: ModelDescription;
  /** Roles whose rows must be brought back from the interleaved layout. */
  readonly interleavedRoles: readonly string[];
}

/** Small tensors that hold rotary factors: `rope_freqs`, `rope_factors_long`, `rope_factors_short`. */
export type RopeFactorReader = (name: string) => readonly number[] | undefined;

/**
 * Describes the model of a GGUF file from its metadata and tensors, by way of the same table as `config.json`.
 * @throws InputError for an architecture this tool does not know.
 */
export function describeGguf(
  path: string,
  kv: ReadonlyMap<string, unknown>,
  tensors: ReadonlyMap<string, TensorInfo>,
  ropeFactors: RopeFactorReader,
): GgufModel {
  const architecture = kv.get('general.architecture');
  if (typeof architecture !== 'string' || MODEL_TYPE[architecture] === undefined) {
    const known = Object.keys(MODEL_TYPE).join(', ');
    throw new InputError(`${path}: architecture "${String(architecture)}" is not supported; known: ${known}`);
  }
  const get = (key: string): unknown => kv.get(`${architecture}.${key}`);
  const config: Record<string, unknown> = {};
  for (const [key, source] of Object.entries(KEYS)) {
    const value = get(source);
    if (value !== undefined) config[key] = typeof value === 'bigint' ? Number(value) : value;
  }
  const has = (name: string): boolean => tensors.has(name);
  const experts = typeof config.num_experts === 'number' ? config.num_experts : 0;
  let modelType = MODEL_TYPE[architecture];
  if (modelType === 'llama' && experts > 0) modelType = 'mixtral';
  config.model_type = modelType;
  config.vocab_size = tensors.get('token_embd.weight')?.shape[0];
  config.tie_word_embeddings = !has('output.weight');
  config.attention_bias = has('blk.0.attn_q.bias') || has('blk.0.attn_qkv.bias');
  config.mlp_bias = has('blk.0.ffn_down.bias');
  config.norm_topk_prob = modelType === 'qwen3_moe' || modelType === 'mixtral';
  config.bos_token_id = kv.get('tokenizer.ggml.bos_token_id');
  config.eos_token_id = kv.get('tokenizer.ggml.eos_token_id');
  if (modelType === 'mixtral' || modelType === 'llama') delete config.sliding_window;
  if (modelType === 'gemma2') {
    config.attn_logit_softcapping ??= 50;
    config.final_logit_softcapping ??= 30;
  }
  if (modelType === 'gemma2' || modelType === 'gemma3_text') config.query_pre_attn_scalar = queryScalar(config);
  if (modelType === 'qwen2_moe' && config.shared_expert_intermediate_size === undefined) {
    config.shared_expert_intermediate_size = tensors.get('blk.0.ffn_up_shexp.weight')?.shape[0];
  }
  const rotated = get('rope.dimension_count');
  const headDim = Number(config.head_dim ?? Number(config.hidden_size) / Number(config.num_attention_heads));
  if (typeof rotated === 'number' && rotated !== headDim) config.partial_rotary_factor = rotated / headDim;

  const scaling = ropeScaling(get, ropeFactors);
  if (scaling) config.rope_scaling = scaling;
  const described = describeModel(config, path);
  const frequencyFactors = ropeFactors('rope_freqs.weight');
  const adjust = (rope: RopeDescription, index: number): RopeDescription =>
    frequencyFactors && index === 0 ? { ...rope, frequencyFactors } : rope;
  return {
    description: {
      ...described,
      // Converters add 1 to Gemma's norm weights, transpose Conv1D and sort NeoX's fused rows.
      norm: { ...described.norm, plusOne: false },
      linearLayout: 'out-in',
      ropes: described.ropes.map(adjust),
      layers: described.layers.map((layer) =>
        layer.attention.projection === 'fused-by-head'
          ? { ...layer, attention: { ...layer.attention, projection: 'fused' } }
          : layer,
      ),
    },
    interleavedRoles: INTERLEAVED.has(architecture) ? ['q', 'k', 'q_bias', 'k_bias'] : [],
  };
}

/** Gemma's query scale: the head size, but hidden/heads in the 27B models, as llama.cpp infers it. */
function queryScalar(config: Record<string, unknown>): number {
  const layers = Number(config.num_hidden_layers);
  const largest = config.model_type === 'gemma2' ? 46 : 62;
  const perHead = Number(config.hidden_size) / Number(config.num_attention_heads);
  return layers === largest ? perHead : Number(config.head_dim ?? perHead);
}

function ropeScaling(
  get: (key: string) => unknown,
  ropeFactors: RopeFactorReader,
): Record<string, unknown> | undefined {
  const long = ropeFactors('rope_factors_long.weight');
  const short = ropeFactors('rope_factors_short.weight');
  const original = get('rope.scaling.original_context_length');
  if (long && short) {
    return {
      type: 'longrope',
      long_factor: [...long],
      short_factor: [...short],
      original_max_position_embeddings: original,
      attention_factor: get('rope.scaling.attn_factor'),
    };
  }
  const type = get('rope.scaling.type');
  const factor = get('rope.scaling.factor');
  if (typeof factor !== 'number' || (type !== 'linear' && type !== 'yarn')) return undefined;
  return { type, factor, original_max_position_embeddings: original };
}
