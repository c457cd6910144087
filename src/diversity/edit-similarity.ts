import { editDistance, editPattern } from '../linalg/edit-distance.js';

function codePoints(text: string): Int32Array {
  return Int32Array.from(Array.from(text), (character) => character.codePointAt(0) as number);
}

/**
 * `K_ij = 1 - distance(i, j) / max(length i, length j)` `[n, n]` with Levenshtein distances in code points; two empty
 * texts have similarity 1. Not positive semidefinite in general.
 * @param progress told the number of rows done
 */
export function editSimilarity(texts: readonly string[], progress?: (rows: number) => void): Float64Array {
  const n = texts.length;
  const codes = texts.map(codePoints);
  const longest = codes.reduce((most, { length }) => Math.max(most, length), 0);
  const up = new Int32Array(Math.ceil(longest / 32) + 1);
  const down = new Int32Array(up.length);
  const k = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    const pattern = editPattern(codes[i]);
    k[i * n + i] = 1;
    for (let j = 0; j < i; j++) {
      const length = Math.max(codes[i].length, codes[j].length);
      const similarity = length === 0 ? 1 : (length - editDistance(pattern, codes[j], up, down)) / length;
      k[i * n + j] = similarity;
      k[j * n + i] = similarity;
    }
    progress?.(i + 1);
  }
  return k;
}
