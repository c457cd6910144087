import { InputError } from '../errors.js';
import { quoted } from '../formats/files.js';
import { openSafetensors } from '../formats/safetensors.js';
import type { DType, TensorStore } from '../formats/tensor.js';
import { expertTensors } from './compress-plan.js';
import type { ExpertModel } from './expert-model.js';
import { type ReadExpert, readExpert } from './expert-reader.js';
/** Gradients of the loss in the weights of experts, one a file. */
export interface ExpertGradients {
  /** Those of expert `e` of `model.layers[index]`, one a file, in the layout of the expert. */
  read(index: number, e: number, threads?: number): ReadExpert[];
  close(): void;
}

/** A store of gradients seen as the experts of a model. */
function gradientModel(model: ExpertModel, store: TensorStore, file: string): ExpertModel {
  let dtype: DType | undefined;
  for (const name of expertTensors(model)) {
    const weight = model.store.tensors.get(name);
    const gradient = store.tensors.get(name);
    if (weight === undefined) throw new InputError(`${model.path}: tensor ${quoted(name)} is missing`);
    if (gradient === undefined) {
      throw new InputError(
        `${file}: has no gradient of tensor ${quoted(name)}; gradients have the names of the weights`,
      );
    }
    if (`${gradient.shape}` !== `${weight.shape}`) {
      throw new InputError(
        `${file}: tensor ${quoted(name)} has shape [${gradient.shape}], its weight has [${weight.shape}]`,
      );
    }
    dtype ??= gradient.dtype as DType;
    if (gradient.dtype !== dtype || !['F32', 'F16', 'BF16', 'F64'].includes(dtype)) {
      throw new InputError(
        `${file}: tensor ${quoted(name)} is ${gradient.dtype}; gradients are of one floating-point type (${dtype})`,
      );
    }
  }
  return { ...model, store, layers: model.layers.map((layer) => ({ ...layer, dtype: dtype ?? layer.dtype })) };
}

/**
 * Opens safetensors files of gradients with the names and shapes of a model's expert tensors.
 * @throws InputError naming the file and the tensor that is missing or has another shape or type
 */
export function openGradients(model: ExpertModel, files: readonly string[]): ExpertGradients {
  const stores: TensorStore[] = [];
  const close = (): void => {
    for (const store of stores) store.close();
  };
  try {
    const models = files.map((file) => {
      const store = openSafetensors(file);
      stores.push(store);
      return gradientModel(model, store, file);
    });
    return { read: (index, e, threads) => models.map((each) => readExpert(each, index, e, threads)), close };
  } catch (error) {
    close();
    throw error;
  }
}

/** Diagonal of the empirical Fisher information of an expert: the mean of the squared gradients. */
export function fisherInformation(gradients: readonly ReadExpert[]): ReadExpert {
  const squares = (role: 'gate' | 'up' | 'down'): Float32Array | undefined => {
    const [first] = gradients;
    if (first[role] === undefined) return undefined;
    return first[role].map((_, i) => {
      let sum = 0;
      for (const each of gradients) sum += (each[role]?.[i] ?? 0) ** 2;
      return sum / gradients.length;
    });
  };
  const gate = squares('gate');
  return {
    ...(gate && { gate }),
    up: squares('up') as Float32Array,
    down: squares('down') as Float32Array,
  };
}
