/**
 * Super-blocks of 256 weights (K-quants): groups of 16 or 32 with small integer scales that share one or two f16. Group
 * scales are searched, rounded to integers of the shared scale with their neighbours tried, and the shared scales are
 * then refitted by least squares to the integers and codes, as long as the error falls.
 */
import { halfBits, halfValue } from './dtypes-reference.js';
import { type AffineScale, nearest, searchAffine, searchScale, type WeightedGroup } from './ggml-scale-search.js';

const BLOCK = 256;
const ROUNDS = 3;

const clamp = (value: number, low: number, high: number): number => (value < low ? low : Math.min(value, high));
const halved = (value: number): number => halfValue(halfBits(value));

/** What a super-block stores, before it is packed. */
interface SuperBlock {
  d: number;
  dmin: number;
  readonly scales: Int32Array;
  readonly minima: Int32Array;
  readonly codes: Int32Array;
  error: number;
}

const makeBlock = (): SuperBlock => ({
  d: 0,
  dmin: 0,
  scales: new Int32Array(16),
  minima: new Int32Array(16),
  codes: new Int32Array(BLOCK),
  error: 0,
});

const current = makeBlock();
const best = makeBlock();

function keepBest(): void {
  best.d = current.d;
  best.dmin = current.dmin;
  best.error = current.error;
  best.scales.set(current.scales);
  best.minima.set(current.minima);
  best.codes.set(current.codes);
}

/** Weighted squared error of a group under a scale and an offset, with the nearest codes in low..high. */
function groupError(group: WeightedGroup, scale: number, offset: number, low: number, high: number): number {
  const { x, w, at, count } = group;
  const inverse = scale === 0 ? 0 : 1 / scale;
  let error = 0;
  for (let i = at; i < at + count; i++) {
    const rest = x[i] - offset;
    const d = rest - scale * clamp(nearest(rest * inverse), low, high);
    error += w[i] * d * d;
  }
  return error;
}

function writeCodes(group: WeightedGroup, scale: number, offset: number, low: number, high: number): void {
  const { x, at, count } = group;
  const inverse = scale === 0 ? 0 : 1 / scale;
  for (let i = at; i < at + count; i++) {
    current.codes[i] = clamp(nearest((x[i] - offset) * inverse), low, high);
  }
}

const found = new Float64Array(16);
const offsets = new Float64Array(16);

/** Integers of the groups beside the ideal ones, under the shared scale, then codes and error. */
function assignSymmetric(
  group: WeightedGroup,
  ideal: Float64Array,
  code: { readonly low: number; readonly high: number },
  scale: { readonly low: number; readonly high: number },
): void {
  current.error = 0;
  const inverse = current.d === 0 ? 0 : 1 / current.d;
  for (let g = 0; g < BLOCK / group.count; g++) {
    group.at = g * group.count;
    const centre = clamp(nearest(ideal[g] * inverse), scale.low, scale.high);
    let chosen = centre;
    let least = Number.POSITIVE_INFINITY;
    for (let step = -1; step <= 1; step++) {
      const integer = centre + step;
      if (integer < scale.low || integer > scale.high) continue;
      const error = groupError(group, current.d * integer, 0, code.low, code.high);
      if (error < least) {
        least = error;
        chosen = integer;
      }
    }
    current.scales[g] = chosen;
    current.error += least;
    writeCodes(group, current.d * chosen, 0, code.low, code.high);
  }
}

/** The shared scale that fits integers and codes best. */
function refitSymmetric(group: WeightedGroup): number {
  const { x, w, count } = group;
  let products = 0;
  let squares = 0;
  for (let i = 0; i < BLOCK; i++) {
    const unit = current.scales[Math.floor(i / count)] * current.codes[i];
    products += w[i] * x[i] * unit;
    squares += w[i] * unit * unit;
  }
  return squares > 0 ? products / squares : 0;
}

/** Best super-block of codes low..high and signed integer scales; the result is in `best`. */
function fitSymmetric(
  x: Float64Array,
  w: Float64Array,
  count: number,
  code: { readonly low: number; readonly high: number },
  scale: { readonly low: number; readonly high: number },
): void {
  const group: WeightedGroup = { x, w, at: 0, count };
  let largest = 0;
  for (let g = 0; g < BLOCK / count; g++) {
    group.at = g * count;
    found[g] = searchScale(group, code.low, code.high);
    if (Math.abs(found[g]) > Math.abs(largest)) largest = found[g];
  }
  best.error = Number.POSITIVE_INFINITY;
  // The largest scale may take either edge; one is a step further out.
  for (const edge of [scale.low, scale.high]) {
    current.d = halved(largest / edge);
    for (let round = 0; round < ROUNDS; round++) {
      assignSymmetric(group, found, code, scale);
      if (current.error < best.error) keepBest();
      else if (round > 0) break;
      current.d = halved(refitSymmetric(group));
    }
  }
}

/** Integers of scales and minima beside the ideal ones, then codes and error. */
function assignAffine(group: WeightedGroup, high: number, most: number): void {
  current.error = 0;
  const inverse = current.d === 0 ? 0 : 1 / current.d;
  const inverseMin = current.dmin === 0 ? 0 : 1 / current.dmin;
  for (let g = 0; g < BLOCK / group.count; g++) {
    group.at = g * group.count;
    const scaleCentre = clamp(nearest(found[g] * inverse), 0, most);
    const minCentre = clamp(nearest(-offsets[g] * inverseMin), 0, most);
    let scale = scaleCentre;
    let minimum = minCentre;
    let least = Number.POSITIVE_INFINITY;
    for (let s = Math.max(0, scaleCentre - 1); s <= Math.min(most, scaleCentre + 1); s++) {
      for (let m = Math.max(0, minCentre - 1); m <= Math.min(most, minCentre + 1); m++) {
        const error = groupError(group, current.d * s, -current.dmin * m, 0, high);
        if (error < least) {
          least = error;
          scale = s;
          minimum = m;
        }
      }
    }
    current.scales[g] = scale;
    current.minima[g] = minimum;
    current.error += least;
    writeCodes(group, current.d * scale, -current.dmin * minimum, 0, high);
  }
}

/** Least squares of x = d a - dmin b, where a are integer scales times codes and b integer minima. */
function refitAffine(group: WeightedGroup): void {
  const { x, w, count } = group;
  let aa = 0;
  let ab = 0;
  let bb = 0;
  let ax = 0;
  let bx = 0;
  for (let i = 0; i < BLOCK; i++) {
    const g = Math.floor(i / count);
    const a = current.scales[g] * current.codes[i];
    const b = current.minima[g];
    aa += w[i] * a * a;
    ab += w[i] * a * b;
    bb += w[i] * b * b;
    ax += w[i] * a * x[i];
    bx += w[i] * b * x[i];
  }
  const determinant = aa * bb - ab * ab;
  let d = determinant > 0 ? (ax * bb - bx * ab) / determinant : 0;
  let dmin = determinant > 0 ? (ax * ab - bx * aa) / determinant : 0;
  if (!(determinant > 0) || dmin < 0) {
    dmin = 0;
    d = aa > 0 ? ax / aa : 0;
  }
  current.d = halved(Math.max(d, 0));
  current.dmin = halved(dmin);
}

/** Best super-block of codes 0..high with integer scales and minima 0..most; the result is in `best`. */
function fitAffine(x: Float64Array, w: Float64Array, count: number, high: number, most: number): void {
  const group: WeightedGroup = { x, w, at: 0, count };
  const result: AffineScale = { scale: 0, offset: 0 };
  let largest = 0;
  let deepest = 0;
  for (let g = 0; g < BLOCK / count; g++) {
    group.at = g * count;
    searchAffine(group, high, true, result);
    found[g] = result.scale;
    offsets[g] = result.offset;
    largest = Math.max(largest, result.scale);
    deepest = Math.max(deepest, -result.offset);
  }
  best.error = Number.POSITIVE_INFINITY;
  current.d = halved(largest / most);
  current.dmin = halved(deepest / most);
  for (let round = 0; round < ROUNDS; round++) {
    assignAffine(group, high, most);
    if (current.error < best.error) keepBest();
    else break;
    refitAffine(group);
  }
}

function putHalf(target: Uint8Array, at: number, value: number): void {
  const bits = halfBits(value);
  target[at] = bits & 255;
  target[at + 1] = bits >> 8;
}

/** Bytes: 16 of (scale, minimum) nibbles, 64 of 2-bit codes, d, dmin. */
export function encodeQ2K(x: Float64Array, w: Float64Array, target: Uint8Array, at: number): void {
  fitAffine(x, w, 16, 3, 15);
  for (let g = 0; g < 16; g++) target[at + g] = best.scales[g] | (best.minima[g] << 4);
  for (let i = 0; i < BLOCK; i++) {
    target[at + 16 + (i >> 7) * 32 + (i & 31)] |= best.codes[i] << (2 * ((i >> 5) & 3));
  }
  putHalf(target, at + 80, best.d);
  putHalf(target, at + 82, best.dmin);
}

/** Bytes: 32 of third bits, 64 of 2-bit codes, 12 of sixteen 6-bit scales, d. */
export function encodeQ3K(x: Float64Array, w: Float64Array, target: Uint8Array, at: number): void {
  fitSymmetric(x, w, 16, { low: -4, high: 3 }, { low: -32, high: 31 });
  for (let i = 0; i < BLOCK; i++) {
    const code = best.codes[i] + 4;
    target[at + (i & 31)] |= (code >> 2) << (i >> 5);
    target[at + 32 + (i >> 7) * 32 + (i & 31)] |= (code & 3) << (2 * ((i >> 5) & 3));
  }
  for (let g = 0; g < 16; g++) {
    const scale = best.scales[g] + 32;
    target[at + 96 + (g & 7)] |= (scale & 15) << (g < 8 ? 0 : 4);
    target[at + 104 + (g & 3)] |= (scale >> 4) << (2 * (g >> 2));
  }
  putHalf(target, at + 108, best.d);
}

/** Eight 6-bit scales and eight 6-bit minima in 12 bytes. */
function putGroupScales(target: Uint8Array, at: number): void {
  for (let g = 0; g < 8; g++) {
    const scale = best.scales[g];
    const minimum = best.minima[g];
    if (g < 4) {
      target[at + g] |= scale;
      target[at + g + 4] |= minimum;
    } else {
      target[at + g + 4] = (scale & 15) | ((minimum & 15) << 4);
      target[at + g - 4] |= (scale >> 4) << 6;
      target[at + g] |= (minimum >> 4) << 6;
    }
  }
}

/** Bytes: d, dmin, 12 of scales and minima, 128 of nibbles. */
export function encodeQ4K(x: Float64Array, w: Float64Array, target: Uint8Array, at: number): void {
  fitAffine(x, w, 32, 15, 63);
  putHalf(target, at, best.d);
  putHalf(target, at + 2, best.dmin);
  putGroupScales(target, at + 4);
  for (let i = 0; i < BLOCK; i++) {
    target[at + 16 + (i >> 6) * 32 + (i & 31)] |= best.codes[i] << (4 * ((i >> 5) & 1));
  }
}

/** Bytes: d, dmin, 12 of scales and minima, 32 of fifth bits, 128 of nibbles. */
export function encodeQ5K(x: Float64Array, w: Float64Array, target: Uint8Array, at: number): void {
  fitAffine(x, w, 32, 31, 63);
  putHalf(target, at, best.d);
  putHalf(target, at + 2, best.dmin);
  putGroupScales(target, at + 4);
  for (let i = 0; i < BLOCK; i++) {
    target[at + 16 + (i & 31)] |= (best.codes[i] >> 4) << (i >> 5);
    target[at + 48 + (i >> 6) * 32 + (i & 31)] |= (best.codes[i] & 15) << (4 * ((i >> 5) & 1));
  }
}

/** Bytes: 128 of low nibbles, 64 of upper bit pairs, 16 signed scales, d. */
export function encodeQ6K(x: Float64Array, w: Float64Array, target: Uint8Array, at: number): void {
  fitSymmetric(x, w, 16, { low: -32, high: 31 }, { low: -128, high: 127 });
  for (let i = 0; i < BLOCK; i++) {
    const code = best.codes[i] + 32;
    const half = i >> 7;
    target[at + half * 64 + (i & 63)] |= (code & 15) << (4 * ((i >> 6) & 1));
    target[at + 128 + half * 32 + (i & 31)] |= (code >> 4) << (2 * ((i >> 5) & 3));
  }
  for (let g = 0; g < 16; g++) target[at + 192 + g] = best.scales[g];
  putHalf(target, at + 208, best.d);
}
