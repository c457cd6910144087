import { InputError } from '../errors.js';
import { GGML_BLOCKS } from '../formats/ggml-blocks.js';
import {
  DTYPE_BYTES,
  type DType,
  elementCount,
  type GgmlBlockType,
  type TensorInfo,
  type TensorStore,
} from '../formats/tensor.js';
import { widenToF32, widenToF64 } from '../kernels/dtypes.js';
import { dequantizeGgml } from '../kernels/ggml.js';
import type { ModelDescription } from './description.js';
import { layerWeightShapes, type WeightName, type WeightNames, weightName } from './weight-names.js';

/** One weight of the model as it lies in a file. */
export interface StoredWeight {
  readonly store: TensorStore;
  readonly tensor: TensorInfo;
  /** First byte within the tensor, and number of bytes. */
  readonly start: number;
  readonly byteLength: number;
  readonly shape: readonly number[];
  /** Rows are stored permuted for interleaved rotary embedding (GGUF of the llama family): head size to undo it. */
  readonly interleavedHeadDim?: number;
}

export interface ModelWeights {
  readonly embedding: StoredWeight;
  readonly head: StoredWeight;
  readonly finalNorm: StoredWeight;
  readonly finalNormBias?: StoredWeight;
  readonly positions?: StoredWeight;
  readonly layers: readonly ReadonlyMap<string, StoredWeight>[];
}

/** What differs between the two families of checkpoints. */
export interface WeightConventions {
  readonly names: WeightNames;
  /** Roles whose rows are permuted for interleaved rotary embedding. */
  readonly interleavedRoles?: readonly string[];
  /** Tensors that are not weights of the decoder and may be present. */
  readonly ignored: readonly RegExp[];
  /** Rewritings of a checkpoint's names that other exporters use. */
  readonly renamings: readonly ((name: string) => string)[];
}

export const HUGGING_FACE_IGNORED: readonly RegExp[] = [
  /\.rotary_emb\.inv_freq$/,
  /\.attn\.(bias|masked_bias)$/,
  /\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$/,
  /^(model\.)?(vision_tower|multi_modal_projector|vision_model|visual)\./,
];

export const HUGGING_FACE_RENAMINGS: readonly ((name: string) => string)[] = [
  (name) => name,
  (name) => name.replace(/^(model|transformer|gpt_neox)\./, ''),
  (name) => `language_model.${name}`,
  (name) => name.replace(/^model\./, 'model.language_model.'),
];

export const GGUF_IGNORED: readonly RegExp[] = [/^rope_freqs\.weight$/, /^rope_factors_(long|short)\.weight$/];

/**
 * Finds every weight of the model in a store and checks its shape.
 * @throws InputError naming the first missing tensor, unexpected tensor, or shape that disagrees with the config.
 */
export function locateWeights(
  model: ModelDescription,
  store: TensorStore,
  conventions: WeightConventions,
): ModelWeights {
  const used = new Set<string>();
  const { names } = conventions;
  const rename =
    conventions.renamings.find((candidate) => names.embedding.some((name) => store.tensors.has(candidate(name)))) ??
    ((name: string) => name);

  const find = (
    candidates: readonly WeightName[],
    shape: readonly number[],
    interleavedHeadDim?: number,
  ): StoredWeight | undefined => {
    for (const { tensor: name, part } of candidates) {
      const tensor = store.tensors.get(rename(name));
      if (!tensor) continue;
      used.add(tensor.name);
      const parts = part === undefined ? 1 : tensor.shape[0] * part.perMatrix;
      const [, rows, ...rest] = tensor.shape;
      const stored = part === undefined ? tensor.shape : [rows / part.perMatrix, ...rest];
      if (!sameShape(stored, shape)) {
        throw new InputError(
          `${tensor.file}: tensor "${tensor.name}" has shape [${stored}] but the config asks for [${shape}]`,
        );
      }
      const byteLength = tensor.byteLength / parts;
      return {
        store,
        tensor,
        shape,
        byteLength,
        start: (part?.index ?? 0) * byteLength,
        ...(interleavedHeadDim !== undefined && { interleavedHeadDim }),
      };
    }
    return undefined;
  };
  const need = (candidates: readonly WeightName[], shape: readonly number[], headDim?: number): StoredWeight => {
    const weight = find(candidates, shape, headDim);
    if (weight) return weight;
    const wanted = likelyNames(
      candidates.map(({ tensor }) => rename(tensor)),
      store,
    ).join('" or "');
    throw new InputError(`${store.path}: tensor "${wanted}" is missing; the ${model.modelType} model needs it`);
  };

  const layers = model.layers.map((layer, i) => {
    const located = new Map<string, StoredWeight>();
    for (const [role, shape] of layerWeightShapes(model, layer)) {
      const expert = /^expert\.(\d+)\./.exec(role)?.[1];
      const template = expert === undefined ? role : role.replace(/^expert\.\d+/, 'expert.{e}');
      const candidates = (names.layer[template] ?? []).map((name) => weightName(name, i, expert));
      const interleaved = conventions.interleavedRoles?.includes(role) ? layer.attention.headDim : undefined;
      located.set(role, need(candidates, shape, interleaved));
    }
    return located;
  });

  const { hiddenSize, vocabularySize } = model;
  const plain = (all: readonly string[] = []): WeightName[] => all.map((tensor) => ({ tensor }));
  const embedding = need(plain(names.embedding), [vocabularySize, hiddenSize]);
  const head = find(plain(names.head), [vocabularySize, hiddenSize]);
  const finalNorm = need(plain(names.finalNorm), [hiddenSize]);
  const biasNames = names.finalNorm.map((name) => name.replace(/\.weight$/, '.bias'));
  const finalNormBias = model.norm.kind === 'layer' ? need(plain(biasNames), [hiddenSize]) : undefined;
  const positions = model.learnedPositions ? need(plain(names.positions), [model.maxPositions, hiddenSize]) : undefined;
  if (!head && !model.tiedHead) need(plain(names.head), [vocabularySize, hiddenSize]);

  for (const name of store.tensors.keys()) {
    if (!used.has(name) && !conventions.ignored.some((pattern) => pattern.test(name))) {
      throw new InputError(
        `${store.path}: unexpected tensor "${name}": a ${model.modelType} model with this config has none of that name`,
      );
    }
  }
  return {
    embedding,
    head: model.tiedHead || !head ? embedding : head,
    finalNorm,
    layers,
    ...(finalNormBias && { finalNormBias }),
    ...(positions && { positions }),
  };
}

/** Of several names for one tensor those that have neighbours in the store; all when none has. */
function likelyNames(names: readonly string[], store: TensorStore): string[] {
  const stored = [...store.tensors.keys()];
  const parent = (name: string): string => name.replace(/[^.]+(\.(weight|bias))?$/, '');
  const likely = names.filter((name) => stored.some((other) => other.startsWith(parent(name))));
  return [...new Set(likely.length > 0 ? likely : names)];
}

/** Equal shapes, extents of one aside (GGUF drops them). */
function sameShape(a: readonly number[], b: readonly number[]): boolean {
  const squeeze = (shape: readonly number[]): string => shape.filter((extent) => extent !== 1).join();
  return squeeze(a) === squeeze(b);
}

const CHUNK_BYTES = 4 << 20;

/** Reads weights into f32 or f64 buffers by chunks; one scratch buffer serves all reads. */
export interface WeightReader {
  /** The whole weight, or rows firstRow..firstRow+rowCount-1 of a matrix, row-major. */
  read(weight: StoredWeight, target: Float32Array | Float64Array, firstRow?: number, rowCount?: number): void;
}

export function createWeightReader(threads: number): WeightReader {
  const scratch = new Uint8Array(CHUNK_BYTES);
  let row32 = new Float32Array(0);
  return {
    read(weight, target, firstRow = 0, rowCount = weight.shape[0] ?? 1) {
      const rowElements = elementCount(weight.shape.slice(1));
      const elements = rowElements * rowCount;
      const { tensor, store } = weight;
      const block = blockOf(tensor.dtype);
      const rowBytes = (rowElements / block.blockElements) * block.blockBytes;
      if (!Number.isInteger(rowBytes)) {
        throw new InputError(`${tensor.file}: rows of "${tensor.name}" do not end at a ${tensor.dtype} block`);
      }
      let offset = weight.start + firstRow * rowBytes;
      if (tensor.dtype === 'F32' && target instanceof Float32Array) {
        store.readInto(tensor, offset, elements * 4, new Uint8Array(target.buffer, target.byteOffset, elements * 4));
      } else {
        const chunkElements = Math.floor(CHUNK_BYTES / block.blockBytes) * block.blockElements;
        for (let done = 0; done < elements; done += chunkElements) {
          const count = Math.min(chunkElements, elements - done);
          const bytes = (count / block.blockElements) * block.blockBytes;
          const source = scratch.subarray(0, bytes);
          store.readInto(tensor, offset, bytes, source);
          widen(source, tensor.dtype, target, done, count);
          offset += bytes;
        }
      }
      if (weight.interleavedHeadDim !== undefined && rowCount === weight.shape[0]) {
        restoreHalves(target, rowCount, rowElements, weight.interleavedHeadDim);
      }
    },
  };

  function widen(
    source: Uint8Array,
    dtype: DType | GgmlBlockType,
    target: Float32Array | Float64Array,
    at: number,
    count: number,
  ): void {
    if (dtype in GGML_BLOCKS) {
      if (target instanceof Float32Array) {
        dequantizeGgml(source, dtype as GgmlBlockType, target.subarray(at, at + count), threads);
        return;
      }
      if (row32.length < count) row32 = new Float32Array(count);
      dequantizeGgml(source, dtype as GgmlBlockType, row32.subarray(0, count), threads);
      target.set(row32.subarray(0, count), at);
      return;
    }
    if (target instanceof Float32Array) widenToF32(source, dtype as DType, target.subarray(at, at + count), threads);
    else widenToF64(source, dtype as DType, target.subarray(at, at + count), threads);
  }
}

function blockOf(dtype: DType | GgmlBlockType): { blockElements: number; blockBytes: number } {
  if (dtype in GGML_BLOCKS) return GGML_BLOCKS[dtype as GgmlBlockType];
  return { blockElements: 1, blockBytes: DTYPE_BYTES[dtype as DType] };
}

/** Within each head, row 2d + h of the interleaved layout is row h * dim/2 + d of the half-rotation layout. */
function restoreHalves(target: Float32Array | Float64Array, rows: number, width: number, headDim: number): void {
  const head = target.slice(0, headDim * width);
  for (let first = 0; first < rows; first += headDim) {
    head.set(target.subarray(first * width, (first + headDim) * width));
    for (let d = 0; d < headDim / 2; d++) {
      for (let half = 0; half < 2; half++) {
        const row = head.subarray((2 * d + half) * width, (2 * d + half + 1) * width);
        target.set(row, (first + (half * headDim) / 2 + d) * width);
      }
    }
  }
}
