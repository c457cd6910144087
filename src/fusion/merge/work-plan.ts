import { InputError } from '../../errors.js';
import { DTYPE_BYTES, elementCount } from '../../formats/tensor.js';
import { rowCount, rowElements } from './source.js';
import type { MergePlan, MergeSource, MergeSpan, PlannedTensor } from './types.js';

/** Rows [from, to) of a tensor of the output: what one call of a method works on. */
export interface WorkItem {
  /** Index into the tensors of the plan. */
  readonly tensor: number;
  readonly from: number;
  readonly to: number;
  /** Inputs, output and what the method takes beside. */
  readonly bytes: number;
  readonly last: boolean;
}

export interface WorkPlan {
  /** In the order of the files of the first input of each tensor. */
  readonly items: readonly WorkItem[];
  /** Bytes of buffers at most: the largest item, and others beside it as far as memory allows. */
  readonly peakBytes: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly elements: number;
}

/** Rows of tensors that may be cut are taken in blocks of about this many bytes: enough for kernels, little beside memory. */
const BLOCK_BYTES = 192 << 20;
/** Items whose buffers exist at a time: one is read, one merged, one written. */
export const STAGES = 3;

/** Where an input lies, so that files are read front to back. */
export type PlaceOf = (model: number, tensor: string) => { readonly file: string; readonly offset: number } | undefined;

export interface WorkLimits {
  /** Bytes that buffers may take. */
  readonly memoryBytes: number;
  readonly placeOf: PlaceOf;
  /** Bytes that measuring `rows` rows of a tensor takes beside the merge. */
  readonly beside: (tensor: PlannedTensor, rows: number) => number;
}

/** Bytes of an item of `rows` rows. */
function itemBytes(
  plan: MergePlan,
  sources: readonly MergeSource[],
  tensor: PlannedTensor,
  rows: number,
  beside: number,
): number {
  const elements = rows * rowElements(tensor.shape);
  let bytes = elements * DTYPE_BYTES[tensor.dtype];
  for (const { model, tensor: name } of tensor.inputs) {
    const stored = sources[model].tensors.get(name);
    if (stored) bytes += rows * rowElements(stored.shape) * DTYPE_BYTES[stored.dtype];
  }
  return bytes + beside + plan.method.workBytes(elements, tensor.inputs.length);
}

/** Methods that see rows may be given a matrix in bands of rows; a vector is one row. */
function divisible(span: MergeSpan, shape: readonly number[]): boolean {
  return span === 'element' || (span === 'row' && shape.length >= 2);
}

/**
 * Cuts a merge into items and orders them by the files of their first inputs.
 * @throws InputError naming the tensor when one that cannot be cut exceeds `memoryBytes`
 */
export function planWork(
  plan: MergePlan,
  sources: readonly MergeSource[],
  { memoryBytes, placeOf, beside }: WorkLimits,
): WorkPlan {
  const target = Math.min(BLOCK_BYTES, memoryBytes / STAGES);
  const items: WorkItem[] = [];
  let largest = 0;
  let bytesRead = 0;
  let bytesWritten = 0;
  let elements = 0;
  for (const index of inFileOrder(plan, placeOf)) {
    const tensor = plan.tensors[index];
    const rows = rowCount(tensor.shape);
    const whole = itemBytes(plan, sources, tensor, rows, beside(tensor, rows));
    const cut = divisible(plan.method.span(tensor.parameters), tensor.shape) && rows > 1;
    if (!cut && whole > memoryBytes) throw tooLarge(plan, tensor, whole, memoryBytes);
    const perRow = rows > 0 ? whole / rows : 0;
    const step = cut ? Math.max(1, Math.min(rows, Math.floor(target / Math.max(1, perRow)))) : Math.max(1, rows);
    for (let from = 0; from === 0 || from < rows; from += step) {
      const to = Math.min(rows, from + step);
      const bytes = itemBytes(plan, sources, tensor, to - from, beside(tensor, to - from));
      largest = Math.max(largest, bytes);
      items.push({ tensor: index, from, to, bytes, last: to === rows });
    }
    const output = elementCount(tensor.shape);
    elements += output;
    bytesWritten += output * DTYPE_BYTES[tensor.dtype];
    for (const { model, tensor: name } of tensor.inputs) {
      const stored = sources[model].tensors.get(name);
      if (stored) bytesRead += rows * rowElements(stored.shape) * DTYPE_BYTES[stored.dtype];
    }
  }
  const peakBytes = Math.max(largest, Math.min(memoryBytes, largest * STAGES));
  return { items, peakBytes, bytesRead, bytesWritten, elements };
}

function tooLarge(plan: MergePlan, tensor: PlannedTensor, needed: number, memoryBytes: number): InputError {
  const mib = (bytes: number): number => Math.ceil(bytes / 2 ** 20);
  return new InputError(
    `--max-memory: ${plan.method.name} must see tensor ${tensor.name} as a whole, which takes ${mib(needed)} MiB of the ` +
      `${mib(memoryBytes)} MiB that buffers may take: allow more memory, or choose a method that works in blocks (linear, task_arithmetic)`,
  );
}

/** Indices of the plan's tensors in the order in which their first inputs lie in the files. */
function inFileOrder(plan: MergePlan, placeOf: PlaceOf): number[] {
  const keys = plan.tensors.map((tensor, index) => {
    const [first] = tensor.inputs;
    const place = first && placeOf(first.model, first.tensor);
    return { index, model: first?.model ?? 0, file: place?.file ?? '', offset: place?.offset ?? 0 };
  });
  const byText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
  keys.sort((a, b) => a.model - b.model || byText(a.file, b.file) || a.offset - b.offset || a.index - b.index);
  return keys.map(({ index }) => index);
}
