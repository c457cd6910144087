import { afterAll, describe, expect, it } from 'vitest';
import { configureKernels } from '../../src/kernels/native.js';
import { choleskyInPlace, invertLower, pivotedCholesky, solveRows } from '../../src/linalg/blocked-cholesky.js';
import { fitLogisticProbe } from '../../src/linalg/linear-probe.js';
import { type Design, fitMultinomial, heldDesign } from '../../src/linalg/multinomial-newton.js';
import { ridgePath, solveRidge } from '../../src/linalg/ridge.js';
import { rowSpaceOf } from '../../src/linalg/row-space.js';
import { createRandom } from '../../src/random.js';

const draw = (seed: number, size: number): Float64Array => {
  const random = createRandom(seed);
  return Float64Array.from({ length: size }, () => random.normal());
};

/** `A^T A / rows` of `[rows, n]`, both triangles. */
function gramOf(a: Float64Array, rows: number, n: number): Float64Array {
  const gram = new Float64Array(n * n);
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) gram[i * n + j] += (a[r * n + i] * a[r * n + j]) / rows;
    }
  }
  return gram;
}

describe('Cholesky by blocks', () => {
  it.each([1, 63, 64, 65, 150])('factors and solves order %d', (n) => {
    const a = gramOf(draw(n, (n + 5) * n), n + 5, n);
    for (let i = 0; i < n; i++) a[i * n + i] += 0.1;
    const factor = a.slice();
    expect(choleskyInPlace(factor, n)).toBe(true);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j <= i; j++) {
        let sum = 0;
        for (let k = 0; k <= j; k++) sum += factor[i * n + k] * factor[j * n + k];
        expect(sum).toBeCloseTo(a[i * n + j], 10);
      }
    }
    const b = draw(7, 3 * n);
    const x = solveRows(invertLower(factor, n), n, b, 3);
    for (let k = 0; k < 3; k++) {
      for (let i = 0; i < n; i++) {
        let sum = 0;
        for (let j = 0; j < n; j++) sum += a[i * n + j] * x[k * n + j];
        expect(sum).toBeCloseTo(b[k * n + i], 8);
      }
    }
  });

  it('says when a matrix is not positive definite', () => {
    const a = new Float64Array(80 * 80);
    for (let i = 0; i < 80; i++) a[i * 80 + i] = i === 70 ? -1 : 1;
    expect(choleskyInPlace(a, 80)).toBe(false);
  });

  it.each([
    [90, 20],
    [150, 100],
  ])('with pivots finds the rank of %d rows in %d dimensions', (n, rank) => {
    const x = draw(n, n * rank);
    const gram = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j <= i; j++) {
        for (let k = 0; k < rank; k++) gram[i * n + j] += x[i * rank + k] * x[j * rank + k];
      }
    }
    const found = pivotedCholesky(gram.slice(), n);
    expect(found.rank).toBe(rank);
    for (let i = 0; i < n; i += 7) {
      for (let j = 0; j <= i; j++) {
        let sum = 0;
        for (let k = 0; k < rank; k++) sum += found.factor[i * rank + k] * found.factor[j * rank + k];
        expect(sum).toBeCloseTo(gram[i * n + j], 8);
      }
    }
  });
});

describe('multinomial logistic regression', () => {
  const rows = 120;
  const width = 6;
  const classes = 3;
  const x = draw(3, rows * width);
  const noise = draw(4, rows);
  const labels = Int32Array.from({ length: rows }, (_, r) => {
    const score = x[r * width] + 0.5 * x[r * width + 1] + noise[r];
    return score < -0.6 ? 0 : score < 0.6 ? 1 : 2;
  });
  const design = heldDesign(x, rows, width);

  it('has a gradient of zero by finite differences of its objective', () => {
    const fit = fitMultinomial(design, labels, classes, 0.03);
    expect(fit.converged).toBe(true);
    const objective = (theta: Float64Array): number => {
      let total = 0;
      for (let r = 0; r < rows; r++) {
        const logits = Array.from({ length: classes }, (_, k) => {
          let sum = theta[classes * width + k];
          for (let j = 0; j < width; j++) sum += theta[k * width + j] * x[r * width + j];
          return sum;
        });
        total += Math.log(logits.reduce((sum, v) => sum + Math.exp(v), 0)) - logits[labels[r]];
      }
      let squares = 0;
      for (let i = 0; i < classes * width; i++) squares += theta[i] ** 2;
      return total / rows + 0.015 * squares;
    };
    expect(fit.objective).toBeCloseTo(objective(fit.theta), 12);
    for (let i = 0; i < fit.theta.length; i++) {
      const up = fit.theta.slice();
      const down = fit.theta.slice();
      up[i] += 1e-5;
      down[i] -= 1e-5;
      expect(Math.abs(objective(up) - objective(down)) / 2e-5).toBeLessThan(1e-8);
    }
  });

  it('gives the same in parts, preconditioned, and without the addon', () => {
    const plain = fitMultinomial(design, labels, classes, 0.01);
    const split = (from: number, to: number): Float64Array => {
      const part = new Float64Array(rows * (to - from));
      for (let r = 0; r < rows; r++) part.set(x.subarray(r * width + from, r * width + to), r * (to - from));
      return part;
    };
    const sides = [split(0, 2), split(2, width)];
    const parts: Design = {
      rows,
      widths: [2, 4],
      part: (m, start, count) => sides[m].subarray(start * [2, 4][m], (start + count) * [2, 4][m]),
    };
    const joint = fitMultinomial(parts, labels, classes, 0.01);
    expect(joint.objective).toBeCloseTo(plain.objective, 13);
    for (let k = 0; k < classes; k++) {
      expect(joint.theta[k * 2 + 1]).toBeCloseTo(plain.theta[k * width + 1], 7);
      expect(joint.theta[classes * 2 + k * 4]).toBeCloseTo(plain.theta[k * width + 2], 7);
    }
    const gram = gramOf(x, rows, width);
    for (const fit of [
      fitMultinomial(design, labels, classes, 0.01, { gram }),
      fitMultinomial(parts, labels, classes, 0.01, { gram }),
    ]) {
      expect(fit.gradientNorm).toBeLessThan(1e-8);
      expect(fit.objective).toBeCloseTo(plain.objective, 13);
    }
    configureKernels({ native: false });
    const reference = fitMultinomial(design, labels, classes, 0.01, { gram });
    configureKernels({ native: true });
    reference.theta.forEach((value, i) => {
      expect(value).toBeCloseTo(plain.theta[i], 6);
    });
  });
  afterAll(() => configureKernels({ native: true }));

  it('does not change without a penalty when the features are repeated', () => {
    const copies = 3;
    const repeated = new Float64Array(rows * width * copies);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < copies; c++) {
        repeated.set(x.subarray(r * width, (r + 1) * width), (r * copies + c) * width);
      }
    }
    const once = fitMultinomial(design, labels, classes, 0);
    const thrice = fitMultinomial(heldDesign(repeated, rows, width * copies), labels, classes, 0);
    expect(thrice.objective).toBeCloseTo(once.objective, 12);
    for (let k = 0; k < classes; k++) {
      for (let j = 0; j < width; j++) {
        let sum = 0;
        for (let c = 0; c < copies; c++) sum += thrice.theta[k * width * copies + c * width + j];
        expect(sum).toBeCloseTo(once.theta[k * width + j], 5);
      }
    }
  });

  it('is the same in the dual form', () => {
    const few = 20;
    const wide = 50;
    const z = draw(9, few * wide);
    const own = Int32Array.from({ length: few }, (_, r) => r % classes);
    const dual = fitLogisticProbe(z, own, few, wide, classes, 0.02);
    const mean = Array.from({ length: wide }, (_, j) => {
      let sum = 0;
      for (let r = 0; r < few; r++) sum += z[r * wide + j] / few;
      return sum;
    });
    expect(dual.standardisation.mean[3]).toBeCloseTo(mean[3], 12);
    const standard = z.map((v, i) => (v - dual.standardisation.mean[i % wide]) / dual.standardisation.scale[i % wide]);
    const primal = fitMultinomial(heldDesign(standard, few, wide), own, classes, 0.02);
    expect(dual.objective).toBeCloseTo(primal.objective, 12);
    for (let i = 0; i < classes * wide; i++) expect(dual.weights[i]).toBeCloseTo(primal.theta[i], 6);
    const space = rowSpaceOf(heldDesign(standard, few, wide));
    expect(space.rank).toBe(few - 1);
  });
});

describe('ridge regression', () => {
  it('gives every decay from one decomposition as one factor each does', () => {
    const d = 12;
    const gram = gramOf(draw(1, 40 * d), 40, d);
    const cross = draw(2, 2 * d);
    const decays = [1e-3, 0.1, 10];
    const path = ridgePath(gram, cross, d, 2, decays);
    expect(path.method).toBe('eigendecomposition');
    decays.forEach((decay, i) => {
      const single = solveRidge(gram, cross, d, 2, decay) ?? expect.fail('regular');
      single.forEach((value, j) => {
        expect(path.weights[i]?.[j]).toBeCloseTo(value, 9);
      });
    });
  });

  it('gives dependent features the least norm, and no factor at decay 0', () => {
    const gram = Float64Array.of(1, 1, 1, 1);
    const cross = Float64Array.of(2, 2);
    expect(solveRidge(gram, cross, 2, 1, 0)).toBeUndefined();
    const [weights] = ridgePath(gram, cross, 2, 1, [0]).weights;
    expect(weights?.[0]).toBeCloseTo(1, 12);
    expect(weights?.[1]).toBeCloseTo(1, 12);
  });
});
