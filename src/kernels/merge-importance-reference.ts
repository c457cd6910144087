import { DTYPE_BYTES } from '../formats/tensor.js';
import type { StoredElements } from './merge-dense-reference.js';
import { computeRounding, loadElements, storeElements } from './merge-elements-reference.js';

// ln 2 in two parts, the first with zeros behind so that its products with small integers are exact.
const LN2_HIGH = 0.6931471803691238;
const LN2_LOW = 1.9082149292705877e-10;
/** Adding and taking away 1.5 * 2^52 rounds to an integer. */
const ROUND = 6755399441055744;
const EXP_DEGREE = 13;
const EXP_LEAST = -708;
const LOG_TERMS = 11;
/** Added to the probabilities of a softmax before their ratio is taken. */
export const DIVERGENCE_FLOOR = 1e-8;

/** 1 / k!, each from the one before. */
const inverseFactorials = new Float64Array(EXP_DEGREE + 1).fill(1);
let factorial = 1;
for (let k = 1; k <= EXP_DEGREE; k++) {
  factorial *= k;
  inverseFactorials[k] = 1 / factorial;
}
/** 2 ** -k, exactly. */
const halvings = new Float64Array(1023).fill(1);
for (let k = 1; k < halvings.length; k++) halvings[k] = halvings[k - 1] / 2;

const scratch = new Float64Array(1);
const words = new Uint32Array(scratch.buffer);

/** e^x for x <= 0, within 2 ulp; 0 below -708. The same bits as the native kernel: products and sums rounded singly. */
function expNonPositive(x: number): number {
  if (x < EXP_LEAST) return 0;
  const n = x * Math.LOG2E + ROUND - ROUND;
  const r = x - n * LN2_HIGH - n * LN2_LOW;
  let p = inverseFactorials[EXP_DEGREE];
  for (let k = EXP_DEGREE - 1; k >= 0; k--) p = p * r + inverseFactorials[k];
  return Number.isNaN(x) ? x : p * halvings[-n];
}

/** ln x for normal x > 0, within 2 ulp: x = 2^k (1 + f), and s = f / (2 + f) in the series of the inverse hyperbolic tangent. */
function logPositive(x: number): number {
  if (Number.isNaN(x)) return x;
  scratch[0] = x;
  const biased = (words[1] - 0x3fe6a09e + 0x3ff00000) >>> 20;
  words[1] = words[1] - (biased << 20) + 0x3ff00000;
  const f = scratch[0] - 1;
  const s = f / (f + 2);
  const z = s * s;
  let series = 2 / (2 * LOG_TERMS + 1);
  for (let k = LOG_TERMS - 1; k >= 1; k--) series = series * z + 2 / (2 * k + 1);
  const k = biased - 1023;
  return k * LN2_LOW + (f - s * (f - z * series)) + k * LN2_HIGH;
}

const LANES = 8;

function sumOfLanes(lanes: Float64Array): number {
  for (let width = LANES / 2; width >= 1; width /= 2) {
    for (let lane = 0; lane < width; lane++) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

/** Exponentials of x minus its largest entry, in place; the inverse of their sum. */
function exponentials(x: Float64Array): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (const value of x) if (value > largest) largest = value;
  const lanes = new Float64Array(LANES);
  for (let i = 0; i < x.length; i++) {
    x[i] = expNonPositive(x[i] - largest);
    lanes[i % LANES] += x[i];
  }
  return 1 / sumOfLanes(lanes);
}

/** `rowDivergences` in plain TypeScript: the same bits. */
export function rowDivergencesReference(
  a: StoredElements,
  b: StoredElements,
  rows: number,
  columns: number,
  target: Float64Array,
): void {
  const [q, p] = [new Float64Array(columns), new Float64Array(columns)];
  for (let row = 0; row < rows; row++) {
    loadElements(a.bytes, a.dtype, row * columns, columns, q);
    loadElements(b.bytes, b.dtype, row * columns, columns, p);
    const [scaleQ, scaleP] = [exponentials(q), exponentials(p)];
    const lanes = new Float64Array(LANES);
    for (let i = 0; i < columns; i++) {
      const above = p[i] * scaleP + DIVERGENCE_FLOOR;
      lanes[i % LANES] += above * logPositive(above / (q[i] * scaleQ + DIVERGENCE_FLOOR));
    }
    target[row] = sumOfLanes(lanes);
  }
}

/** Rows of importances |b - a| times the divergence of the row, one after the other. */
function forEachRow(
  a: StoredElements,
  b: StoredElements,
  divergences: Float64Array,
  use: (importance: Float64Array, row: number, base: Float64Array, other: Float64Array) => void,
): void {
  const round = computeRounding([a.dtype, b.dtype]);
  const columns = divergences.length === 0 ? 0 : a.bytes.length / DTYPE_BYTES[a.dtype] / divergences.length;
  const [x, y, importance] = [0, 1, 2].map(() => new Float64Array(columns));
  for (let row = 0; row < divergences.length; row++) {
    loadElements(a.bytes, a.dtype, row * columns, columns, x);
    loadElements(b.bytes, b.dtype, row * columns, columns, y);
    for (let i = 0; i < columns; i++) importance[i] = Math.abs(round(y[i] - x[i])) * divergences[row];
    use(importance, row, x, y);
  }
}

/** `importances` in plain TypeScript: the same bits. */
export function importancesReference(
  a: StoredElements,
  b: StoredElements,
  divergences: Float64Array,
  target: Float64Array,
): void {
  forEachRow(a, b, divergences, (importance, row) => target.set(importance, row * importance.length));
}

/**
 * Digit `digit` (0 the highest of four, 16 bits each) of the ordered 64-bit key of a number: keys compare as numbers do,
 * NaN above all.
 */
export function keyDigits(value: number): [number, number, number, number] {
  scratch[0] = Number.isNaN(value) ? Number.NaN : value;
  let [low, high] = words;
  if (high >>> 31 === 1) {
    high = ~high;
    low = ~low;
  } else high ^= 0x80000000;
  return [(high >>> 16) & 0xffff, high & 0xffff, (low >>> 16) & 0xffff, low & 0xffff];
}

/** The number with these digits of its key. */
export function numberOfDigits(digits: ArrayLike<number>): number {
  let high = ((digits[0] << 16) | digits[1]) >>> 0;
  let low = ((digits[2] << 16) | digits[3]) >>> 0;
  if (high >>> 31 === 1) high = (high ^ 0x80000000) >>> 0;
  else {
    high = ~high >>> 0;
    low = ~low >>> 0;
  }
  words[0] = low;
  words[1] = high;
  return scratch[0];
}

/**
 * How many importances have which digit `level` among those whose digits before it are the target's: counts
 * [targets, 65536]. `digits` is [targets, 4].
 */
export function countDigitsReference(
  a: StoredElements,
  b: StoredElements,
  divergences: Float64Array,
  digits: Int32Array,
  level: number,
  counts: Float64Array,
): void {
  const targets = digits.length / 4;
  forEachRow(a, b, divergences, (importance) => {
    for (const value of importance) {
      const key = keyDigits(value);
      for (let target = 0; target < targets; target++) {
        let same = true;
        for (let before = 0; before < level; before++) same &&= key[before] === digits[4 * target + before];
        if (same) counts[65536 * target + key[level]]++;
      }
    }
  });
}

/** `takeImportant` in plain TypeScript: the same bits. */
export function takeImportantReference(
  a: StoredElements,
  b: StoredElements,
  divergences: Float64Array,
  threshold: number,
  output: StoredElements,
): number {
  let taken = 0;
  forEachRow(a, b, divergences, (importance, row, base, other) => {
    for (let i = 0; i < importance.length; i++) {
      if (!(importance[i] >= threshold)) continue;
      base[i] = other[i];
      taken++;
    }
    storeElements(base, output.dtype, row * base.length, base.length, output.bytes);
  });
  return taken;
}
