import { afterAll, describe, expect, it } from 'vitest';
import { countWithin, nearestNeighbours, type Points } from '../../src/kernels/neighbours.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

afterAll(useBestKernels);

/** Normal points, or points on a lattice with many ties. */
function makePoints(rows: number, columns: number, seed: number, lattice: number): Points {
  const random = createRandom(seed);
  const data = Float64Array.from({ length: rows * columns }, () =>
    lattice > 0 ? random.integer(lattice) : random.normal(),
  );
  return { data, rows, columns };
}

function distance({ data, columns }: Points, a: number, b: number): number {
  let largest = 0;
  for (let j = 0; j < columns; j++) {
    largest = Math.max(largest, Math.abs(data[a * columns + j] - data[b * columns + j]));
  }
  return largest;
}

function bruteNearest(points: Points, k: number): { distances: number[]; neighbours: number[] } {
  const distances: number[] = [];
  const neighbours: number[] = [];
  for (let i = 0; i < points.rows; i++) {
    const others = Array.from({ length: points.rows }, (_, j) => j).filter((j) => j !== i);
    others.sort((a, b) => distance(points, i, a) - distance(points, i, b) || a - b);
    distances.push(distance(points, i, others[k - 1]));
    neighbours.push(...others.slice(0, k));
  }
  return { distances, neighbours };
}

const CASES: readonly [rows: number, columns: number, k: number, lattice: number][] = [
  [2, 1, 1, 0],
  [5, 2, 4, 0],
  [60, 1, 3, 0],
  [301, 2, 3, 0],
  [301, 2, 5, 12],
  [200, 2, 3, 2],
  [150, 3, 4, 6],
  [150, 5, 2, 0],
  [130, 12, 3, 3],
  [130, 13, 3, 0],
  [600, 20, 3, 3],
];

describe.each(kernelModes())('neighbours, $name', (mode) => {
  it.each(CASES)('equal sorting of all pairs: n=%d d=%d k=%d lattice=%d', (rows, columns, k, lattice) => {
    mode.use();
    const points = makePoints(rows, columns, rows + columns, lattice);
    const expected = bruteNearest(points, k);
    const found = nearestNeighbours(points, k, { withNeighbours: true });
    expect(Array.from(found.distances)).toEqual(expected.distances);
    const neighbours = Array.from(found.neighbours ?? []);
    for (let i = 0; i < rows; i++) {
      const [mine, theirs] = [neighbours, expected.neighbours].map((all) => all.slice(i * k, (i + 1) * k));
      if (expected.distances[i] > 0) expect(mine).toEqual(theirs);
      else for (const j of mine) expect(distance(points, i, j)).toBe(0);
    }
    expect(nearestNeighbours(points, k).distances).toEqual(found.distances);
  });

  it.each(CASES)('range counts equal counting all pairs: n=%d d=%d k=%d lattice=%d', (rows, columns, k, lattice) => {
    mode.use();
    const points = makePoints(rows, columns, rows + columns, lattice);
    const { distances } = nearestNeighbours(points, k);
    // Radii that are exact distances: strict and not strict differ.
    const radii = distances.map((radius, i) => (i % 7 === 0 ? 0 : i % 5 === 0 ? 3 * radius : radius));
    for (const strict of [true, false]) {
      const expected = Array.from(radii, (radius, i) => {
        let count = 0;
        for (let j = 0; j < rows; j++) {
          const to = distance(points, i, j);
          if (j !== i && (strict ? to < radius : to <= radius)) count++;
        }
        return count;
      });
      expect(Array.from(countWithin(points, radii, { strict }))).toEqual(expected);
    }
  });

  it('takes no notice of the number of threads', () => {
    mode.use();
    const points = makePoints(5000, 2, 9, 0);
    const one = nearestNeighbours(points, 3, { threads: 1, withNeighbours: true });
    const many = nearestNeighbours(points, 3, { threads: 7, withNeighbours: true });
    expect(many.distances).toEqual(one.distances);
    expect(many.neighbours).toEqual(one.neighbours);
    const counts = (threads: number): Int32Array => countWithin(points, one.distances, { strict: true, threads });
    expect(counts(7)).toEqual(counts(1));
  });

  it('counts sorted runs that were merged as it counts one', () => {
    mode.use();
    const points = makePoints(70_000, 1, 3, 0);
    const radii = new Float64Array(70_000).fill(0.01);
    const counts = countWithin(points, radii, { strict: true });
    const sorted = points.data.slice().sort();
    for (const i of [0, 777, 69_999]) {
      const x = points.data[i];
      expect(counts[i]).toBe(sorted.filter((value) => Math.abs(value - x) < 0.01).length - 1);
    }
  });
});

describe('nearestNeighbours', () => {
  it('refuses more neighbours than there are other points', () => {
    const points = makePoints(3, 1, 0, 0);
    expect(() => nearestNeighbours(points, 3)).toThrow(RangeError);
    expect(() => countWithin(points, new Float64Array(2), { strict: true })).toThrow(RangeError);
  });
});
