/**
 * Order statistics without sorting: values are told apart by their bits, ordered as the values are, 16 at a time. In memory a
 * first histogram leaves one bin a rank, in which the rank is selected; for values that do not fit, the histogram and the
 * gathering of bins are there on their own (`src/linalg/streamed-selection.ts`). Results are exact, so they depend on nothing
 * but the values.
 */
import { kernelThreads, nativeKernels } from './native.js';
import {
  countDigitsReference,
  DIGIT_BINS,
  DIGITS,
  gatherPrefixesReference,
  selectRanksReference,
} from './rank-selection-reference.js';

export { DIGIT_BINS, DIGITS } from './rank-selection-reference.js';

function checkMask(values: Float64Array, mask: Uint8Array | undefined): void {
  if (mask !== undefined && mask.length !== values.length) {
    throw new RangeError(`${mask.length} mask entries for ${values.length} values`);
  }
}

/**
 * Adds the digit `digit` (0 the highest of `DIGITS`) of every value whose digits before are one of `prefixes` to `counts`
 * [prefixes, DIGIT_BINS]; digit 0 has one table and no prefixes. -0 counts as 0. Values under a mask of 0 are not looked at.
 * @returns position of the first NaN, or -1.
 */
export function countDigits(
  values: Float64Array,
  mask: Uint8Array | undefined,
  prefixes: Float64Array,
  digit: number,
  counts: Float64Array,
): number {
  checkMask(values, mask);
  if (!(digit >= 0 && digit < DIGITS) || counts.length < DIGIT_BINS * (digit === 0 ? 1 : prefixes.length)) {
    throw new RangeError(`digit ${digit} of ${prefixes.length} prefixes does not fit ${counts.length} counts`);
  }
  const native = nativeKernels();
  if (native === undefined) return countDigitsReference(values, mask, prefixes, digit, counts);
  return native.countDigits(values, mask ?? null, prefixes, digit, counts);
}

/**
 * Writes every value whose first `digits` digits are one of `prefixes` (all values where `digits` is 0) to `into` from `at`
 * on, in order, -0 as 0.
 * @returns the position behind the last, beyond the end of `into` where they do not fit; -1 for a NaN where `digits` is 0.
 */
export function gatherPrefixes(
  values: Float64Array,
  mask: Uint8Array | undefined,
  prefixes: Float64Array,
  digits: number,
  into: Float64Array,
  at: number,
): number {
  checkMask(values, mask);
  const native = nativeKernels();
  if (native === undefined) return gatherPrefixesReference(values, mask, prefixes, digits, into, at);
  return native.gatherPrefixes(values, mask ?? null, prefixes, digits, into, at);
}

/**
 * Order statistics of values that are in memory and hold no NaN and no -0.
 * @param ranks positions in rising order of the values, from 0, themselves rising.
 * @returns [ranks, 3]: the value, how many are smaller, how many are equal to it.
 */
export function selectRanks(values: Float64Array, ranks: Float64Array, threads?: number): Float64Array {
  for (let r = 0; r < ranks.length; r++) {
    if (!(Number.isInteger(ranks[r]) && ranks[r] >= (r === 0 ? 0 : ranks[r - 1]) && ranks[r] < values.length)) {
      throw new RangeError(`rank ${ranks[r]} of ${values.length} values, or ranks that fall`);
    }
  }
  const found = new Float64Array(3 * ranks.length);
  const native = nativeKernels();
  if (native === undefined) selectRanksReference(values, ranks, found);
  else native.selectRanks(values, ranks, found, kernelThreads(threads));
  return found;
}
