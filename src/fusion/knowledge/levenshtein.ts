import { editDistance, editPattern } from '../../linalg/edit-distance.js';

/** Unicode code points of a text; a lone surrogate counts as one. */
export function codePoints(text: string): Int32Array {
  const points = new Int32Array(text.length);
  let count = 0;
  for (const character of text) points[count++] = character.codePointAt(0) ?? 0;
  return points.subarray(0, count);
}

/** Levenshtein distance of two texts in code points, unit costs, by Myers' bit vectors (see {@link editDistance}). */
export function levenshtein(a: string, b: string): number {
  if (a === b) return 0;
  return editDistance(editPattern(codePoints(a)), codePoints(b));
}

/** The same by the recurrence over the whole table: what the fast forms are held against. */
export function levenshteinReference(a: string, b: string): number {
  const rows = codePoints(a);
  const columns = codePoints(b);
  let row = Int32Array.from({ length: columns.length + 1 }, (_, j) => j);
  for (let i = 1; i <= rows.length; i++) {
    const next = new Int32Array(row.length);
    next[0] = i;
    for (let j = 1; j <= columns.length; j++) {
      const replaced = row[j - 1] + (rows[i - 1] === columns[j - 1] ? 0 : 1);
      next[j] = Math.min(replaced, row[j] + 1, next[j - 1] + 1);
    }
    row = next;
  }
  return row[columns.length];
}

/** Distances of one sequence of code points to others. */
export function distancesFrom(from: Int32Array): (points: Int32Array) => number {
  const pattern = editPattern(from);
  const up = new Int32Array(pattern.blocks);
  const down = new Int32Array(pattern.blocks);
  return (points) => editDistance(pattern, points, up, down);
}
