import { describe, expect, it } from 'vitest';
import { choleskyInPlace, solveRowsInPlace } from '../../src/linalg/blocked-cholesky.js';
import { conjugateGradients } from '../../src/linalg/conjugate-gradients.js';
import { createRandom } from '../../src/random.js';

const random = createRandom(5);

/** G G^T + I with badly scaled rows, [n, n]. */
function positive(n: number): Float64Array {
  const g = Float64Array.from({ length: n * n }, () => random.normal());
  const a = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      const scale = (1 + (i % 7)) * (1 + (j % 7));
      for (let k = 0; k < n; k++) a[i * n + j] += scale * g[i * n + k] * g[j * n + k];
      if (i === j) a[i * n + j] += 1;
    }
  }
  return a;
}

function timesRows(x: Float64Array, a: Float64Array, n: number): Float64Array {
  const out = new Float64Array(x.length);
  for (let at = 0; at < x.length; at++) {
    const row = Math.floor(at / n) * n;
    for (let k = 0; k < n; k++) out[at] += x[row + k] * a[k * n + (at % n)];
  }
  return out;
}

describe('solveRowsInPlace', () => {
  it.each([1, 5, 64, 65, 150])('solves systems of order %d', (n) => {
    const a = positive(n);
    const x = Float64Array.from({ length: 3 * n }, () => random.normal());
    const b = timesRows(x, a, n);
    const factor = a.slice();
    expect(choleskyInPlace(factor, n, { keepUpper: true })).toBe(true);
    expect(solveRowsInPlace(factor, n, b, 3)).toBe(b);
    b.forEach((value, i) => {
      expect(value).toBeCloseTo(x[i], 7);
    });
  });
});

describe('conjugateGradients', () => {
  const n = 40;
  const a = positive(n);
  const diagonal = Float64Array.from({ length: n }, (_, i) => a[i * n + i]);
  const apply = (x: Float64Array, into: Float64Array) => into.set(timesRows(x, a, n));

  it('solves each right-hand side as if it were alone', () => {
    const x = Float64Array.from({ length: 2 * n }, () => random.normal());
    const b = timesRows(x, a, n);
    const options = { tolerance: 1e-12, maxIterations: 2000 };
    const both = conjugateGradients(apply, diagonal, b, new Float64Array(2 * n), options);
    expect(both.residual).toBeLessThan(1e-12);
    both.solution.forEach((value, i) => {
      expect(value).toBeCloseTo(x[i], 6);
    });
    const one = conjugateGradients(apply, diagonal, b.subarray(n), new Float64Array(n), options);
    expect(one.solution).toEqual(both.solution.subarray(n));
  });

  it('says what it reached when it had to stop, and stands still at a solution', () => {
    const x = Float64Array.from({ length: n }, () => random.normal());
    const b = timesRows(x, a, n);
    const short = conjugateGradients(apply, diagonal, b, new Float64Array(n), { tolerance: 1e-12, maxIterations: 3 });
    expect(short.iterations).toBe(3);
    expect(short.residual).toBeGreaterThan(1e-12);
    const done = conjugateGradients(apply, diagonal, b, x.slice(), { tolerance: 1e-10, maxIterations: 9 });
    expect(done.iterations).toBe(0);
    expect(done.solution).toEqual(x);
    const zero = conjugateGradients(apply, diagonal, new Float64Array(n), new Float64Array(n), {
      tolerance: 1e-10,
      maxIterations: 9,
    });
    expect(zero.residual).toBe(0);
  });
});
