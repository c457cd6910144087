import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { editDistance, editPattern } from '../../src/linalg/edit-distance.js';

const codesOf = (text: string): Int32Array =>
  Int32Array.from(Array.from(text), (character) => character.codePointAt(0) ?? 0);
const distance = (a: string, b: string): number => editDistance(editPattern(codesOf(a)), codesOf(b));

/** The table of distances, row by row. */
function plainDistance(a: string, b: string): number {
  const [left, right] = [Array.from(a), Array.from(b)];
  let row = right.map((_, j) => j + 1);
  row.unshift(0);
  left.forEach((character, i) => {
    const next = [i + 1];
    right.forEach((other, j) => {
      next.push(Math.min(row[j + 1] + 1, next[j] + 1, row[j] + (character === other ? 0 : 1)));
    });
    row = next;
  });
  return row[right.length];
}

describe('edit distance', () => {
  it('has the distances of the plain table, over the edges of words of 32 rows', () => {
    const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '\u{1f600}'), maxLength: 110 });
    fc.assert(
      fc.property(text, text, (a, b) => {
        expect(distance(a, b)).toBe(plainDistance(a, b));
      }),
      { numRuns: 300 },
    );
    expect(distance('kitten', 'sitting')).toBe(3);
    expect(distance('', 'abc')).toBe(3);
    expect(distance('a'.repeat(64), 'a'.repeat(63))).toBe(1);
  });
});
