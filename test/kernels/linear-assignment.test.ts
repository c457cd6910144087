import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  ASSIGNMENT_MODES,
  type Assignment,
  assignmentBytes,
  checkAssignmentMemory,
  type Gains,
  solveAssignment,
} from '../../src/kernels/linear-assignment.js';
import { type GainMatrix, rowCandidates } from '../../src/kernels/linear-assignment-kernels.js';
import { augmentCandidates } from '../../src/kernels/linear-assignment-reference.js';
import type { SearchSizes } from '../../src/kernels/linear-assignment-solvers.js';
import { createRandom, type Random } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

/** Few candidates, so that small matrices need all that large ones do: samples, pricing, paths over the whole matrix. */
const FEW: SearchSizes = { perRow: 4, perColumn: 2, perPricing: 2, mostDense: 8, mostShare: 1 };
const FEWEST: SearchSizes = { ...FEW, perRow: 2, perColumn: 1, mostShare: 0 };
const DENSE: SearchSizes = { ...FEW, mostDense: Number.POSITIVE_INFINITY };

const normals = (n: number, random: Random): Float32Array =>
  Float32Array.from({ length: n * n }, () => random.normal());

/** Gains of the shapes that make assignment hard. */
function matrices(n: number): Record<string, Float32Array> {
  const random = createRandom(5);
  const of = (value: (i: number, j: number) => number): Float32Array =>
    Float32Array.from({ length: n * n }, (_, e) => value(Math.floor(e / n), e % n));
  const [a, b] = [normals(n, random), normals(n, random)];
  const planted = random.permutation(n);
  const dead = (i: number): boolean => i % 3 === 0;
  return {
    normal: normals(n, random),
    'small integers': of(() => random.integer(4)),
    'rank one': of((i, j) => a[i] * b[j]),
    products: of((i, j) => (i + 1) * (j + 1)),
    'products, the other way': of((i, j) => -(i + 1) * (j + 1)),
    planted: of((i, j) => (planted[i] === j ? 3 : 0) + 0.3 * random.normal()),
    'dead neurons': of((i, j) => (dead(i) || dead(j + 1) ? 0 : random.normal())),
    equal: of(() => 2.5),
    offsets: of((i, j) => random.uniform() + 10 * a[i] + 100 * b[j]),
    'heavy tails': of(() => random.normal() / Math.max(1e-3, Math.abs(random.normal()))),
  };
}

function isPermutation(permutation: Int32Array): boolean {
  return Int32Array.from(permutation)
    .sort()
    .every((column, i) => column === i);
}

/** The certificate holds: duals cover every gain, and add up to the bound; bound, gain and gap agree. */
function expectCertificate(gain: Gains, n: number, found: Assignment): void {
  const { permutation, rowDuals, columnDuals } = found;
  expect(isPermutation(permutation)).toBe(true);
  let scale = 1;
  for (const value of gain) scale = Math.max(scale, Math.abs(value));
  for (const dual of columnDuals) scale = Math.max(scale, Math.abs(dual));
  let uncovered = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) uncovered = Math.max(uncovered, gain[i * n + j] - rowDuals[i] - columnDuals[j]);
  }
  expect(uncovered).toBeLessThanOrEqual(4 * Number.EPSILON * scale);
  const total = permutation.reduce((sum, column, i) => sum + gain[i * n + column], 0);
  expect(found.gain).toBeCloseTo(total, 9);
  const rounding = 8 * n * n * Number.EPSILON * scale;
  const bound = [...rowDuals, ...columnDuals].reduce((sum, dual) => sum + dual, 0);
  expect(Math.abs(found.bound - bound)).toBeLessThanOrEqual(rounding);
  expect(found.gap).toBeGreaterThanOrEqual(0);
  expect(Math.abs(found.bound - found.gain - found.gap)).toBeLessThanOrEqual(rounding);
}

/** The best of all permutations. */
function bruteForce(gain: Gains, n: number): number {
  const used = new Array<boolean>(n).fill(false);
  const best = (i: number): number => {
    if (i === n) return 0;
    let most = Number.NEGATIVE_INFINITY;
    for (let j = 0; j < n; j++) {
      if (used[j]) continue;
      used[j] = true;
      most = Math.max(most, gain[i * n + j] + best(i + 1));
      used[j] = false;
    }
    return most;
  };
  return best(0);
}

/** Greedy by its definition: all gains, sorted. */
function greedyBySorting(gain: Gains, n: number): number[] {
  const places = Array.from(gain.keys()).sort((a, b) => gain[b] - gain[a] || a - b);
  const result = new Array<number>(n).fill(-1);
  const taken = new Set<number>();
  for (const place of places) {
    const [i, j] = [Math.floor(place / n), place % n];
    if (result[i] >= 0 || taken.has(j)) continue;
    result[i] = j;
    taken.add(j);
  }
  return result;
}

for (const mode of kernelModes()) {
  describe(`linear assignment, ${mode.name}`, () => {
    beforeAll(() => mode.use());
    afterAll(useBestKernels);

    it('finds the best of all permutations', () => {
      const entries = fc.oneof(fc.integer({ min: -3, max: 3 }), fc.double({ min: -10, max: 10, noNaN: true }));
      const square = fc
        .integer({ min: 1, max: 6 })
        .chain((n) => fc.array(entries, { minLength: n * n, maxLength: n * n }).map((list) => ({ n, list })));
      fc.assert(
        fc.property(square, ({ n, list }) => {
          const gain = Float64Array.from(list);
          const best = bruteForce(gain, n);
          for (const sizes of [DENSE, { ...FEWEST, mostDense: 1 }]) {
            const found = solveAssignment(gain, n, { sizes });
            expect(found.gain).toBeCloseTo(best, 9);
            expectCertificate(gain, n, found);
          }
        }),
        { numRuns: 60 },
      );
    });

    it('certifies its optimum on matrices of every kind, on every way', () => {
      const n = 75;
      for (const [name, gain] of Object.entries(matrices(n))) {
        const found = [DENSE, FEW, FEWEST].map((sizes) => solveAssignment(gain, n, { sizes }));
        for (const one of found) {
          expectCertificate(gain, n, one);
          expect(one.gap / Math.max(1, Math.abs(one.gain)), name).toBeLessThan(1e-12);
        }
        expect(found[1].gain, name).toBeCloseTo(found[0].gain, 6);
        expect(found[2].gain, name).toBeCloseTo(found[0].gain, 6);
        // Single precision of the same gains, in double.
        const wide = solveAssignment(Float64Array.from(gain), n, { sizes: FEW });
        expect(wide.permutation).toEqual(found[1].permutation);
        expect(wide.columnDuals).toEqual(found[1].columnDuals);
      }
    });

    it('takes the largest gain that is left when greedy', () => {
      const n = 70;
      for (const [name, gain] of Object.entries(matrices(n))) {
        const found = solveAssignment(gain, n, { mode: 'greedy', sizes: FEW });
        expect(Array.from(found.permutation), name).toEqual(greedyBySorting(gain, n));
        expectCertificate(gain, n, found);
      }
    });

    it('comes near the optimum by auction, and says how near', () => {
      const n = 150;
      for (const [name, gain] of Object.entries(matrices(n))) {
        const best = solveAssignment(gain, n);
        const greedy = solveAssignment(gain, n, { mode: 'greedy' });
        const found = solveAssignment(gain, n, { mode: 'auction' });
        expectCertificate(gain, n, found);
        expect(found.gain, name).toBeLessThanOrEqual(best.gain + 1e-6 * Math.abs(best.gain));
        expect(found.bound, name).toBeGreaterThanOrEqual(best.gain - 1e-6 * Math.abs(best.gain));
        if (['normal', 'planted', 'offsets'].includes(name)) expect(found.gap).toBeLessThan(1e-4 * Math.abs(best.gain));
        expect(found.gain, name).toBeGreaterThanOrEqual(greedy.gain - 1e-6 * Math.abs(greedy.gain));
        expect(greedy.gain, name).toBeLessThanOrEqual(best.gain + 1e-6 * Math.abs(best.gain));
      }
    });

    it('gives the same bits on any number of threads', () => {
      const n = 90;
      const gain = normals(n, createRandom(9));
      for (const way of ASSIGNMENT_MODES) {
        const one = solveAssignment(gain, n, { mode: way, sizes: FEW, threads: 1 });
        expect(solveAssignment(gain, n, { mode: way, sizes: FEW, threads: 5 })).toEqual(one);
      }
    });

    it('keeps neurons in their order where nothing tells them apart', () => {
      const n = 200;
      for (const way of ASSIGNMENT_MODES) {
        const zeros = solveAssignment(new Float32Array(n * n), n, { mode: way });
        expect(Array.from(zeros.permutation)).toEqual(Array.from({ length: n }, (_, i) => i));
        expect(zeros.gap).toBe(0);
      }
      const random = createRandom(2);
      const gain = Float32Array.from({ length: n * n }, (_, e) =>
        Math.floor(e / n) % 4 === 1 || e % n < 40 ? 0 : random.normal(),
      );
      const { permutation } = solveAssignment(gain, n);
      const dead = Array.from(permutation).filter((_, i) => i % 4 === 1);
      expect(dead).toEqual([...dead].sort((a, b) => a - b));
      const ofDead = Array.from(permutation).filter((column) => column < 40);
      expect(ofDead).toEqual([...ofDead].sort((a, b) => a - b));
    });

    it('orders the candidates of a row by value, then from the lowest column or from its own', () => {
      const n = 70;
      const gain = Float32Array.from({ length: n * n }, (_, e) => (e % n) % 5);
      const matrix: GainMatrix = { gain, n, threads: 1 };
      const duals = new Float64Array(n);
      duals[4] = Number.POSITIVE_INFINITY;
      const rows = Int32Array.of(30);
      const lowest = rowCandidates(matrix, duals, 3, { rows });
      expect([...lowest.columns]).toEqual([9, 14, 19]);
      expect([...lowest.values]).toEqual([4, 4, 4]);
      expect([...rowCandidates(matrix, duals, 3, { rows, spread: true }).columns]).toEqual([34, 39, 44]);
      const above = new Float64Array(n).fill(4);
      expect([...rowCandidates(matrix, duals, 2, { rows, above }).columns]).toEqual([-1, -1]);
    });

    it('refuses gains that are not finite, with their place', () => {
      const gain = normals(40, createRandom(1));
      gain[7 * 40 + 3] = Number.NaN;
      expect(() => solveAssignment(gain, 40)).toThrow('the gain of row 7 and column 3 is NaN');
      gain[7 * 40 + 3] = 0;
      gain[39 * 40 + 39] = Number.NEGATIVE_INFINITY;
      expect(() => solveAssignment(gain, 40)).toThrow('the gain of row 39 and column 39 is -Infinity');
    });
  });
}

describe('linear assignment', () => {
  afterAll(useBestKernels);

  it('is the same, duals and all, whatever computes it', () => {
    const n = 161;
    for (const [name, gain] of Object.entries(matrices(n))) {
      for (const way of ASSIGNMENT_MODES) {
        const results = kernelModes().map((mode) => {
          mode.use();
          return solveAssignment(gain, n, { mode: way });
        });
        for (const result of results.slice(1)) expect(result, `${name}, ${way}`).toEqual(results[0]);
      }
    }
  });

  it('turns a permuted copy back', () => {
    const [n, width] = [300, 16];
    const random = createRandom(3);
    const rows = Float32Array.from({ length: n * width }, () => random.normal());
    const places = random.permutation(n);
    const gain = new Float32Array(n * n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        for (let c = 0; c < width; c++) gain[i * n + j] += rows[i * width + c] * rows[places[j] * width + c];
      }
    }
    const { permutation } = solveAssignment(gain, n);
    expect(Array.from(permutation, (j) => places[j])).toEqual(Array.from({ length: n }, (_, i) => i));
  });

  it('solves matrices of no and of one row', () => {
    expect(solveAssignment(new Float64Array(0), 0)).toMatchObject({ gain: 0, bound: 0, gap: 0 });
    for (const mode of ASSIGNMENT_MODES) {
      const one = solveAssignment(Float64Array.of(-3), 1, { mode });
      expect([...one.permutation, one.gain, one.bound, one.gap]).toEqual([0, -3, -3, 0]);
    }
  });

  it('keeps to a limit of memory and names the mode that fits', () => {
    const n = 4096;
    const limit = assignmentBytes(n, 'greedy');
    expect(limit).toBeGreaterThan(4 * n * n);
    expect(() => checkAssignmentMemory(n, 'greedy', limit)).not.toThrow();
    expect(() => checkAssignmentMemory(n, 'exact', limit)).toThrow('mode greedy would fit');
    expect(() => checkAssignmentMemory(n, 'exact', 1000)).toThrow(`no mode fits: the gains alone take ${4 * n * n}`);
    const single = assignmentBytes(n, 'exact');
    expect(() => checkAssignmentMemory(n, 'exact', single, 8)).toThrow('gains in single precision would fit');
    expect(() => solveAssignment(new Float64Array(100), 10, { maxBytes: 800 })).toThrow('assignment of 10 rows');
    expect(() => solveAssignment(new Float64Array(99), 10)).toThrow(RangeError);
  });

  it('says when candidates hold no perfect matching', () => {
    const core = {
      starts: Int32Array.of(0, 2, 4, 6),
      columns: Int32Array.of(0, 1, 0, 1, 0, 1),
      gains: Float64Array.of(3, 1, 2, 2, 1, 3),
    };
    const state = {
      columnOfRow: new Int32Array(3).fill(-1),
      rowOfColumn: new Int32Array(3).fill(-1),
      rowDuals: new Float64Array(3),
      columnDuals: new Float64Array(3),
    };
    expect(augmentCandidates(core, Int32Array.of(0, 1, 2), state, 100)).toBe(false);
  });
});
