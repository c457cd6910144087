import { didYouMean, InputError } from '../errors.js';
import { type Config, type ConfigReader, configReader, readActivation, readRope } from './config-reader.js';
import type {
  AttentionDescription,
  DenseMlpDescription,
  LayerDescription,
  ModelDescription,
  MoeMlpDescription,
  RopeDescription,
} from './description.js';
import { baseConfig, describeMerged, MERGED_MODEL_TYPE } from './merged-experts.js';

/** How an architecture differs from Llama. Every field is data; the reading below is the same for all. */
interface Architecture {
  readonly norm?: 'layer';
  readonly plusOne?: true;
  readonly epsilonKey?: string;
  readonly keys?: Readonly<Record<string, string>>;
  readonly defaultTheta?: number;
  readonly noRope?: true;
  readonly learnedPositions?: true;
  readonly linearLayout?: 'in-out';
  readonly projection?: AttentionDescription['projection'];
  readonly fusedGateUp?: true;
  readonly ungated?: true;
  readonly activationKeys?: readonly string[];
  readonly activation?: string;
  /** Config key of the bias on q, k, v, or its fixed value. */
  readonly qkvBias?: string | boolean;
  readonly outputBias?: string | boolean;
  readonly mlpBias?: string | boolean;
  readonly qkNorm?: AttentionDescription['qkNorm'];
  readonly branchNorms?: true;
  readonly scaledEmbedding?: true;
  readonly parallelKey?: string;
  readonly tiedByDefault?: true;
  /** Sliding window: which layers have it when the config does not list `layer_types`. */
  readonly window?:
    | 'all'
    | 'all-if-asked'
    | 'even-layers'
    | 'five-of-six'
    | 'after-max-window-layers'
    | 'qwen-moe'
    | 'when-no-rope';
  /** Window when the config does not name one. */
  readonly defaultWindow?: number;
  readonly localRope?: true;
  readonly moe?: 'mixtral' | 'qwen' | 'olmoe';
  /** Weights of the chosen experts are divided by their sum whatever the config says. */
  readonly normalizeTopK?: true;
}

const QWEN: Architecture = { window: 'after-max-window-layers' };
const GEMMA: Architecture = {
  plusOne: true,
  branchNorms: true,
  scaledEmbedding: true,
  tiedByDefault: true,
  activation: 'gelu_pytorch_tanh',
  activationKeys: ['hidden_activation', 'hidden_act'],
  qkvBias: 'attention_bias',
  outputBias: 'attention_bias',
};

const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  llama: { qkvBias: 'attention_bias', outputBias: 'attention_bias', mlpBias: 'mlp_bias' },
  mistral: { window: 'all', defaultWindow: 4096 },
  smollm3: {
    qkvBias: 'attention_bias',
    outputBias: 'attention_bias',
    mlpBias: 'mlp_bias',
    window: 'when-no-rope',
    defaultTheta: 2_000_000,
    tiedByDefault: true,
  },
  qwen2: { ...QWEN, qkvBias: true },
  qwen3: { ...QWEN, qkvBias: 'attention_bias', outputBias: 'attention_bias', qkNorm: 'head' },
  gemma2: { ...GEMMA, window: 'even-layers' },
  gemma3_text: { ...GEMMA, window: 'five-of-six', qkNorm: 'head', localRope: true, defaultTheta: 1_000_000 },
  phi3: { projection: 'fused', fusedGateUp: true, window: 'all' },
  gpt2: {
    norm: 'layer',
    noRope: true,
    learnedPositions: true,
    linearLayout: 'in-out',
    projection: 'fused',
    ungated: true,
    activation: 'gelu_new',
    activationKeys: ['activation_function'],
    epsilonKey: 'layer_norm_epsilon',
    qkvBias: true,
    outputBias: true,
    mlpBias: true,
    tiedByDefault: true,
    keys: {
      hidden_size: 'n_embd',
      num_hidden_layers: 'n_layer',
      num_attention_heads: 'n_head',
      max_position_embeddings: 'n_positions',
      intermediate_size: 'n_inner',
    },
  },
  gpt_neox: {
    norm: 'layer',
    projection: 'fused-by-head',
    ungated: true,
    activation: 'gelu',
    epsilonKey: 'layer_norm_eps',
    qkvBias: 'attention_bias',
    outputBias: 'attention_bias',
    mlpBias: true,
    parallelKey: 'use_parallel_residual',
    keys: { rope_theta: 'rotary_emb_base' },
  },
  mixtral: { window: 'all', moe: 'mixtral', defaultTheta: 1_000_000 },
  qwen2_moe: { qkvBias: 'qkv_bias', moe: 'qwen', window: 'qwen-moe' },
  qwen3_moe: {
    qkvBias: 'attention_bias',
    outputBias: 'attention_bias',
    qkNorm: 'head',
    moe: 'qwen',
    window: 'all-if-asked',
  },
  qwen3_vl_moe_text: {
    qkvBias: 'attention_bias',
    outputBias: 'attention_bias',
    qkNorm: 'head',
    moe: 'qwen',
    normalizeTopK: true,
    defaultTheta: 500_000,
  },
  olmoe: { qkvBias: 'attention_bias', outputBias: 'attention_bias', qkNorm: 'full', moe: 'olmoe' },
};

/** Multimodal models keep the language model's configuration one level down; some say above it whether the head is tied. */
const LANGUAGE_MODEL: Readonly<Record<string, { readonly modelType: string; readonly tiedAbove: boolean }>> = {
  gemma3: { modelType: 'gemma3_text', tiedAbove: false },
  qwen3_vl_moe: { modelType: 'qwen3_vl_moe_text', tiedAbove: true },
};

/** Model types that `describeModel` understands. */
export const MODEL_TYPES: readonly string[] = [
  ...Object.keys(ARCHITECTURES),
  ...Object.keys(LANGUAGE_MODEL),
  MERGED_MODEL_TYPE,
].sort();

/**
 * Turns a parsed `config.json` into a description.
 * @throws InputError for an unknown `model_type` (listing the known ones) or an inconsistent value, naming the key.
 */
export function describeModel(config: Config, path: string): ModelDescription {
  const reader = configReader(config, path);
  if (reader.string('model_type', '') !== MERGED_MODEL_TYPE) return describeStandard(reader);
  return describeMerged(describeStandard(baseConfig(reader)), reader);
}

function describeStandard(stated: ConfigReader): ModelDescription {
  let reader = stated;
  let modelType = reader.string('model_type', '');
  const inner = LANGUAGE_MODEL[modelType];
  if (inner) {
    modelType = inner.modelType;
    const text = stated.object('text_config') ?? stated;
    const tied = inner.tiedAbove && { tie_word_embeddings: stated.boolean('tie_word_embeddings', false) };
    reader = configReader({ ...text.config, ...tied }, text.path);
  }
  const architecture = ARCHITECTURES[modelType];
  if (architecture === undefined) {
    const hint = didYouMean(modelType, MODEL_TYPES);
    throw new InputError(
      `${reader.path}: model_type "${modelType}" is not supported${hint}; known types: ${MODEL_TYPES.join(', ')}`,
    );
  }
  return readDecoder(modelType, architecture, renamed(reader, architecture));
}

/** The same config under Llama's key names. */
function renamed(reader: ConfigReader, architecture: Architecture): ConfigReader {
  if (!architecture.keys) return reader;
  const config = { ...reader.config };
  for (const [standard, own] of Object.entries(architecture.keys)) {
    if (config[own] !== undefined && config[own] !== null) config[standard] = config[own];
  }
  return configReader(config, reader.path);
}

function flag(reader: ConfigReader, source: string | boolean | undefined, fallback: boolean): boolean {
  if (source === undefined) return false;
  return typeof source === 'boolean' ? source : reader.boolean(source, fallback);
}

function readDecoder(modelType: string, architecture: Architecture, reader: ConfigReader): ModelDescription {
  const hiddenSize = positive(reader, 'hidden_size');
  const layerCount = positive(reader, 'num_hidden_layers');
  const heads = positive(reader, 'num_attention_heads');
  const kvHeads = reader.number('num_key_value_heads', heads);
  const headDim = reader.number('head_dim', hiddenSize / heads);
  if (!Number.isInteger(headDim)) {
    throw new InputError(`${reader.path}: hidden_size ${hiddenSize} is not a multiple of ${heads} attention heads`);
  }
  if (heads % kvHeads !== 0) {
    throw new InputError(`${reader.path}: ${heads} attention heads are not a multiple of ${kvHeads} key/value heads`);
  }

  const ropes = readRopes(architecture, reader, headDim);
  const windows = readWindows(architecture, reader, layerCount);
  const noRopeLayers = modelType === 'smollm3' ? readNoRopeLayers(reader, layerCount) : undefined;
  const qkvBiasDefault = modelType === 'gpt_neox' || modelType === 'qwen2_moe';
  const scalar = reader.optionalNumber('query_pre_attn_scalar') ?? headDim;
  const attnSoftcap = architecture.plusOne ? reader.optionalNumber('attn_logit_softcapping') : undefined;
  const clip = architecture.moe === 'olmoe' ? reader.optionalNumber('clip_qkv') : undefined;

  const layers: LayerDescription[] = [];
  for (let i = 0; i < layerCount; i++) {
    const sliding = windows[i] !== undefined;
    const rotated = ropes.length > 0 && (noRopeLayers === undefined || noRopeLayers[i] !== 0);
    const attention: AttentionDescription = {
      heads,
      kvHeads,
      headDim,
      scale: (architecture.plusOne ? scalar : headDim) ** -0.5,
      projection: architecture.projection ?? 'separate',
      qkvBias: flag(reader, architecture.qkvBias, qkvBiasDefault),
      outputBias: flag(reader, architecture.outputBias, qkvBiasDefault),
      ...(attnSoftcap !== undefined && { softcap: attnSoftcap }),
      ...(windows[i] !== undefined && { window: windows[i] }),
      ...(rotated && { rope: architecture.localRope && sliding ? 1 : 0 }),
      ...(architecture.qkNorm && { qkNorm: architecture.qkNorm }),
      ...(clip !== undefined && { clip }),
    };
    layers.push({
      attention,
      mlp: readMlp(architecture, reader, hiddenSize, i),
      branchNorms: architecture.branchNorms ?? false,
      parallel: architecture.parallelKey ? reader.boolean(architecture.parallelKey, true) : false,
    });
  }

  const softcap = architecture.plusOne ? reader.optionalNumber('final_logit_softcapping') : undefined;
  const eos = reader.config.eos_token_id;
  const bosId = reader.optionalNumber('bos_token_id');
  return {
    modelType,
    hiddenSize,
    vocabularySize: positive(reader, 'vocab_size'),
    maxPositions: reader.number('max_position_embeddings', 2048),
    norm: {
      kind: architecture.norm ?? 'rms',
      epsilon: reader.number(architecture.epsilonKey ?? 'rms_norm_eps', architecture.norm ? 1e-5 : 1e-6),
      plusOne: architecture.plusOne ?? false,
    },
    layers,
    ropes,
    // Transformers stores the factor in the embedding's type; f32 is what the reference computes in.
    embeddingScale: architecture.scaledEmbedding ? Math.fround(Math.sqrt(hiddenSize)) : 1,
    learnedPositions: architecture.learnedPositions ?? false,
    linearLayout: architecture.linearLayout ?? 'out-in',
    tiedHead: reader.boolean('tie_word_embeddings', architecture.tiedByDefault ?? false),
    ...(softcap !== undefined && { logitSoftcap: softcap }),
    ...(bosId !== undefined && { bosId }),
    eosIds: Array.isArray(eos) ? eos.filter((id) => typeof id === 'number') : typeof eos === 'number' ? [eos] : [],
  };
}

function positive(reader: ConfigReader, key: string): number {
  const value = reader.number(key);
  if (!Number.isInteger(value) || value <= 0) {
    throw new InputError(`${reader.path}: "${key}" is ${value}; expected a positive integer`);
  }
  return value;
}

function readRopes(architecture: Architecture, reader: ConfigReader, headDim: number): RopeDescription[] {
  if (architecture.noRope) return [];
  const defaultTheta = architecture.defaultTheta ?? 10_000;
  const main = { layerType: 'full_attention', thetaKey: 'rope_theta', defaultTheta, scaled: true };
  if (!architecture.localRope) return [readRope(reader, headDim, main)];
  const local = {
    layerType: 'sliding_attention',
    thetaKey: 'rope_local_base_freq',
    defaultTheta: 10_000,
    scaled: false,
  };
  return [readRope(reader, headDim, main), readRope(reader, headDim, local)];
}

/** SmolLM3: 1 where a layer rotates, 0 where it does not. */
function readNoRopeLayers(reader: ConfigReader, layerCount: number): number[] {
  const interval = reader.number('no_rope_layer_interval', 4);
  const listed = reader.numbers('no_rope_layers');
  return listed ?? Array.from({ length: layerCount }, (_, i) => ((i + 1) % interval !== 0 ? 1 : 0));
}

/** The sliding window of each layer, or undefined. */
function readWindows(architecture: Architecture, reader: ConfigReader, layerCount: number): (number | undefined)[] {
  const none = new Array<undefined>(layerCount).fill(undefined);
  const kind = architecture.window;
  const unnamed = reader.config.sliding_window === undefined ? architecture.defaultWindow : undefined;
  const window = reader.optionalNumber('sliding_window') ?? unnamed;
  if (kind === undefined || window === undefined || window <= 0) return none;
  const optIn = ['all-if-asked', 'after-max-window-layers', 'qwen-moe', 'when-no-rope'].includes(kind);
  if (optIn && !reader.boolean('use_sliding_window', false)) return none;
  if (reader.config.use_sliding_window === false) return none;

  const types = reader.strings('layer_types');
  if (types && kind !== 'all') {
    if (types.length !== layerCount) {
      throw new InputError(`${reader.path}: "layer_types" has ${types.length} entries for ${layerCount} layers`);
    }
    return types.map((type) => (type === 'sliding_attention' ? window : undefined));
  }
  const after = reader.number('max_window_layers', 28);
  const pattern = reader.number('sliding_window_pattern', 6);
  const noRope = kind === 'when-no-rope' ? readNoRopeLayers(reader, layerCount) : undefined;
  const slides: Readonly<Record<typeof kind, (layer: number) => boolean>> = {
    all: () => true,
    'all-if-asked': () => true,
    'even-layers': (i) => i % 2 === 0,
    'five-of-six': (i) => (i + 1) % pattern !== 0,
    'after-max-window-layers': (i) => i >= after,
    'qwen-moe': (i) => i % 2 === 0 && i < after,
    'when-no-rope': (i) => noRope?.[i] === 0,
  };
  return none.map((_, i) => (slides[kind](i) ? window : undefined));
}

function readMlp(
  architecture: Architecture,
  reader: ConfigReader,
  hiddenSize: number,
  layer: number,
): DenseMlpDescription | MoeMlpDescription {
  const activation = readActivation(
    reader,
    architecture.activationKeys ?? ['hidden_act'],
    architecture.activation ?? 'silu',
  );
  const dense: DenseMlpDescription = {
    kind: 'dense',
    width: reader.number('intermediate_size', 4 * hiddenSize),
    gated: !architecture.ungated,
    fusedGateUp: architecture.fusedGateUp ?? false,
    activation,
    bias: flag(reader, architecture.mlpBias, false),
  };
  switch (architecture.moe) {
    case undefined:
      return dense;
    case 'mixtral':
      return {
        kind: 'moe',
        experts: positive(reader, 'num_local_experts'),
        expertsPerToken: positive(reader, 'num_experts_per_tok'),
        width: dense.width,
        activation,
        normalizeTopK: true,
      };
    case 'olmoe':
    case 'qwen': {
      const step = reader.number('decoder_sparse_step', 1);
      const only = reader.numbers('mlp_only_layers') ?? [];
      const experts = reader.number('num_experts', reader.number('num_local_experts', 0));
      if (experts === 0 || only.includes(layer) || (layer + 1) % step !== 0) return dense;
      const sharedWidth = reader.optionalNumber('shared_expert_intermediate_size');
      return {
        kind: 'moe',
        experts,
        expertsPerToken: positive(reader, 'num_experts_per_tok'),
        width: reader.number('moe_intermediate_size', dense.width),
        activation,
        normalizeTopK: architecture.normalizeTopK ?? reader.boolean('norm_topk_prob', false),
        ...(sharedWidth !== undefined && sharedWidth > 0 && { shared: { width: sharedWidth, gated: true } }),
      };
    }
  }
}
