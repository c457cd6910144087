import { describe, expect, it } from 'vitest';
import { createLargestTokens } from '../../../../src/policy/interventions/details/largest-tokens.js';
import { signedLogAxis, signedLogCounts } from '../../../../src/policy/interventions/details/signed-log.js';
import { createRandom } from '../../../../src/random.js';

describe('largest tokens', () => {
  it('are those of a stable sort of all', () => {
    const random = createRandom(5);
    const scores = Array.from({ length: 500 }, () => random.integer(40));
    for (const most of [1, 7, 60, 600]) {
      const largest = createLargestTokens<number>(most);
      scores.forEach((score, i) => {
        largest.offer(score, () => i);
      });
      const sorted = [...scores.keys()].sort((a, b) => scores[b] - scores[a]).slice(0, most);
      expect(largest.rows()).toEqual(sorted);
    }
  });
});

describe('signed logarithmic axis', () => {
  it('is odd, rises, and has 0 at an edge', () => {
    const axis = signedLogAxis(30, 1e-3);
    expect(axis.place(-2)).toBe(-axis.place(2));
    expect(axis.place(30)).toBe(axis.edges[axis.edges.length - 1]);
    expect(axis.edges[(axis.edges.length - 1) / 2]).toBeCloseTo(0, 15);
    expect(axis.place(1e-6)).toBeCloseTo(1e-3 / Math.LN10, 6);
  });

  it('counts every value in the bin of its place', () => {
    const axis = signedLogAxis(30, 1e-3);
    const { add, histogram } = signedLogCounts(axis);
    const values = [-30, -1, -1e-9, 0, 1e-9, 0.5, 30];
    for (const value of values) add(value);
    const { counts, edges } = histogram;
    expect(Array.from(counts).reduce((sum, count) => sum + count, 0)).toBe(values.length);
    expect([counts[0], counts[counts.length - 1]]).toEqual([1, 1]);
    expect(counts[Array.from(edges).findLastIndex((edge) => edge <= axis.place(0.5))]).toBe(1);
    // -1e-9 lies left of 0; 0 and 1e-9 in the first bin to the right.
    expect([counts[39], counts[40]]).toEqual([1, 2]);
  });
});
