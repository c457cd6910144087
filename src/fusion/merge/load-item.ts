import { DTYPE_BYTES } from '../../formats/tensor.js';
import type { BufferPool } from './buffer-pool.js';
import { rowElements } from './source.js';
import type { MergeInput, MergePlan, MergeSource, TensorBytes } from './types.js';
import type { WorkItem } from './work-plan.js';

/** Which rows of which tensor of the plan. */
export type ItemRows = Pick<WorkItem, 'tensor' | 'from' | 'to'>;

/** An item whose inputs are in memory. */
export interface LoadedItem {
  readonly item: ItemRows;
  readonly inputs: readonly MergeInput[];
  readonly buffers: readonly Uint8Array[];
}

/** Reads the rows of all inputs of an item. */
export async function loadItem(
  { plan, sources }: { readonly plan: MergePlan; readonly sources: readonly MergeSource[] },
  pool: BufferPool,
  item: ItemRows,
): Promise<LoadedItem> {
  const tensor = plan.tensors[item.tensor];
  const buffers: Uint8Array[] = [];
  const reads = tensor.inputs.map(async ({ model, tensor: name, parameters }, i): Promise<MergeInput> => {
    const source = sources[model];
    const stored = source.tensors.get(name);
    if (stored === undefined) throw new RangeError(`${source.reference.text}: no tensor ${name}`);
    const length = (item.to - item.from) * rowElements(stored.shape) * DTYPE_BYTES[stored.dtype];
    const bytes = pool.take(length, source.phase?.(name, item.from));
    buffers.push(bytes);
    await source.read(name, item.from, item.to, bytes);
    const shape = shapeOfRows(tensor.shape, item);
    const kept = cutColumns({ dtype: stored.dtype, shape: shapeOfRows(stored.shape, item), bytes }, shape);
    return { model: source.reference.text, isBase: i === tensor.base, tensor: kept, parameters };
  });
  return { item, inputs: await Promise.all(reads), buffers };
}

/** The shape of the rows of an item. */
export function shapeOfRows(shape: readonly number[], { from, to }: Pick<WorkItem, 'from' | 'to'>): number[] {
  return shape.length === 0 ? [] : [to - from, ...shape.slice(1)];
}

/** The first columns of a matrix that is wider than what is merged of it: vocabulary tensors of models that differ. */
function cutColumns(tensor: TensorBytes, shape: readonly number[]): TensorBytes {
  const [rows, columns] = shape;
  const [, wide] = tensor.shape;
  if (tensor.shape.length !== 2 || wide === columns) return { ...tensor, shape };
  const width = DTYPE_BYTES[tensor.dtype];
  const bytes = new Uint8Array(rows * columns * width);
  for (let row = 0; row < rows; row++) {
    const from = row * wide * width;
    bytes.set(tensor.bytes.subarray(from, from + columns * width), row * columns * width);
  }
  return { dtype: tensor.dtype, shape, bytes };
}
