import type { MaskKey } from '../../../kernels/merge-sparse.js';

const FNV_OFFSET = 0xcbf29ce484222325n;
const FNV_PRIME = 0x100000001b3n;

/** 64-bit FNV-1a of the text's UTF-8 bytes. */
function hashOf(text: string): bigint {
  let hash = FNV_OFFSET;
  for (const byte of new TextEncoder().encode(text)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * FNV_PRIME);
  return hash;
}

const low = (value: bigint): number => Number(BigInt.asUintN(32, value));
const high = (value: bigint): number => Number(BigInt.asUintN(32, value >> 32n));

/**
 * The key of the random numbers of one model in one tensor of the output. `occurrence` counts earlier inputs of the same
 * model, so that a model that is listed twice has two masks.
 */
export function maskKey(seed: number, tensor: string, model: string, occurrence = 0): MaskKey {
  const wide = BigInt(seed);
  const stream = hashOf(`${tensor}\0${model}\0${occurrence}`);
  return [low(wide), high(wide), low(stream), high(stream)];
}

/** Entries other than 0 as bits, lowest first: a mask as kernels take it. */
export function packMask(entries: ArrayLike<number>): Uint8Array {
  const mask = new Uint8Array(Math.ceil(entries.length / 8));
  for (let i = 0; i < entries.length; i++) if (entries[i] !== 0) mask[i >> 3] |= 1 << (i & 7);
  return mask;
}

/** The first `count` bits of a mask as 0 or 1. */
export function unpackMask(mask: Uint8Array, count: number): Uint8Array {
  return Uint8Array.from({ length: count }, (_, i) => (mask[i >> 3] >> (i & 7)) & 1);
}
