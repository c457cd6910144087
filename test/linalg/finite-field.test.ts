import { describe, expect, it } from 'vitest';
import { firstIrreducible, jacobsthalMatrix, primePower } from '../../src/linalg/finite-field.js';

describe('finite fields', () => {
  it('tells powers of primes from other numbers', () => {
    expect(primePower(343)).toEqual({ p: 7, k: 3 });
    expect(primePower(1021)).toEqual({ p: 1021, k: 1 });
    expect(primePower(1024)).toEqual({ p: 2, k: 10 });
    for (const q of [0, 1, 12, 1001, 5459, 2.5]) expect(primePower(q)).toBeUndefined();
  });

  it('takes the first irreducible polynomial', () => {
    // Over GF(5) 2 is no square, nor -1 over GF(7) and GF(3); x^3 + 2 has no root in GF(7).
    expect([...firstIrreducible(5, 2)]).toEqual([2, 0, 1]);
    expect([...firstIrreducible(3, 2)]).toEqual([1, 0, 1]);
    expect([...firstIrreducible(7, 3)]).toEqual([2, 0, 0, 1]);
    expect([...firstIrreducible(3, 3)]).toEqual([1, 2, 0, 1]);
  });

  it('gives matrices with Q Qᵀ = q I - J and the symmetry of the order', () => {
    for (const q of [3, 5, 7, 9, 13, 25, 27, 49, 81, 125]) {
      const matrix = jacobsthalMatrix(q);
      const sign = q % 4 === 1 ? 1 : -1;
      for (let i = 0; i < q; i++) {
        for (let j = 0; j <= i; j++) {
          let inner = 0;
          for (let l = 0; l < q; l++) inner += matrix[i * q + l] * matrix[j * q + l];
          if (inner !== (i === j ? q - 1 : -1)) expect([q, i, j, inner]).toBe('an entry of q I - J');
          if (matrix[i * q + j] !== sign * matrix[j * q + i]) expect([q, i, j]).toBe('symmetric');
        }
      }
    }
    expect(() => jacobsthalMatrix(15)).toThrow('15 is no power of an odd prime');
    expect(() => jacobsthalMatrix(8)).toThrow(RangeError);
  });
});
