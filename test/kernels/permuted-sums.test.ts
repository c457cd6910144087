import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { configureKernels } from '../../src/kernels/native.js';
import { addWeighted, divideSum, type PermutedMatrix, squaredDistance } from '../../src/kernels/permuted-sums.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

type Reals = Float32Array | Float64Array;

const random = createRandom(5);
function normals<T extends Reals>(array: T): T {
  for (let i = 0; i < array.length; i++) array[i] = random.normal();
  return array;
}

const SHAPES: readonly (readonly [number, number])[] = [
  [0, 3],
  [1, 1],
  [3, 7],
  [5, 8],
  [9, 33],
  [60, 257],
  [1, 70000],
];

const matrices: PermutedMatrix[] = SHAPES.flatMap(([rows, columns]) => {
  const rowOrder = random.permutation(rows);
  const columnOrder = random.permutation(columns);
  return [
    { rows, columns },
    { rows, columns, rowOrder },
    { rows, columns, columnOrder },
    { rows, columns, rowOrder, columnOrder },
  ];
});

const sameBits = (a: Reals, b: Reals): boolean =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength));

/** x as the matrix takes it, by the definition. */
function taken<T extends Reals>(x: T, { rows, columns, rowOrder, columnOrder }: PermutedMatrix): T {
  const result = x.slice() as T;
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      result[i * columns + j] = x[(rowOrder?.[i] ?? i) * columns + (columnOrder?.[j] ?? j)];
    }
  }
  return result;
}

describe.each(kernelModes())('permuted sums, $name', ({ use }) => {
  beforeAll(use);
  afterAll(useBestKernels);

  it.each([Float32Array, Float64Array])('%o: sums, quotients and distances by their definitions', (Kind) => {
    for (const matrix of matrices) {
      const size = matrix.rows * matrix.columns;
      const x = normals(new Kind(size));
      const before = normals(new Float64Array(size));
      const placed = taken(x, matrix);
      for (const threads of [1, 3]) {
        const sum = before.slice();
        addWeighted(sum, x, matrix, 0.3, { threads });
        expect(
          sameBits(
            sum,
            before.map((value, i) => value + 0.3 * placed[i]),
          ),
        ).toBe(true);
        addWeighted(sum, x, matrix, -0.7, { overwrite: true, threads });
        expect(
          sameBits(
            sum,
            Float64Array.from(placed, (value) => -0.7 * value),
          ),
        ).toBe(true);
        const expected = new Kind(size);
        for (let i = 0; i < size; i++) expected[i] = sum[i] / 3;
        expect(sameBits(divideSum<Reals>(sum, 3, new Kind(size), threads), expected)).toBe(true);
      }
      const a = normals(new Kind(size));
      let distance = 0;
      for (let i = 0; i < size; i++) distance += (a[i] - placed[i]) ** 2;
      // The definition's one long sum has some 1e5 roundings.
      expect(Math.abs(squaredDistance(a, x, matrix) - distance)).toBeLessThanOrEqual(1e-12 * distance);
    }
  });

  it('overwriting forgets NaN', () => {
    const sum = new Float64Array(4).fill(Number.NaN);
    addWeighted(sum, Float64Array.of(1, 2, 3, 4), { rows: 2, columns: 2 }, 2, { overwrite: true });
    expect(sum).toEqual(Float64Array.of(2, 4, 6, 8));
  });
});

describe('permuted sums', () => {
  it('give the same bits in TypeScript, natively, and with any number of threads', () => {
    const [rows, columns] = [300, 1003];
    const matrix = { rows, columns, columnOrder: random.permutation(columns) };
    const x = normals(new Float32Array(rows * columns));
    const a = normals(new Float32Array(rows * columns));
    const distances = [1, 2, 3].map((threads) => squaredDistance(a, x, matrix, threads));
    configureKernels({ native: false });
    distances.push(squaredDistance(a, x, matrix));
    useBestKernels();
    expect(new Set(distances).size).toBe(1);
  });

  it('refuse arrays and orders that do not fit', () => {
    const sum = new Float64Array(4);
    const x = new Float64Array(4);
    expect(() => addWeighted(sum, x, { rows: 2, columns: 3 }, 1)).toThrow('4 entries are no [2, 3] matrix');
    const short = Int32Array.of(0);
    expect(() => addWeighted(sum, x, { rows: 2, columns: 2, rowOrder: short }, 1)).toThrow('an order of 1, not 2');
    const outside = Int32Array.of(0, 2);
    expect(() => squaredDistance(x, x, { rows: 2, columns: 2, columnOrder: outside })).toThrow('an order of 2 holds 2');
    expect(() => divideSum(sum, 2, new Float32Array(3))).toThrow('4 sums and 3 places');
  });
});
