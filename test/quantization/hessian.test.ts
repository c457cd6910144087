import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { rotateHessian, rotateRows } from '../../src/kernels/hadamard.js';
import { planRotation } from '../../src/linalg/hadamard.js';
import {
  clearDeadInputs,
  factorHessian,
  groupOrder,
  type HessianFactor,
  listRanges,
  orderColumns,
} from '../../src/quantization/hessian.js';
import { correlatedHessian, normals } from './hessian-cases.js';

/** `R Rᵀ`, and what lies below the diagonal must be H. */
function rebuild({ n, packed }: HessianFactor): Float64Array {
  const H = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      for (let k = Math.max(i, j); k < n; k++) H[i * n + j] += packed[i * n + k] * packed[j * n + k];
    }
  }
  return H;
}

function expectFactor(factor: HessianFactor, H: Float64Array, ridge: number): void {
  const { n } = factor;
  const product = rebuild(factor);
  let worst = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      const wanted = H[i * n + j] + (i === j ? ridge : 0);
      worst = Math.max(worst, Math.abs(product[i * n + j] - wanted));
      if (j < i) worst = Math.max(worst, Math.abs(factor.packed[i * n + j] - wanted));
    }
    worst = Math.max(worst, Math.abs(factor.diagonal[i] - H[i * n + i] - ridge));
  }
  expect(worst).toBeLessThan(1e-10);
}

function meanDiagonal(H: Float64Array, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += H[i * n + i];
  return sum / n;
}

describe('factor of a Hessian', () => {
  it.each([1, 5, 64, 150])('is R with H = R Rᵀ, n %i', (n) => {
    const H = correlatedHessian(n, 3 * n, 1);
    const factor = factorHessian(H.slice(), n, { tensor: 'w', tokens: 3 * n });
    expect(factor.warnings).toEqual([]);
    expect(factor.damping).toBe(0.01);
    expectFactor(factor, H, 0.01 * meanDiagonal(H, n));
  });

  it('raises the damping until there is a factor, and says so', () => {
    const n = 90;
    const H = correlatedHessian(n, 4 * n, 2);
    const mean = meanDiagonal(H, n);
    // Rounding of f16 statistics, exaggerated: the least eigenvalue becomes negative.
    for (let i = 0; i < n; i++) H[i * n + i] -= 0.12 * mean;
    const shifted = meanDiagonal(H, n);
    const factor = factorHessian(H.slice(), n, { tensor: 'layer.w', tokens: n });
    expect(factor.damping).toBe(1);
    expectFactor(factor, H, shifted);
    expect(factor.warnings[0]).toBe('Hessian of layer.w is not positive definite with damping 0.01, 0.1: 1 is used');
    expect(factor.warnings[1]).toBe('Hessian of layer.w: 90 tokens for 90 inputs, fewer than two an input');
  });

  it('gives up after damping 1', () => {
    const H = Float64Array.from([1, 5, 5, 1]);
    expect(() => factorHessian(H, 2, { tensor: 'layer.w', tokens: 7 })).toThrow(
      new InputError('Hessian of layer.w is not positive definite after damping 1; 7 tokens for 2 inputs'),
    );
  });

  it('lists dead inputs, and refuses a Hessian of nothing else', () => {
    const n = 12;
    const H = correlatedHessian(n, 40, 3);
    for (const dead of [2, 3, 4, 9]) {
      for (let i = 0; i < n; i++) {
        H[dead * n + i] = 0;
        H[i * n + dead] = 0;
      }
    }
    const revived = H.slice();
    for (const dead of [2, 3, 4, 9]) revived[dead * n + dead] = 1;
    const factor = factorHessian(H.slice(), n, { tensor: 'w' });
    expect(Array.from(factor.deadInputs)).toEqual([2, 3, 4, 9]);
    expect(factor.warnings[0]).toContain('2-4, 9');
    expectFactor(factor, revived, 0.01 * meanDiagonal(revived, n));
    const weights = Float32Array.from(normals(2 * n, 4));
    clearDeadInputs(weights, 2, n, factor.deadInputs);
    expect([2, 9, 14, 21].map((at) => weights[at])).toEqual([0, 0, 0, 0]);
    expect(weights[1]).not.toBe(0);
    expect(() => factorHessian(new Float64Array(n * n), n, { tensor: 'w' })).toThrow(/rank zero: all 12 inputs.*0-11/);
  });

  it('turns with the rows of the weights', () => {
    const n = 24;
    const rotation = planRotation(n, 9n);
    const H = correlatedHessian(n, 60, 5);
    const w = normals(n, 6);
    const energy = (row: Float64Array, M: Float64Array): number => {
      let sum = 0;
      for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) sum += row[i] * M[i * n + j] * row[j];
      return sum;
    };
    const factor = factorHessian(H.slice(), n, { tensor: 'w', rotation });
    const turned = H.slice();
    rotateHessian(turned, rotation);
    const turnedRow = w.slice();
    rotateRows(turnedRow, 1, rotation, 'forward');
    expect(energy(turnedRow, turned)).toBeCloseTo(energy(w, H), 9);
    expectFactor(factor, turned, 0.01 * meanDiagonal(H, n));
  });

  it('orders groups by their mean diagonal', () => {
    const diagonal = Float64Array.from([1, 2, 9, 9, 5, 5, 7]);
    expect(Array.from(groupOrder(diagonal, 2))).toEqual([2, 3, 4, 5, 0, 1, 6]);
    const rows = Float64Array.from([0, 1, 2, 3, 4, 5, 6]);
    const order = groupOrder(diagonal, 2);
    orderColumns(rows, 1, 7, order);
    expect(Array.from(rows)).toEqual([2, 3, 4, 5, 0, 1, 6]);
    orderColumns(rows, 1, 7, order, true);
    expect(Array.from(rows)).toEqual([0, 1, 2, 3, 4, 5, 6]);
    const n = 20;
    const H = correlatedHessian(n, 50, 7);
    const factor = factorHessian(H.slice(), n, { tensor: 'w', orderGroups: 4 });
    const ordered = new Float64Array(n * n);
    const places = factor.columnOrder ?? new Int32Array(n);
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) ordered[i * n + j] = H[places[i] * n + places[j]];
    expectFactor(factor, ordered, 0.01 * meanDiagonal(H, n));
    for (let g = 1; g < n / 4; g++) {
      const mean = (at: number): number => factor.diagonal.subarray(at, at + 4).reduce((sum, value) => sum + value, 0);
      expect(mean(4 * g)).toBeLessThanOrEqual(mean(4 * g - 4));
    }
  });

  it.each([
    ['not finite', [1, Number.NaN, Number.NaN, 1]],
    ['not symmetric', [1, 0.5, 0.4, 1]],
    ['on the diagonal', [-1, 0, 0, 1]],
  ])('refuses a matrix that is %s', (message, entries) => {
    expect(() => factorHessian(Float64Array.from(entries), 2, { tensor: 'w' })).toThrow(message);
  });

  it('refuses a damping outside 0 to 1, and lists long ranges briefly', () => {
    expect(() => factorHessian(Float64Array.from([1]), 1, { tensor: 'w', damping: 2 })).toThrow(InputError);
    expect(factorHessian(Float64Array.from([4]), 1, { tensor: 'w', damping: 0 }).packed[0]).toBe(2);
    expect(listRanges([0, 1, 5, 7, 8], 2)).toBe('0-1, 5, ... (5 in all)');
  });
});
