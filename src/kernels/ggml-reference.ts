/**
 * GGUF block formats to f32, one block at a time, in the arithmetic of the native kernels: every product and sum is
 * rounded to f32 in the same order. Layouts: ggml-common.h and ggml-quants.c of llama.cpp.
 */
import type { GgmlBlockType } from '../formats/tensor.js';
import { halfValue } from './dtypes-reference.js';

const f32 = Math.fround;

type BlockDecoder = (source: Uint8Array, at: number, target: Float32Array, to: number) => void;

function half(source: Uint8Array, at: number): number {
  return halfValue(source[at] | (source[at + 1] << 8));
}

function signed(byte: number): number {
  return (byte << 24) >> 24;
}

/** d | 32 signed bytes. */
function q8_0(source: Uint8Array, at: number, target: Float32Array, to: number): void {
  const d = half(source, at);
  for (let i = 0; i < 32; i++) target[to + i] = signed(source[at + 2 + i]) * d;
}

/** d | 16 bytes: low nibbles are elements 0..15, high nibbles 16..31. */
function q4_0(source: Uint8Array, at: number, target: Float32Array, to: number): void {
  const d = half(source, at);
  for (let i = 0; i < 16; i++) {
    const byte = source[at + 2 + i];
    target[to + i] = d * ((byte & 15) - 8);
    target[to + i + 16] = d * ((byte >> 4) - 8);
  }
}

/** d, m | 16 bytes of nibbles. */
function q4_1(source: Uint8Array, at: number, target: Float32Array, to: number): void {
  const d = half(source, at);
  const m = half(source, at + 2);
  for (let i = 0; i < 16; i++) {
    const byte = source[at + 4 + i];
    target[to + i] = f32(d * (byte & 15)) + m;
    target[to + i + 16] = f32(d * (byte >> 4)) + m;
  }
}

/** d | 32 fifth bits | 16 bytes of nibbles. */
function q5_0(source: Uint8Array, at: number, target: Float32Array, to: number): void {
  const d = half(source, at);
  for (let i = 0; i < 16; i++) {
    const byte = source[at + 6 + i];
    const low = (source[at + 2 + (i >> 3)] >> (i & 7)) & 1;
    const high = (source[at + 4 + (i >> 3)] >> (i & 7)) & 1;
    target[to + i] = d * (((byte & 15) | (low << 4)) - 16);
    target[to + i + 16] = d * (((byte >> 4) | (high << 4)) - 16);
  }
}

/** d, m | 32 fifth bits | 16 bytes of nibbles. */
function q5_1(source: Uint8Array, at: number, target: Float32Array, to: number): void {
  const d = half(source, at);
  const m = half(source, at + 2);
  for (let i = 0; i < 16; i++) {
    const byte = source[at + 8 + i];
    const low = (source[at + 4 + (i >> 3)] >> (i & 7)) & 1;
    const high = (source[at + 6 + (i >> 3)] >> (i & 7)) & 1;
    target[to + i] = f32(d * ((byte & 15) | (low << 4))) + m;
    target[to + i + 16] = f32(d * ((byte >> 4) | (high << 4))) + m;
  }
}

/** 16 bytes of (scale, minimum) nibbles for groups of 16 | 64 bytes of 2-bit codes | d, dmin. */
function q2_k(source: Uint8Array, at: number, target: Float32Array, to: number): void {
  const d = half(source, at + 80);
  const dmin = half(source, at + 82);
  for (let group = 0; group < 16; group++) {
    const packed = source[at + group];
    const scale = f32(d * (packed & 15));
    const minimum = f32(dmin * (packed >> 4));
    const codes = at + 16 + (group >> 3) * 32 + (group & 1) * 16;
    const shift = 2 * ((group & 7) >> 1);
    for (let i = 0; i < 16; i++) {
      target[to + group * 16 + i] = f32(scale * ((source[codes + i] >> shift) & 3)) - minimum;
    }
  }
}

/** 32 bytes of third bits | 64 bytes of 2-bit codes | 12 bytes: sixteen 6-bit scales | d. */
function q3_k(source: Uint8Array, at: number, target: Float32Array, to: number): void {
  const d = half(source, at + 108);
  const packed = at + 96;
  for (let group = 0; group < 16; group++) {
    const low = group < 8 ? source[packed + group] & 15 : source[packed + group - 8] >> 4;
    const upper = (source[packed + 8 + (group & 3)] >> (2 * (group >> 2))) & 3;
    const scale = f32(d * ((low | (upper << 4)) - 32));
    const part = (group & 1) * 16;
    const codes = at + 32 + (group >> 3) * 32 + part;
    const shift = 2 * ((group & 7) >> 1);
    for (let i = 0; i < 16; i++) {
      // The offset of four applies where the third bit is clear.
      const offset = ((source[at + part + i] >> (group >> 1)) & 1) === 0 ? 4 : 0;
      target[to + group * 16 + i] = scale * (((source[codes + i] >> shift) & 3) - offset);
    }
  }
}

/** The 6-bit scale of a group of Q4_K and Q5_K, of the 12 bytes at `at` that hold eight scales and eight minima. */
function groupScale(source: Uint8Array, at: number, group: number): number {
  if (group < 4) return source[at + group] & 63;
  return (source[at + group + 4] & 15) | ((source[at + group - 4] >> 2) & 48);
}

/** The 6-bit minimum beside {@link groupScale}. */
function groupMinimum(source: Uint8Array, at: number, group: number): number {
  if (group < 4) return source[at + group + 4] & 63;
  return (source[at + group + 4] >> 4) | ((source[at + group] >> 2) & 48);
}

/** d, dmin | 12 bytes of scales and minima | 128 bytes of nibbles. */
function q4_k(source: Uint8Array, at: number, target: Float32Array, to: number): void {
  const d = half(source, at);
  const dmin = half(source, at + 2);
  for (let group = 0; group < 8; group++) {
    const scale = f32(d * groupScale(source, at + 4, group));
    const minimum = f32(dmin * groupMinimum(source, at + 4, group));
    const codes = at + 16 + (group >> 1) * 32;
    const shift = 4 * (group & 1);
    for (let i = 0; i < 32; i++) {
      target[to + group * 32 + i] = f32(scale * ((source[codes + i] >> shift) & 15)) - minimum;
    }
  }
}

/** d, dmin | 12 bytes of scales and minima | 32 bytes of fifth bits | 128 bytes of nibbles. */
function q5_k(source: Uint8Array, at: number, target: Float32Array, to: number): void {
  const d = half(source, at);
  const dmin = half(source, at + 2);
  for (let group = 0; group < 8; group++) {
    const scale = f32(d * groupScale(source, at + 4, group));
    const minimum = f32(dmin * groupMinimum(source, at + 4, group));
    const codes = at + 48 + (group >> 1) * 32;
    const shift = 4 * (group & 1);
    for (let i = 0; i < 32; i++) {
      const fifth = (source[at + 16 + i] >> group) & 1;
      const code = ((source[codes + i] >> shift) & 15) | (fifth << 4);
      target[to + group * 32 + i] = f32(scale * code) - minimum;
    }
  }
}

/** 128 bytes of low nibbles | 64 bytes of upper bit pairs | 16 signed scales | d. */
function q6_k(source: Uint8Array, at: number, target: Float32Array, to: number): void {
  const d = half(source, at + 208);
  for (let group = 0; group < 8; group++) {
    const low = at + (group >> 2) * 64 + (group & 1) * 32;
    const high = at + 128 + (group >> 2) * 32;
    const lowShift = 4 * ((group & 3) >> 1);
    const highShift = 2 * (group & 3);
    for (let i = 0; i < 32; i++) {
      const scale = f32(d * signed(source[at + 192 + group * 2 + (i >> 4)]));
      const code = ((source[low + i] >> lowShift) & 15) | (((source[high + i] >> highShift) & 3) << 4);
      target[to + group * 32 + i] = scale * (code - 32);
    }
  }
}

export const IQ4_NL_LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/** d | 16 bytes of nibbles that index a table of levels. */
function iq4_nl(source: Uint8Array, at: number, target: Float32Array, to: number): void {
  const d = half(source, at);
  for (let i = 0; i < 16; i++) {
    const byte = source[at + 2 + i];
    target[to + i] = d * IQ4_NL_LEVELS[byte & 15];
    target[to + i + 16] = d * IQ4_NL_LEVELS[byte >> 4];
  }
}

/** Decoders of one block, by type. */
export const BLOCK_DECODERS: Readonly<Record<GgmlBlockType, BlockDecoder>> = {
  Q8_0: q8_0,
  Q4_0: q4_0,
  Q4_1: q4_1,
  Q5_0: q5_0,
  Q5_1: q5_1,
  Q2_K: q2_k,
  Q3_K: q3_k,
  Q4_K: q4_k,
  Q5_K: q5_k,
  Q6_K: q6_k,
  IQ4_NL: iq4_nl,
};
