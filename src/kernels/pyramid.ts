import { InputError } from '../errors.js';

/** Points of a pyramid P(D, K): integer vectors of D coordinates whose absolute values sum to K. */
export interface PyramidShape {
  /** D, weights of a group. */
  readonly groupLength: number;
  /** K, pulses of a group. */
  readonly pulses: number;
  /** Groups whose indices share one mixed-radix word; 1 stores every index in a word of its own. */
  readonly superGroup: number;
}

/** How a group of weights is stored: a point of a pyramid and the code of a gain. */
export interface PyramidCode extends PyramidShape {
  /** Bits of the gain's code, 0 to 8. */
  readonly gainBits: number;
}

/** Rows [rows, columns] of a matrix as stored. Groups run along a row; the last one is padded with zeros. */
export interface EncodedRows {
  readonly rows: number;
  readonly columns: number;
  readonly code: PyramidCode;
  /** Packed indices, `rowIndexBytes(code, groups)` a row. */
  readonly index: Uint8Array;
  /** Packed gain codes, `rowCodeBytes(gainBits, groups)` a row; empty when there are no gain bits. */
  readonly gain: Uint8Array;
  /** Row scales, already rounded to what is stored (f16, or f32 where f16 cannot hold one). */
  readonly scales: Float32Array;
  /** Gain levels, 2^gainBits of them, ascending; as f32. */
  readonly levels: Float32Array;
  /**
   * One bit a group, set where the group is exactly zero, `rowCodeBytes(1, groups)` a row; absent where zero groups are
   * coded like all others.
   */
  readonly zeroGroups?: Uint8Array;
}

/** Pulses are held in 16 bits. */
export const MOST_PULSES = 32767;

/** The most bits of a gain's code. */
export const LARGEST_GAIN_BITS = 8;

function requireCount(value: number, name: string, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new InputError(`${name} is ${value}: it must be a whole number, ${least} at least`);
  }
}

/**
 * N(D, K), the number of points of P(D, K): sum over j = 1..min(D, K) of 2^j C(D, j) C(K-1, j-1), the words with j
 * coordinates that are not zero; 1 for K = 0, and 0 for D = 0 with K > 0 (Fischer 1986).
 * @throws InputError when D or K is negative or not whole
 */
export function pyramidCount(D: number, K: number): bigint {
  requireCount(D, 'D', 0);
  requireCount(K, 'K', 0);
  if (K === 0) return 1n;
  const most = Math.min(D, K);
  let term = 2n * BigInt(D);
  let sum = 0n;
  for (let j = 1; j <= most; j++) {
    sum += term;
    term = (term * 2n * BigInt(D - j) * BigInt(K - j)) / (BigInt(j + 1) * BigInt(j));
  }
  return sum;
}

/** How many binary digits a number has, 0 for 0. */
export function bitLength(value: bigint): number {
  if (value === 0n) return 0;
  const digits = value.toString(16);
  return 4 * digits.length - Math.clz32(Number.parseInt(digits[0], 16)) + 28;
}

/** Bits of a fixed-length index of one of `count` things: the bit length of count - 1. */
export function indexBits(count: bigint): number {
  return bitLength(count - 1n);
}

/** log2 of a positive big integer from its top 53 bits; -Infinity for 0. */
export function log2Big(value: bigint): number {
  const shift = Math.max(0, bitLength(value) - 53);
  return Math.log2(Number(value >> BigInt(shift))) + shift;
}

/** log2 N(D, K) in bits, right also where N exceeds every double; -Infinity for the empty pyramid (D = 0, K > 0). */
export function pyramidLog2(D: number, K: number): number {
  return log2Big(pyramidCount(D, K));
}

/**
 * @throws InputError when D < 1, K < 1 or above {@link MOST_PULSES}, or the super-group is not a whole number of 1 or more
 */
export function checkShape(shape: PyramidShape): void {
  requireCount(shape.groupLength, 'D', 1);
  requireCount(shape.pulses, 'K', 1);
  requireCount(shape.superGroup, 'the number of groups of a super-group', 1);
  if (shape.pulses > MOST_PULSES)
    throw new InputError(`K is ${shape.pulses}: pulses are held in 16 bits, so ${MOST_PULSES} at most`);
}

const KEPT_WORDS = 64;
const knownWordBits = new Map<string, number>();

/** Bits of a word that holds the indices of `groups` groups in mixed radix: the bit length of N^groups - 1. */
export function wordBits(shape: PyramidShape, groups = shape.superGroup): number {
  const { groupLength: D, pulses: K } = shape;
  // Rows are read one by one where embeddings are: the count is not taken anew for each.
  const key = `${D},${K},${groups},${shape.superGroup}`;
  const known = knownWordBits.get(key);
  if (known !== undefined) return known;
  checkShape(shape);
  requireCount(groups, 'the number of groups of a word', 0);
  const bits = indexBits(pyramidCount(D, K) ** BigInt(groups));
  if (knownWordBits.size >= KEPT_WORDS) knownWordBits.clear();
  knownWordBits.set(key, bits);
  return bits;
}

/** How many groups of D weights a row of `columns` weights takes; the last may be padded with zeros. */
export function rowGroups(columns: number, D: number): number {
  return Math.ceil(columns / D);
}

/** Bytes of a row of packed indices: words of full super-groups, one shorter word for the rest, padded to a byte. */
export function rowIndexBytes(shape: PyramidShape, groups: number): number {
  const whole = Math.floor(groups / shape.superGroup);
  const bits = whole * wordBits(shape) + wordBits(shape, groups - whole * shape.superGroup);
  return Math.ceil(bits / 8);
}

/** Bytes of a row of `groups` codes of `bits` bits each, padded to a byte. */
export function rowCodeBytes(bits: number, groups: number): number {
  return Math.ceil((bits * groups) / 8);
}

/**
 * The largest K, {@link MOST_PULSES} at most, whose indices take `bits` bits at most. All K of D = 1 give the same two
 * points, so there it is 1.
 * @throws InputError when the indices of one pulse take more
 */
export function largestPulses(D: number, bits: number): number {
  requireCount(D, 'D', 1);
  const fits = (K: number): boolean => indexBits(pyramidCount(D, K)) <= bits;
  if (!fits(1)) {
    const needed = indexBits(pyramidCount(D, 1));
    throw new InputError(
      `an index of P(${D}, 1), the smallest pyramid of ${D} weights, takes ${needed} bits, more than ${bits}`,
    );
  }
  if (D === 1) return 1;
  let low = 1;
  let high = MOST_PULSES + 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (fits(middle)) low = middle;
    else high = middle;
  }
  return low;
}

/**
 * Checks that an index of the shape's pyramid fits a word of `bits` bits.
 * @throws InputError with the bits that it takes and the largest K that would fit
 */
export function checkIndexFits(D: number, K: number, bits: number): void {
  const needed = indexBits(pyramidCount(D, K));
  if (needed <= bits) return;
  const largest = largestPulses(D, bits);
  throw new InputError(
    `K = ${K} overflows the index word: an index of P(${D}, ${K}) takes ${needed} bits, more than ${bits}; the largest K of D = ${D} is ${largest}`,
  );
}
