import type { ConfigReader } from '../models/config-reader.js';

/** How the names of expert tensors are made; see {@link NAMINGS}. */
export type NamingKind = 'w123' | 'projections' | 'switch' | 'fused';

/** Names below a layer, `{e}` for the expert. `block` is one of the family's names of the sparse block. */
export interface Naming {
  readonly kind: NamingKind;
  /** Recognises any tensor of the kind; group 1 is the layer's prefix, group `e` the expert of separate files. */
  readonly pattern: RegExp;
  readonly gate?: string;
  readonly up?: string;
  readonly gateUp?: string;
  readonly down: string;
}

export const NAMINGS: Readonly<Record<NamingKind, Naming>> = {
  w123: {
    kind: 'w123',
    pattern: /^(.*layers\.\d+\.[a-z_]+)\.experts\.(?<e>\d+)\.w[123]\.weight$/,
    gate: 'experts.{e}.w1.weight',
    up: 'experts.{e}.w3.weight',
    down: 'experts.{e}.w2.weight',
  },
  projections: {
    kind: 'projections',
    pattern: /^(.*layers\.\d+\.[a-z_]+)\.experts\.(?<e>\d+)\.(gate|up|down)_proj\.weight$/,
    gate: 'experts.{e}.gate_proj.weight',
    up: 'experts.{e}.up_proj.weight',
    down: 'experts.{e}.down_proj.weight',
  },
  switch: {
    kind: 'switch',
    pattern: /^(.*(?:en|de)coder\.block\.\d+\.layer\.\d+\.mlp)\.experts\.expert_(?<e>\d+)\.w[io]\.weight$/,
    up: 'experts.expert_{e}.wi.weight',
    down: 'experts.expert_{e}.wo.weight',
  },
  fused: {
    kind: 'fused',
    pattern: /^(.*layers\.\d+\.[a-z_]+)\.experts\.(gate_up|down)_proj(\.weight)?$/,
    gateUp: 'experts.gate_up_proj',
    down: 'experts.down_proj',
  },
};

/** A place where a family has experts. */
export interface SparseBlock {
  readonly layer: number;
  /** Without the model's prefix: 'layers.3', 'encoder.block.1'. */
  readonly name: string;
  /** Candidates for what stands between `name` and the router or experts: 'mlp', 'block_sparse_moe', 'layer.1.mlp'. */
  readonly blocks: readonly string[];
}

/** Which experts a family has, how they are named, and what its config calls them. All is data but the rule of layers. */
export interface ExpertFamily {
  /** The name in reports: the first of `types`. */
  readonly types: readonly [string, ...string[]];
  readonly architectures: RegExp;
  /** This tool has its forward pass. */
  readonly runs: boolean;
  readonly namings: readonly NamingKind[];
  /** How the family's fused tensors lie, where sizes cannot tell. */
  readonly fused: 'fused-rows' | 'fused-columns';
  readonly router: readonly string[];
  readonly correctionBias?: string;
  /** Config keys of the number of experts; the first is written where none is there. */
  readonly countKeys: readonly [string, ...string[]];
  /** Absent: one expert a token. */
  readonly topKKey?: string;
  readonly hiddenKey: string;
  /** The first that is in the config. */
  readonly widthKeys: readonly string[];
  readonly activation: { readonly keys: readonly string[]; readonly fallback: string };
  readonly gated: boolean;
  readonly score: 'softmax' | 'sigmoid' | 'scoring_func';
  /** Fixed, or the default of `norm_topk_prob`. */
  readonly normalize: { readonly fixed: boolean } | { readonly fallback: boolean };
  /** `n_group` and `topk_group` limit the choice: always, or with topk_method "group_limited_greedy". */
  readonly groups?: 'always' | 'by-method';
  /** Layers behind the last may be stored, which predict further tokens. */
  readonly extraLayers?: true;
  readonly sparseBlocks: (reader: ConfigReader, layers: number) => SparseBlock[];
  /** Names that contain "expert" and are none of the routed ones. */
  readonly shared: RegExp;
  /** What a reader of the report must know. */
  readonly caveat?: string;
}

const decoderBlocks = (layers: number, blocks: readonly string[], isSparse: (i: number) => boolean): SparseBlock[] =>
  Array.from({ length: layers }, (_, layer) => ({ layer, name: `layers.${layer}`, blocks })).filter(({ layer }) =>
    isSparse(layer),
  );

const qwenBlocks = (reader: ConfigReader, layers: number): SparseBlock[] => {
  const step = reader.number('decoder_sparse_step', 1);
  const dense = reader.numbers('mlp_only_layers') ?? [];
  return decoderBlocks(layers, ['mlp'], (i) => !dense.includes(i) && (i + 1) % step === 0);
};

const deepseekBlocks = (reader: ConfigReader, layers: number): SparseBlock[] => {
  const first = reader.number('first_k_dense_replace', 0);
  const every = reader.number('moe_layer_freq', 1);
  return decoderBlocks(layers, ['mlp'], (i) => i >= first && i % every === 0);
};

const llama4Blocks = (reader: ConfigReader, layers: number): SparseBlock[] => {
  const listed = reader.numbers('moe_layers');
  const step = reader.number('interleave_moe_layer_step', 1);
  return decoderBlocks(layers, ['feed_forward'], (i) => listed?.includes(i) ?? (i + 1) % step === 0);
};

/** Blocks 1, 3, 5, ... where half are sparse; encoder blocks first. */
const switchBlocks = (reader: ConfigReader, layers: number): SparseBlock[] => {
  const decoders = reader.number('num_decoder_layers', layers);
  const sparse = (stack: 'encoder' | 'decoder', count: number, first: number, sublayer: number): SparseBlock[] => {
    const wanted = reader.number(`num_sparse_${stack}_layers`, 3);
    const step = wanted > 0 ? Math.floor(count / wanted) : 0;
    return Array.from({ length: count }, (_, b) => b)
      .filter((b) => step > 0 && (step === 1 || b % step === 1))
      .map((b) => ({ layer: first + b, name: `${stack}.block.${b}`, blocks: [`layer.${sublayer}.mlp`] }));
  };
  return [...sparse('encoder', layers, 0, 1), ...sparse('decoder', decoders, layers, 2)];
};

const NONE = /(?!)/;
const GATED = {
  gated: true,
  activation: { keys: ['hidden_act'], fallback: 'silu' },
  hiddenKey: 'hidden_size',
} as const;

const QWEN = {
  ...GATED,
  runs: true,
  namings: ['projections', 'fused'],
  fused: 'fused-rows',
  router: ['gate.weight'],
  countKeys: ['num_experts', 'num_local_experts'],
  topKKey: 'num_experts_per_tok',
  widthKeys: ['moe_intermediate_size', 'intermediate_size'],
  score: 'softmax',
  normalize: { fallback: false },
  sparseBlocks: qwenBlocks,
  shared: NONE,
} as const satisfies Partial<ExpertFamily>;

const DEEPSEEK = {
  ...QWEN,
  runs: false,
  countKeys: ['n_routed_experts', 'num_local_experts', 'num_experts'],
  score: 'scoring_func',
  sparseBlocks: deepseekBlocks,
  shared: /\.mlp\.shared_experts\.(gate|up|down)_proj\.weight$/,
} as const satisfies Partial<ExpertFamily>;

const SIGMOID = {
  score: 'sigmoid',
  correctionBias: 'gate.e_score_correction_bias',
  normalize: { fallback: true },
  groups: 'always',
  extraLayers: true,
} as const satisfies Partial<ExpertFamily>;

/** Every family that is read, in the order of the specification's table of checkpoints. */
export const EXPERT_FAMILIES: readonly ExpertFamily[] = [
  {
    ...QWEN,
    types: ['mixtral'],
    architectures: /^Mixtral/,
    namings: ['w123', 'fused'],
    countKeys: ['num_local_experts', 'num_experts'],
    widthKeys: ['intermediate_size'],
    normalize: { fixed: true },
    sparseBlocks: (_, layers) => decoderBlocks(layers, ['block_sparse_moe', 'mlp'], () => true),
  },
  {
    ...QWEN,
    types: ['qwen2_moe'],
    architectures: /^Qwen2Moe/,
    shared: /\.mlp\.shared_expert(\.(gate|up|down)_proj|_gate)\.weight$/,
  },
  { ...QWEN, types: ['qwen3_moe'], architectures: /^Qwen3Moe/ },
  {
    ...QWEN,
    types: ['olmoe'],
    architectures: /^Olmoe/,
    widthKeys: ['intermediate_size'],
    sparseBlocks: (_, layers) => decoderBlocks(layers, ['mlp'], () => true),
  },
  { ...DEEPSEEK, types: ['deepseek'], architectures: /^Deepseek(ForCausalLM|Model)/ },
  { ...DEEPSEEK, types: ['deepseek_v2'], architectures: /^DeepseekV2/, groups: 'by-method' },
  { ...DEEPSEEK, ...SIGMOID, types: ['deepseek_v3'], architectures: /^DeepseekV3/ },
  { ...DEEPSEEK, ...SIGMOID, types: ['glm4_moe'], architectures: /^Glm4Moe/ },
  {
    types: ['switch_transformers'],
    architectures: /^SwitchTransformers/,
    runs: false,
    namings: ['switch'],
    fused: 'fused-rows',
    router: ['router.classifier.weight'],
    countKeys: ['num_experts'],
    hiddenKey: 'd_model',
    widthKeys: ['d_ff'],
    activation: { keys: ['dense_act_fn'], fallback: 'relu' },
    gated: false,
    score: 'softmax',
    normalize: { fixed: false },
    sparseBlocks: switchBlocks,
    shared: NONE,
    caveat: 'tokens beyond expert_capacity pass a Switch layer without an expert; fewer experts fill up sooner',
  },
  {
    ...QWEN,
    types: ['qwen3_vl_moe', 'qwen3_vl_moe_text'],
    architectures: /^Qwen3VLMoe/,
    fused: 'fused-columns',
    normalize: { fixed: true },
  },
  {
    ...QWEN,
    types: ['llama4', 'llama4_text'],
    architectures: /^Llama4/,
    runs: false,
    namings: ['fused', 'projections'],
    fused: 'fused-columns',
    router: ['router.weight'],
    countKeys: ['num_local_experts', 'num_experts'],
    widthKeys: ['intermediate_size'],
    score: 'sigmoid',
    normalize: { fixed: false },
    sparseBlocks: llama4Blocks,
    shared: /\.feed_forward\.shared_expert\.(gate|up|down)_proj\.weight$/,
    caveat:
      'Llama-4 multiplies the input of an expert, not its output, by the router weight: merged experts see a scaled input',
  },
];

/** Config keys that say a model has routed experts, for messages. */
export const COUNT_KEYS: readonly string[] = [...new Set(EXPERT_FAMILIES.flatMap(({ countKeys }) => countKeys))];

export const FAMILY_TYPES: readonly string[] = EXPERT_FAMILIES.map(({ types }) => types[0]);
