import * as zlib from 'node:zlib';

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

/** {@link updateCrc32} without the runtime's own function. */
export function updateCrc32Reference(crc: number, bytes: Uint8Array): number {
  let c = ~crc;
  for (let i = 0; i < bytes.length; i++) c = CRC_TABLE[(c ^ bytes[i]) & 0xff] ^ (c >>> 8);
  return ~c >>> 0;
}

// Node 20.15 and 22.2 brought a vectorised one; earlier releases have none.
const own = (zlib as { readonly crc32?: (data: Uint8Array, value?: number) => number }).crc32;

/**
 * CRC-32 (ISO 3309, polynomial 0xEDB88320 reflected, as in ZIP and PNG) of what `crc` was computed over, followed by
 * `bytes`. Begin with 0.
 */
export function updateCrc32(crc: number, bytes: Uint8Array): number {
  return own === undefined ? updateCrc32Reference(crc, bytes) : own(bytes, crc);
}
