import { InputError } from '../errors.js';
import { quoted } from '../formats/files.js';
import { parsePayloadName } from '../formats/pvq.js';
import { openSafetensors } from '../formats/safetensors.js';
import { elementCount, type TensorInfo, type TensorStore } from '../formats/tensor.js';
import { BAND_WEIGHTS, createUnitReader, type DecodedRead } from './decoded-units.js';
import { decodeFactorisedStore } from './factorised-store.js';
import { createPvqDecoder, findPvqTensors, type PvqTensors, type StoredPvqTensor } from './pvq-tensors.js';

/** A store that shows quantised tensors under their own names, as F32 of their source's shape. */
export interface PvqStore extends TensorStore {
  /** What is quantised, by name. */
  readonly quantised: PvqTensors;
  /** The store with the parts as they lie in the files. */
  readonly stored: TensorStore;
}

/** Whether a store holds quantised tensors that it decodes. */
export function isPvqStore(store: TensorStore): store is PvqStore {
  return 'quantised' in store;
}

/**
 * Decodes the quantised tensors of `store` as they are read; all others pass through. A store without any is returned
 * as it is. Whole rows are decoded into the reader's buffer where it is aligned; of a row that is read in pieces, and of
 * a transposed matrix, the last one is kept, so that reads in order decode once.
 * @throws InputError as {@link findPvqTensors} does; the store is closed then
 */
export function decodePvqStore(store: TensorStore, threads?: number): TensorStore {
  let quantised: PvqTensors;
  try {
    quantised = findPvqTensors(store);
  } catch (error) {
    store.close();
    throw error;
  }
  if (quantised.size === 0) return store;
  const tensors = new Map<string, TensorInfo>();
  for (const info of store.tensors.values()) {
    const name = parsePayloadName(info.name)?.tensor;
    const stored = name === undefined ? undefined : quantised.get(name);
    if (stored === undefined) tensors.set(info.name, info);
    else if (!tensors.has(stored.tensor.name)) tensors.set(stored.tensor.name, decodedInfo(stored));
  }
  const read = createReader(store, threads);
  const decorated: PvqStore = {
    path: store.path,
    tensors,
    metadata: store.metadata,
    ...(store.fileMetadata && { fileMetadata: store.fileMetadata }),
    quantised,
    stored: store,
    readInto(tensor, start, length, target): void {
      const found = quantised.get(tensor.name);
      if (found === undefined) {
        store.readInto(tensor, start, length, target);
        return;
      }
      if (start < 0 || length < 0 || start + length > tensor.byteLength || length > target.length)
        throw new RangeError(`${store.path}: bytes ${start}..${start + length} are not in tensor ${tensor.name}`);
      read(found, start, target.subarray(0, length));
    },
    close: () => store.close(),
  };
  return decorated;
}

/** Opens safetensors as {@link openSafetensors} does and decodes what is quantised or factorised. */
export function openWeights(location: string, threads?: number): TensorStore {
  return decodeFactorisedStore(decodePvqStore(openSafetensors(location), threads), threads);
}

/**
 * One store of two, for a model whose quantised tensors lie beside the file of all others.
 * @throws InputError when a tensor is in both
 */
export function overlayStore(base: TensorStore, overlay: TensorStore): TensorStore {
  const close = (): void => {
    base.close();
    overlay.close();
  };
  const tensors = new Map(base.tensors);
  for (const [name, info] of overlay.tensors) {
    const other = tensors.get(name);
    if (other !== undefined) {
      close();
      throw new InputError(`${info.file}: tensor ${quoted(name)} is also in ${other.file}`);
    }
    tensors.set(name, info);
  }
  // What else the base has, such as the pairs of a GGUF file, stays reachable.
  const merged: TensorStore = {
    ...base,
    tensors,
    readInto(tensor, start, length, target): void {
      (overlay.tensors.has(tensor.name) ? overlay : base).readInto(tensor, start, length, target);
    },
    close,
  };
  return isPvqStore(overlay)
    ? ({ ...merged, quantised: overlay.quantised, stored: overlay.stored } as PvqStore)
    : merged;
}

function decodedInfo({ tensor, file, parts }: StoredPvqTensor): TensorInfo {
  const { name, shape } = tensor;
  return {
    name,
    dtype: 'F32',
    shape,
    file,
    offset: parts.get('index')?.offset ?? 0,
    byteLength: 4 * elementCount(shape),
  };
}

/** Edge of the squares in which a matrix is turned: both sides of one stay in the cache. */
const TILE = 32;

/** target[c, firstRow + r] = source[r, c] for r and c of one tile. */
function turnTile(
  source: Float32Array,
  columns: number,
  fromRow: number,
  toRow: number,
  fromColumn: number,
  toColumn: number,
  target: Float32Array,
  height: number,
  firstRow: number,
): void {
  for (let c = fromColumn; c < toColumn; c++) {
    for (let r = fromRow; r < toRow; r++) target[c * height + firstRow + r] = source[r * columns + c];
  }
}

function createReader(store: TensorStore, threads: number | undefined): DecodedRead<StoredPvqTensor> {
  const decoder = createPvqDecoder(store, threads);
  let scratch = new Float32Array(0);

  /** Matrix `m` of a tensor that is stored [in, out], in that layout. */
  const decodeTurned = (stored: StoredPvqTensor, m: number, target: Float32Array): void => {
    const { columns, rows, matrices } = stored.matrix;
    const height = rows / matrices;
    const band = Math.max(1, Math.min(height, Math.floor(BAND_WEIGHTS / columns)));
    if (scratch.length < band * columns) scratch = new Float32Array(band * columns);
    for (let first = 0; first < height; first += band) {
      const count = Math.min(band, height - first);
      decoder.decode(stored, m * height + first, count, scratch.subarray(0, count * columns));
      for (let c = 0; c < columns; c += TILE) {
        for (let r = 0; r < count; r += TILE)
          turnTile(
            scratch,
            columns,
            r,
            Math.min(r + TILE, count),
            c,
            Math.min(c + TILE, columns),
            target,
            height,
            first,
          );
      }
    }
  };
  /** Rows, or one transposed matrix: what can only be decoded as a whole. */
  const decodeUnits = (stored: StoredPvqTensor, first: number, count: number, target: Float32Array): void => {
    if (!stored.tensor.transposed) {
      decoder.decode(stored, first, count, target);
      return;
    }
    const size = target.length / count;
    for (let i = 0; i < count; i++) decodeTurned(stored, first + i, target.subarray(i * size, (i + 1) * size));
  };
  const unitBytesOf = ({ tensor, matrix }: StoredPvqTensor): number =>
    4 * matrix.columns * (tensor.transposed ? matrix.rows / matrix.matrices : 1);
  return createUnitReader({ unitBytes: unitBytesOf, decode: decodeUnits });
}
