/** Arrays by name that are used again: fresh memory costs more than reading into it. */
export interface Scratch {
  bytes(name: string, length: number): Uint8Array;
  doubles(name: string, length: number): Float64Array;
  integers(name: string, length: number): Int32Array;
}

/** What an array holds when it is asked for is not defined. */
export function createScratch(): Scratch {
  const held = new Map<string, ArrayBuffer>();
  const room = (name: string, bytes: number): ArrayBuffer => {
    let buffer = held.get(name);
    if (buffer === undefined || buffer.byteLength < bytes) {
      buffer = new ArrayBuffer(8 * Math.ceil(bytes / 8));
      held.set(name, buffer);
    }
    return buffer;
  };
  return {
    bytes: (name, length) => new Uint8Array(room(name, length), 0, length),
    doubles: (name, length) => new Float64Array(room(name, 8 * length), 0, length),
    integers: (name, length) => new Int32Array(room(name, 4 * length), 0, length),
  };
}
