import { InputError } from '../errors.js';
import { openSafetensors } from '../formats/safetensors.js';
import { elementCount, type TensorInfo } from '../formats/tensor.js';
import type { ModelFiles } from './model-files.js';
import type { ModelWeights, StoredWeight } from './weights.js';

/**
 * A model some of whose tensors are read from another safetensors file, where they have the same names and shapes; rows
 * lie as in the model's own file. What a trial of other weights needs, without a copy of the rest.
 * @throws InputError for a tensor that the model does not have, or of another shape
 */
export function replaceWeights(files: ModelFiles, path: string): ModelFiles {
  const replacements = openSafetensors(path);
  for (const tensor of replacements.tensors.values()) checkReplacement(files, tensor, path);
  const replaced = (weight: StoredWeight): StoredWeight => {
    const tensor = replacements.tensors.get(weight.tensor.name);
    if (!tensor) return weight;
    // A slice of a stack keeps its place among equal parts.
    const parts = weight.tensor.byteLength / weight.byteLength;
    const byteLength = tensor.byteLength / parts;
    const index = weight.start / weight.byteLength;
    return { ...weight, store: replacements, tensor, byteLength, start: index * byteLength };
  };
  const { embedding, head, finalNorm, finalNormBias, positions, layers } = files.weights;
  const weights: ModelWeights = {
    embedding: replaced(embedding),
    head: replaced(head),
    finalNorm: replaced(finalNorm),
    layers: layers.map((layer) => new Map([...layer].map(([role, weight]) => [role, replaced(weight)]))),
    ...(finalNormBias && { finalNormBias: replaced(finalNormBias) }),
    ...(positions && { positions: replaced(positions) }),
  };
  const store = {
    ...files.store,
    close() {
      replacements.close();
      files.store.close();
    },
  };
  return { ...files, weights, store };
}

function checkReplacement(files: ModelFiles, tensor: TensorInfo, path: string): void {
  const own = files.store.tensors.get(tensor.name);
  if (!own) throw new InputError(`${path}: tensor "${tensor.name}" is none of ${files.path}`);
  if (elementCount(own.shape) !== elementCount(tensor.shape)) {
    throw new InputError(`${path}: tensor "${tensor.name}" has shape [${tensor.shape}], not [${own.shape}]`);
  }
}
