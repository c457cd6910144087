import { InputError } from '../../errors.js';
import type { SteeringVectors } from '../types.js';

/** What is known of the model that vectors are used with; unknown fields (of an ONNX export) are null or absent. */
export interface FittedModel {
  readonly path: string;
  readonly modelType: string | null;
  readonly layers: number | null;
  readonly hiddenSize: number | null;
  /** Of `src/models/model-hash.ts`. */
  readonly sha256?: string;
}

/** llama.cpp's names of architectures by `model_type` where the two differ; Mistral's files are llama's there. */
const GGUF_ARCHITECTURE: Readonly<Record<string, string>> = {
  mistral: 'llama',
  mixtral: 'llama',
  gemma3_text: 'gemma3',
  gpt_neox: 'gptneox',
  phi: 'phi2',
  qwen2_moe: 'qwen2moe',
  qwen3_moe: 'qwen3moe',
};

/** Whether two names of an architecture may be those of one model. */
export function sameArchitecture(a: string, b: string): boolean {
  return (GGUF_ARCHITECTURE[a] ?? a) === (GGUF_ARCHITECTURE[b] ?? b);
}

/**
 * Vectors are coordinates of one model's stream: in another model they mean nothing, and nothing would show it.
 * @throws InputError for another hidden size, blocks that the model lacks, another architecture, number of blocks or hash
 */
export function checkVectorsFit(vectors: SteeringVectors, model: FittedModel): void {
  const { hiddenSize, directions, origin } = vectors;
  if (model.hiddenSize !== null && hiddenSize !== model.hiddenSize) {
    throw new InputError(
      `${model.path}: its hidden size is ${model.hiddenSize}, the vector has ${hiddenSize} numbers: it was made for another model`,
    );
  }
  const { layers, modelType } = model;
  if (layers !== null) {
    const beyond = [...directions.keys()].find((block) => block >= layers);
    if (beyond !== undefined) {
      throw new InputError(
        `${model.path}: has blocks 0 to ${layers - 1}, the vector is for block ${beyond}; see the file's layer base, or shift it`,
      );
    }
    if (origin.layers !== undefined && origin.layers !== layers) {
      throw new InputError(`${model.path}: has ${layers} blocks, the vector was made for a model of ${origin.layers}`);
    }
  }
  if (origin.modelType !== undefined && modelType !== null && !sameArchitecture(origin.modelType, modelType)) {
    throw new InputError(`${model.path}: a ${modelType} model, the vector was made for ${origin.modelType}`);
  }
  if (origin.modelSha256 !== undefined && model.sha256 !== undefined && origin.modelSha256 !== model.sha256) {
    throw new InputError(
      `${model.path}: its weights (SHA-256 ${model.sha256.slice(0, 12)}) are not those that the vector was made for ` +
        `(${origin.modelSha256.slice(0, 12)}); for a copy of that model in other weights give --any-model`,
    );
  }
}
