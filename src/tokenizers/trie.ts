import { createPairTable } from './pair-table.js';

/** Strings by their UTF-16 units, for finding those that begin at a place of a text. */
export interface Trie {
  /** Adds `text`; the last value given to one text stands. */
  add(text: string, value: number): void;
  /** The node after `unit`, or -1. The root is node 0. */
  step(node: number, unit: number): number;
  /** The value of the string that ends at this node, or -1. */
  valueAt(node: number): number;
  /** Length in units of the longest string that begins at `start`, its value in `lastValue`; 0 when none does. */
  longestAt(text: string, start: number): number;
  readonly lastValue: number;
  readonly size: number;
}

/** An empty trie with room for about `expectedNodes` nodes. */
export function createTrie(expectedNodes = 256): Trie {
  const edges = createPairTable(expectedNodes);
  let values = new Int32Array(Math.max(16, expectedNodes)).fill(-1);
  let nodes = 1;
  let size = 0;
  let lastValue = -1;
  const firstUnits = new Uint8Array(0x10000);
  const step = (node: number, unit: number): number => {
    const slot = edges.find(node, unit);
    return slot < 0 ? -1 : edges.valueAt(slot);
  };
  return {
    add(text, value) {
      if (text.length === 0) return;
      firstUnits[text.charCodeAt(0)] = 1;
      let node = 0;
      for (let i = 0; i < text.length; i++) {
        const unit = text.charCodeAt(i);
        let child = step(node, unit);
        if (child < 0) {
          child = nodes++;
          if (child >= values.length) {
            const grown = new Int32Array(values.length * 2).fill(-1);
            grown.set(values);
            values = grown;
          }
          edges.set(node, unit, 0, child);
        }
        node = child;
      }
      if (values[node] < 0) size++;
      values[node] = value;
    },
    step,
    valueAt: (node) => values[node],
    longestAt(text, start) {
      if (firstUnits[text.charCodeAt(start)] === 0) return 0;
      let node = 0;
      let length = 0;
      for (let i = start; i < text.length; i++) {
        node = step(node, text.charCodeAt(i));
        if (node < 0) break;
        if (values[node] >= 0) {
          length = i + 1 - start;
          lastValue = values[node];
        }
      }
      return length;
    },
    get lastValue() {
      return lastValue;
    },
    get size() {
      return size;
    },
  };
}
