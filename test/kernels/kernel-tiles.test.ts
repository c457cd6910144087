import { afterAll, describe, expect, it } from 'vitest';
import {
  addColumnSums,
  addRowSums,
  addTile,
  cosSinFeatures,
  gaussianTile,
  scaleRows,
  type TileElements,
} from '../../src/kernels/kernel-tiles.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

const modes = kernelModes();
afterAll(useBestKernels);

function normals(length: number, seed: number, single: boolean, scale = 1): TileElements {
  const random = createRandom(seed);
  const data = single ? new Float32Array(length) : new Float64Array(length);
  for (let i = 0; i < length; i++) data[i] = scale * random.normal();
  return data;
}

const SHAPES: readonly (readonly [number, number])[] = [
  [1, 1],
  [3, 7],
  [5, 16],
  [4, 33],
  [9, 130],
  [90, 257],
];
const widths = [
  { name: 'f32', single: true, epsilon: 2 ** -24 },
  { name: 'f64', single: false, epsilon: 2 ** -53 },
];

describe.each(modes)('$name', (mode) => {
  describe.each(widths)('$name', ({ single, epsilon }) => {
    it('turns inner products into the Gaussian kernel, with the sums of its rows', () => {
      mode.use();
      let worst = 0;
      for (const [rows, columns] of SHAPES) {
        const inner = normals(rows * columns, 1, single, 3);
        const rowNorms = normals(rows, 2, single).map((x) => 4 * x * x);
        const columnNorms = normals(columns, 3, single).map((x) => 4 * x * x);
        const tile = inner.slice();
        const sums = new Float64Array(rows).fill(0.5);
        gaussianTile({ data: tile, rows, columns }, rowNorms, columnNorms, 0.75, { sums });
        for (let i = 0; i < rows; i++) {
          let sum = 0.5;
          for (let j = 0; j < columns; j++) {
            const at = i * columns + j;
            const exponent = 0.75 * Math.min(0, inner[at] - rowNorms[i] - columnNorms[j]);
            const size = Math.abs(inner[at]) + rowNorms[i] + columnNorms[j];
            const exact = Math.exp(exponent);
            worst = Math.max(worst, Math.abs(tile[at] - exact) / (epsilon * exact * (4 + 3 * size)));
            sum += tile[at];
          }
          expect(sums[i]).toBeCloseTo(sum, 10);
        }
      }
      expect(worst).toBeLessThan(1);
    });

    it('keeps the Gaussian kernel between 0 and 1 where everything is far or equal', () => {
      mode.use();
      const columns = 40;
      const norms = normals(columns, 4, single).map(() => 1e4);
      const far = normals(columns, 4, single).map(() => -1e4);
      gaussianTile({ data: far, rows: 1, columns }, norms.subarray(0, 1), norms, 1);
      const equal = norms.map(() => 2.001e4);
      gaussianTile({ data: equal, rows: 1, columns }, norms.subarray(0, 1), norms, 1);
      expect([...far].every((x) => x >= 0 && x < 1e-30)).toBe(true);
      expect([...equal].every((x) => x === 1)).toBe(true);
    });

    it('maps angles to cosines and sines, small, large and near multiples of pi', () => {
      mode.use();
      const around = Array.from({ length: 60 }, (_, k) => (k - 30) * Math.PI * 0.5);
      const special = [...around, 0, 1e-20, 1e3, -12345.678, 3e5, 9.9e5, 1.1e6, 1e7, -3e8, 2e9, 1e15];
      const random = [...normals(200, 5, false, 40)];
      const all = [...special, ...random];
      const angles = single ? Float32Array.from(all) : Float64Array.from(all);
      const columns = angles.length;
      const target = normals(2 * columns, 6, single);
      const columnScale = normals(columns, 7, single);
      cosSinFeatures({ data: angles, rows: 1, columns }, 0.5, target, { columnScale });
      for (let j = 0; j < columns; j++) {
        const allowed = 3 * epsilon * Math.abs(columnScale[j]);
        expect(Math.abs(target[j] - 0.5 * columnScale[j] * Math.cos(angles[j]))).toBeLessThan(allowed);
        expect(Math.abs(target[columns + j] - 0.5 * columnScale[j] * Math.sin(angles[j]))).toBeLessThan(allowed);
      }
    });

    it('gives the features of several frequencies and points of any number', () => {
      mode.use();
      for (const [rows, columns] of SHAPES) {
        const angles = normals(rows * columns, 8, single, 5);
        const target = normals(2 * rows * columns, 9, single);
        cosSinFeatures({ data: angles, rows, columns }, 1, target);
        let worst = 0;
        for (let i = 0; i < rows * columns; i++) {
          const error = Math.abs(target[i] - Math.cos(angles[i]));
          worst = Math.max(worst, error, Math.abs(target[rows * columns + i] - Math.sin(angles[i])));
        }
        expect(worst).toBeLessThan(3 * epsilon);
      }
    });

    it('adds, scales and sums rows and columns bit for bit as the reference', () => {
      for (const [rows, columns] of SHAPES) {
        const data = normals(rows * columns, 10, single);
        const tile = { data, rows, columns };
        const weights = normals(Math.max(rows, columns), 11, false) as Float64Array;
        const work = (): Float64Array[] => {
          const results: Float64Array[] = [];
          for (const power of [1, 2, 3]) {
            const [plain, weighted] = [new Float64Array(rows).fill(0.1), new Float64Array(rows)];
            addRowSums(tile, plain, { power });
            addRowSums(tile, weighted, { power, weights });
            results.push(plain, weighted);
          }
          const [plain, weighted] = [new Float64Array(columns).fill(0.1), new Float64Array(columns)];
          addColumnSums(tile, plain);
          addColumnSums(tile, weighted, { weights });
          const target = new Float64Array(2 + rows * (columns + 3)).fill(0.25);
          addTile(tile, target, 2, columns + 3);
          const scaled = data.slice();
          scaleRows(tile, weights, scaled);
          results.push(plain, weighted, target, Float64Array.from(scaled));
          return results;
        };
        modes[0].use();
        const reference = work();
        mode.use();
        expect(work()).toEqual(reference);
      }
    });

    it('raises entries to any power', () => {
      mode.use();
      const data = normals(50, 12, single).map(Math.abs);
      const sums = new Float64Array(1);
      addRowSums({ data, rows: 1, columns: 50 }, sums, { power: 2.5 });
      let expected = 0;
      for (const x of data) expected += x ** 2.5;
      expect(sums[0]).toBeCloseTo(expected, 10);
    });

    it('gives the same bits on any number of threads', () => {
      mode.use();
      const [rows, columns] = [150, 513];
      const angles = normals(rows * columns, 13, single);
      const norms = normals(columns, 14, single).map((x) => x * x);
      const bytes = (data: TileElements): Buffer => Buffer.from(data.buffer);
      const work = (threads: number): Buffer => {
        const tile = { data: angles.slice(), rows, columns };
        const [rowSums, columnSums] = [new Float64Array(rows), new Float64Array(columns)];
        const features = normals(2 * rows * columns, 15, single, 0);
        cosSinFeatures(tile, 1, features, { threads });
        gaussianTile(tile, norms, norms, 1, { sums: rowSums, threads });
        addColumnSums(tile, columnSums, { threads });
        return Buffer.concat([tile.data, rowSums, columnSums, features].map(bytes));
      };
      expect(work(4).equals(work(1))).toBe(true);
    });
  });
});

describe('arguments', () => {
  it('are refused when they do not fit the tile', () => {
    useBestKernels();
    const tile = { data: new Float64Array(6), rows: 2, columns: 3 };
    const [two, three] = [new Float64Array(2), new Float64Array(3)];
    expect(() => gaussianTile({ ...tile, rows: 3 }, three, three, 1)).toThrow(RangeError);
    expect(() => gaussianTile(tile, two, two, 1)).toThrow(RangeError);
    expect(() => addRowSums(tile, new Float64Array(1))).toThrow(RangeError);
    expect(() => addColumnSums(tile, two)).toThrow(RangeError);
    expect(() => cosSinFeatures(tile, 1, new Float64Array(11))).toThrow(RangeError);
    expect(() => addTile(tile, new Float64Array(6), 1, 3)).toThrow(RangeError);
    expect(() => scaleRows(tile, new Float64Array(1), tile.data)).toThrow(RangeError);
  });
});
