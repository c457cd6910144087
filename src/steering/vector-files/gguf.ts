import { InputError } from '../../errors.js';
import { quoted } from '../../formats/files.js';
import type { GgufEntry } from '../../formats/ggml-types.js';
import { type GgufStore, openGguf } from '../../formats/gguf.js';
import { encodeGguf } from '../../formats/gguf-writer.js';
import type { TensorInfo } from '../../formats/tensor.js';
import type { SteeringVectors, VectorOrigin } from '../types.js';
import {
  ascending,
  assembleVectors,
  type EncodedVectors,
  type EncodeVectorOptions,
  parseBlock,
  type VectorFormat,
} from './format.js';
import { originEntries, originOf, requireAdd } from './origin.js';
import { readVector } from './safetensors.js';

const ARCHITECTURE = 'controlvector';
const PREFIX = 'direction.';

/**
 * A control vector of llama.cpp: F32 tensors `direction.N` [hidden], N >= 1, added to the output of 0-based block N at
 * every position (specification of steering, section 6.3). llama.cpp looks at the tensors alone, so nothing else may be
 * in the file; what is known of the origin stands in keys `controlvector.*`.
 */
export const GGUF_VECTORS: VectorFormat = {
  name: 'gguf',
  extensions: ['.gguf'],

  read(path, { shift, point }) {
    const store = openGguf(path, { repeatedNames: 'keep' });
    try {
      const stored = new Map<number, Float32Array>();
      for (const info of [...store.tensors.values(), ...store.repeated]) addDirection(store, info, stored);
      const { origin, assumptions, measuredAt } = readKeys(store, stored.size);
      const back = point === 'learnt' ? measuredAt : 0;
      if (measuredAt !== 0) {
        const where = back === 0 ? 'a shift of -1 puts it there' : 'each is moved there as asked';
        assumptions.push(
          `written as llama.cpp's cvector-generator does, which measures the output of block N - 1 for direction.N: ${where}`,
        );
      }
      const placed = [...stored].map(([block, data]): [number, Float32Array] => [block + back, data]);
      return assembleVectors(path, placed, { origin, assumptions }, shift);
    } finally {
      store.close();
    }
  },

  encode: encodeControlVector,
};

/** Directions of one name add up, as in llama.cpp's loader. */
function addDirection(store: GgufStore, info: TensorInfo, stored: Map<number, Float32Array>): void {
  const where = `${store.path}: tensor ${quoted(info.name)}`;
  const block = info.name.startsWith(PREFIX) ? parseBlock(info.name.slice(PREFIX.length)) : undefined;
  if (block === undefined) {
    throw new InputError(`${where} is not named direction.N: llama.cpp takes a file with such a tensor for invalid`);
  }
  if (block < 1) {
    throw new InputError(
      `${where}: blocks of a control vector begin at 1; ${PREFIX}${block} is refused by llama.cpp too`,
    );
  }
  if (info.dtype !== 'F32') throw new InputError(`${where} is ${info.dtype}; a control vector holds F32 only`);
  const values = readVector(store, info);
  const [other] = stored.values();
  if (other !== undefined && other.length !== values.length) {
    throw new InputError(`${where} has ${values.length} numbers, those before it ${other.length}: all must be equal`);
  }
  const earlier = stored.get(block);
  stored.set(block, earlier === undefined ? values : earlier.map((value, i) => value + values[i]));
}

function readKeys(
  store: GgufStore,
  count: number,
): { origin: VectorOrigin; assumptions: string[]; measuredAt: 0 | -1 } {
  const { kv, kvTypes, path } = store;
  const assumptions = ['direction.N taken as the output of 0-based block N, where llama.cpp and repeng add it'];
  const architecture = kv.get('general.architecture');
  if (architecture !== undefined && architecture !== ARCHITECTURE) {
    throw new InputError(
      `${path}: general.architecture is ${quoted(String(architecture))}, not ${quoted(ARCHITECTURE)}`,
    );
  }
  const stated = kv.get('controlvector.layer_count');
  if (stated !== undefined && Number(stated) !== count) {
    assumptions.push(`layer_count says ${String(stated)}, the file holds ${count} directions`);
  }
  // repeng writes an unsigned number here, llama.cpp's own generator a signed one.
  const byGenerator = kvTypes.get('controlvector.layer_count') === 'INT32';
  if (!kv.has('controlvector.scale')) assumptions.push('length taken as stored');
  const entries: Record<string, unknown> = {};
  for (const [key, value] of kv) if (key.startsWith(`${ARCHITECTURE}.`)) entries[key.slice(14)] = value;
  const origin = originOf({ ...entries, model: entries.model_hint }, path);
  return { origin, assumptions, measuredAt: byGenerator ? -1 : 0 };
}

function encodeControlVector(vectors: SteeringVectors, options: EncodeVectorOptions): EncodedVectors {
  const { origin } = vectors;
  requireAdd(origin, 'GGUF');
  const notes: string[] = [];
  const directions = new Map(ascending(vectors.directions));
  if (directions.has(-1)) {
    throw new InputError('GGUF: a control vector cannot change the embeddings (block -1): export safetensors or json');
  }
  const first = directions.get(0);
  if (first !== undefined) {
    if (options.moveBlockZero !== true) {
      throw new InputError(
        'GGUF: a control vector begins at block 1; leave block 0 out by --layer, or move it to block 1 by --move-block-zero',
      );
    }
    if (directions.has(1)) throw new InputError('GGUF: block 0 cannot move to block 1, which has a vector of its own');
    directions.delete(0);
    directions.set(1, first);
    notes.push('the vector of block 0 is written for block 1: it acts one block later than it was made for');
  }
  if (origin.positions !== undefined && origin.positions !== 'all') {
    notes.push(`meant for positions "${origin.positions}"; llama.cpp adds it at all positions`);
  }
  if (origin.modelType === undefined) notes.push('without the name of an architecture, which repeng asks for');
  const text = (value: string): GgufEntry => ({ type: 'STRING', value });
  const { model, ...known } = originEntries(origin);
  const kv = new Map<string, GgufEntry>([
    ['general.architecture', text(ARCHITECTURE)],
    ...(model === undefined ? [] : [['controlvector.model_hint', text(model)] as const]),
    ['controlvector.layer_count', { type: 'UINT32', value: directions.size }],
    ...Object.entries(known).map(([key, value]) => [`${ARCHITECTURE}.${key}`, text(value)] as const),
  ]);
  const tensors = [...ascending(directions)].map(([block, data]) => ({
    name: `${PREFIX}${block}`,
    dtype: 'F32' as const,
    shape: [data.length],
    data,
  }));
  return { bytes: encodeGguf(kv, tensors), notes };
}

/**
 * What llama.cpp's `llama_set_adapter_cvec` takes: rows [layers - 1, hidden] for blocks 1 to layers - 1, zero where there
 * is no direction, each times `strength`.
 */
export function controlVectorBuffer(vectors: SteeringVectors, layers: number, strength: number): Float32Array {
  const { hiddenSize, directions } = vectors;
  const buffer = new Float32Array((layers - 1) * hiddenSize);
  for (const [block, vector] of directions) {
    if (block < 1 || block >= layers) continue;
    buffer.set(
      vector.map((value) => strength * value),
      (block - 1) * hiddenSize,
    );
  }
  return buffer;
}
