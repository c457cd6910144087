import { basename } from 'node:path';
import { InputError } from '../../errors.js';
import type { GgufEntry } from '../../formats/ggml-types.js';
import type { LayerDescription, ModelDescription, RopeDescription } from '../../models/description.js';
import type { ModelFiles } from '../../models/model-files.js';
import { ropeFrequencies } from '../../models/rope.js';
import { ggufVocabulary, hasTokenizer } from './gguf-vocabulary.js';

/** What GGUF and llama.cpp know a model type as, and what they take for granted there. */
interface GgufArchitecture {
  readonly name: string;
  /** Rows of q and k are stored interleaved for rotary embedding. */
  readonly interleaved?: true;
  /** Router weights of the chosen experts are divided by their sum. */
  readonly normalizeTopK?: boolean;
  readonly sharedExpert?: true;
}

const ARCHITECTURES: Readonly<Record<string, GgufArchitecture>> = {
  llama: { name: 'llama', interleaved: true },
  mistral: { name: 'llama', interleaved: true },
  mixtral: { name: 'llama', interleaved: true, normalizeTopK: true },
  qwen2: { name: 'qwen2' },
  qwen3: { name: 'qwen3' },
  qwen2_moe: { name: 'qwen2moe', normalizeTopK: false, sharedExpert: true },
  qwen3_moe: { name: 'qwen3moe', normalizeTopK: true },
  olmoe: { name: 'olmoe', normalizeTopK: false },
};

/** A model of Hugging Face's as GGUF describes it. */
export interface GgufModelMetadata {
  readonly pairs: ReadonlyMap<string, GgufEntry>;
  readonly interleaved: boolean;
  /** Divisors of the rotary frequencies, [dims / 2]: tensor `rope_freqs.weight`. */
  readonly ropeFactors?: Float32Array;
  /** Where the file describes less than the source, such as a shorter context. */
  readonly notes: readonly string[];
}

const count = (value: number): GgufEntry => ({ type: 'UINT32', value });
const real = (value: number): GgufEntry => ({ type: 'FLOAT32', value });
const text = (value: string): GgufEntry => ({ type: 'STRING', value });

/**
 * The metadata and vocabulary of a GGUF file for a Hugging Face model, the inverse of `describeGguf`.
 * @param fileType `general.file_type`, the number that llama.cpp has for the type of most tensors
 * @throws InputError naming what GGUF or llama.cpp has no field for, since the file would compute something else
 */
export function ggufMetadata(files: ModelFiles, fileType: number): GgufModelMetadata {
  const { description: model, path } = files;
  const architecture = ARCHITECTURES[model.modelType];
  const refuse = (what: string): never => {
    throw new InputError(`${path}: ${what}; it cannot be written to GGUF`);
  };
  if (architecture === undefined) {
    return refuse(`model type ${model.modelType} is not one of ${Object.keys(ARCHITECTURES).join(', ')}`);
  }
  checkLayers(model, architecture, refuse);
  const notes: string[] = [];
  const window = Math.min(...model.layers.map(({ attention }) => attention.window ?? Number.POSITIVE_INFINITY));
  const context = Math.min(model.maxPositions, window);
  if (context < model.maxPositions) {
    notes.push(`the context is ${context}, that of the sliding window, which llama.cpp does not have for this type`);
  }
  const own = (key: string): string => `${architecture.name}.${key}`;
  const pairs = new Map<string, GgufEntry>([
    ['general.architecture', text(architecture.name)],
    ['general.type', text('model')],
    ['general.name', text(basename(path))],
    ['general.file_type', count(fileType)],
    ['general.quantization_version', count(2)],
    ...layerPairs(model, architecture, own, context),
  ]);
  const rope = model.ropes[0];
  const ropeFactors = ropePairs(rope, own, pairs, refuse);
  if (hasTokenizer(path)) for (const [key, entry] of ggufVocabulary(path, model.vocabularySize)) pairs.set(key, entry);
  else {
    notes.push('there is no tokenizer.json: the file carries no vocabulary');
    pairs.set('tokenizer.ggml.model', text('none'));
  }
  pairs.set(own('vocab_size'), count(model.vocabularySize));
  return { pairs, interleaved: architecture.interleaved === true, notes, ...(ropeFactors && { ropeFactors }) };
}

type Refuse = (what: string) => never;

function checkLayers(model: ModelDescription, architecture: GgufArchitecture, refuse: Refuse): void {
  const shape = (layer: LayerDescription): string =>
    JSON.stringify({ ...layer, attention: { ...layer.attention, window: undefined } });
  if (new Set(model.layers.map(shape)).size > 1) refuse('its layers are not all of one kind');
  const { attention, mlp } = model.layers[0];
  if (attention.clip !== undefined)
    refuse('queries, keys and values are clamped (clip_qkv), which llama.cpp does not do');
  if (architecture.name === 'olmoe' && attention.kvHeads !== attention.heads) {
    refuse("it has fewer key/value heads than heads, which llama.cpp's olmoe does not have");
  }
  if (attention.projection !== 'separate') refuse('queries, keys and values lie in one matrix');
  if (Math.abs(attention.scale * Math.sqrt(attention.headDim) - 1) > 1e-12) refuse('scores have a scale of their own');
  if (mlp.kind === 'dense') {
    if (mlp.activation !== 'silu') refuse(`the activation is ${mlp.activation}, not silu`);
    if (architecture.normalizeTopK !== undefined) refuse('its layers have no experts');
    return;
  }
  if (architecture.normalizeTopK !== mlp.normalizeTopK) {
    refuse(`router weights are ${mlp.normalizeTopK ? '' : 'not '}normalised, llama.cpp's ${architecture.name} differs`);
  }
  if ((mlp.shared !== undefined) !== (architecture.sharedExpert === true)) refuse('its shared expert differs');
}

function layerPairs(
  model: ModelDescription,
  architecture: GgufArchitecture,
  own: (key: string) => string,
  context: number,
): [string, GgufEntry][] {
  const { attention, mlp } = model.layers[0];
  const pairs: [string, GgufEntry][] = [
    [own('block_count'), count(model.layers.length)],
    [own('context_length'), count(context)],
    [own('embedding_length'), count(model.hiddenSize)],
    [own('feed_forward_length'), count(mlp.width)],
    [own('attention.head_count'), count(attention.heads)],
    [own('attention.head_count_kv'), count(attention.kvHeads)],
    [own('attention.key_length'), count(attention.headDim)],
    [own('attention.value_length'), count(attention.headDim)],
    [own('attention.layer_norm_rms_epsilon'), real(model.norm.epsilon)],
  ];
  if (mlp.kind === 'dense') return pairs;
  pairs.push([own('expert_count'), count(mlp.experts)], [own('expert_used_count'), count(mlp.expertsPerToken)]);
  if (architecture.name !== 'llama') pairs.push([own('expert_feed_forward_length'), count(mlp.width)]);
  if (mlp.shared) pairs.push([own('expert_shared_feed_forward_length'), count(mlp.shared.width)]);
  return pairs;
}

/** Rotary keys; the divisors of the frequencies where Llama 3's scaling has them. */
function ropePairs(
  rope: RopeDescription | undefined,
  own: (key: string) => string,
  pairs: Map<string, GgufEntry>,
  refuse: Refuse,
): Float32Array | undefined {
  if (!rope) return refuse('it has no rotary embedding');
  pairs.set(own('rope.freq_base'), real(rope.theta));
  pairs.set(own('rope.dimension_count'), count(rope.dims));
  switch (rope.type) {
    case 'default':
      return rope.frequencyFactors && Float32Array.from(rope.frequencyFactors);
    case 'linear':
      pairs.set(own('rope.scaling.type'), text('linear'));
      pairs.set(own('rope.scaling.factor'), real(rope.factor ?? 1));
      return undefined;
    case 'llama3': {
      const plain = ropeFrequencies({ ...rope, type: 'default' }, rope.maxPositions).inverse;
      const scaled = ropeFrequencies(rope, rope.maxPositions).inverse;
      return Float32Array.from(plain, (frequency, i) => frequency / scaled[i]);
    }
    case 'yarn': {
      const usual = (rope.betaFast ?? 32) === 32 && (rope.betaSlow ?? 1) === 1;
      if (!usual || rope.attentionFactor !== undefined || rope.mscale !== undefined || rope.truncate === false) {
        return refuse('its YaRN has parameters of its own');
      }
      pairs.set(own('rope.scaling.type'), text('yarn'));
      pairs.set(own('rope.scaling.factor'), real(rope.factor ?? 1));
      pairs.set(own('rope.scaling.original_context_length'), count(rope.originalMaxPositions ?? rope.maxPositions));
      return undefined;
    }
    default:
      return refuse(`its rotary embedding is of type ${rope.type}`);
  }
}
