import { DTYPE_BYTES } from '../formats/tensor.js';
import { codeOf } from './merge-dense.js';
import type { StoredElements } from './merge-dense-reference.js';
import {
  countDigitsReference,
  importancesReference,
  numberOfDigits,
  rowDivergencesReference,
  takeImportantReference,
} from './merge-importance-reference.js';
import { kernelThreads, nativeKernels } from './native.js';

/** Values of one digit of a key. */
const DIGIT_VALUES = 65536;
const DIGITS = 4;

/** Tensors up to this size are sorted: counting digits would cost more. */
const SORTED_ELEMENTS = 1 << 17;

/** kMostRanks of native/src/merge_importance.hpp; more go through the reference. */
const MOST_RANKS = 3;

function pairOf(a: StoredElements, b: StoredElements): readonly [Uint8Array, number, Uint8Array, number] {
  return [a.bytes, codeOf(a), b.bytes, codeOf(b)];
}

/** Rows and columns of a tensor with a divergence for every row. */
function shapeOf(a: StoredElements, divergences: Float64Array): readonly [number, number] {
  const rows = divergences.length;
  return [rows, rows === 0 ? 0 : a.bytes.length / DTYPE_BYTES[a.dtype] / rows];
}

function checkPair(a: StoredElements, b: StoredElements, rows: number): number {
  const elements = a.bytes.length / DTYPE_BYTES[a.dtype];
  if (b.bytes.length / DTYPE_BYTES[b.dtype] !== elements || (rows === 0 ? elements !== 0 : elements % rows !== 0)) {
    throw new RangeError(`${a.bytes.length} bytes of ${a.dtype} and ${b.bytes.length} of ${b.dtype} in ${rows} rows`);
  }
  return elements;
}

/**
 * Kullback-Leibler divergence in nats of every row of b from that of a, both as softmax over the row plus 1e-8 (not
 * normalised again): [rows]. The same bits whatever the number of threads and the instruction set.
 * @throws RangeError when lengths disagree
 */
export function rowDivergences(a: StoredElements, b: StoredElements, rows: number, threads?: number): Float64Array {
  const elements = checkPair(a, b, rows);
  const result = new Float64Array(rows);
  const columns = rows === 0 ? 0 : elements / rows;
  const native = nativeKernels();
  if (native === undefined) rowDivergencesReference(a, b, rows, columns, result);
  else native.mergeRowDivergences(...pairOf(a, b), rows, columns, result, kernelThreads(threads));
  return result;
}

/** |b - a| times the divergence of its row, of every element; the difference is rounded to f32 (f64 for F64 inputs). */
export function importances(
  a: StoredElements,
  b: StoredElements,
  divergences: Float64Array,
  threads?: number,
): Float64Array {
  const elements = checkPair(a, b, divergences.length);
  const result = new Float64Array(elements);
  const native = nativeKernels();
  if (native === undefined) importancesReference(a, b, divergences, result);
  else
    native.mergeImportances(...pairOf(a, b), ...shapeOf(a, divergences), divergences, result, kernelThreads(threads));
  return result;
}

/**
 * The importances of {@link importances} at the given 0-based ranks in ascending order, NaN last, exactly.
 * @throws RangeError for a rank outside the tensor
 */
export function importancesAtRanks(
  a: StoredElements,
  b: StoredElements,
  divergences: Float64Array,
  ranks: readonly number[],
  threads?: number,
): number[] {
  const elements = checkPair(a, b, divergences.length);
  if (ranks.some((rank) => !(rank >= 0 && rank < elements))) throw new RangeError(`ranks ${ranks} of ${elements}`);
  if (elements > SORTED_ELEMENTS) return importancesByDigits(a, b, divergences, ranks, threads);
  const sorted = importances(a, b, divergences, threads).sort();
  return ranks.map((rank) => sorted[rank]);
}

/** {@link importancesAtRanks} without storing importances: four passes that count 16 bits of an ordered key each. */
export function importancesByDigits(
  a: StoredElements,
  b: StoredElements,
  divergences: Float64Array,
  ranks: readonly number[],
  threads?: number,
): number[] {
  const digits = new Int32Array(DIGITS * ranks.length);
  const below = Float64Array.from(ranks);
  for (let level = 0; level < DIGITS; level++) {
    const counts = countsOfDigit(a, b, divergences, digits, level, threads);
    for (let target = 0; target < ranks.length; target++) {
      let at = DIGIT_VALUES * target;
      while (below[target] >= counts[at]) below[target] -= counts[at++];
      digits[DIGITS * target + level] = at - DIGIT_VALUES * target;
    }
  }
  return ranks.map((_, target) => numberOfDigits(digits.subarray(DIGITS * target, DIGITS * (target + 1))));
}

function countsOfDigit(
  a: StoredElements,
  b: StoredElements,
  divergences: Float64Array,
  digits: Int32Array,
  level: number,
  threads?: number,
): Float64Array {
  const targets = digits.length / DIGITS;
  const counts = new Float64Array(DIGIT_VALUES * targets);
  const native = targets <= MOST_RANKS ? nativeKernels() : undefined;
  if (native === undefined) countDigitsReference(a, b, divergences, digits, level, counts);
  else {
    const shape = shapeOf(a, divergences);
    const search = [divergences, digits, level] as const;
    native.mergeCountDigits(...pairOf(a, b), ...shape, ...search, counts, kernelThreads(threads));
  }
  return counts;
}

/** b where the importance is at least `threshold`, a elsewhere; how many elements were b's. */
export function takeImportant(
  a: StoredElements,
  b: StoredElements,
  divergences: Float64Array,
  threshold: number,
  output: StoredElements,
  threads?: number,
): number {
  const elements = checkPair(a, b, divergences.length);
  if (output.bytes.length !== elements * DTYPE_BYTES[output.dtype])
    throw new RangeError('the output differs in length');
  const native = nativeKernels();
  if (native === undefined) return takeImportantReference(a, b, divergences, threshold, output);
  const into = [output.bytes, codeOf(output), kernelThreads(threads)] as const;
  return native.mergeTakeImportant(...pairOf(a, b), ...shapeOf(a, divergences), divergences, threshold, ...into);
}
