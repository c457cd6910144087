import { describe, expect, it } from 'vitest';
import { applyProbe, fitLogisticProbe, fitRidge, fitStandardisation } from '../../src/linalg/linear-probe.js';
import { nelderMead } from '../../src/linalg/nelder-mead.js';
import { createRandom } from '../../src/random.js';

describe('Nelder-Mead', () => {
  const rosenbrock = (x: Float64Array): number => 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2;

  it('finds the minimum of the Rosenbrock valley', () => {
    const found = nelderMead(rosenbrock, [-1.2, 1], { maxEvaluations: 2000 });
    expect(found.converged).toBe(true);
    expect(found.point[0]).toBeCloseTo(1, 6);
    expect(found.point[1]).toBeCloseTo(1, 6);
  });

  it('finds it in ten dimensions with adaptive coefficients', () => {
    const bowl = (x: Float64Array): number => x.reduce((sum, value, i) => sum + (i + 1) * (value - i) ** 2, 0);
    const found = nelderMead(bowl, new Float64Array(10), { adaptive: true, step: 1, maxEvaluations: 20_000 });
    found.point.forEach((value, i) => {
      expect(value).toBeCloseTo(i, 4);
    });
  });

  it('takes NaN for worse than anything and stops when evaluations run out', () => {
    const half = nelderMead((x) => (x[0] < 0 ? Number.NaN : (x[0] - 2) ** 2), [1], {});
    expect(half.point[0]).toBeCloseTo(2, 5);
    const short = nelderMead(rosenbrock, [-1.2, 1], { maxEvaluations: 10 });
    expect(short.converged).toBe(false);
    expect(short.evaluations).toBeLessThanOrEqual(14);
  });
});

describe('linear probes', () => {
  const [rows, features] = [120, 4];
  const random = createRandom(12);
  const x = Float64Array.from({ length: rows * features }, (_, i) => random.normal() * (1 + (i % features)) + 2);

  it('ridge recovers a linear map, and is stationary with decay', () => {
    const y = Float64Array.from({ length: rows }, (_, r) => 3 * x[r * features] - x[r * features + 2] + 5);
    const exact = fitRidge(x, y, rows, features, 1, 0);
    applyProbe(exact, x, rows).forEach((value, r) => {
      expect(value).toBeCloseTo(y[r], 8);
    });
    const decayed = fitRidge(x, y, rows, features, 1, 0.3);
    const { mean, scale } = fitStandardisation(x, rows, features);
    const residuals = applyProbe(decayed, x, rows).map((value, r) => value - y[r]);
    for (let j = 0; j < features; j++) {
      let gradient = 0.3 * decayed.weights[j];
      for (let r = 0; r < rows; r++) gradient += (residuals[r] * (x[r * features + j] - mean[j])) / scale[j] / rows;
      expect(gradient).toBeCloseTo(0, 10);
    }
  });

  it('ridge names dependent features and entries that are not finite', () => {
    const twice = Float64Array.from({ length: 2 * rows }, (_, i) => x[(i >> 1) * features]);
    expect(() => fitRidge(twice, new Float64Array(rows), rows, 2, 1, 0)).toThrow(/linearly dependent/);
    const broken = x.slice();
    broken[6] = Number.NaN;
    expect(() => fitRidge(broken, new Float64Array(rows), rows, features, 1, 1)).toThrow(/column 2/);
  });

  it('logistic reaches a stationary point and does not change when features are repeated', () => {
    const labels = Int32Array.from({ length: rows }, (_, r) => {
      const u = x[r * features] + 0.8 * random.normal();
      return u < 1.3 ? 0 : u < 2.6 ? 1 : 2;
    });
    const probe = fitLogisticProbe(x, labels, rows, features, 3, 0.01);
    expect(probe.gradientNorm).toBeLessThan(1e-8);
    const scores = applyProbe(probe, x, rows);
    let correct = 0;
    for (let r = 0; r < rows; r++) {
      const own = [...scores.subarray(3 * r, 3 * r + 3)];
      if (own.indexOf(Math.max(...own)) === labels[r]) correct++;
    }
    expect(correct / rows).toBeGreaterThan(0.55);
    // Twice the features with twice the decay is the same probe: w splits evenly over the copies.
    const doubled = new Float64Array(2 * rows * features);
    for (let r = 0; r < rows; r++) {
      const row = x.subarray(r * features, (r + 1) * features);
      doubled.set(row, 2 * r * features);
      doubled.set(row, (2 * r + 1) * features);
    }
    const wide = fitLogisticProbe(doubled, labels, rows, 2 * features, 3, 0.02);
    const wideScores = applyProbe(wide, doubled, rows);
    for (let r = 0; r < rows; r++) {
      for (let k = 1; k < 3; k++) {
        expect(wideScores[3 * r + k] - wideScores[3 * r]).toBeCloseTo(scores[3 * r + k] - scores[3 * r], 5);
      }
    }
  });

  it('logistic refuses missing classes and a decay of zero', () => {
    const labels = new Int32Array(rows);
    expect(() => fitLogisticProbe(x, labels, rows, features, 2, 0.1)).toThrow(/class 1 is missing/);
    expect(() => fitLogisticProbe(x, labels, rows, features, 1, 0)).toThrow(/positive/);
    labels[3] = 9;
    expect(() => fitLogisticProbe(x, labels, rows, features, 2, 0.1)).toThrow(/row 3 has label 9/);
  });
});
