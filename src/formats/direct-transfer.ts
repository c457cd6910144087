import fs from 'node:fs';

/**
 * Transfers between disk and buffers without the page cache. Large files that are read or written once gain nothing from
 * it, and copying through it costs more processor time than a merge. Addresses, positions and lengths must be multiples of
 * {@link DIRECT_BLOCK}: a buffer for bytes at a position has the position's remainder as its address's, and room around it.
 */
export const DIRECT_BLOCK = 4096;

/** Smaller transfers go through the page cache. */
export const LEAST_DIRECT_BYTES = 1 << 18;

/** Address of an array's first byte modulo `modulus`; undefined where it cannot be known. */
export type AddressModulo = (bytes: Uint8Array, modulus: number) => number | undefined;

/** Opens a file for direct transfers; undefined where system or file system have none. */
export function openDirect(path: string, flags: number): number | undefined {
  const { O_DIRECT } = fs.constants as { readonly O_DIRECT?: number };
  if (O_DIRECT === undefined) return undefined;
  try {
    return fs.openSync(path, flags | O_DIRECT);
  } catch {
    return undefined;
  }
}

/** Whole blocks around a range. */
export interface DirectRange {
  readonly position: number;
  readonly bytes: Uint8Array;
  /** Bytes before the range. */
  readonly before: number;
}

/** The blocks that hold `target` when it is read from `position`; undefined where the buffer does not allow it. */
export function blocksAround(position: number, target: Uint8Array, address: AddressModulo): DirectRange | undefined {
  const before = position % DIRECT_BLOCK;
  if (target.length < LEAST_DIRECT_BYTES || address(target, DIRECT_BLOCK) !== before) return undefined;
  const length = Math.ceil((before + target.length) / DIRECT_BLOCK) * DIRECT_BLOCK;
  const start = target.byteOffset - before;
  if (start < 0 || start + length > target.buffer.byteLength) return undefined;
  return { position: position - before, bytes: new Uint8Array(target.buffer, start, length), before };
}

/** The blocks that lie within `source` when it is written at `position`; undefined where there are none. */
export function blocksWithin(position: number, source: Uint8Array, address: AddressModulo): DirectRange | undefined {
  if (source.length < LEAST_DIRECT_BYTES || address(source, DIRECT_BLOCK) !== position % DIRECT_BLOCK) return undefined;
  const before = (DIRECT_BLOCK - (position % DIRECT_BLOCK)) % DIRECT_BLOCK;
  const length = Math.floor((source.length - before) / DIRECT_BLOCK) * DIRECT_BLOCK;
  return { position: position + before, bytes: source.subarray(before, before + length), before };
}
