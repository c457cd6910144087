import { DTYPE_BYTES } from '../formats/tensor.js';
import { codeOf, codesOf } from './merge-dense.js';
import { GRAM_BLOCK, pairCount, type StoredElements } from './merge-dense-reference.js';
import {
  badBlocksReference,
  type MeasuredTensors,
  measureBlocksReference,
  measureFields,
} from './merge-measures-reference.js';
import { kernelThreads, nativeKernels } from './native.js';

/** kMostMergeInputs of native/src/merge_dense.hpp; more go through the reference. */
const MOST_TENSORS = 64;

export interface MeasureRequest {
  readonly base?: StoredElements;
  /** All but the base. */
  readonly models: readonly StoredElements[];
  /** With which the models went in; signs of task vectors turn with negative ones. Default 1 each. */
  readonly weights?: readonly number[];
  readonly merged?: StoredElements;
  readonly threads?: number;
}

/** Values that are no numbers, or none that a weight should be. */
export interface BadValues {
  readonly nan: number;
  readonly infinite: number;
  /** Index of the first one; -1 where there is none. */
  readonly first: number;
}

/** Sums over the elements of a tensor or of a part of one; those of parts are added by {@link addMeasures}. */
export interface TensorMeasures {
  readonly elements: number;
  /** theta_0^2, of the base. */
  readonly baseSquares?: number;
  /** theta_i^2 of every model. */
  readonly squares: readonly number[];
  /** delta_i delta_j of pairs (0, 0), (0, 1) ... (1, 1) ... of models: task vectors, without a base the tensors. */
  readonly dots: readonly number[];
  /** Elements where two weighted task vectors (without a base: tensors) have opposite signs. */
  readonly conflicts: number;
  /** Elements where at least two of them are not zero. */
  readonly compared: number;
  readonly mergedSquares?: number;
  /** (merged - base)^2. */
  readonly changeSquares?: number;
  readonly baseBad?: BadValues;
  readonly modelBad: readonly BadValues[];
  readonly mergedBad?: BadValues;
}

function elementsOf(tensors: readonly StoredElements[]): number {
  const [elements = 0, ...others] = tensors.map(({ dtype, bytes }) => bytes.length / DTYPE_BYTES[dtype]);
  for (const other of others) {
    if (other !== elements) throw new RangeError(`tensors of ${elements} and ${other} elements`);
  }
  return elements;
}

/** Blocks [blocks, fields] of which the first `sums` fields and all others but every third from `firsts` on are sums. */
function totalOfBlocks(blocks: Float64Array, fields: number, firsts: number): Float64Array {
  const total = new Float64Array(fields);
  for (let at = firsts + 2; at < fields; at += 3) total[at] = -1;
  for (let begin = 0; begin < blocks.length; begin += fields) {
    for (let field = 0; field < fields; field++) {
      const isFirst = field >= firsts && (field - firsts) % 3 === 2;
      if (!isFirst) total[field] += blocks[begin + field];
      else if (total[field] < 0) total[field] = blocks[begin + field];
    }
  }
  return total;
}

function badAt(total: Float64Array, at: number): BadValues {
  return { nan: total[at], infinite: total[at + 1], first: total[at + 2] };
}

/**
 * Norms and dot products of task vectors (differences from the base, rounded to f32, or to f64 where a tensor is F64),
 * conflicts of sign, the change that a merge made, and values that are NaN or infinite, in one pass over the bytes. Sums
 * are f64 over fixed blocks in a fixed order: the same bits whatever the number of threads and the instruction set.
 * @throws RangeError when lengths disagree
 */
export function measureTensor(request: MeasureRequest): TensorMeasures {
  const { base, models, merged, weights = models.map(() => 1) } = request;
  const tensors = [...(base ? [base] : []), ...models, ...(merged ? [merged] : [])];
  const elements = elementsOf(tensors);
  if (weights.length !== models.length) throw new RangeError(`${weights.length} weights of ${models.length} models`);
  const measured: MeasuredTensors = {
    tensors,
    hasBase: base !== undefined,
    hasMerged: merged !== undefined,
    weights: Float64Array.from(weights),
    elements,
  };
  const fields = measureFields(tensors.length, models.length);
  const blocks = new Float64Array(Math.ceil(elements / GRAM_BLOCK) * fields);
  const native = tensors.length <= MOST_TENSORS ? nativeKernels() : undefined;
  if (native === undefined) measureBlocksReference(measured, blocks);
  else {
    native.mergeMeasure(
      tensors.map((tensor) => tensor.bytes),
      codesOf(tensors),
      elements,
      measured.weights,
      Number(measured.hasBase),
      Number(measured.hasMerged),
      blocks,
      kernelThreads(request.threads),
    );
  }
  const pairs = pairCount(models.length);
  const bad = tensors.length + pairs + 3;
  const total = totalOfBlocks(blocks, fields, bad);
  const first = base === undefined ? 0 : 1;
  const last = tensors.length - 1;
  return {
    elements,
    ...(base && { baseSquares: total[0], baseBad: badAt(total, bad) }),
    squares: [...total.subarray(first, first + models.length)],
    dots: [...total.subarray(tensors.length, tensors.length + pairs)],
    conflicts: total[bad - 2],
    compared: total[bad - 1],
    ...(merged && { mergedSquares: total[last], mergedBad: badAt(total, bad + 3 * last) }),
    ...(merged && base && { changeSquares: total[bad - 3] }),
    modelBad: models.map((_, i) => badAt(total, bad + 3 * (first + i))),
  };
}

function sum(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a + b;
}

function addBad(a: BadValues, b: BadValues, offset: number): BadValues {
  const first = a.first >= 0 ? a.first : b.first >= 0 ? b.first + offset : -1;
  return { nan: a.nan + b.nan, infinite: a.infinite + b.infinite, first };
}

function addOptionalBad(a: BadValues | undefined, b: BadValues | undefined, offset: number): BadValues | undefined {
  return a === undefined || b === undefined ? undefined : addBad(a, b, offset);
}

/** Measures of a part of a tensor and of the part that follows it, of the same models. */
export function addMeasures(a: TensorMeasures, b: TensorMeasures): TensorMeasures {
  return {
    elements: a.elements + b.elements,
    baseSquares: sum(a.baseSquares, b.baseSquares),
    squares: a.squares.map((square, i) => square + b.squares[i]),
    dots: a.dots.map((dot, i) => dot + b.dots[i]),
    conflicts: a.conflicts + b.conflicts,
    compared: a.compared + b.compared,
    mergedSquares: sum(a.mergedSquares, b.mergedSquares),
    changeSquares: sum(a.changeSquares, b.changeSquares),
    baseBad: addOptionalBad(a.baseBad, b.baseBad, a.elements),
    modelBad: a.modelBad.map((bad, i) => addBad(bad, b.modelBad[i], a.elements)),
    mergedBad: addOptionalBad(a.mergedBad, b.mergedBad, a.elements),
  };
}

/** Values that are NaN or infinite: how many, and the index of the first. */
export function nonFinite(tensor: StoredElements, threads?: number): BadValues {
  const elements = elementsOf([tensor]);
  const blocks = new Float64Array(3 * Math.ceil(elements / GRAM_BLOCK));
  const native = nativeKernels();
  if (native === undefined) badBlocksReference(tensor, elements, blocks);
  else native.mergeBadValues(tensor.bytes, codeOf(tensor), elements, blocks, kernelThreads(threads));
  return badAt(totalOfBlocks(blocks, 3, 0), 0);
}
