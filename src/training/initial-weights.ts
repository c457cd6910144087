import { elementCount } from '../formats/tensor.js';
import type { Config } from '../models/config-reader.js';
import { EXPERT_MAP, type ModelDescription } from '../models/description.js';
import type { MemoryTensor } from '../models/memory-model.js';
import { huggingFaceNames, layerWeightShapes, weightName } from '../models/weight-names.js';
import type { Random } from '../random.js';

/** Model types whose embedding keeps the padding token's row at zero. */
const UNPADDED = new Set(['gpt2', 'gpt_neox']);

/** Names under which checkpoints of a family hold experts and router, where the first candidate is not theirs. */
const PREFERRED: Readonly<Record<string, RegExp>> = { mixtral: /block_sparse_moe/ };

/** Numbers of one tensor. */
type Fill = 'zeros' | 'ones' | { readonly deviation: number };

/**
 * Weights of a random start as transformers makes them (`_init_weights` of each family): matrices and embeddings normal
 * with `initializer_range`, biases 0, norms 1 (0 where the weight stands for 1 + w), GPT-2's residual projections smaller by
 * sqrt(2 layers). Every tensor has a stream of its own, in the order of the model.
 */
export function initialWeights(model: ModelDescription, config: Config, random: Random): Map<string, MemoryTensor> {
  const tensors = new Map<string, MemoryTensor>();
  const names = huggingFaceNames(model.modelType);
  const range = config.initializer_range;
  const deviation = typeof range === 'number' ? range : 0.02;
  const add = (name: string, shape: readonly number[], fill: Fill): MemoryTensor => {
    const tensor = { shape, data: filled(elementCount(shape), fill, random.fork(tensors.size)) };
    tensors.set(name, tensor);
    return tensor;
  };
  const normal: Fill = { deviation };
  const norm: Fill = model.norm.plusOne ? 'zeros' : 'ones';
  const { hiddenSize, vocabularySize } = model;

  const embedding = add(names.embedding[0], [vocabularySize, hiddenSize], normal);
  const padding = config.pad_token_id;
  if (typeof padding === 'number' && padding >= 0 && !UNPADDED.has(model.modelType)) {
    embedding.data.fill(0, padding * hiddenSize, (padding + 1) * hiddenSize);
  }
  if (model.learnedPositions) add(names.positions?.[0] ?? '', [model.maxPositions, hiddenSize], normal);
  const residual: Fill =
    model.modelType === 'gpt2' ? { deviation: deviation / Math.sqrt(2 * model.layers.length) } : normal;
  model.layers.forEach((layer, l) => {
    for (const [role, shape] of layerWeightShapes(model, layer)) {
      if (role === EXPERT_MAP) continue;
      add(storedName(model.modelType, role, l), shape, fillOf(role, normal, norm, residual));
    }
  });
  add(names.finalNorm[0], [hiddenSize], norm);
  if (model.norm.kind === 'layer') add(names.finalNorm[0].replace(/\.weight$/, '.bias'), [hiddenSize], 'zeros');
  if (!model.tiedHead) add(names.head[0], [vocabularySize, hiddenSize], normal);
  return tensors;
}

function fillOf(role: string, matrix: Fill, norm: Fill, residual: Fill): Fill {
  if (role.endsWith('_bias')) return 'zeros';
  if (role.endsWith('_norm')) return norm;
  return role === 'o' || role === 'down' ? residual : matrix;
}

/** The name of a weight in a checkpoint of its family, every expert in tensors of its own. */
function storedName(modelType: string, role: string, layer: number): string {
  const expert = /^expert\.(\d+)\./.exec(role)?.[1];
  const template = expert === undefined ? role : role.replace(/^expert\.\d+/, 'expert.{e}');
  const candidates = huggingFaceNames(modelType).layer[template] ?? [];
  const preferred = PREFERRED[modelType];
  const own = candidates.find((name) => preferred?.test(name) === true) ?? candidates[0];
  return weightName(own ?? role, layer, expert).tensor;
}

function filled(length: number, fill: Fill, random: Random): Float32Array {
  const values = new Float32Array(length);
  if (fill === 'ones') values.fill(1);
  if (typeof fill === 'object') for (let i = 0; i < length; i++) values[i] = fill.deviation * random.normal();
  return values;
}
