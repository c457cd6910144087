import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { largestEigenvalue } from '../../src/linalg/largest-eigenvalue.js';
import { symmetricEigen } from '../../src/linalg/symmetric-eigen.js';
import { createRandom } from '../../src/random.js';
import { acceleratedGradient } from '../../src/regression/accelerated-gradient.js';
import { kktResidual, softThreshold, sparseProblem } from '../../src/regression/composite.js';
import { assignFolds, crossValidate } from '../../src/regression/cross-validation.js';
import { createLoss, type Design } from '../../src/regression/loss.js';
import { lambdaSequence, largestLambda, type PathOptions, solvePath } from '../../src/regression/path.js';
import { concaveDerivative, concavity, createPenalty, PENALTIES, penaltyValue } from '../../src/regression/penalty.js';
import { conjugateGradient } from '../../src/regression/proximal-conjugate-gradient.js';
import { proximalGradient } from '../../src/regression/proximal-gradient.js';
import { solve } from '../../src/regression/solve.js';
import { designOf, standardiseRows } from '../../src/regression/standardise.js';

/** Correlated normal columns and an outcome of three of them. */
function problem(rows: number, columns: number, seed: number, family: 'linear' | 'logistic' = 'linear') {
  const random = createRandom(seed);
  const data = new Float64Array(rows * columns);
  const y = new Float64Array(rows);
  for (let i = 0; i < rows; i++) {
    const common = random.normal();
    for (let j = 0; j < columns; j++) data[i * columns + j] = random.normal() + 0.5 * common;
    const eta = 2 * data[i * columns] - 1.5 * data[i * columns + 1] + data[i * columns + 2] + 0.3;
    y[i] = family === 'linear' ? eta + 0.5 * random.normal() : random.uniform() < 1 / (1 + Math.exp(-eta)) ? 1 : 0;
  }
  const design = designOf(data, rows, columns);
  const all = Int32Array.from({ length: rows }, (_, i) => i);
  return { design: standardiseRows(design, all).design, raw: design, y };
}

const options: PathOptions = { solver: 'ag', tolerance: 1e-8, maxIterations: 10_000, from: 'path', strongRule: true };
const furthest = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i])));

describe('penalties', () => {
  it('are continuous, flat beyond their end, and split into lambda |x| and the concave part', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...PENALTIES),
        fc.double({ min: 0.05, max: 3, noNaN: true }),
        fc.double({ min: -20, max: 20, noNaN: true }),
        (kind, lambda, x) => {
          const penalty = createPenalty(kind, lambda);
          const h = 1e-6;
          const slope = (penaltyValue(penalty, x + h) - penaltyValue(penalty, x - h)) / (2 * h);
          const split = lambda * Math.sign(x) + concaveDerivative(penalty, x);
          if (Math.abs(x) > 1e-3) expect(Math.abs(slope - split)).toBeLessThan(1e-4);
          expect(penaltyValue(penalty, x)).toBeGreaterThanOrEqual(0);
          expect(penaltyValue(penalty, -x)).toBe(penaltyValue(penalty, x));
          const other = concaveDerivative(penalty, x + 0.01);
          expect(Math.abs(other - concaveDerivative(penalty, x))).toBeLessThanOrEqual(
            0.01 * concavity(penalty) + 1e-12,
          );
        },
      ),
    );
  });

  it('refuse shapes whose concave part outweighs, and lambda <= 0', () => {
    expect(() => createPenalty('scad', 1, 2)).toThrow('a=2: SCAD needs a > 2');
    expect(() => createPenalty('mcp', 1, 3.7, 1)).toThrow('gamma=1: MCP needs gamma > 1');
    expect(() => createPenalty('lasso', 0)).toThrow('lambda=0: the penalty needs lambda > 0');
    expect(() => createPenalty('lasso', Number.NaN)).toThrow('needs lambda > 0');
  });
});

describe('largestEigenvalue', () => {
  it.each([1, 5, 40, 120])('equals the full decomposition, order %i', (n) => {
    const random = createRandom(n);
    const b = Float64Array.from({ length: n * n }, () => random.normal());
    const a = new Float64Array(n * n);
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++) for (let k = 0; k < n; k++) a[i * n + j] += b[i * n + k] * b[j * n + k];
    const exact = symmetricEigen(a, n).values[n - 1];
    const found = largestEigenvalue((v, out) => {
      for (let i = 0; i < n; i++) {
        out[i] = 0;
        for (let j = 0; j < n; j++) out[i] += a[i * n + j] * v[j];
      }
    }, n);
    expect(Math.abs(found / exact - 1)).toBeLessThan(1e-10);
  });
});

describe('solvers', () => {
  it('give soft thresholding on orthogonal columns (lasso), and least squares beyond the flat end (SCAD, MCP)', () => {
    const n = 16;
    // Columns of a Hadamard matrix: orthogonal, of unit variance.
    const values = new Float64Array(3 * n);
    for (let j = 0; j < 3; j++) for (let i = 0; i < n; i++) values[j * n + i] = ((i >> j) & 1) === 0 ? 1 : -1;
    const design: Design = { values, rows: n, columns: 3 };
    const y = Float64Array.from({ length: n }, (_, i) => 5 + 3 * values[i] + 0.4 * values[n + i]);
    const loss = createLoss('linear', design, y);
    const lambda = 0.5;
    const lasso = solve(sparseProblem(loss, createPenalty('lasso', lambda)), options).x;
    expect(furthest(lasso, [5, softThreshold(3, lambda), 0, 0])).toBeLessThan(1e-7);
    for (const kind of ['scad', 'mcp'] as const) {
      const x = solve(sparseProblem(loss, createPenalty(kind, lambda)), options).x;
      expect(furthest(x, [5, 3, 0, 0])).toBeLessThan(1e-6);
    }
  });

  it.each(['linear', 'logistic'] as const)('agree on convex problems to 1e-6, %s', (family) => {
    const { design, y } = problem(60, 25, 3, family);
    const loss = createLoss(family, design, y);
    const lambda = 0.1 * largestLambda(loss, options);
    const composite = sparseProblem(loss, createPenalty('lasso', lambda));
    const close = { tolerance: 1e-11, maxIterations: 100_000 };
    const ag = acceleratedGradient(composite, close);
    const pg = proximalGradient(composite, close);
    expect(furthest(ag.x, pg.x)).toBeLessThan(1e-6);
    for (const lineSearch of ['exact', 'wolfe'] as const) {
      const ncg = conjugateGradient(composite, { ...close, tolerance: 1e-10, lineSearch });
      expect(ncg.converged).toBe(true);
      expect(furthest(ag.x, ncg.x)).toBeLessThan(1e-6);
      // The result is the proximal point: zeros are exact.
      for (let j = 1; j < ag.x.length; j++) if (ag.x[j] === 0) expect(Math.abs(ncg.x[j])).toBe(0);
      expect(ncg.iterations).toBeLessThan(pg.iterations);
    }
    expect(kktResidual(composite, ag.x).residual).toBeLessThan(1e-8);
  });

  it('count every gradient evaluation', () => {
    const { design, y } = problem(40, 10, 4);
    const composite = sparseProblem(createLoss('linear', design, y), createPenalty('lasso', 0.1));
    for (const solver of ['ag', 'ncg', 'pg'] as const) {
      let calls = 0;
      const counted = {
        ...composite,
        gradient(x: Float64Array, out: Float64Array) {
          calls++;
          return composite.gradient(x, out);
        },
      };
      const found =
        solver === 'ag'
          ? acceleratedGradient(counted, options)
          : solver === 'pg'
            ? proximalGradient(counted, options)
            : conjugateGradient(counted, options);
      expect(found.gradientEvaluations).toBe(calls);
    }
  });

  it('say so when iterations run out', () => {
    const { design, y } = problem(40, 10, 5);
    const composite = sparseProblem(createLoss('linear', design, y), createPenalty('scad', 0.05));
    const found = solve(composite, { ...options, maxIterations: 3 });
    expect(found.converged).toBe(false);
    expect(found.iterations).toBe(3);
  });
});

describe('paths', () => {
  const shapes = [
    [80, 20],
    [30, 60],
  ] as const;
  it.each(shapes)(
    'keep the KKT residual below 1e-6, and lose no variable to the strong rule, %i x %i',
    (rows, columns) => {
      const { design, y } = problem(rows, columns, 7);
      const loss = createLoss('linear', design, y);
      const lambdas = lambdaSequence(largestLambda(loss, options), 30, 0.01);
      for (const kind of PENALTIES) {
        const penalty = createPenalty(kind, 1);
        const points = solvePath(loss, penalty, lambdas, options);
        for (const point of points) expect(point.kktResidual).toBeLessThan(1e-6);
        expect(points[0].coefficients.columns.length).toBe(0);
        const all = solvePath(loss, penalty, lambdas, { ...options, strongRule: false });
        points.forEach((point, l) => {
          expect(point.screened).toBeLessThanOrEqual(columns);
          // Folded concave penalties have several stationary points when there are more columns than rows.
          if (kind !== 'lasso' && columns > rows) return;
          expect([...point.coefficients.columns]).toEqual([...all[l].coefficients.columns]);
          expect(point.objective).toBeCloseTo(all[l].objective, 8);
        });
      }
    },
  );

  it('hold for the logistic loss', () => {
    const { design, y } = problem(90, 15, 9, 'logistic');
    const loss = createLoss('logistic', design, y);
    const lambdas = lambdaSequence(largestLambda(loss, options), 20, 0.02);
    for (const kind of PENALTIES) {
      const points = solvePath(loss, createPenalty(kind, 1), lambdas, options);
      for (const point of points) expect(point.kktResidual).toBeLessThan(1e-6);
      expect(points[points.length - 1].coefficients.columns.length).toBeGreaterThan(2);
    }
  });

  it('begin where nothing is selected: max |X_j y| / n of centred columns', () => {
    const { design, y } = problem(50, 8, 11);
    const mean = y.reduce((sum, value) => sum + value, 0) / y.length;
    let most = 0;
    for (let j = 0; j < 8; j++) {
      let sum = 0;
      for (let i = 0; i < 50; i++) sum += design.values[j * 50 + i] * (y[i] - mean);
      most = Math.max(most, Math.abs(sum) / 50);
    }
    expect(largestLambda(createLoss('linear', design, y), options)).toBeCloseTo(most, 10);
    expect(() => lambdaSequence(0)).toThrow('nothing to select');
  });
});

describe('cross-validation', () => {
  it('deals balanced folds, both classes in each', () => {
    const y = Float64Array.from({ length: 43 }, (_, i) => (i < 10 ? 1 : 0));
    const folds = assignFolds('logistic', y, 5, 1);
    for (let fold = 0; fold < 5; fold++) {
      const members = [...folds.keys()].filter((i) => folds[i] === fold);
      expect(Math.abs(members.length - 43 / 5)).toBeLessThan(1);
      expect(members.filter((i) => y[i] === 1).length).toBe(2);
    }
    expect([...assignFolds('linear', y, 5, 1)]).toEqual([...assignFolds('linear', y, 5, 1)]);
    expect([...assignFolds('linear', y, 5, 2)]).not.toEqual([...assignFolds('linear', y, 5, 1)]);
  });

  it('chooses the three columns that matter, one standard error at a larger lambda', () => {
    const { raw, design, y } = problem(120, 12, 13);
    const loss = createLoss('linear', design, y);
    const lambdas = lambdaSequence(largestLambda(loss, options), 30, 0.005);
    const penalty = createPenalty('scad', 1);
    const found = crossValidate('linear', raw, y, penalty, lambdas, {
      ...options,
      folds: 5,
      seed: 1,
      standardise: true,
    });
    expect(found.oneStandardError).toBeLessThanOrEqual(found.best);
    expect(found.meanError[found.best]).toBeLessThan(0.4);
    const support = solvePath(loss, penalty, lambdas, options)[found.oneStandardError].coefficients.columns;
    expect([...support]).toEqual([0, 1, 2]);
  });
});
