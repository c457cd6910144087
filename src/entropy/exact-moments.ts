import { InputError, RunError } from '../errors.js';
import { symmetricEigenvalues } from '../linalg/symmetric-eigenvalues.js';
import { type SpectrumMeasures, spectrumMeasures } from './layer-measures.js';

/**
 * Second moments of hidden states whose total does not depend on the order or the grouping of the additions: each
 * document window gives one matrix of sums of products, which enters as a whole number and a count of 2^-44. Integers
 * below 2^53 add without rounding, so shards unite to the same bits. The grid, 6e-14, is far below what rounding to f32
 * does to the states.
 */
export interface ExactMoments {
  readonly width: number;
  rows: number;
  /** Lower triangle, packed by rows, of the sum of outer products; then the sum of the states. */
  readonly whole: Float64Array;
  readonly fraction: Float64Array;
  /** Additions since the fractions were last carried. */
  pending: number;
}

const FRACTION = 2 ** 44;
/** Fractions are below 2^43 each, so that so many stay below 2^53. */
const MOST_PENDING = 512;
const LARGEST_WHOLE = 2 ** 53;

function triangle(width: number): number {
  return (width * (width + 1)) / 2;
}

/** Bytes of the moments of one layer. */
export function momentBytes(width: number): number {
  return 16 * (triangle(width) + width);
}

export function createExactMoments(width: number): ExactMoments {
  const cells = triangle(width) + width;
  return { width, rows: 0, whole: new Float64Array(cells), fraction: new Float64Array(cells), pending: 0 };
}

/** Brings every fraction into [-1/2, 1/2]; the value is unchanged and its form unique. */
function carry(moments: ExactMoments): void {
  const { whole, fraction } = moments;
  for (let i = 0; i < whole.length; i++) {
    const full = Math.round(fraction[i] / FRACTION);
    whole[i] += full;
    fraction[i] -= full * FRACTION;
    if (!(Math.abs(whole[i]) < LARGEST_WHOLE)) {
      throw new RunError('hidden states are too large for their second moments (sums of squares above 9e15)');
    }
  }
  moments.pending = 0;
}

/**
 * Adds the states of one window, `[rows, width]` row-major. A window must always be added whole: the sum of its products
 * is rounded once.
 * @param scratch `[triangle + width]`, overwritten
 */
export function addWindowMoments(
  moments: ExactMoments,
  states: Float32Array | Float64Array,
  scratch: Float64Array = new Float64Array(moments.whole.length),
): void {
  const { width, whole, fraction } = moments;
  const rows = states.length / width;
  const sums = triangle(width);
  scratch.fill(0);
  let row = 0;
  // Four rows at a time: the triangle passes through the cache a quarter as often.
  for (; row + 4 <= rows; row += 4) {
    const a = row * width;
    const b = a + width;
    const c = b + width;
    const d = c + width;
    for (let i = 0, at = 0; i < width; at += ++i) {
      const ai = states[a + i];
      const bi = states[b + i];
      const ci = states[c + i];
      const di = states[d + i];
      scratch[sums + i] += ai + bi + ci + di;
      for (let j = 0; j <= i; j++) {
        scratch[at + j] += ai * states[a + j] + bi * states[b + j] + ci * states[c + j] + di * states[d + j];
      }
    }
  }
  for (; row < rows; row++) {
    const a = row * width;
    for (let i = 0, at = 0; i < width; at += ++i) {
      const ai = states[a + i];
      scratch[sums + i] += ai;
      for (let j = 0; j <= i; j++) scratch[at + j] += ai * states[a + j];
    }
  }
  for (let i = 0; i < scratch.length; i++) {
    const full = Math.round(scratch[i]);
    whole[i] += full;
    fraction[i] += Math.round((scratch[i] - full) * FRACTION);
  }
  moments.rows += rows;
  if (++moments.pending >= MOST_PENDING) carry(moments);
}

/** Adds `other` into `moments`, exactly. */
export function mergeExactMoments(moments: ExactMoments, other: ExactMoments): void {
  if (moments.width !== other.width) throw new RangeError(`widths ${moments.width} and ${other.width} do not fit`);
  carry(other);
  const { whole, fraction } = moments;
  for (let i = 0; i < whole.length; i++) {
    whole[i] += other.whole[i];
    fraction[i] += other.fraction[i];
  }
  moments.rows += other.rows;
  if (++moments.pending >= MOST_PENDING) carry(moments);
}

/** A share of the squared norms below this is rounding: the states do not vary. */
const LEAST_VARIATION = 1e-12;

/**
 * Spectrum measures of the covariance (centred) or of the second-moment matrix of the states. Undefined for fewer than
 * two states, or states that do not vary (one token repeated, at the embeddings).
 */
export function exactMomentMeasures(moments: ExactMoments, centred: boolean): SpectrumMeasures | undefined {
  const { width, rows } = moments;
  if (rows < 2) return undefined;
  carry(moments);
  const value = (i: number): number => moments.whole[i] + moments.fraction[i] / FRACTION;
  const sums = triangle(width);
  const packed = new Float64Array(sums);
  let squares = 0;
  let variation = 0;
  for (let i = 0, at = 0; i < width; at += ++i) {
    const mean = centred ? value(sums + i) / rows : 0;
    for (let j = 0; j <= i; j++) packed[at + j] = value(at + j) / rows - mean * (value(sums + j) / rows);
    squares += value(at + i) / rows;
    variation += packed[at + i];
  }
  if (!(variation > LEAST_VARIATION * squares)) return undefined;
  return spectrumMeasures(symmetricEigenvalues(packed, width));
}

/** Compact lossless form for partial reports: little-endian f64 in base64. */
export interface ExactMomentsJson {
  width: number;
  rows: number;
  whole: string;
  fraction: string;
}

const encode = (values: Float64Array): string =>
  Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('base64');

function decode(text: string, length: number): Float64Array {
  const bytes = Buffer.from(text, 'base64');
  if (bytes.length !== 8 * length)
    throw new InputError(`partial report: ${bytes.length} bytes of moments, not ${8 * length}`);
  const values = new Float64Array(length);
  new Uint8Array(values.buffer).set(bytes);
  return values;
}

export function exactMomentsToJson(moments: ExactMoments): ExactMomentsJson {
  carry(moments);
  const { width, rows, whole, fraction } = moments;
  return { width, rows, whole: encode(whole), fraction: encode(fraction) };
}

export function exactMomentsFromJson(json: ExactMomentsJson): ExactMoments {
  const cells = triangle(json.width) + json.width;
  return {
    width: json.width,
    rows: json.rows,
    whole: decode(json.whole, cells),
    fraction: decode(json.fraction, cells),
    pending: 0,
  };
}
