/**
 * Weights to GGUF blocks: the inverse of `ggml-reference.ts`. Scales are searched (`ggml-scale-search.ts`), then stored
 * ones are rounded to what the block holds and codes are chosen again under the rounded scales.
 */
import type { GgmlBlockType } from '../formats/tensor.js';
import { halfBits, halfValue } from './dtypes-reference.js';
import { IQ4_NL_LEVELS } from './ggml-reference.js';
import {
  type AffineScale,
  nearest,
  nearestIndex,
  searchAffine,
  searchScale,
  searchTableScale,
  type WeightedGroup,
} from './ggml-scale-search.js';
import { encodeQ2K, encodeQ3K, encodeQ4K, encodeQ5K, encodeQ6K } from './ggml-superblocks.js';

/** Writes one block of weights `x` with importances `w` at `at` of `target`, which is zero there. */
export type BlockEncoder = (x: Float64Array, w: Float64Array, target: Uint8Array, at: number) => void;

const clamp = (value: number, low: number, high: number): number => (value < low ? low : Math.min(value, high));

const affine: AffineScale = { scale: 0, offset: 0 };

function groupOf(x: Float64Array, w: Float64Array): WeightedGroup {
  return { x, w, at: 0, count: 32 };
}

/** Stores a half and gives the value it stands for. */
function putHalf(target: Uint8Array, at: number, value: number): number {
  const bits = halfBits(value);
  target[at] = bits & 255;
  target[at + 1] = bits >> 8;
  return halfValue(bits);
}

const inverseOf = (scale: number): number => (scale === 0 ? 0 : 1 / scale);

function q8_0(x: Float64Array, w: Float64Array, target: Uint8Array, at: number): void {
  const inverse = inverseOf(putHalf(target, at, searchScale(groupOf(x, w), -128, 127)));
  for (let i = 0; i < 32; i++) target[at + 2 + i] = clamp(nearest(x[i] * inverse), -128, 127);
}

function putNibble(target: Uint8Array, at: number, i: number, code: number): void {
  target[at + (i & 15)] |= code << (i < 16 ? 0 : 4);
}

function putFifth(target: Uint8Array, at: number, i: number, code: number): void {
  target[at + (i >> 3)] |= (code >> 4) << (i & 7);
}

function q4_0(x: Float64Array, w: Float64Array, target: Uint8Array, at: number): void {
  const inverse = inverseOf(putHalf(target, at, searchScale(groupOf(x, w), -8, 7)));
  for (let i = 0; i < 32; i++) putNibble(target, at + 2, i, clamp(nearest(x[i] * inverse), -8, 7) + 8);
}

function q5_0(x: Float64Array, w: Float64Array, target: Uint8Array, at: number): void {
  const inverse = inverseOf(putHalf(target, at, searchScale(groupOf(x, w), -16, 15)));
  for (let i = 0; i < 32; i++) {
    const code = clamp(nearest(x[i] * inverse), -16, 15) + 16;
    putNibble(target, at + 6, i, code & 15);
    putFifth(target, at + 2, i, code);
  }
}

function q4_1(x: Float64Array, w: Float64Array, target: Uint8Array, at: number): void {
  searchAffine(groupOf(x, w), 15, false, affine);
  const inverse = inverseOf(putHalf(target, at, affine.scale));
  const offset = putHalf(target, at + 2, affine.offset);
  for (let i = 0; i < 32; i++) putNibble(target, at + 4, i, clamp(nearest((x[i] - offset) * inverse), 0, 15));
}

function q5_1(x: Float64Array, w: Float64Array, target: Uint8Array, at: number): void {
  searchAffine(groupOf(x, w), 31, false, affine);
  const inverse = inverseOf(putHalf(target, at, affine.scale));
  const offset = putHalf(target, at + 2, affine.offset);
  for (let i = 0; i < 32; i++) {
    const code = clamp(nearest((x[i] - offset) * inverse), 0, 31);
    putNibble(target, at + 8, i, code & 15);
    putFifth(target, at + 4, i, code);
  }
}

const TABLE = Float64Array.from(IQ4_NL_LEVELS);
const TABLE_MIDPOINTS = Float64Array.from({ length: 15 }, (_, i) => (TABLE[i] + TABLE[i + 1]) / 2);

function iq4_nl(x: Float64Array, w: Float64Array, target: Uint8Array, at: number): void {
  const inverse = inverseOf(putHalf(target, at, searchTableScale(groupOf(x, w), TABLE, TABLE_MIDPOINTS)));
  for (let i = 0; i < 32; i++) putNibble(target, at + 2, i, nearestIndex(x[i] * inverse, TABLE_MIDPOINTS));
}

/** Encoders of one block, by type. */
export const BLOCK_ENCODERS: Readonly<Record<GgmlBlockType, BlockEncoder>> = {
  Q8_0: q8_0,
  Q4_0: q4_0,
  Q4_1: q4_1,
  Q5_0: q5_0,
  Q5_1: q5_1,
  Q2_K: encodeQ2K,
  Q3_K: encodeQ3K,
  Q4_K: encodeQ4K,
  Q5_K: encodeQ5K,
  Q6_K: encodeQ6K,
  IQ4_NL: iq4_nl,
};
