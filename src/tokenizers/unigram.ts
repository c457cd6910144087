import type { Trie } from './trie.js';

/** One piece of the best segmentation: `[start, end)` in UTF-16 units and its token, or `unknownId`. */
export interface UnigramPieces {
  readonly count: number;
  readonly ends: Int32Array;
  readonly ids: Int32Array;
}

/**
 * The segmentation of `text` with the highest sum of log probabilities under a unigram model (Kudo 2018, section 3.2;
 * Viterbi over code points as SentencePiece does). A code point that is no token of its own may stand as unknown at
 * `unknownScore`. The first found of equal sums is kept. Pieces come in reading order; consecutive unknown pieces are
 * one.
 *
 * @param scores log probability by token id
 */
export function segmentUnigram(
  text: string,
  trie: Trie,
  scores: Float64Array,
  unknownId: number,
  unknownScore: number,
): UnigramPieces {
  const length = text.length;
  const best = new Float64Array(length + 1);
  const from = new Int32Array(length + 1).fill(-1);
  const token = new Int32Array(length + 1);
  for (let start = 0; start < length; ) {
    const high = text.charCodeAt(start);
    const low = start + 1 < length ? text.charCodeAt(start + 1) : 0;
    const width = high >= 0xd800 && high < 0xdc00 && low >= 0xdc00 && low < 0xe000 ? 2 : 1;
    const base = best[start];
    let single = false;
    let node = 0;
    for (let end = start + 1; end <= length; end++) {
      node = trie.step(node, text.charCodeAt(end - 1));
      if (node < 0) break;
      const id = trie.valueAt(node);
      if (id < 0) continue;
      const score = base + scores[id];
      if (from[end] < 0 || score > best[end]) {
        best[end] = score;
        from[end] = start;
        token[end] = id;
      }
      if (end - start === width) single = true;
    }
    if (!single) {
      const end = start + width;
      const score = base + unknownScore;
      if (from[end] < 0 || score > best[end]) {
        best[end] = score;
        from[end] = start;
        token[end] = unknownId;
      }
    }
    start += width;
  }
  let count = 0;
  const ends = new Int32Array(length);
  const ids = new Int32Array(length);
  for (let end = length; end > 0; end = from[end]) {
    if (token[end] === unknownId && count > 0 && ids[count - 1] === unknownId) continue;
    ends[count] = end;
    ids[count++] = token[end];
  }
  return { count, ends: ends.subarray(0, count).reverse(), ids: ids.subarray(0, count).reverse() };
}
