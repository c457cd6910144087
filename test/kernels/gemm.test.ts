import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addSecondMoment, multiply, symmetricRank2K, symmetricRankK } from '../../src/kernels/gemm.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

type Width = 'double' | 'single' | 'widened';

function randomArray(length: number, seed: number, width: Width = 'double'): Float64Array | Float32Array {
  const random = createRandom(seed);
  const array = width === 'double' ? new Float64Array(length) : new Float32Array(length);
  for (let i = 0; i < length; i++) array[i] = random.normal();
  return array;
}

/** Sum in double of what lies at `left(l)` and `right(l)`. */
function inner(k: number, left: (l: number) => number, right: (l: number) => number): number {
  let sum = 0;
  for (let l = 0; l < k; l++) sum += left(l) * right(l);
  return sum;
}

/** Rounding of a sum of k products of normal numbers, with room; that of k squares is as that of k * k products. */
const tolerance = (width: Width, k: number): number => (width === 'double' ? 1e-15 : 6e-7) * 8 * Math.sqrt(1 + k);

const sameBits = (a: Float64Array, b: Float64Array): boolean => Buffer.from(a.buffer).equals(Buffer.from(b.buffer));

/** Nothing, single entries, odd ones, and one more than a tile, a block and a panel of depth. */
const SIZES: readonly (readonly [number, number, number])[] = [
  [1, 1, 1],
  [0, 3, 2],
  [3, 0, 2],
  [2, 3, 0],
  [5, 7, 3],
  [8, 24, 16],
  [9, 49, 257],
  [193, 25, 33],
  [17, 481, 9],
  [64, 3, 515],
];

describe.each(kernelModes())('products of matrices, $name', (mode) => {
  beforeAll(mode.use);
  afterAll(useBestKernels);

  for (const width of ['double', 'single', 'widened'] as const) {
    it(`equal their sums for every shape and transposition, ${width}`, () => {
      for (const [m, n, k] of SIZES) {
        for (const [transposeA, transposeB] of [
          [false, false],
          [false, true],
          [true, false],
          [true, true],
        ]) {
          const a = randomArray(m * k, 1, width);
          const b = randomArray(k * n, 2, width);
          const c = width === 'single' ? new Float32Array(m * n) : new Float64Array(m * n);
          multiply(a, b, c.fill(Number.NaN), { m, n, k }, { transposeA, transposeB });
          for (let i = 0; i < m; i++) {
            for (let j = 0; j < n; j++) {
              const expected = inner(
                k,
                (l) => a[transposeA ? l * m + i : i * k + l],
                (l) => b[transposeB ? j * k + l : l * n + j],
              );
              // One comparison a failure, not one an entry: an expectation costs more than the product.
              if (!(Math.abs(c[i * n + j] - expected) <= tolerance(width, k))) expect(c[i * n + j]).toBe(expected);
            }
          }
        }
      }
    });
  }

  it('scale, add to what is there, and leave what lies between rows alone', () => {
    const [m, n, k, strideA, strideB, strideC] = [11, 29, 5, 7, 31, 40];
    const a = randomArray(m * strideA, 1);
    const b = randomArray(k * strideB, 2);
    const before = randomArray(m * strideC, 3);
    const c = Float64Array.from(before);
    multiply(a, b, c, { m, n, k }, { strideA, strideB, strideC, alpha: -2, beta: 0.5 });
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < strideC; j++) {
        const at = i * strideC + j;
        const sum = inner(
          k,
          (l) => a[i * strideA + l],
          (l) => b[l * strideB + j],
        );
        expect(c[at]).toBeCloseTo(j < n ? 0.5 * before[at] - 2 * sum : before[at], 12);
      }
    }
  });

  it('scale by beta alone when the depth is 0', () => {
    const none = new Float64Array(0);
    const c = Float64Array.of(1, 2, Number.NaN, 4);
    expect(multiply(none, none, c, { m: 1, n: 2, k: 0 }, { beta: 3 })).toEqual(Float64Array.of(3, 6, Number.NaN, 4));
    expect(symmetricRankK(none, c, { n: 2, k: 0 })).toEqual(Float64Array.of(0, 6, 0, 0));
  });

  it('give the lower triangle of XXᵀ, XᵀX and XYᵀ + YXᵀ and nothing above it', () => {
    for (const [n, k] of [
      [1, 4],
      [7, 3],
      [50, 19],
      [200, 5],
      [31, 300],
    ]) {
      for (const transpose of [false, true]) {
        const x = randomArray(n * k, 4);
        const y = randomArray(n * k, 5);
        const at = (array: ArrayLike<number>, i: number, l: number) => array[transpose ? l * n + i : i * k + l];
        const once = symmetricRankK(x, new Float64Array(n * n).fill(7), { n, k }, { transpose, alpha: 3 });
        const twice = symmetricRank2K(x, y, new Float64Array(n * n).fill(7), { n, k }, { transpose, beta: -1 });
        for (let i = 0; i < n; i++) {
          for (let j = 0; j < n; j++) {
            const square = inner(
              k,
              (l) => at(x, i, l),
              (l) => at(x, j, l),
            );
            const cross = inner(
              k,
              (l) => at(x, i, l) * at(y, j, l) + at(y, i, l) * at(x, j, l),
              () => 1,
            );
            const close = (found: number, expected: number) =>
              Math.abs(found - (j > i ? 7 : expected)) <= tolerance('double', k * k);
            if (!close(once[i * n + j], 3 * square)) expect(once[i * n + j]).toBe(3 * square);
            if (!close(twice[i * n + j], cross - 7)) expect(twice[i * n + j]).toBe(cross - 7);
          }
        }
      }
    }
  });

  it('keep the digits of a long second moment of singles, whole or in blocks of rows', () => {
    const [rows, columns] = [4096, 3];
    const x = randomArray(rows * columns, 6, 'single').map((value) => 100 + value);
    const single = x instanceof Float32Array ? x : new Float32Array(x);
    const whole = addSecondMoment(single, rows, columns, new Float64Array(columns * columns));
    const parts = new Float64Array(columns * columns);
    for (let row = 0; row < rows; row += 1000) {
      const count = Math.min(1000, rows - row);
      addSecondMoment(single.subarray(row * columns), count, columns, parts);
    }
    for (let i = 0; i < columns; i++) {
      for (let j = 0; j <= i; j++) {
        const expected = inner(
          rows,
          (l) => single[l * columns + i],
          (l) => single[l * columns + j],
        );
        expect(Math.abs(whole[i * columns + j] / expected - 1)).toBeLessThan(1e-6);
        expect(Math.abs(parts[i * columns + j] / expected - 1)).toBeLessThan(1e-6);
      }
    }
  });

  it('are the same bits on any number of threads', () => {
    const [m, n, k] = mode.name === 'typescript' ? [20, 20, 20] : [400, 500, 300];
    const a = randomArray(m * k, 7);
    const b = randomArray(k * n, 8);
    const one = multiply(a, b, new Float64Array(m * n), { m, n, k }, { threads: 1 });
    expect(sameBits(multiply(a, b, new Float64Array(m * n), { m, n, k }, { threads: 3 }), one)).toBe(true);
    const moment = symmetricRankK(a, new Float64Array(m * m), { n: m, k }, { threads: 1 });
    expect(sameBits(symmetricRankK(a, new Float64Array(m * m), { n: m, k }, { threads: 3 }), moment)).toBe(true);
  });

  it('refuse shapes and widths that do not fit', () => {
    const a = new Float64Array(6);
    const sizes = { m: 2, n: 2, k: 3 };
    const c = new Float64Array(4);
    expect(() => multiply(a.subarray(1), a, c, sizes)).toThrow(RangeError);
    expect(() => multiply(a, a, c.subarray(1), sizes)).toThrow(RangeError);
    expect(() => multiply(a, a, c, sizes, { strideA: 2 })).toThrow(RangeError);
    expect(() => multiply(a, a, c, { m: -1, n: 2, k: 3 })).toThrow(RangeError);
    expect(() => multiply(a, new Float32Array(6), c, sizes)).toThrow(TypeError);
    expect(() => multiply(a, a, new Float32Array(4), sizes)).toThrow(TypeError);
  });
});
