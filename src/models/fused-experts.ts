import { InputError } from '../errors.js';
import { isBlockType } from '../formats/ggml-blocks.js';
import { DTYPE_BYTES, type DType, type TensorInfo, type TensorStore } from '../formats/tensor.js';
import type { ModelDescription, MoeMlpDescription } from './description.js';

/** All experts of a layer in one tensor: gate and up side by side, or down. */
const STACK = /(?:^|\.)layers\.(\d+)\.(?:mlp|block_sparse_moe)\.experts\.(gate_up_proj|down_proj)(?:\.weight)?$/;

/** How stacks of experts lie: rows of a matrix are outputs, or columns are. */
type Orientation = 'rows' | 'columns';
const ORIENTATIONS: readonly Orientation[] = ['rows', 'columns'];

/**
 * Shows stacks of experts that are stored [experts, in, out] as [experts, out, in]: `gate_up_proj` [E, H, 2I] (first I
 * columns gate) as [E, 2I, H], `down_proj` [E, I, H] as [E, H, I]. Both dimensions are compared with the config, never
 * which is larger, and both stacks of a layer lie alike: where 2I equals H, `down_proj` tells (I is not H then), because
 * one model type is stored in either way (transformers 5 saves Qwen3-VL-MoE turned from how it was released).
 * Elements keep their type. A matrix is turned as a whole and the last one is kept, so that reads in order turn once.
 *
 * A store without such stacks is returned as it is.
 * @throws InputError naming the tensor whose shape is neither; the store is closed then
 */
export function turnFusedExperts(model: ModelDescription, store: TensorStore): TensorStore {
  const turned = new Map<string, { readonly stored: TensorInfo; readonly shown: TensorInfo }>();
  try {
    for (const [layer, stacks] of stacksByLayer(store)) {
      const mlp = model.layers[layer]?.mlp;
      if (mlp?.kind !== 'moe') continue;
      if (orientationOf(model.hiddenSize, mlp, stacks) === 'rows') continue;
      for (const stored of stacks.values()) {
        const [experts, input, output] = stored.shape;
        turned.set(stored.name, { stored, shown: { ...stored, shape: [experts, output, input] } });
      }
    }
  } catch (error) {
    store.close();
    throw error;
  }
  if (turned.size === 0) return store;
  const tensors = new Map(store.tensors);
  for (const { shown } of turned.values()) tensors.set(shown.name, shown);
  let kept: { readonly stored: TensorInfo; readonly expert: number; readonly bytes: Uint8Array } | undefined;
  const matrix = (stored: TensorInfo, expert: number): Uint8Array => {
    if (kept?.stored === stored && kept.expert === expert) return kept.bytes;
    kept = undefined;
    kept = { stored, expert, bytes: turnedMatrix(store, stored, expert) };
    return kept.bytes;
  };
  return {
    ...store,
    tensors,
    readInto(tensor, start, length, target) {
      const stored = turned.get(tensor.name)?.stored;
      if (!stored) {
        store.readInto(tensor, start, length, target);
        return;
      }
      if (start < 0 || length < 0 || start + length > stored.byteLength || length > target.length) {
        throw new RangeError(`${store.path}: bytes ${start}..${start + length} are not in tensor ${tensor.name}`);
      }
      const size = stored.byteLength / stored.shape[0];
      for (let at = start; at < start + length; ) {
        const expert = Math.floor(at / size);
        const end = Math.min(start + length, (expert + 1) * size);
        target.set(matrix(stored, expert).subarray(at - expert * size, end - expert * size), at - start);
        at = end;
      }
    },
    close: () => store.close(),
  };
}

/** Stacks of each layer by what they are. */
function stacksByLayer(store: TensorStore): Map<number, Map<string, TensorInfo>> {
  const layers = new Map<number, Map<string, TensorInfo>>();
  for (const info of store.tensors.values()) {
    const [, layer, part] = STACK.exec(info.name) ?? [];
    if (layer === undefined) continue;
    const stacks = layers.get(Number(layer)) ?? new Map<string, TensorInfo>();
    layers.set(Number(layer), stacks.set(part, info));
  }
  return layers;
}

/** @throws InputError when the stacks have neither orientation's shape, or not the same one */
function orientationOf(
  hidden: number,
  { experts, width }: MoeMlpDescription,
  stacks: ReadonlyMap<string, TensorInfo>,
): Orientation {
  const shapeOf = (part: string, orientation: Orientation): string => {
    const [out, input] = part === 'down_proj' ? [hidden, width] : [2 * width, hidden];
    return `[${orientation === 'rows' ? [experts, out, input] : [experts, input, out]}]`;
  };
  const fits = (part: string, stack: TensorInfo): Orientation[] =>
    ORIENTATIONS.filter((orientation) => `[${stack.shape}]` === shapeOf(part, orientation));
  for (const [part, stack] of stacks) {
    if (fits(part, stack).length > 0) continue;
    throw new InputError(
      `${stack.file}: tensor "${stack.name}" has shape [${stack.shape}] but the config asks for ` +
        `${shapeOf(part, 'rows')} or ${shapeOf(part, 'columns')}`,
    );
  }
  const found = ORIENTATIONS.find((orientation) =>
    [...stacks].every(([part, stack]) => fits(part, stack).includes(orientation)),
  );
  if (found) return found;
  const [first] = stacks.values();
  const shapes = [...stacks.values()].map(({ name, shape }) => `"${name}" [${shape}]`).join(' and ');
  throw new InputError(`${first.file}: ${shapes} do not lie alike: one has outputs as rows, the other as columns`);
}

/** Bytes of matrix `expert` of a stack [experts, in, out], as [out, in]. */
function turnedMatrix(store: TensorStore, stored: TensorInfo, expert: number): Uint8Array {
  const [experts, rows, columns] = stored.shape;
  const byteLength = stored.byteLength / experts;
  const source = new Uint8Array(byteLength);
  store.readInto(stored, expert * byteLength, byteLength, source);
  const size = isBlockType(stored.dtype) ? 0 : DTYPE_BYTES[stored.dtype as DType];
  const target = new Uint8Array(byteLength);
  if (size === 2) turn(new Uint16Array(source.buffer), rows, columns, new Uint16Array(target.buffer));
  else if (size === 4) turn(new Uint32Array(source.buffer), rows, columns, new Uint32Array(target.buffer));
  else if (size === 8) turn(new BigUint64Array(source.buffer), rows, columns, new BigUint64Array(target.buffer));
  else {
    throw new InputError(
      `${stored.file}: tensor "${stored.name}" is a stack [experts, in, out] of ${stored.dtype}, which cannot be turned`,
    );
  }
  return target;
}

type Elements = Uint16Array | Uint32Array | BigUint64Array;

/** Edge of the squares in which a matrix is turned: both sides of one stay in the cache. */
const TILE = 32;

function turn<T extends Elements>(source: T, rows: number, columns: number, target: T): void {
  for (let r = 0; r < rows; r += TILE) {
    for (let c = 0; c < columns; c += TILE) {
      const lastRow = Math.min(r + TILE, rows);
      const lastColumn = Math.min(c + TILE, columns);
      for (let j = c; j < lastColumn; j++) {
        for (let i = r; i < lastRow; i++) target[j * rows + i] = source[i * columns + j];
      }
    }
  }
}
