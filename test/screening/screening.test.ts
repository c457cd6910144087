import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { gaussianInformation, linfoot, pearson } from '../../src/linalg/correlation.js';
import { benjaminiHochberg } from '../../src/linalg/multiple-tests.js';
import { digamma } from '../../src/linalg/special-functions.js';
import { createRandom } from '../../src/random.js';
import { clumpColumns } from '../../src/screening/clumping.js';
import { createColumnStore } from '../../src/screening/column-store.js';
import { ksgInformation, ksgVariable } from '../../src/screening/ksg.js';
import { nullMoments, permutationOrders, permutationP } from '../../src/screening/permutation.js';
import { rankColumns } from '../../src/screening/ranking.js';
import { type ScreenArguments, screenColumns } from '../../src/screening/screen-job.js';
import { screenBody, uniteStatistics } from '../../src/screening/screen-report.js';
import { binnedError, kernelError } from '../../src/screening/standard-errors.js';
import {
  distinctValues,
  mostLevels,
  outcomeOfLabels,
  outcomeOfValues,
  splitBlock,
} from '../../src/screening/variables.js';

const scratch = mkdtempSync(join(tmpdir(), 'surprisal-test-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const normals = (n: number, seed: number): Float64Array => {
  const random = createRandom(seed);
  return Float64Array.from({ length: n }, () => random.normal());
};

describe('nearest neighbours', () => {
  /** The definition, point by point. */
  function slowKsg(x: Float64Array, y: Float64Array, k: number): number {
    const n = x.length;
    let sum = 0;
    for (let i = 0; i < n; i++) {
      const distances = Array.from(x, (_, j) => Math.max(Math.abs(x[j] - x[i]), Math.abs(y[j] - y[i])));
      distances.splice(i, 1);
      const radius = distances.sort((a, b) => a - b)[k - 1];
      const within = (v: Float64Array): number =>
        v.reduce((count, value, j) => count + (j !== i && Math.abs(value - v[i]) < radius ? 1 : 0), 0);
      sum += digamma(within(x) + 1) + digamma(within(y) + 1);
    }
    return digamma(k) + digamma(n) - sum / n;
  }

  it('equal the definition for any points, neighbours and pairing', () => {
    fc.assert(
      fc.property(fc.integer({ min: 8, max: 40 }), fc.integer({ min: 1, max: 5 }), fc.integer(), (n, k, seed) => {
        const random = createRandom(seed);
        const a = Float64Array.from({ length: n }, () => random.normal());
        const b = a.map((value) => Math.round(value) + 0.3 * random.normal());
        const x = ksgVariable(a, random.fork(1));
        const y = ksgVariable(b, random.fork(2));
        expect(ksgInformation(x, y, k)).toBeCloseTo(slowKsg(x.values, y.values, k), 10);
        const order = random.permutation(n);
        const paired = Float64Array.from(order, (i) => y.values[i]);
        expect(ksgInformation(x, y, k, order)).toBeCloseTo(slowKsg(x.values, paired, k), 10);
      }),
      { numRuns: 40 },
    );
  });

  it('break ties by noise that does not depend on the place of a column', () => {
    const tied = Float64Array.from({ length: 50 }, (_, i) => i % 5);
    const a = ksgVariable(tied, createRandom(1).fork(2));
    expect(new Set(a.values).size).toBe(50);
    expect(Math.max(...a.values.map((value, i) => Math.abs(value - tied[i])))).toBeLessThan(1e-9);
    expect([...ksgVariable(tied, createRandom(1).fork(2)).values]).toEqual([...a.values]);
  });

  it('come near the information of a normal pair', () => {
    const x = normals(1500, 3);
    const noise = normals(1500, 4);
    const y = x.map((value, i) => 0.8 * value + 0.6 * noise[i]);
    const random = createRandom(5);
    const found = ksgInformation(ksgVariable(x, random.fork(1)), ksgVariable(y, random.fork(2)), 3);
    expect(Math.abs(found - gaussianInformation(0.8))).toBeLessThan(0.07);
  });
});

describe('correlation', () => {
  it('is 1 for lines, and its information and Linfoot are inverse to each other', () => {
    const x = normals(30, 1);
    expect(
      pearson(
        x,
        x.map((v) => 3 - 2 * v),
      ),
    ).toBeCloseTo(-1, 12);
    expect(pearson(x, new Float64Array(30))).toBeNaN();
    for (const r of [0, 0.2, 0.9]) expect(linfoot(gaussianInformation(r))).toBeCloseTo(r, 12);
    expect(linfoot(-0.1)).toBe(0);
  });
});

describe('tests', () => {
  it('adjusts p-values as Benjamini and Hochberg do, and passes over NaN', () => {
    const q = benjaminiHochberg([0.01, 0.04, 0.03, 0.005, Number.NaN, 0.8]);
    expect([...q].map((value) => Number(value.toFixed(6)))).toEqual([0.025, 0.05, 0.05, 0.025, Number.NaN, 0.8]);
    expect(benjaminiHochberg([]).length).toBe(0);
  });

  it('gives p by the count, or by the draws where it stopped', () => {
    expect(permutationP(0, 999, 0)).toBe(0.001);
    expect(permutationP(4, 999, 20)).toBe(0.005);
    expect(permutationP(20, 40, 20)).toBe(0.5);
    expect(permutationP(0, 0, 20)).toBeNaN();
    expect(nullMoments(6, 14, 3)).toEqual({ mean: 2, deviation: 1 });
  });

  it('draws the same permutations in slices as at once', () => {
    const all = permutationOrders(7, 20, 0, 6);
    expect([...permutationOrders(7, 20, 2, 3)]).toEqual([...all.subarray(40, 100)]);
    for (let b = 0; b < 6; b++) {
      expect([...all.slice(b * 20, (b + 1) * 20)].sort((a, c) => a - c)).toEqual([...Array(20).keys()]);
    }
  });
});

describe('variables', () => {
  it('are discrete by the number of their values', () => {
    expect(mostLevels(500, 10)).toBe(10);
    expect(mostLevels(20, 10)).toBe(4);
    expect(mostLevels(8, 10)).toBe(2);
    expect(distinctValues(Float64Array.of(3, 1, 3), 2)).toEqual([1, 3]);
    expect(distinctValues(Float64Array.of(3, 1, 2), 2)).toBeUndefined();
    const block = splitBlock(
      {
        values: Float64Array.from([
          ...normals(40, 1),
          ...Array(40).fill(2),
          ...Array.from({ length: 40 }, (_, i) => i % 3),
        ]),
        count: 3,
        n: 40,
      },
      10,
    );
    expect([[...block.continuousAt], [...block.constantAt], [...block.discreteAt]]).toEqual([[0], [1], [2]]);
    expect(block.discrete.levels[0]).toBe(3);
  });

  it('become outcomes by kind', () => {
    expect(outcomeOfValues(normals(40, 2), 'y', 10).kind).toBe('continuous');
    const binary = outcomeOfValues(
      Float64Array.from({ length: 40 }, (_, i) => 5 + (i % 2)),
      'y',
      10,
    );
    expect([binary.kind, binary.codes.levels, binary.values?.[1]]).toEqual(['discrete', 2, 6]);
    const codes = Int32Array.from({ length: 12 }, (_, i) => i % 3);
    const named = outcomeOfLabels({ kind: 'classes', codes, names: ['a', 'b', 'c'] }, 'y', 'auto', 10);
    expect([named.kind, named.values]).toEqual(['discrete', undefined]);
    // Whole numbers of many values are amounts, unless they are said to be classes.
    const many = {
      kind: 'classes' as const,
      codes: Int32Array.from({ length: 60 }, (_, i) => i),
      names: Array.from({ length: 60 }, (_, i) => String(i)),
    };
    expect(outcomeOfLabels(many, 'y', 'auto', 10).kind).toBe('continuous');
    expect(outcomeOfLabels(many, 'y', 'classes', 10).kind).toBe('discrete');
    expect(() => outcomeOfLabels({ kind: 'classes', codes: new Int32Array(9), names: ['a'] }, 'y', 'auto', 10)).toThrow(
      'fewer than 2 classes',
    );
    expect(() => outcomeOfValues(new Float64Array(9), 'y', 10)).toThrow('constant (0)');
    expect(() => outcomeOfLabels({ kind: 'numbers', values: normals(7, 1) }, 'y', 'auto', 10)).toThrow(
      '7 rows; screening needs at least 8',
    );
  });

  it('rank by figure, ties by place, NaN last', () => {
    expect([...rankColumns([0.1, Number.NaN, 0.3, 0.1, Number.POSITIVE_INFINITY])]).toEqual([4, 2, 0, 3, 1]);
  });
});

describe('standard errors', () => {
  it('are those of repeated samples', () => {
    const n = 150;
    const runs = Array.from({ length: 40 }, (_, k) => {
      const x = normals(n, 100 + k);
      const noise = normals(n, 200 + k);
      const outcome = outcomeOfValues(
        x.map((value, i) => value + noise[i]),
        'y',
        10,
      );
      const settings = { grid: 60, classGrid: 100, rule: 'silverman' as const };
      return { kernel: kernelError(x, outcome, settings, 10), binned: binnedError(x, outcome, 10) };
    });
    const mean = (of: (run: { kernel: number; binned: number }) => number): number =>
      runs.reduce((sum, run) => sum + of(run), 0) / runs.length;
    // I of the pair has, at its true density, pointwise deviation 0.5 (r^2 = 1/2: sd of log density ratio = r).
    const pointwise = Math.SQRT1_2 / Math.sqrt(n);
    expect(mean(({ kernel }) => kernel) / pointwise).toBeGreaterThan(0.6);
    expect(mean(({ kernel }) => kernel) / pointwise).toBeLessThan(1.2);
    expect(mean(({ binned }) => binned) / pointwise).toBeGreaterThan(0.6);
    expect(mean(({ binned }) => binned) / pointwise).toBeLessThan(1.4);
  });
});

describe('clumping', () => {
  it('is the plain walk, whatever is computed at once', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 150 }),
        fc.integer({ min: 1, max: 30 }),
        fc.integer(),
        (count, most, seed) => {
          const random = createRandom(seed);
          const nats = Float64Array.from({ length: count * count }, () => random.uniform());
          const between = (a: number, b: number): number => nats[Math.max(a, b) * count + Math.min(a, b)];
          const ranked = random.permutation(count);
          const kept: number[] = [];
          const expected: [number, boolean][] = [];
          for (const j of ranked) {
            if (kept.length === most) break;
            const dropped = kept.some((k) => between(j, k) > 0.9);
            expected.push([j, dropped]);
            if (!dropped) kept.push(j);
          }
          const found = clumpColumns(ranked, 0.9, most, (column, others) =>
            Float64Array.from(others, (other) => between(column, other)),
          );
          expect(found.map(({ column, because }) => [column, because >= 0])).toEqual(expected);
          for (const { because, nats: shared } of found) if (because >= 0) expect(shared).toBeGreaterThan(0.9);
        },
      ),
      { numRuns: 40 },
    );
  });
});

describe('column store', () => {
  const build = (rows: number, columns: number, maxBytes: number) => {
    const store = createColumnStore(columns, {
      name: 'm',
      columnName: (column) => `c${column}`,
      maxBytes,
      scratchDirectory: scratch,
    });
    const row = new Float64Array(columns);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) row[j] = i * columns + j;
      store.append(row);
    }
    return store.finish();
  };

  it.each([
    [5, 3, false],
    [2100, 1000, false],
    [2100, 1000, true],
    [7, 2_100_000, true],
  ])('gives columns of %i x %i, on file %s', (rows, columns, onFile) => {
    const store = build(rows, columns, onFile ? 1 : 2 ** 40);
    expect(store.spilled).toBe(onFile);
    // Nothing with a name is left for a killed process to leave behind.
    expect(readdirSync(scratch)).toEqual([]);
    const target = new Float64Array(2 * rows);
    const first = columns - 2;
    store.read(first, 2, target);
    for (let i = 0; i < rows; i++) {
      expect(target[i]).toBe(i * columns + first);
      expect(target[rows + i]).toBe(i * columns + first + 1);
    }
    expect(() => store.read(columns - 1, 2, target)).toThrow(RangeError);
    store.close();
  });

  it('counts cells without number', () => {
    const store = createColumnStore(2, {
      name: 'm',
      columnName: (j) => 'ab'[j],
      maxBytes: 1e9,
      scratchDirectory: scratch,
    });
    store.append([1, 2]);
    store.append([Number.NaN, Number.POSITIVE_INFINITY]);
    expect(() => store.finish()).toThrow('m: 2 cells are NaN or infinite, the first in row 1, column "a" (NaN)');
  });
});

describe('the job', () => {
  const rows = 90;
  const columns = 21;
  const data = new Float64Array(rows * columns);
  const x = normals(rows * columns, 17);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++)
      data[i * columns + j] = j % 5 === 4 ? Math.round(x[j * rows + i]) : x[j * rows + i];
  }
  const y = Float64Array.from({ length: rows }, (_, i) => 2 * x[i] + 3 * Math.abs(x[rows + i]) + 0.3 * x[2 * rows + i]);
  const args: ScreenArguments = {
    source: { kind: 'array', name: 'a', data, rows, columns },
    outcome: { kind: 'labels', name: 'y', labels: { kind: 'numbers', values: y } },
    outcomeKind: 'auto',
    estimators: ['kernel', 'binned', 'ksg'],
    settings: { grid: 64, classGrid: 100, rule: 'silverman', neighbours: 3, seed: 3, threads: 2 },
    discreteLevels: 10,
    permutations: 49,
    stopAfter: 10,
    skipConstant: false,
    top: 6,
    keepValues: true,
    maxMemoryBytes: 2 ** 30,
    scratchDirectory: scratch,
  };
  const settings = { estimators: args.estimators, permutations: 49, stopAfter: 10, top: 6 };

  it('ranks both links first where correlation misses one', async () => {
    const result = await screenColumns(args, () => undefined);
    const body = screenBody(result, settings);
    expect(body.ranking.slice(0, 2).map(({ column }) => column)).toEqual(['column_0', 'column_1']);
    expect(Math.abs(body.ranking[1].pearson_r ?? 1)).toBeLessThan(0.3);
    expect(body.ranking[0].p_value).toBe(0.02);
    expect(body.ranking[0].mi_nats_se).toBeGreaterThan(0);
    expect([...result.kept]).toEqual(
      [...result.kept].sort((a, b) => (result.nats.kernel?.[b] ?? 0) - (result.nats.kernel?.[a] ?? 0)),
    );
    expect(result.keptValues?.subarray(0, rows)).toEqual(x.subarray(0, rows));
    expect(body.discrete_columns).toBe(4);
  });

  it('gives the same figures in shards and with other threads', async () => {
    const whole = await screenColumns(args, () => undefined);
    const parts = [];
    for (let index = 0; index < 3; index++) {
      parts.push(await screenColumns({ ...args, shard: { index, count: 3 }, keepValues: false }, () => undefined));
    }
    const united = screenBody(uniteStatistics(parts), settings);
    expect(united).toEqual(screenBody(whole, settings));
    const other = await screenColumns(
      { ...args, maxMemoryBytes: 2 ** 28, settings: { ...args.settings, threads: 1 } },
      () => undefined,
    );
    expect(screenBody(other, settings)).toEqual(screenBody(whole, settings));
  });

  it('drops a copy, and stops at constant columns', async () => {
    const copied = Float64Array.from(data);
    for (let i = 0; i < rows; i++) copied[i * columns + 7] = -3 * copied[i * columns];
    const source = { kind: 'array' as const, name: 'a', data: copied, rows, columns };
    const result = await screenColumns({ ...args, source, clump: 0.5, top: 4, permutations: 0 }, () => undefined);
    const dropped = result.clumps.filter(({ because }) => because >= 0);
    expect(dropped.map(({ column, because }) => [column, because])).toEqual([[7, 0]]);
    expect(result.kept.length).toBe(4);
    const flat = Float64Array.from(data, (value, k) => (k % columns === 5 ? 1 : value));
    const constant = { ...args, source: { ...source, data: flat }, permutations: 0 };
    await expect(screenColumns(constant, () => undefined)).rejects.toThrow('column "column_5" is constant (1)');
    const skipped = await screenColumns({ ...constant, skipConstant: true }, () => undefined);
    expect(screenBody(skipped, settings).constant_column_names).toEqual(['column_5']);
  });
});
