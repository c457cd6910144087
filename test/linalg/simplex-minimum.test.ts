import { describe, expect, it } from 'vitest';
import { minimiseOnSimplex, type SimplexFunction } from '../../src/linalg/simplex-minimum.js';
import { createRandom } from '../../src/random.js';

/** p^T Q p / 2 + c^T p. */
function quadratic(q: readonly (readonly number[])[], c: readonly number[]): SimplexFunction {
  const product = (p: Float64Array, i: number): number => q[i].reduce((sum, entry, j) => sum + entry * p[j], 0);
  return {
    value: (p) => p.reduce((sum, share, i) => sum + share * (product(p, i) / 2 + c[i]), 0),
    gradient(p, into) {
      for (let i = 0; i < c.length; i++) into[i] = product(p, i) + c[i];
    },
    hessian(_, into) {
      into.set(q.flat());
    },
  };
}

const uniform = (k: number): Float64Array[] => [new Float64Array(k).fill(1 / k)];

describe('minimum on the simplex', () => {
  it('lies inside where the gradient has equal entries, to the last digits', () => {
    // sum_i w_i p_i^2 / 2 is least at p_i = (1 / w_i) / sum_j (1 / w_j).
    const w = [1, 2, 4];
    const f = quadratic(
      w.map((entry, i) => w.map((_, j) => (i === j ? entry : 0))),
      [0, 0, 0],
    );
    const { point } = minimiseOnSimplex(f, 3, uniform(3));
    [4 / 7, 2 / 7, 1 / 7].forEach((share, i) => {
      expect(point[i]).toBeCloseTo(share, 12);
    });
  });

  it('lies on an edge or at a vertex where it must', () => {
    const identity = [
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
    ];
    expect([...minimiseOnSimplex(quadratic(identity, [0, 0, 3]), 3, uniform(3)).point]).toEqual([0.5, 0.5, 0]);
    expect([...minimiseOnSimplex(quadratic(identity, [0, -5, 3]), 3, uniform(3)).point]).toEqual([0, 1, 0]);
  });

  it('meets the conditions of Karush, Kuhn and Tucker on random convex problems', () => {
    const random = createRandom(2);
    for (let trial = 0; trial < 20; trial++) {
      const k = 2 + (trial % 6);
      const root = Array.from({ length: k }, () => Array.from({ length: k }, () => random.normal()));
      const q = root.map((row) => root.map((other) => row.reduce((sum, x, d) => sum + x * other[d], 0)));
      const c = Array.from({ length: k }, () => random.normal());
      const f = quadratic(q, c);
      const { point } = minimiseOnSimplex(f, k, uniform(k));
      const gradient = new Float64Array(k);
      f.gradient(point, gradient);
      const multiplier = point.reduce((sum, share, j) => sum + share * gradient[j], 0);
      expect(point.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
      for (let j = 0; j < k; j++) {
        expect(gradient[j]).toBeGreaterThan(multiplier - 1e-6);
        expect(point[j] * Math.abs(gradient[j] - multiplier)).toBeLessThan(1e-6);
      }
    }
  });
});
