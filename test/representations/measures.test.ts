import { describe, expect, it } from 'vitest';
import { arrayMatrix } from '../../src/formats/feature-matrix.js';
import { linearCka } from '../../src/linalg/cka.js';
import { nearestNeighbours } from '../../src/linalg/nearest-neighbours.js';
import { directSquaredDistances, selectSmallest } from '../../src/linalg/point-distances.js';
import { thinSvd } from '../../src/linalg/svd.js';
import { withProducts } from '../../src/linalg/tiled-products.js';
import { createRandom } from '../../src/random.js';
import {
  bandwidthRows,
  bandwidthWarning,
  chooseBandwidth,
  parseBandwidth,
} from '../../src/representations/bandwidth.js';
import { followsRule, nearestToRule, sweepCells } from '../../src/representations/bandwidth-sweep.js';
import { pairwiseCka } from '../../src/representations/layer-similarity.js';
import { duplicateRows, loadPoints } from '../../src/representations/points.js';
import { measureRepresentations } from '../../src/representations/representations-job.js';
import { shapeMeasures } from '../../src/representations/shape-measures.js';
import { halvedSizes, subsampleCurve } from '../../src/representations/subsample-curve.js';
import { blobs, SETTINGS } from './clouds.js';

describe('bandwidth', () => {
  const line = Float64Array.of(0, 1, 3, 7);
  const squared = directSquaredDistances(line, 4, 1);
  const rows = Int32Array.of(0, 1, 2, 3);
  const toAll = async (from: Int32Array) =>
    Float64Array.from([...from].flatMap((row) => Array.from(squared.subarray(row * 4, row * 4 + 4))));
  const choose = (text: string) => chooseBandwidth(parseBandwidth('--sigma', text), 4, rows, squared, toAll);

  it('median is that of all pairs, knn:k the median distance to the k-th other point', async () => {
    // Distances 1 2 3 4 6 7.
    expect(await choose('median')).toMatchObject({ sigma: 3.5, medianDistance: 3.5, rows: 4 });
    // Nearest: 1 1 2 4; second nearest: 3 2 3 6.
    expect((await choose('knn:1')).sigma).toBeCloseTo(Math.sqrt((1 + 4) / 2), 12);
    expect((await choose('knn:2')).sigma).toBe(3);
    expect(await choose('10')).toMatchObject({ sigma: 10, medianDistance: 3.5 });
  });

  it('refuses what is no rule, and rules that give 0', async () => {
    for (const text of ['', 'mean', '0', '-1', 'knn:0', 'knn:', 'inf', 'nan']) {
      expect(() => parseBandwidth('--sigma', text)).toThrow(/--sigma .*: give median, knn:<k>/);
    }
    await expect(choose('knn:4')).rejects.toThrow('4 rows have only 3 neighbours');
    const same = chooseBandwidth({ kind: 'median' }, 4, rows, new Float64Array(16), toAll);
    await expect(same).rejects.toThrow(/more than half of all pairs of rows are equal/);
  });

  it('takes a seeded sample of many rows', () => {
    expect(bandwidthRows(2048, 0)).toHaveLength(2048);
    const sample = bandwidthRows(5000, 1);
    expect(sample).toHaveLength(2048);
    expect(bandwidthRows(5000, 1)).toEqual(sample);
    expect(bandwidthRows(5000, 2)).not.toEqual(sample);
  });

  it('warns beyond the useful range with a suggestion', () => {
    const found = { sigma: 10, medianDistance: 1.2, rows: 4 };
    expect(bandwidthWarning('x', found, 0.993)).toMatch(
      /x: sigma 10 makes all points alike.*useful bandwidths lie near 0.3 to 2.4; try --sigma median \(1.2\)/,
    );
    expect(bandwidthWarning('x', { ...found, sigma: 0.01 }, 1e-9)).toMatch(/every point alone.*median distance 1.2/);
    expect(bandwidthWarning('x', found, 0.5)).toBeUndefined();
    expect(bandwidthWarning('x', found, Number.NaN)).toBeUndefined();
  });

  it('sweep marks what follows the rule of thumb', () => {
    const eigenvalues = Float64Array.from({ length: 200 }, (_, i) => (i < 2 ? 1 : 0.005));
    const [once] = sweepCells(eigenvalues, [1], Float64Array.of(3));
    expect(once).toEqual({ t: 1, bits: 3, shareAbove: 0.01 });
    expect([0.004, 0.005, 0.01, 0.02, 0.03].map(followsRule)).toEqual([false, true, true, true, false]);
    const row = { name: 'x1', sigma: 2, meanSimilarity: 0.5, cells: [{ ...once, shareAbove: 0 }, once] };
    expect(nearestToRule([row])).toEqual({ row, cell: once });
    expect(nearestToRule([{ ...row, cells: sweepCells(null, [1], Float64Array.of(3)) }])).toBeUndefined();
  });
});

describe('points', () => {
  it('duplicates are rows that equal an earlier one; the zeros are one', () => {
    const data = Float64Array.of(1, 2, 0, 0, 1, 2, -0, 0, 2, 1, 1, 2);
    expect(duplicateRows({ data, n: 6, d: 2 })).toBe(3);
  });

  it('takes a seeded subsample, counting faults and constant columns over all rows', async () => {
    const data = Float64Array.from({ length: 300 }, (_, i) => (i % 3 === 1 ? 4 : i));
    const found = await loadPoints(arrayMatrix('m', data, 100, 3), 10, 5, 'f64');
    expect(found.constantColumns).toBe(1);
    expect(found.indices).toHaveLength(10);
    found.indices?.forEach((row, i) => {
      expect(found.points.data[3 * i]).toBe(3 * row);
    });
    data[3 * 7] = Number.NaN;
    data[3 * 50 + 2] = Number.POSITIVE_INFINITY;
    await expect(loadPoints(arrayMatrix('m', data, 100, 3), 10, 5, 'f64')).rejects.toThrow(
      /m: 2 of 100 rows hold NaN or an infinite value, the first is row 7/,
    );
  });

  it('selects the k-th smallest of any order, ties included', () => {
    const random = createRandom(2);
    for (let trial = 0; trial < 200; trial++) {
      const values = Float64Array.from({ length: 1 + random.integer(40) }, () => random.integer(12));
      const k = random.integer(values.length);
      expect(selectSmallest(values.slice(), k)).toBe(values.slice().sort()[k]);
    }
  });

  it('nearest neighbours agree with all distances', async () => {
    const { data, n, d } = blobs(90, 4, 3, 6);
    const squared = directSquaredDistances(data as Float64Array, n, d);
    const found = await withProducts({}, (products) => nearestNeighbours(data as Float64Array, n, d, 5, products));
    for (let i = 0; i < n; i++) {
      const order = Array.from({ length: n }, (_, j) => j)
        .filter((j) => j !== i)
        .sort((a, b) => squared[i * n + a] - squared[i * n + b]);
      expect(Array.from(found.subarray(i * 5, i * 5 + 5))).toEqual(order.slice(0, 5));
    }
  });
});

describe('shape of features', () => {
  it.each([
    [40, 7],
    [7, 40],
  ])('%i x %i: singular values, condition and shares from the smaller Gram matrix', (n, d) => {
    const { data } = blobs(n, d, 3, 12);
    const found = shapeMeasures({ data, n, d }, 1);
    const { values } = thinSvd(data, n, d);
    found.singularValues.forEach((value, i) => {
      expect(value).toBeCloseTo(values[i], 6);
    });
    expect(found.conditionNumber).toBeCloseTo(values[0] / values[values.length - 1], 4);
    expect(found.covarianceShares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 12);
    const entropy = -found.covarianceShares.reduce((sum, p) => sum + (p > 0 ? p * Math.log(p) : 0), 0);
    expect(found.vonNeumannNats).toBeCloseTo(entropy, 12);
  });

  it('is 0 without variance, infinite in condition when rank-deficient', () => {
    const same = shapeMeasures({ data: new Float64Array(12).fill(2), n: 4, d: 3 }, 1);
    expect(same).toMatchObject({ vonNeumannNats: 0, effectiveDimension: 1, conditionNumber: Number.POSITIVE_INFINITY });
    const zeros = shapeMeasures({ data: new Float64Array(12), n: 4, d: 3 }, 1);
    expect(zeros.rankMe).toBeNaN();
  });

  it('CKA of pairs is that of the definition', async () => {
    const sets = [blobs(30, 4, 3, 1), blobs(30, 6, 3, 2), { data: new Float64Array(60).fill(1), n: 30, d: 2 }];
    const found = await pairwiseCka(3, async (i) => sets[i], 1);
    expect(found[1]).toBeCloseTo(linearCka(sets[0].data, 4, sets[1].data, 6, 30), 10);
    expect(found[3]).toBe(found[1]);
    expect(found[0]).toBe(1);
    expect(found[8]).toBeNaN();
  });
});

describe('subsampling curve', () => {
  it('halves the sample down to 16 or a 32nd', () => {
    expect(halvedSizes(300)).toEqual([18, 37, 75, 150, 300]);
    expect(halvedSizes(4096)).toEqual([128, 256, 512, 1024, 2048, 4096]);
    expect(halvedSizes(10)).toEqual([10]);
  });

  it('takes means and deviations over subsets, the whole once', async () => {
    const curve = await subsampleCurve(8, [4, 8], 6, 0, async (rows) => Float64Array.of(rows[0], rows.length));
    expect(curve[1]).toMatchObject({ size: 8, repetitions: 1 });
    expect(curve[0].meanBits[1]).toBe(4);
    expect(curve[0].deviationBits[1]).toBe(0);
    expect(curve[0].deviationBits[0]).toBeGreaterThan(0);
    expect(curve[1].deviationBits[0]).toBeNaN();
  });
});

describe('the job', () => {
  const source = (name: string, cloud: ReturnType<typeof blobs>) => ({
    name,
    layer: null,
    source: { kind: 'array', name, data: cloud.data, rows: cloud.n, columns: cloud.d } as const,
  });
  const cloud = blobs(80, 5, 4, 3);

  it('measures sets against labels, scalars and vectors of the same rows', async () => {
    const codes = Int32Array.from({ length: 80 }, (_, i) => i % 4);
    const found = await measureRepresentations(
      {
        sets: [source('a', cloud), source('b', blobs(80, 3, 2, 4))],
        references: [
          { kind: 'labels', name: 'labels', labels: { kind: 'classes', codes, names: ['p', 'q', 'r', 's'] } },
          { kind: 'features', name: 'vectors', source: source('a', cloud).source },
        ],
        settings: {
          ...SETTINGS,
          categories: 4,
          curveSizes: [20],
          variants: ['matrix-entry', 'knn'],
          sweep: [{ kind: 'multiple', factor: 0.5 }],
        },
      },
      () => undefined,
    );
    const [a] = found.sets;
    expect(a.information.map(({ reference, kind }) => [reference, kind])).toEqual([
      ['labels', 'classes'],
      ['vectors', 'clusters'],
    ]);
    expect(a.curve[0].size).toBe(20);
    expect(a.sweep[0].sigma).toBeCloseTo(a.bandwidth.sigma / 2, 12);
    expect(Object.keys(a.variants)).toEqual(['matrix-entry', 'knn']);
    expect(found.similarity).toHaveLength(4);
  });

  it('names references over other rows', async () => {
    const run = (rows: number) =>
      measureRepresentations(
        {
          sets: [source('a', cloud)],
          references: [{ kind: 'features', name: 'other.npy', source: source('o', blobs(rows, 2, 2, 1)).source }],
          settings: SETTINGS,
        },
        () => undefined,
      );
    await expect(run(70)).rejects.toThrow('other.npy: 70 rows, but a has 80; mutual information needs the same rows');
  });
});
