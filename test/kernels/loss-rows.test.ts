import { describe, expect, test } from 'vitest';
import { type Floats, lossRows, type RowOperation, type SparseRows, sparseRows } from '../../src/kernels/loss-rows.js';
import { lossRowsReference } from '../../src/kernels/loss-rows-reference.js';
import { nativeKernels } from '../../src/kernels/native.js';
import { sparseRowsReference } from '../../src/kernels/sparse-rows-reference.js';
import { createRandom } from '../../src/random.js';

const OPERATIONS: readonly RowOperation[] = [
  { kind: 'cross-entropy', smoothing: 0 },
  { kind: 'cross-entropy', smoothing: 0.2 },
  { kind: 'forward-kl', temperature: 1 },
  { kind: 'forward-kl', temperature: 4 },
  { kind: 'reverse-kl', temperature: 0.7 },
  { kind: 'jsd', temperature: 2, beta: 0.3 },
  { kind: 'total-variation', temperature: 1 },
  { kind: 'comp-sum', tau: 0 },
  { kind: 'comp-sum', tau: 1 },
  { kind: 'comp-sum', tau: 1.7 },
];

const SIZES = [1, 2, 63, 64, 65, 1000];
const ROWS = 5;

function draw(seed: number, count: number, spread: number, wide: boolean): Floats {
  const random = createRandom(seed);
  const values = Float64Array.from({ length: count }, () => spread * random.normal());
  return wide ? values : Float32Array.from(values);
}

/** @param size the least magnitude that rounding is relative to: gradients are differences of terms as large as the loss */
function expectEqual(actual: Floats, expected: Floats, relative: number, size = 0): void {
  let largest = size;
  for (const value of expected) if (Number.isFinite(value)) largest = Math.max(largest, Math.abs(value));
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const apart = Math.abs(actual[i] - expected[i]);
    if (actual[i] !== expected[i] && !(apart <= worst)) worst = Number.isNaN(apart) ? Number.POSITIVE_INFINITY : apart;
  }
  expect(worst).toBeLessThanOrEqual(relative * largest);
}

const like = (values: Floats): Floats => (values instanceof Float64Array ? values.slice() : values.slice());

describe.skipIf(nativeKernels() === undefined)('native losses of rows agree with the reference', () => {
  for (const wide of [true, false]) {
    // Single gradients are rounded once on both sides, and their doubles differ in the last bits.
    const digits = wide ? 1e-13 : 1.3e-7;
    test.each(OPERATIONS)(`%j ${wide ? 'f64' : 'f32'}`, (operation) => {
      for (const classes of SIZES) {
        for (const spread of [1, 60]) {
          const student = draw(1, ROWS * classes, spread, wide);
          const teacher = draw(2, ROWS * classes, spread, wide);
          if (classes > 2) {
            student[3] = Number.NEGATIVE_INFINITY;
            teacher[3] = Number.NEGATIVE_INFINITY;
          }
          const labels = Int32Array.from({ length: ROWS }, (_, row) => (row === 2 ? -100 : row % classes));
          const start = draw(3, ROWS * classes, 0.1, wide);
          const results = [lossRowsReference, lossRows].map((compute) => {
            const losses = new Float64Array(ROWS).fill(7);
            const gradient = like(start);
            compute(operation, { rows: ROWS, classes, student, teacher, labels, losses, gradient, scale: 0.5 });
            return { losses, gradient };
          });
          expectEqual(results[1].losses, results[0].losses, 1e-13);
          const size = wide ? Math.max(...results[0].losses.filter(Number.isFinite)) : 0;
          expectEqual(results[1].gradient, results[0].gradient, digits, Math.min(size, 1e3));
        }
      }
    });

    test(`top-k teacher ${wide ? 'f64' : 'f32'}`, () => {
      for (const classes of [3, 64, 500]) {
        const student = draw(4, ROWS * classes, 5, wide);
        const ids = Int32Array.from({ length: ROWS * 3 }, (_, i) => (i === 5 ? -1 : (i % 3) * (classes > 3 ? 7 : 1)));
        const logProbs = Float64Array.from(ids, (_, i) => Math.log([0.5, 0.2, 0.1][i % 3]));
        for (const rule of ['zero', 'symmetric-uniform'] as const) {
          const results = [sparseRowsReference, sparseRows].map((compute) => {
            const losses = new Float64Array(ROWS);
            const gradient = like(student);
            const leftover = new Float64Array(ROWS).fill(0.2);
            const labels = Int32Array.of(0, 1, -100, 1, 0);
            const request: SparseRows = {
              ...{ rows: ROWS, classes, student, k: 3, ids, logProbs, leftover, temperature: 2, rule },
              ...{ labels, losses, gradient, scale: 3 },
            };
            compute(request);
            return { losses, gradient };
          });
          expectEqual(results[1].losses, results[0].losses, 1e-13);
          expectEqual(results[1].gradient, results[0].gradient, digits);
        }
      }
    });
  }

  test('the bits are the same for any number of threads', () => {
    const classes = 300;
    const student = draw(5, 64 * classes, 3, false);
    const teacher = draw(6, 64 * classes, 3, false);
    const [one, four] = [1, 4].map((threads) => {
      const losses = new Float64Array(64);
      const gradient = new Float32Array(64 * classes);
      const request = { rows: 64, classes, student, teacher, losses, gradient };
      lossRows({ kind: 'forward-kl', temperature: 2 }, request, threads);
      return { losses, gradient };
    });
    expect(four).toEqual(one);
  });
});

describe('rows that are no distribution', () => {
  const bad: readonly [string, number[]][] = [
    ['NaN', [0, Number.NaN, 1]],
    ['NaN at the label', [Number.NaN, 0, 1]],
    ['+Infinity', [0, Number.POSITIVE_INFINITY, 1]],
    ['+Infinity at the label', [Number.POSITIVE_INFINITY, 0, 1]],
    ['nothing finite', [-1, -1, -1].map(() => Number.NEGATIVE_INFINITY)],
  ];
  test.each(bad)('%s gives NaN', (_, logits) => {
    for (const compute of [lossRows, lossRowsReference]) {
      for (const operation of OPERATIONS) {
        const losses = new Float64Array(1);
        const teacher = new Float64Array(3);
        const student = Float64Array.from(logits);
        const gradient = new Float64Array(3);
        compute(operation, { rows: 1, classes: 3, student, teacher, labels: Int32Array.of(0), losses, gradient });
        expect(losses[0], operation.kind).toBeNaN();
      }
    }
  });

  test('a label at -Infinity has an infinite loss', () => {
    for (const compute of [lossRows, lossRowsReference]) {
      const losses = new Float64Array(1);
      const student = Float64Array.of(Number.NEGATIVE_INFINITY, 0, 1);
      const request = { rows: 1, classes: 3, student, labels: Int32Array.of(0), losses };
      compute({ kind: 'cross-entropy', smoothing: 0 }, request);
      expect(losses[0]).toBe(Number.POSITIVE_INFINITY);
    }
  });
});
