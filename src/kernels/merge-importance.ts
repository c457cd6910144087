import { DTYPE_BYTES } from '../formats/tensor.js';
import type { StoredElements } from './merge-dense-reference.js';
import {
  countDigitsReference,
  importancesReference,
  numberOfDigits,
  rowDivergencesReference,
  takeImportantReference,
} from './merge-importance-reference.js';
import { kernelThreads } from './native.js';

/** Values of one digit of a key. */
const DIGIT_VALUES = 65536;
const DIGITS = 4;

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
  kernelThreads(threads);
  const result = new Float64Array(rows);
  rowDivergencesReference(a, b, rows, rows === 0 ? 0 : elements / rows, result);
  return result;
}

/** |b - a| times the divergence of its row, of every element; the difference is rounded to f32 (f64 for F64 inputs). */
export function importances(a: StoredElements, b: StoredElements, divergences: Float64Array): Float64Array {
  const result = new Float64Array(checkPair(a, b, divergences.length));
  importancesReference(a, b, divergences, result);
  return result;
}

/**
 * The importances of {@link importances} at the given 0-based ranks in ascending order, NaN last, exactly and without
 * storing them: four passes that count 16 bits of an ordered key each.
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
  kernelThreads(threads);
  const digits = new Int32Array(DIGITS * ranks.length);
  const below = Float64Array.from(ranks);
  for (let level = 0; level < DIGITS; level++) {
    const counts = new Float64Array(DIGIT_VALUES * ranks.length);
    countDigitsReference(a, b, divergences, digits, level, counts);
    for (let target = 0; target < ranks.length; target++) {
      let digit = 0;
      while (below[target] >= counts[DIGIT_VALUES * target + digit])
        below[target] -= counts[DIGIT_VALUES * target + digit++];
      digits[DIGITS * target + level] = digit;
    }
  }
  return ranks.map((_, target) => numberOfDigits(digits.subarray(DIGITS * target, DIGITS * (target + 1))));
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
  kernelThreads(threads);
  return takeImportantReference(a, b, divergences, threshold, output);
}
