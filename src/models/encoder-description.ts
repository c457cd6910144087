import { didYouMean, InputError } from '../errors.js';
import type { Config } from './config-reader.js';
import type { Activation } from './description.js';

/** What a bidirectional encoder of the BERT family computes: post-norm blocks with biases everywhere. */
export interface EncoderDescription {
  readonly modelType: string;
  readonly vocabularySize: number;
  readonly hiddenSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly feedForwardSize: number;
  readonly activation: Activation;
  readonly normEpsilon: number;
  /** Rows of the position table, and the row of the first token (RoBERTa's begin behind the padding id). */
  readonly positionRows: number;
  readonly firstPosition: number;
  /** Rows of the token-type table; 0: there is none. Row 0 is added to every token. */
  readonly tokenTypes: number;
  /** Buckets of a relative bias that all layers share; 0: none. */
  readonly relativeBuckets: number;
  readonly names: EncoderNames;
}

/** Where weights are stored; `{i}` stands for the layer. Linear weights are [out, in]. */
export interface EncoderNames {
  /** Prefixes that a checkpoint may carry. */
  readonly prefixes: readonly string[];
  readonly words: string;
  readonly positions: string;
  readonly tokenTypes?: string;
  readonly embeddingNorm: string;
  readonly relativeBias?: string;
  /** Names without `.weight` and `.bias` of each role. */
  readonly layer: Readonly<Record<EncoderRole, string>>;
}

export type EncoderRole = 'q' | 'k' | 'v' | 'o' | 'attention_norm' | 'up' | 'down' | 'output_norm';

const BERT_NAMES: EncoderNames = {
  prefixes: ['', 'bert.', 'roberta.', 'model.'],
  words: 'embeddings.word_embeddings',
  positions: 'embeddings.position_embeddings',
  tokenTypes: 'embeddings.token_type_embeddings',
  embeddingNorm: 'embeddings.LayerNorm',
  layer: {
    q: 'encoder.layer.{i}.attention.self.query',
    k: 'encoder.layer.{i}.attention.self.key',
    v: 'encoder.layer.{i}.attention.self.value',
    o: 'encoder.layer.{i}.attention.output.dense',
    attention_norm: 'encoder.layer.{i}.attention.output.LayerNorm',
    up: 'encoder.layer.{i}.intermediate.dense',
    down: 'encoder.layer.{i}.output.dense',
    output_norm: 'encoder.layer.{i}.output.LayerNorm',
  },
};

const MPNET_NAMES: EncoderNames = {
  prefixes: ['', 'mpnet.', 'model.'],
  words: 'embeddings.word_embeddings',
  positions: 'embeddings.position_embeddings',
  embeddingNorm: 'embeddings.LayerNorm',
  relativeBias: 'encoder.relative_attention_bias',
  layer: {
    q: 'encoder.layer.{i}.attention.attn.q',
    k: 'encoder.layer.{i}.attention.attn.k',
    v: 'encoder.layer.{i}.attention.attn.v',
    o: 'encoder.layer.{i}.attention.attn.o',
    attention_norm: 'encoder.layer.{i}.attention.LayerNorm',
    up: 'encoder.layer.{i}.intermediate.dense',
    down: 'encoder.layer.{i}.output.dense',
    output_norm: 'encoder.layer.{i}.output.LayerNorm',
  },
};

const DISTILBERT_NAMES: EncoderNames = {
  prefixes: ['', 'distilbert.', 'model.'],
  words: 'embeddings.word_embeddings',
  positions: 'embeddings.position_embeddings',
  embeddingNorm: 'embeddings.LayerNorm',
  layer: {
    q: 'transformer.layer.{i}.attention.q_lin',
    k: 'transformer.layer.{i}.attention.k_lin',
    v: 'transformer.layer.{i}.attention.v_lin',
    o: 'transformer.layer.{i}.attention.out_lin',
    attention_norm: 'transformer.layer.{i}.sa_layer_norm',
    up: 'transformer.layer.{i}.ffn.lin1',
    down: 'transformer.layer.{i}.ffn.lin2',
    output_norm: 'transformer.layer.{i}.output_layer_norm',
  },
};

/** How the keys of a config.json are called, and what differs, by model type. */
interface EncoderFamily {
  readonly names: EncoderNames;
  readonly keys: Readonly<Record<'hidden' | 'layers' | 'heads' | 'feedForward' | 'activation', string>>;
  readonly positionsAfterPadding: boolean;
  readonly normEpsilon: number;
}

const BERT_KEYS = {
  hidden: 'hidden_size',
  layers: 'num_hidden_layers',
  heads: 'num_attention_heads',
  feedForward: 'intermediate_size',
  activation: 'hidden_act',
} as const;

const BERT: EncoderFamily = { names: BERT_NAMES, keys: BERT_KEYS, positionsAfterPadding: false, normEpsilon: 1e-12 };
const ROBERTA: EncoderFamily = { ...BERT, positionsAfterPadding: true, normEpsilon: 1e-5 };

const FAMILIES: Readonly<Record<string, EncoderFamily>> = {
  bert: BERT,
  roberta: ROBERTA,
  'xlm-roberta': ROBERTA,
  camembert: ROBERTA,
  mpnet: { ...ROBERTA, names: MPNET_NAMES },
  distilbert: {
    names: DISTILBERT_NAMES,
    keys: { hidden: 'dim', layers: 'n_layers', heads: 'n_heads', feedForward: 'hidden_dim', activation: 'activation' },
    positionsAfterPadding: false,
    normEpsilon: 1e-12,
  },
};

export const ENCODER_TYPES: readonly string[] = Object.keys(FAMILIES);

/** Encoders that are known not to be readable here, so that the error can say what to do. */
export const OTHER_ENCODERS: readonly string[] = [
  'albert',
  'deberta',
  'deberta-v2',
  'electra',
  'ernie',
  'gte',
  'modernbert',
  'new',
  'nomic_bert',
  't5',
];

const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  gelu: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  relu: 'relu',
  silu: 'silu',
};

/**
 * Reads a config.json of an encoder.
 * @throws InputError for another model type, or a key that is missing or of another kind
 */
export function describeEncoder(config: Config, path: string): EncoderDescription {
  const modelType = String(config.model_type);
  const family = FAMILIES[modelType];
  if (!family) {
    throw new InputError(
      `${path}: model type "${modelType}" is no encoder that is read here${didYouMean(modelType, ENCODER_TYPES)}; ` +
        `known: ${ENCODER_TYPES.join(', ')}; pass its ONNX export instead`,
    );
  }
  const count = (key: string, fallback?: number): number => {
    const value = config[key] ?? fallback;
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0) return value;
    throw new InputError(`${path}: "${key}" is ${JSON.stringify(value)}; a whole number is needed`);
  };
  const { keys } = family;
  const act = String(config[keys.activation] ?? 'gelu');
  const activation = ACTIVATIONS[act];
  if (!activation)
    throw new InputError(`${path}: activation "${act}" is not known${didYouMean(act, Object.keys(ACTIVATIONS))}`);
  const kind = config.position_embedding_type;
  if (kind !== undefined && kind !== 'absolute') {
    throw new InputError(
      `${path}: position_embedding_type "${String(kind)}" is not read; pass its ONNX export instead`,
    );
  }
  const hiddenSize = count(keys.hidden);
  const heads = count(keys.heads);
  if (heads === 0 || hiddenSize % heads !== 0) {
    throw new InputError(`${path}: ${hiddenSize} hidden units do not divide into ${heads} heads`);
  }
  const epsilon = config.layer_norm_eps ?? family.normEpsilon;
  return {
    modelType,
    vocabularySize: count('vocab_size'),
    hiddenSize,
    layers: count(keys.layers),
    heads,
    feedForwardSize: count(keys.feedForward),
    activation,
    normEpsilon: Number(epsilon),
    positionRows: count('max_position_embeddings'),
    firstPosition: family.positionsAfterPadding ? count('pad_token_id', 1) + 1 : 0,
    tokenTypes: family.names.tokenTypes === undefined ? 0 : count('type_vocab_size', 2),
    relativeBuckets: family.names.relativeBias === undefined ? 0 : count('relative_attention_num_buckets', 32),
    names: family.names,
  };
}
