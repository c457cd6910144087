import { describe, expect, it } from 'vitest';
import { type LeastSquaresProblem, leastSquares } from '../../src/linalg/levenberg-marquardt.js';

describe('Levenberg-Marquardt', () => {
  it('solves a straight problem as the normal equations do', () => {
    const rows = [
      [1, 0],
      [1, 1],
      [1, 2],
      [1, 3],
    ];
    const y = [1, 3, 2, 5];
    const problem: LeastSquaresProblem = {
      unknowns: 2,
      residuals: 4,
      evaluate(x, residuals, jacobian) {
        rows.forEach((row, r) => {
          residuals[r] = row[0] * x[0] + row[1] * x[1] - y[r];
          jacobian?.set(row, 2 * r);
        });
      },
    };
    const { point, sumOfSquares } = leastSquares(problem, Float64Array.of(50, -50));
    expect(point[0]).toBeCloseTo(1.1, 8);
    expect(point[1]).toBeCloseTo(1.1, 8);
    expect(sumOfSquares).toBeCloseTo(2.7, 10);
  });

  it('walks the valley of Rosenbrock, and refuses steps without a number', () => {
    const problem: LeastSquaresProblem = {
      unknowns: 2,
      residuals: 2,
      evaluate([a, b], residuals, jacobian) {
        residuals[0] = a > 4 ? Number.NaN : 10 * (b - a * a);
        residuals[1] = 1 - a;
        jacobian?.set([-20 * a, 10, -1, 0]);
      },
    };
    const { point, sumOfSquares } = leastSquares(problem, Float64Array.of(-1.2, 1));
    expect([...point].every((x) => Math.abs(x - 1) < 1e-8)).toBe(true);
    expect(sumOfSquares).toBeLessThan(1e-18);
  });
});
