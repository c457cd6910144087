/** A growing sequence of token ids. */
export interface IdBuffer {
  readonly length: number;
  push(id: number): void;
  append(ids: Int32Array): void;
  /** A copy of the ids so far, of exactly their number. */
  toIds(): Int32Array;
}

/** An empty buffer with room for `capacity` ids. */
export function createIdBuffer(capacity = 256): IdBuffer {
  let ids = new Int32Array(Math.max(16, capacity));
  let length = 0;
  const reserve = (needed: number): void => {
    if (needed <= ids.length) return;
    const grown = new Int32Array(Math.max(needed, ids.length * 2));
    grown.set(ids.subarray(0, length));
    ids = grown;
  };
  return {
    get length() {
      return length;
    },
    push(id) {
      reserve(length + 1);
      ids[length++] = id;
    },
    append(more) {
      reserve(length + more.length);
      ids.set(more, length);
      length += more.length;
    },
    toIds: () => ids.slice(0, length),
  };
}
