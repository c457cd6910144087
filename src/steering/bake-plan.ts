import { InputError } from '../errors.js';
import type { JsonChanges } from '../formats/json-edit.js';
import type { PlannedTensor } from '../formats/safetensors-writer.js';
import type { DType, TensorInfo } from '../formats/tensor.js';
import { describeModel, MODEL_TYPES } from '../models/architectures.js';
import type { Config } from '../models/config-reader.js';
import type { ModelDescription } from '../models/description.js';
import { huggingFaceNames } from '../models/weight-names.js';
import { HUGGING_FACE_RENAMINGS } from '../models/weights.js';

/** What is written as one tensor of a baked model. */
export type BakedTensor = PlannedTensor &
  (
    | { readonly kind: 'copy'; readonly info: TensorInfo }
    | { readonly kind: 'zeros' }
    /** The vector, on top of a stored bias where there is one. */
    | { readonly kind: 'bias'; readonly info?: TensorInfo; readonly vector: Float32Array }
    /** The vector on top of every row. */
    | { readonly kind: 'rows'; readonly info: TensorInfo; readonly vector: Float32Array }
  );

/** Where the vector of a block ends up. */
export interface BakedBlock {
  readonly block: number;
  readonly tensor: string;
}

export interface BakePlan {
  readonly modelType: string;
  /** How: a bias that is there, biases that the architecture can be told to have, rows of the embeddings. */
  readonly mechanisms: readonly ('stored bias' | 'added biases' | 'embeddings')[];
  readonly config: JsonChanges;
  /** In the order in which they are written. */
  readonly tensors: readonly BakedTensor[];
  readonly blocks: readonly BakedBlock[];
  /** The architecture as the engine runs it; absent for those that only transformers runs. */
  readonly description?: ModelDescription;
}

export interface BakeOptions {
  /** Gives a model with shared embeddings and head a head of its own, so that the embeddings can change. */
  readonly untie?: boolean;
}

/** Output projection of a block's MLP, whose bias is stored in every model of these types (section 7.6). */
const STORED_BIAS: Readonly<Record<string, string>> = {
  gpt2: 'transformer.h.{i}.mlp.c_proj',
  gpt_bigcode: 'transformer.h.{i}.mlp.c_proj',
  gptj: 'transformer.h.{i}.mlp.fc_out',
  gpt_neox: 'gpt_neox.layers.{i}.mlp.dense_4h_to_h',
  bloom: 'transformer.h.{i}.mlp.dense_4h_to_h',
  opt: 'model.decoder.layers.{i}.fc2',
  phi: 'model.layers.{i}.mlp.fc2',
  starcoder2: 'model.layers.{i}.mlp.c_proj',
};

/** Types whose configuration can ask for biases in the MLP. */
const MLP_BIAS: ReadonlySet<string> = new Set(['llama', 'smollm3']);
const LLAMA_PROJECTION = 'model.layers.{i}.mlp.down_proj';
/** Of the MLP, with the configuration's key of their width. */
const LLAMA_MLP = { gate_proj: 'intermediate_size', up_proj: 'intermediate_size', down_proj: 'hidden_size' } as const;

/** Why a type cannot take a bias. */
function refusal(description: ModelDescription | undefined): string {
  const layer = description?.layers[0];
  if (layer?.branchNorms)
    return 'a norm stands between its MLP and the residual stream, so a bias is not what is added';
  if (layer?.mlp.kind === 'moe') return 'its MLP is a mixture of experts, which have no bias';
  if (description) return 'its MLP has no bias, and its configuration no key for one';
  return `the place of its bias is not known; known are ${[...Object.keys(STORED_BIAS), ...MLP_BIAS, 'mistral'].join(', ')}`;
}

interface Subject {
  readonly path: string;
  readonly config: Config;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly modelType: string;
  readonly description?: ModelDescription;
  readonly hiddenSize: number;
  readonly layers: number;
}

function subjectOf(path: string, config: Config, tensors: ReadonlyMap<string, TensorInfo>): Subject {
  const modelType = typeof config.model_type === 'string' ? config.model_type : '';
  const wide = (...keys: string[]): number => {
    const found = keys.map((key) => config[key]).find((value) => typeof value === 'number');
    if (typeof found === 'number') return found;
    throw new InputError(`${path}: config.json has no ${keys[0]}`);
  };
  const sizes = () => ({
    hiddenSize: wide('hidden_size', 'n_embd'),
    layers: wide('num_hidden_layers', 'n_layer'),
  });
  if (!MODEL_TYPES.includes(modelType)) return { path, config, tensors, modelType, ...sizes() };
  const description = describeModel(config, path);
  const { hiddenSize } = description;
  return { path, config, tensors, modelType, description, hiddenSize, layers: description.layers.length };
}

/**
 * Plans how vectors become weights: after block l as a bias of its MLP's output projection, before block 0 in the rows of
 * the embeddings. All positions are steered, prompts included.
 * @param shifts vectors [hidden] by block (-1 the embeddings), already multiplied by their strengths
 * @throws InputError for an architecture that has no such bias, with the reason
 */
export function planBake(
  path: string,
  config: Config,
  tensors: ReadonlyMap<string, TensorInfo>,
  shifts: ReadonlyMap<number, Float32Array>,
  options: BakeOptions = {},
): BakePlan {
  const subject = subjectOf(path, config, tensors);
  const inBlocks = new Map([...shifts].filter(([block]) => block >= 0));
  const before = shifts.get(-1);
  const plan = inBlocks.size > 0 ? planBiases(subject, inBlocks) : unchanged(subject);
  if (before === undefined && options.untie === true) {
    throw new InputError('--untie has no meaning without a vector for the embeddings (block -1)');
  }
  return before === undefined ? plan : withEmbeddings(subject, plan, before, options);
}

const copied = (info: TensorInfo): BakedTensor => {
  return { kind: 'copy', info, name: info.name, dtype: info.dtype as DType, shape: info.shape };
};

function unchanged({ tensors, modelType, description }: Subject): BakePlan {
  return {
    modelType,
    mechanisms: [],
    config: {},
    tensors: [...tensors.values()].map(copied),
    blocks: [],
    ...(description && { description }),
  };
}

function planBiases(subject: Subject, shifts: ReadonlyMap<number, Float32Array>): BakePlan {
  const { path, modelType, config, description, layers } = subject;
  const first = description?.layers[0].mlp;
  const biased = first?.kind === 'dense' && first.bias;
  const stored = STORED_BIAS[modelType] ?? (MLP_BIAS.has(modelType) && biased ? LLAMA_PROJECTION : undefined);
  if (modelType === 'opt' && config.do_layer_norm_before === false) {
    throw new InputError(`${path}: an OPT model with norms after its branches: no bias is what is added to the stream`);
  }
  if (stored !== undefined) return addToStored(subject, stored, shifts);
  if (MLP_BIAS.has(modelType)) return addBiases(subject, { mlp_bias: true }, shifts);
  if (modelType === 'mistral') return addBiases(subject, llamaOfMistral(subject), shifts);
  const reason = refusal(description);
  throw new InputError(
    `${path}: a ${modelType || 'nameless'} model of ${layers} blocks cannot be baked: ${reason}; use steer patch on its ONNX export, or a control vector beside its GGUF file`,
  );
}

/** A Mistral without sliding window computes what a Llama does; only Llama's configuration has a key for biases. */
function llamaOfMistral({ path, config, description }: Subject): JsonChanges {
  const attention = description?.layers[0].attention;
  if (attention?.window !== undefined) {
    throw new InputError(
      `${path}: a Mistral with a sliding window of ${attention.window}; only without one can it be declared a Llama, whose configuration knows biases`,
    );
  }
  return {
    model_type: 'llama',
    architectures: ['LlamaForCausalLM'],
    mlp_bias: true,
    attention_bias: false,
    sliding_window: undefined,
    // Defaults that differ between the two types are written out.
    num_key_value_heads: attention?.kvHeads,
    max_position_embeddings: config.max_position_embeddings ?? 131_072,
    intermediate_size: config.intermediate_size,
  };
}

/** How the checkpoint spells its names: with or without the model's own prefix. */
function spelling({ path, tensors }: Subject, projection: string): (name: string) => string {
  const anchor = `${projection.replace('{i}', '0')}.weight`;
  const rename = HUGGING_FACE_RENAMINGS.find((candidate) => tensors.has(candidate(anchor)));
  if (rename) return rename;
  throw new InputError(`${path}: tensor "${anchor}" is missing`);
}

function addToStored(subject: Subject, projection: string, shifts: ReadonlyMap<number, Float32Array>): BakePlan {
  const { path, tensors, hiddenSize } = subject;
  const rename = spelling(subject, projection);
  const changed = new Map<string, Float32Array>();
  const blocks: BakedBlock[] = [];
  for (const [block, vector] of shifts) {
    const tensor = rename(`${projection.replace('{i}', String(block))}.bias`);
    const info = tensors.get(tensor);
    if (info === undefined) {
      throw new InputError(
        `${path}: tensor "${tensor}" is missing: a model without biases cannot take a vector this way`,
      );
    }
    if (info.shape.length !== 1 || info.shape[0] !== hiddenSize) {
      throw new InputError(`${path}: tensor "${tensor}" has shape [${info.shape.join(', ')}], not [${hiddenSize}]`);
    }
    changed.set(tensor, vector);
    blocks.push({ block, tensor });
  }
  const written = [...tensors.values()].map((info): BakedTensor => {
    const vector = changed.get(info.name);
    if (vector === undefined) return copied(info);
    return { kind: 'bias', info, vector, name: info.name, dtype: 'F32', shape: info.shape };
  });
  return { ...unchanged(subject), mechanisms: ['stored bias'], tensors: written, blocks };
}

/** A bias for each projection of every MLP, as the configuration then asks for; zero but where a vector goes. */
function addBiases(subject: Subject, config: JsonChanges, shifts: ReadonlyMap<number, Float32Array>): BakePlan {
  const { tensors, description } = subject;
  const rename = spelling(subject, LLAMA_PROJECTION);
  const wanted = new Map<string, BakedTensor>();
  const blocks: BakedBlock[] = [];
  description?.layers.forEach(({ mlp }, block) => {
    for (const [part, width] of Object.entries(LLAMA_MLP)) {
      const weight = rename(LLAMA_PROJECTION.replace('{i}', String(block)).replace('down_proj', part));
      const name = `${weight}.bias`;
      const vector = part === 'down_proj' ? shifts.get(block) : undefined;
      const shape = [width === 'hidden_size' ? description.hiddenSize : mlp.width];
      const stored = tensors.get(`${weight}.weight`);
      const dtype = vector || stored === undefined ? 'F32' : (stored.dtype as DType);
      wanted.set(
        `${weight}.weight`,
        vector ? { kind: 'bias', vector, name, dtype, shape } : { kind: 'zeros', name, dtype, shape },
      );
      if (vector) blocks.push({ block, tensor: name });
    }
  });
  // Each bias beside its matrix, so that both lie in one shard.
  const written = [...tensors.values()].flatMap((info) => {
    const bias = wanted.get(info.name);
    return bias ? [copied(info), bias] : [copied(info)];
  });
  return { ...unchanged(subject), mechanisms: ['added biases'], config, tensors: written, blocks };
}

function withEmbeddings(subject: Subject, plan: BakePlan, vector: Float32Array, options: BakeOptions): BakePlan {
  const { path, tensors, modelType, description } = subject;
  if (description === undefined) {
    throw new InputError(`${path}: the embeddings of a ${modelType} model are not changed; choose blocks from 0 on`);
  }
  if (description.embeddingScale !== 1) {
    throw new InputError(
      `${path}: a ${modelType} model multiplies its embeddings; a vector before block 0 cannot be baked, choose blocks from 0 on`,
    );
  }
  const names = huggingFaceNames(modelType);
  const name = HUGGING_FACE_RENAMINGS.flatMap((rename) => names.embedding.map(rename)).find((one) => tensors.has(one));
  const info = name === undefined ? undefined : tensors.get(name);
  if (info === undefined) throw new InputError(`${path}: tensor "${names.embedding[0]}" is missing`);
  const head = names.head[0];
  if (description.tiedHead && options.untie !== true) {
    throw new InputError(
      `${path}: its embeddings are its head too, so that a vector before block 0 would change the logits directly; pass --untie to store a head of its own`,
    );
  }
  const untied = description.tiedHead;
  const written = plan.tensors
    .filter((tensor) => !(untied && tensor.name === head))
    .flatMap((tensor): BakedTensor[] => {
      if (tensor.name !== info.name) return [tensor];
      const rows: BakedTensor = { kind: 'rows', info, vector, name: info.name, dtype: 'F32', shape: info.shape };
      return untied ? [rows, { ...copied(info), name: head }] : [rows];
    });
  return {
    ...plan,
    mechanisms: [...plan.mechanisms, 'embeddings'],
    config: untied ? { ...plan.config, tie_word_embeddings: false } : plan.config,
    tensors: written,
    blocks: [{ block: -1, tensor: info.name }, ...plan.blocks],
  };
}
