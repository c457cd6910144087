import { afterAll, describe, expect, it } from 'vitest';
import {
  type PulseSearchOptions,
  SEARCH_MODES,
  type SearchMode,
  searchInMetric,
  searchPulses,
} from '../../src/kernels/pulse-search.js';
import { cosine, nearestPulses } from '../../src/kernels/pulse-search-reference.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

afterAll(useBestKernels);

/** All y >= 0 of D coordinates with sum K. */
function compositions(D: number, K: number): Int32Array[] {
  if (D === 1) return [Int32Array.of(K)];
  const all: Int32Array[] = [];
  for (let first = 0; first <= K; first++) {
    for (const rest of compositions(D - 1, K - first)) all.push(Int32Array.of(first, ...rest));
  }
  return all;
}

/** Random groups, with ties, zeros, equal magnitudes, one large weight, tiny and huge ones. */
function groupsOf(D: number, seed: number): number[][] {
  const random = createRandom(seed);
  const draw = (make: () => number): number[] => Array.from({ length: D }, make);
  const normal = (): number => random.normal();
  return [
    ...Array.from({ length: 6 }, () => draw(normal)),
    draw(() => random.integer(4) - 1.5),
    draw(() => random.integer(3) - 1),
    draw(() => 1),
    draw(() => (random.integer(2) === 0 ? 0.7 : -0.7)),
    draw(() => (random.integer(2) === 0 ? 0 : normal())),
    draw(normal).map((value, j) => (j === D - 1 ? 50 : value)),
    draw(() => normal() * 1e-30),
    draw(() => normal() * 1e20),
    draw(() => Math.exp(3 * normal())),
    draw(() => 0),
  ];
}

function search(x: ArrayLike<number>, options: PulseSearchOptions): number[] {
  const pulses = new Int16Array(Math.ceil(x.length / options.D) * options.D);
  searchPulses(Float64Array.from(x), 1, x.length, options, pulses);
  return Array.from(pulses);
}

const l1 = (y: ArrayLike<number>): number => Array.from(y).reduce((sum, value) => sum + Math.abs(value), 0);

function weightedCosine(x: ArrayLike<number>, y: ArrayLike<number>, h: ArrayLike<number>): number {
  const scaled = (v: ArrayLike<number>): number[] => Array.from(v, (value, j) => Math.sqrt(h[j]) * value);
  return cosine(scaled(x), scaled(y));
}

describe('pulse search in f64', () => {
  const shapes = [1, 2, 3, 4, 5, 6].flatMap((D) => [1, 2, 3, 4, 5, 6].map((K) => [D, K] as const));

  it.each(shapes)('exact equals brute force, nothing exceeds it: D=%d K=%d', (D, K) => {
    const all = compositions(D, K);
    for (const x of groupsOf(D, 100 * D + K)) {
      const sizes = x.map(Math.abs);
      let best = 0;
      for (const y of all) best = Math.max(best, cosine(sizes, y));
      const found = search(x, { D, K, mode: 'exact' });
      expect(l1(found)).toBe(K);
      expect(Math.abs(cosine(x, found) - best)).toBeLessThanOrEqual(1e-12);
      for (const mode of SEARCH_MODES) {
        for (const exchange of [false, true]) {
          const other = search(x, { D, K, mode, exchange });
          expect(l1(other)).toBe(K);
          expect(cosine(x, other)).toBeLessThanOrEqual(best + 1e-12);
        }
      }
    }
  });

  it.each([
    [4, 6, 2, 3],
    [5, 6, 3, 3],
    [6, 6, 1, 1],
    [6, 5, 2, 1],
  ])('exact equals brute force under caps: D=%d K=%d, at most %d and %d', (D, K, cap, negativeCap) => {
    const all = compositions(D, K);
    for (const x of groupsOf(D, 7 * D + K)) {
      const fits = (y: Int32Array): boolean => y.every((value, j) => value <= (x[j] < 0 ? negativeCap : cap));
      let best = 0;
      for (const y of all) if (fits(y)) best = Math.max(best, cosine(x.map(Math.abs), y));
      for (const mode of SEARCH_MODES) {
        const found = search(x, { D, K, mode, cap, negativeCap });
        expect(l1(found)).toBe(K);
        expect(found.every((value) => value <= cap && -value <= negativeCap)).toBe(true);
        const value = cosine(x, found);
        if (mode === 'exact') expect(Math.abs(value - best)).toBeLessThanOrEqual(1e-12);
        else expect(value).toBeLessThanOrEqual(best + 1e-12);
      }
    }
  });

  it.each([
    [2, 5],
    [3, 6],
    [4, 4],
    [5, 6],
    [6, 5],
  ])('exact equals brute force with importances: D=%d K=%d', (D, K) => {
    const random = createRandom(3 * D + K);
    const all = compositions(D, K);
    for (const x of groupsOf(D, 11 * D + K)) {
      const importance = Float64Array.from({ length: D }, () => Math.exp(2 * random.normal()));
      let best = 0;
      for (const y of all) best = Math.max(best, weightedCosine(x.map(Math.abs), y, importance));
      for (const mode of SEARCH_MODES) {
        const value = weightedCosine(x, search(x, { D, K, mode, importance }), importance);
        if (mode === 'exact') expect(Math.abs(value - best)).toBeLessThanOrEqual(1e-12);
        else expect(value).toBeLessThanOrEqual(best + 1e-12);
      }
    }
  });

  it('finds the nearest point in L2', () => {
    const random = createRandom(4);
    for (const [D, K] of [
      [3, 5],
      [5, 4],
      [6, 6],
    ]) {
      const all = compositions(D, K);
      for (let trial = 0; trial < 20; trial++) {
        const x = Array.from({ length: D }, () => random.normal());
        const alpha = 4 * random.uniform();
        const distance = (y: ArrayLike<number>): number =>
          x.reduce((sum, value, j) => sum + (alpha * Math.abs(value) - Math.abs(y[j])) ** 2, 0);
        const least = Math.min(...all.map(distance));
        expect(distance(nearestPulses(x, K, alpha))).toBeCloseTo(least, 12);
      }
    }
  });

  it('puts groups of zeros to the first coordinate, and signs zero as +', () => {
    for (const mode of SEARCH_MODES) {
      expect(search([0, 0, 0, -0], { D: 4, K: 3, mode })).toEqual([3, 0, 0, 0]);
      expect(search([0, 0, 0, 0], { D: 4, K: 5, mode, cap: 2 })).toEqual([2, 2, 1, 0]);
      expect(search([-0, -1], { D: 2, K: 3, mode })).toEqual([0, -3]);
    }
    expect(search([1, 1, 1, 1], { D: 4, K: 2, mode: 'greedy' })).toEqual([1, 1, 0, 0]);
  });

  it('ignores powers of two in the scale, and inputs of no importance', () => {
    const x = groupsOf(16, 1)[0];
    for (const mode of SEARCH_MODES) {
      const plain = search(x, { D: 16, K: 19, mode });
      expect(
        search(
          x.map((value) => value * 2 ** 90),
          { D: 16, K: 19, mode },
        ),
      ).toEqual(plain);
      const importance = Float64Array.from({ length: 16 }, (_, j) => (j < 8 ? 1 : 0));
      const half = search(x, { D: 16, K: 19, mode, importance });
      expect(cosine(x.slice(0, 8), half.slice(0, 8))).toBeGreaterThan(cosine(x.slice(0, 8), plain.slice(0, 8)) - 1e-3);
    }
  });

  it('refuses sizes that make no pyramid', () => {
    const x = new Float64Array(8);
    const pulses = new Int16Array(8);
    const run = (options: Partial<PulseSearchOptions>) => () =>
      searchPulses(x, 1, 8, { D: 4, K: 3, mode: 'exact', ...options }, pulses);
    for (const options of [
      { D: 0 },
      { K: 0 },
      { K: 40000 },
      { cap: 0 },
      { K: 9, cap: 2 },
      { negativeCap: 3 },
      { importance: new Float64Array(7) },
    ]) {
      expect(run(options)).toThrow(RangeError);
    }
    expect(run({ D: 5 })).toThrow(RangeError);
    expect(run({})).not.toThrow();
  });
});

describe('pulse search in f32', () => {
  const modes = kernelModes();
  const shapes: readonly (readonly [number, number, Partial<PulseSearchOptions>])[] = [
    [1, 3, {}],
    [4, 29, {}],
    [8, 6, {}],
    [8, 13, { exchange: true }],
    [12, 47, {}],
    [16, 11, {}],
    [16, 23, {}],
    [16, 900, {}],
    [24, 10, { exchange: true }],
    [32, 48, { cap: 3 }],
    [32, 32, { cap: 4, negativeCap: 2, exchange: true }],
    [16, 20, { importance: Float32Array.from({ length: 112 }, (_, j) => (j * 37) % 11) }],
    [9, 9, { importance: Float32Array.from({ length: 112 }, (_, j) => 1 / (1 + j)) }],
    [64, 92, {}],
    [112, 60, {}],
  ];

  /** Seven rows of 112 weights: normal, few values, equal ones, zeros, heavy tails, tiny and huge. */
  const columns = 112;
  const random = createRandom(9);
  const x = Float32Array.from({ length: 7 * columns }, (_, i) => {
    const row = Math.floor(i / columns);
    const value = random.normal();
    if (row === 1) return random.integer(5) - 2;
    if (row === 2) return value > 0 ? 1 : -1;
    if (row === 3) return i % 7 < 5 ? 0 : value;
    if (row === 4) return Math.exp(2 * value);
    if (row === 5) return value * 1e-38;
    return row === 6 ? value * 1e37 : value;
  });

  it.each(shapes)('gives the same pulses everywhere: D=%d K=%d', (D, K, more) => {
    for (const mode of SEARCH_MODES) {
      const results = modes.flatMap((kernel) =>
        [1, 2].map((threads) => {
          kernel.use();
          const pulses = new Int16Array(7 * Math.ceil(columns / D) * D);
          searchPulses(x, 7, columns, { D, K, mode, ...more, threads }, pulses);
          return pulses;
        }),
      );
      for (const result of results) expect(result).toEqual(results[0]);
    }
  });

  it('refuses weights that are not finite', () => {
    for (const kernel of modes) {
      kernel.use();
      for (const bad of [Number.NaN, Number.NEGATIVE_INFINITY]) {
        const run = () => searchPulses(Float32Array.of(1, bad), 1, 2, { D: 2, K: 3, mode: 'exact' }, new Int16Array(2));
        expect(run).toThrow(RangeError);
      }
    }
  });

  it.each(SEARCH_MODES)('agrees with f64: %s', (mode: SearchMode) => {
    useBestKernels();
    const count = 400;
    for (const [D, K] of [
      [8, 13],
      [16, 23],
      [32, 48],
    ]) {
      const draw = createRandom(D);
      const single = Float32Array.from({ length: count * D }, () => draw.normal());
      const fast = new Int16Array(count * D);
      const slow = new Int16Array(count * D);
      searchPulses(single, count, D, { D, K, mode }, fast);
      searchPulses(Float64Array.from(single), count, D, { D, K, mode }, slow);
      let different = 0;
      for (let g = 0; g < count; g++) {
        const [own, one, two] = [single, fast, slow].map((all) => all.subarray(g * D, (g + 1) * D));
        if (one.some((value, j) => value !== two[j])) different++;
        // Only what single precision cannot tell apart may differ.
        expect(Math.abs(cosine(own, one) - cosine(own, two))).toBeLessThanOrEqual(1e-6);
      }
      expect(different).toBeLessThanOrEqual(2);
    }
  });
});

describe('pulse search in a metric', () => {
  function metricOf(D: number, seed: number): Float64Array {
    const random = createRandom(seed);
    const factor = Float64Array.from({ length: D * D }, () => random.normal());
    const metric = new Float64Array(D * D);
    for (let i = 0; i < D; i++) {
      for (let j = 0; j < D; j++) {
        for (let k = 0; k < D; k++) metric[i * D + j] += factor[i * D + k] * factor[j * D + k];
      }
      metric[i * D + i] += 0.1;
    }
    return metric;
  }

  function metricCosine(x: ArrayLike<number>, y: ArrayLike<number>, metric: Float64Array): number {
    const D = x.length;
    const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
      let sum = 0;
      for (let i = 0; i < D; i++) for (let j = 0; j < D; j++) sum += a[i] * metric[i * D + j] * b[j];
      return sum;
    };
    return dot(x, y) / Math.sqrt(dot(x, x) * dot(y, y));
  }

  it('comes near brute force over signed points and is never above it', () => {
    const [D, K, count] = [4, 5, 60];
    const points = compositions(D, K).flatMap((y) =>
      Array.from({ length: 2 ** D }, (_, signs) => y.map((value, j) => ((signs >> j) & 1 ? -value : value))),
    );
    let [lost, greedyLost] = [0, 0];
    for (let trial = 0; trial < count; trial++) {
      const metric = metricOf(D, trial);
      const random = createRandom(1000 + trial);
      const x = Float64Array.from({ length: D }, () => random.normal());
      let best = -1;
      for (const y of points) best = Math.max(best, metricCosine(x, y, metric));
      const values = (['best', 'greedy'] as const).map((mode) => {
        const y = new Int16Array(D);
        searchInMetric(x, 1, metric, { D, K, mode }, y);
        expect(l1(y)).toBe(K);
        return metricCosine(x, y, metric);
      });
      for (const value of values) expect(value).toBeLessThanOrEqual(best + 1e-12);
      expect(values[0]).toBeGreaterThanOrEqual(values[1] - 1e-12);
      if (values[0] < best - 1e-9) lost++;
      if (values[1] < best - 1e-9) greedyLost++;
    }
    expect(lost).toBeLessThan(count / 3);
    expect(lost).toBeLessThan(greedyLost);
  });

  it('is the exact search where the metric is the identity', () => {
    const [D, K, rows] = [8, 13, 200];
    const random = createRandom(3);
    const x = Float64Array.from({ length: rows * D }, () => random.normal());
    const identity = Float64Array.from({ length: D * D }, (_, i) => (i % (D + 1) === 0 ? 1 : 0));
    const pulses = new Int16Array(rows * D);
    const exact = new Int16Array(rows * D);
    searchInMetric(x, rows, identity, { D, K }, pulses);
    searchPulses(x, rows, D, { D, K, mode: 'exact' }, exact);
    expect(pulses).toEqual(exact);
  });

  it('keeps caps', () => {
    const [D, K] = [6, 14];
    const random = createRandom(5);
    const x = Float64Array.from({ length: 40 * D }, () => random.normal());
    const pulses = new Int16Array(40 * D);
    searchInMetric(x, 40, metricOf(D, 2), { D, K, cap: 4, negativeCap: 3 }, pulses);
    for (let g = 0; g < 40; g++) expect(l1(pulses.subarray(g * D, (g + 1) * D))).toBe(K);
    expect(pulses.every((value) => value <= 4 && value >= -3)).toBe(true);
  });
});
