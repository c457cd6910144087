import { DIRECT_BLOCK } from '../../formats/direct-transfer.js';
import { addressModulo } from '../../kernels/buffer-address.js';

/** Buffers that are used again: fresh pages of a large one cost as much as filling it. */
export interface BufferPool {
  /**
   * `length` bytes with any content. Their address has the remainder `phase` by blocks of direct transfers, with room for
   * whole blocks around them, where addresses can be known.
   */
  take(length: number, phase?: number): Uint8Array;
  /** Gives a buffer of `take` back. */
  give(bytes: Uint8Array): void;
}

/** Buffers are allocated in steps of this size, so that tensors of nearly one size share them. */
const STEP = 1 << 16;
/** Room for a phase and for what is missing to whole blocks on both sides. */
const ROOM = 3 * DIRECT_BLOCK;
/** A free buffer serves a request of at least this share of its size. */
const LEAST_SHARE = 0.5;
/** Free buffers that are kept; more go back to the system. */
const MOST_FREE = 24;

export function createBufferPool(): BufferPool {
  const free: ArrayBuffer[] = [];
  return {
    take(length, phase = 0): Uint8Array {
      const wanted = length + ROOM;
      let best = -1;
      for (const [i, buffer] of free.entries()) {
        const fits = buffer.byteLength >= wanted && wanted >= LEAST_SHARE * buffer.byteLength;
        if (fits && (best < 0 || buffer.byteLength < free[best].byteLength)) best = i;
      }
      const buffer = best < 0 ? new ArrayBuffer(Math.ceil(wanted / STEP) * STEP) : free.splice(best, 1)[0];
      return new Uint8Array(buffer, startOf(buffer, phase), length);
    },
    give(bytes): void {
      free.push(bytes.buffer as ArrayBuffer);
      if (free.length > MOST_FREE) free.shift();
    },
  };
}

/** First byte whose address has the remainder `phase` and that many bytes before it. */
function startOf(buffer: ArrayBuffer, phase: number): number {
  const address = addressModulo(new Uint8Array(buffer), DIRECT_BLOCK);
  if (address === undefined) return 0;
  const start = (phase - address + DIRECT_BLOCK) % DIRECT_BLOCK;
  return start < phase ? start + DIRECT_BLOCK : start;
}
