import { describeModel } from '../../../models/architectures.js';
import type { Config } from '../../../models/config-reader.js';
import { memoryModel } from '../../../models/memory-model.js';
import type { ModelFiles } from '../../../models/model-files.js';
import type { Random } from '../../../random.js';
import { type DecoderStudent, openDecoderStudent } from '../../../training/decoder-student.js';
import { initialWeights } from '../../../training/initial-weights.js';

/** Sizes of the policy: a Llama of a few thousand weights. */
export interface NetworkSizes {
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly vocabulary: number;
  /** Positions of prompt and response together. */
  readonly positions: number;
}

const NAME = 'policy';
/** Wavelengths of the rotary embedding suit windows of tens of tokens. */
const ROPE_THETA = 100;
/** Matrices this small learn slowly from the 0.02 of large models. */
const INITIAL_DEVIATION = 0.15;
/** Width of the feed-forward layer, in hidden sizes. */
const FEED_FORWARD = 2;

function configOf({ layers, hidden, heads, vocabulary, positions }: NetworkSizes): Config {
  return {
    model_type: 'llama',
    hidden_size: hidden,
    intermediate_size: FEED_FORWARD * hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: heads,
    vocab_size: vocabulary,
    max_position_embeddings: positions,
    rms_norm_eps: 1e-6,
    rope_theta: ROPE_THETA,
    tie_word_embeddings: false,
    hidden_act: 'silu',
    initializer_range: INITIAL_DEVIATION,
  };
}

/** An untrained policy. @throws InputError for sizes that no model has */
export function randomPolicy(sizes: NetworkSizes, random: Random): ModelFiles {
  const config = configOf(sizes);
  return memoryModel(NAME, config, initialWeights(describeModel(config, NAME), config, random));
}

/** Windows that one pass of the student takes. */
export interface PassSizes {
  readonly windows: number;
  readonly length: number;
}

/** Opens a policy for training, on one thread: runs beside each other are what fills a machine. */
export function openPolicy(files: ModelFiles, { windows, length }: PassSizes): Promise<DecoderStudent> {
  return openDecoderStudent(files, { precision: 'f32', threads: 1, batch: windows, length, wholeBatch: true });
}
