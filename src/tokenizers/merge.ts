/** What can be merged: the rank of a pair of adjacent symbols (lower merges first) and what it becomes. */
export interface Merges {
  /** The slot of the pair, or -1 where it does not merge. Valid until the next `find`. */
  find(left: number, right: number): number;
  rankAt(slot: number): number;
  valueAt(slot: number): number;
}

/** Up to this many symbols, scanning for the lowest rank costs less than keeping a heap. */
const SCAN_LIMIT = 40;

/** Scratch that one merger reuses for every word. */
export interface Merger {
  /**
   * Merges `symbols[0 .. count)` in place: the adjacent pair of lowest rank first, the leftmost among equals, until no
   * pair merges. Returns how many symbols are left. O(n log n) in the number of symbols, so that a whole document may
   * be one word, as it is in SentencePiece vocabularies.
   */
  merge(symbols: Int32Array, count: number): number;
}

/** A merger over `merges`. */
export function createMerger(merges: Merges): Merger {
  const pairRanks = new Float64Array(SCAN_LIMIT);
  const pairValues = new Int32Array(SCAN_LIMIT);

  function scanMerge(symbols: Int32Array, count: number): number {
    const lookUp = (at: number): void => {
      const slot = merges.find(symbols[at], symbols[at + 1]);
      pairRanks[at] = slot < 0 ? Infinity : merges.rankAt(slot);
      if (slot >= 0) pairValues[at] = merges.valueAt(slot);
    };
    let length = count;
    for (let i = 0; i + 1 < length; i++) lookUp(i);
    while (length > 1) {
      let best = -1;
      let bestRank = Infinity;
      for (let i = 0; i + 1 < length; i++) {
        if (pairRanks[i] < bestRank) {
          bestRank = pairRanks[i];
          best = i;
        }
      }
      if (best < 0) break;
      symbols[best] = pairValues[best];
      symbols.copyWithin(best + 1, best + 2, length);
      pairRanks.copyWithin(best + 1, best + 2, length - 1);
      pairValues.copyWithin(best + 1, best + 2, length - 1);
      length--;
      if (best > 0) lookUp(best - 1);
      if (best + 1 < length) lookUp(best);
    }
    return length;
  }

  function heapMerge(symbols: Int32Array, count: number): number {
    const previous = new Int32Array(count);
    const next = new Int32Array(count);
    const alive = new Uint8Array(count).fill(1);
    // Every merge takes one symbol away and offers at most two pairs.
    const entryLeft = new Int32Array(3 * count);
    const entryRight = new Int32Array(3 * count);
    const entryAt = new Int32Array(3 * count);
    const entryRank = new Float64Array(3 * count);
    const entryValue = new Int32Array(3 * count);
    const heap = new Int32Array(3 * count);
    let entries = 0;
    let heapSize = 0;
    for (let i = 0; i < count; i++) {
      previous[i] = i - 1;
      next[i] = i + 1 < count ? i + 1 : -1;
    }
    const before = (a: number, b: number): boolean =>
      entryRank[a] < entryRank[b] || (entryRank[a] === entryRank[b] && entryAt[a] < entryAt[b]);
    const offer = (at: number): void => {
      const right = next[at];
      if (right < 0) return;
      const slot = merges.find(symbols[at], symbols[right]);
      if (slot < 0) return;
      const entry = entries++;
      entryLeft[entry] = symbols[at];
      entryRight[entry] = symbols[right];
      entryAt[entry] = at;
      entryRank[entry] = merges.rankAt(slot);
      entryValue[entry] = merges.valueAt(slot);
      let place = heapSize++;
      while (place > 0) {
        const parent = (place - 1) >> 1;
        if (!before(entry, heap[parent])) break;
        heap[place] = heap[parent];
        place = parent;
      }
      heap[place] = entry;
    };
    const take = (): number => {
      const top = heap[0];
      const last = heap[--heapSize];
      let place = 0;
      for (;;) {
        let child = 2 * place + 1;
        if (child >= heapSize) break;
        if (child + 1 < heapSize && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], last)) break;
        heap[place] = heap[child];
        place = child;
      }
      heap[place] = last;
      return top;
    };
    for (let i = 0; i + 1 < count; i++) offer(i);
    while (heapSize > 0) {
      const entry = take();
      const at = entryAt[entry];
      const right = alive[at] === 1 ? next[at] : -1;
      if (right < 0 || symbols[at] !== entryLeft[entry] || symbols[right] !== entryRight[entry]) continue;
      symbols[at] = entryValue[entry];
      alive[right] = 0;
      next[at] = next[right];
      if (next[at] >= 0) previous[next[at]] = at;
      if (previous[at] >= 0) offer(previous[at]);
      offer(at);
    }
    let length = 0;
    for (let i = 0; i >= 0; i = next[i]) symbols[length++] = symbols[i];
    return length;
  }

  return {
    merge: (symbols, count) => {
      if (count < 2) return count;
      return count <= SCAN_LIMIT ? scanMerge(symbols, count) : heapMerge(symbols, count);
    },
  };
}
