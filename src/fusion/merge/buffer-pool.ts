/** Buffers that are used again: fresh pages of a large one cost as much as filling it. */
export interface BufferPool {
  /** `length` bytes with any content. */
  take(length: number): Uint8Array;
  /** Gives a buffer of `take` back. */
  give(bytes: Uint8Array): void;
}

/** Buffers are allocated in steps of this size, so that tensors of nearly one size share them. */
const STEP = 1 << 16;
/** A free buffer serves a request of at least this share of its size. */
const LEAST_SHARE = 0.5;
/** Free buffers that are kept; more go back to the system. */
const MOST_FREE = 24;

export function createBufferPool(): BufferPool {
  const free: ArrayBuffer[] = [];
  return {
    take(length): Uint8Array {
      let best = -1;
      for (const [i, buffer] of free.entries()) {
        const fits = buffer.byteLength >= length && length >= LEAST_SHARE * buffer.byteLength;
        if (fits && (best < 0 || buffer.byteLength < free[best].byteLength)) best = i;
      }
      const buffer = best < 0 ? new ArrayBuffer(Math.ceil(length / STEP) * STEP) : free.splice(best, 1)[0];
      return new Uint8Array(buffer, 0, length);
    },
    give(bytes): void {
      free.push(bytes.buffer as ArrayBuffer);
      if (free.length > MOST_FREE) free.shift();
    },
  };
}
