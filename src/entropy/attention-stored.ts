import { InputError } from '../errors.js';
import { DTYPE_BYTES, type DType, type TensorInfo, type TensorStore } from '../formats/tensor.js';
import { openTensorFile } from '../formats/tensor-file.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { widenToF64 } from '../kernels/dtypes.js';
import { type AttentionRows, attentionEntropiesFromScores, attentionRowEntropies, CODE_EPSILON } from './attention.js';
import { type AttentionBatch, addBatchRows, createAttentionBatch } from './attention-job.js';
import type { RegulariserSettings } from './attention-settings.js';

/** Attention that another program stored, and how to read it. */
export interface StoredAttention {
  readonly path: string;
  readonly tensor?: string;
  /** The values are scores before the softmax, masked keys at minus infinity. */
  readonly fromScores: boolean;
  /** Query i of Q sees keys 0..i + K - Q; false: all K (encoders). */
  readonly causal: boolean;
  /** Largest |row sum - 1|. */
  readonly tolerance: number;
  /** `code`: log(a + 1e-9) as the authors' module; `exact`: 0 log 0 = 0. */
  readonly logarithm: 'exact' | 'code';
}

export interface StoredShape {
  readonly layers: number;
  readonly batch: number;
  readonly heads: number;
  readonly queries: number;
  readonly keys: number;
}

export interface StoredArguments extends StoredAttention {
  readonly regulariser?: RegulariserSettings;
}

/** Bytes of the file that are read at once. */
const BLOCK_BYTES = 16 << 20;

function tensorOf(store: TensorStore, { path, tensor }: StoredAttention): TensorInfo & { readonly dtype: DType } {
  const names = [...store.tensors.keys()];
  const found = tensor === undefined ? store.tensors.get(names[0]) : store.tensors.get(tensor);
  if (!found || (tensor === undefined && names.length > 1)) {
    throw new InputError(`${path}: holds ${names.join(', ')}; name one of them by --tensor`);
  }
  const { dtype } = found;
  if (!Object.hasOwn(DTYPE_BYTES, dtype)) throw new InputError(`${path}: ${dtype} is no type of plain numbers`);
  return { ...found, dtype: dtype as DType };
}

function shapeOf(info: TensorInfo, path: string): StoredShape {
  const [layers, batch, heads, queries, keys] = info.shape;
  if (info.shape.length !== 5 || info.shape.includes(0)) {
    throw new InputError(
      `attention: expected [layer,batch,head,query,key], got [${info.shape.join(',')}] in file ${path}, ` +
        `tensor ${info.name}`,
    );
  }
  return { layers, batch, heads, queries, keys };
}

/**
 * Shape of the stored attention.
 * @throws InputError when it is not [layer, batch, head, query, key], or several tensors are there and none is named
 */
export function storedShape(stored: StoredAttention): StoredShape {
  const store = openTensorFile(stored.path);
  try {
    const shape = shapeOf(tensorOf(store, stored), stored.path);
    if (stored.causal && shape.queries > shape.keys) {
      throw new InputError(
        `${stored.path}: ${shape.queries} queries of ${shape.keys} keys are not causal; pass --bidirectional`,
      );
    }
    return shape;
  } finally {
    store.close();
  }
}

/** Throws InputError for a row that gives something to a key after its query. */
function checkCausal(values: Float64Array, heads: number, queries: number, keys: number, place: RowPlace): void {
  const hidden = place.fromScores ? Number.NEGATIVE_INFINITY : 0;
  for (let row = 0; row < heads * queries; row++) {
    const query = place.from + (row % queries);
    for (let key = query + place.offset + 1; key < keys; key++) {
      const value = values[row * keys + key];
      if (value === hidden || Number.isNaN(value)) continue;
      throw new InputError(
        `attention layer ${place.layer} batch ${place.batch} head ${Math.floor(row / queries)} query ${query} gives ` +
          `${value} to key ${key}, which comes later; for attention without a causal mask pass --bidirectional`,
      );
    }
  }
}

interface RowPlace {
  readonly layer: number;
  readonly batch: number;
  readonly from: number;
  /** Keys before the first query. */
  readonly offset: number;
  readonly fromScores: boolean;
}

/**
 * Statistics of stored attention, read in blocks of queries; sequences of the batch stand for windows.
 * @throws InputError for a row that is no distribution, or sees a later key
 */
export function measureStored(args: StoredArguments, progress: (rows: unknown) => void): AttentionBatch {
  const store = openTensorFile(args.path);
  try {
    const info = tensorOf(store, args);
    const shape = shapeOf(info, args.path);
    const { layers, batch, heads, queries, keys } = shape;
    const width = DTYPE_BYTES[info.dtype];
    const step = Math.max(1, Math.min(queries, Math.floor(BLOCK_BYTES / (heads * keys * width))));
    const questions = args.regulariser ? { regulariser: args.regulariser } : {};
    const result = createAttentionBatch(batch, layers, heads, questions);
    const values = new Float64Array(heads * step * keys);
    const bytes = new Uint8Array(step * keys * width);
    const offset = keys - queries;
    for (let layer = 0; layer < layers; layer++) {
      for (let sequence = 0; sequence < batch; sequence++) {
        for (let from = 0; from < queries; from += step) {
          const count = Math.min(step, queries - from);
          const cells = count * keys;
          for (let head = 0; head < heads; head++) {
            const row = ((layer * batch + sequence) * heads + head) * queries + from;
            const part = bytes.subarray(0, cells * width);
            store.readInto(info, row * keys * width, part.length, part);
            widenToF64(part, info.dtype, values.subarray(head * cells, (head + 1) * cells));
          }
          const block = values.subarray(0, heads * cells);
          const place = { layer, batch: sequence, from, offset, fromScores: args.fromScores };
          const rows = rowsOf(block, { batch: 1, heads, queries: count, keys }, place, args);
          if (args.causal) checkCausal(block, heads, count, keys, place);
          addBatchRows(
            result,
            rows,
            { layer, window: sequence, from: args.causal ? from + offset : from, heads, keys, causal: args.causal },
            questions,
          );
          progress(heads * count);
        }
      }
    }
    return result;
  } finally {
    store.close();
  }
}

function rowsOf(
  values: Float64Array,
  shape: { batch: number; heads: number; queries: number; keys: number },
  place: RowPlace,
  args: StoredAttention,
): AttentionRows {
  if (args.fromScores) return attentionEntropiesFromScores(values, shape);
  return attentionRowEntropies(values, shape, {
    epsilon: args.logarithm === 'code' ? CODE_EPSILON : 0,
    tolerance: args.tolerance,
    layer: place.layer,
    batchStart: place.batch,
    queryStart: place.from,
  });
}

export const MEASURE_STORED: ComputeReference<StoredArguments, AttentionBatch> = {
  module: import.meta.url,
  job: measureStored,
};
