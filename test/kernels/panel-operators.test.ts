import { afterEach, describe, expect, it } from 'vitest';
import { configureKernels } from '../../src/kernels/native.js';
import {
  dayMoments,
  dayProducts,
  dayRanks,
  ELEMENTWISE_NAMES,
  elementwisePanel,
  normalisePanel,
  type PanelValues,
  ROLLING_NAMES,
  type RollingName,
  rollingPairPanel,
  rollingPanel,
} from '../../src/kernels/panel-operators.js';
import { createRandom } from '../../src/random.js';

afterEach(() => configureKernels({ native: true }));

const shape = { days: 61, stocks: 37 };
const size = shape.days * shape.stocks;

/** Walks with gaps, zeros, equal neighbours and, where asked, infinite values. */
function samples(seed: number, kind: typeof Float32Array | typeof Float64Array, infinite: boolean): PanelValues {
  const random = createRandom(seed);
  const drawn = (i: number): number => {
    const draw = random.uniform();
    if (draw < 0.03) return Number.NaN;
    if (draw < 0.05) return 0;
    if (infinite && draw < 0.06) return i % 2 ? Infinity : -Infinity;
    if (draw < 0.2) return 7;
    return 1000 + random.normal();
  };
  const values = new kind(size);
  for (let i = 0; i < size; i++) values[i] = drawn(i);
  return values;
}

/** The window's values, oldest first. */
function windowOf(x: PanelValues, t: number, s: number, window: number): number[] {
  return Array.from({ length: window }, (_, k) => x[(t - window + 1 + k) * shape.stocks + s]);
}

const sum = (values: number[]): number => values.reduce((a, b) => a + b, 0);

/** By the definition, each window anew. */
function bruteForce(name: RollingName, x: PanelValues, t: number, s: number, window: number): number {
  if (name === 'Ref' || name === 'Delta') {
    if (t < window) return Number.NaN;
    const before = x[(t - window) * shape.stocks + s];
    return name === 'Ref' ? before : x[t * shape.stocks + s] - before;
  }
  if (t < window - 1) return Number.NaN;
  const w = windowOf(x, t, s, window);
  const n = window;
  const mean = sum(w) / n;
  const moment = (p: number): number => sum(w.map((v) => (v - mean) ** p));
  const last = w[n - 1];
  switch (name) {
    case 'Sum':
      return sum(w);
    case 'Mean':
      return mean;
    case 'Max':
      return Math.max(...w);
    case 'Min':
      return Math.min(...w);
    case 'Var':
      return moment(2) / (n - 1);
    case 'Std':
      return Math.sqrt(moment(2) / (n - 1));
    case 'Skew':
      return moment(3) / n / (moment(2) / n) ** 1.5;
    case 'Kurt':
      return moment(4) / n / (moment(2) / (n - 1)) ** 2 - 3;
    case 'Mad':
      return sum(w.map((v) => Math.abs(v - mean))) / n;
    case 'Med':
      return w.some(Number.isNaN) ? Number.NaN : w.sort((a, b) => a - b)[(n - 1) >> 1];
    case 'Rank': {
      const above = w.filter((v) => last < v).length;
      const notBelow = w.filter((v) => last <= v).length;
      return (above + notBelow + (notBelow > above ? 1 : 0)) / (2 * n);
    }
    case 'WMA':
      return sum(w.map((v, i) => i * v)) / ((n * (n - 1)) / 2);
    default: {
      const decay = 1 - 2 / (n + 1);
      const weights = w.map((_, i) => decay ** (n - i));
      return sum(w.map((v, i) => weights[i] * v)) / sum(weights);
    }
  }
}

describe('rolling operators', () => {
  it.each(ROLLING_NAMES)('%s is what its definition says for every window', (name) => {
    const x = samples(1, Float64Array, false);
    const out = new Float64Array(size);
    for (const window of [1, 2, 5, 10, 60, 61, 80]) {
      rollingPanel(name, x, out, shape, window);
      for (let t = 0; t < shape.days; t++) {
        for (let s = 0; s < 7; s++) {
          const want = bruteForce(name, x, t, s, window);
          const got = out[t * shape.stocks + s];
          // A constant window has no shape, and rounding decides what the definition makes of 0 / 0.
          if (name === 'Skew' || name === 'Kurt') {
            const w = t >= window - 1 ? windowOf(x, t, s, window) : [];
            if (w.length > 0 && w.every((v) => v === w[0])) continue;
          }
          if (Number.isNaN(want)) expect(got, `${window}d, day ${t}`).toBeNaN();
          else expect(Math.abs(got - want), `${window}d, day ${t}`).toBeLessThan(1e-9 * (1 + Math.abs(want)));
        }
      }
    }
  });

  it('forgets a large value with the window that held it', () => {
    const one = { days: 9, stocks: 1 };
    const x = Float64Array.of(1, 2, 1e17, 3, 4, 5, 6, 7, 8);
    const out = new Float64Array(9);
    rollingPanel('Sum', x, out, one, 3);
    expect(Array.from(out.subarray(5))).toEqual([12, 15, 18, 21]);
    rollingPanel('Var', x, out, one, 3);
    expect(Array.from(out.subarray(5))).toEqual([1, 1, 1, 1]);
  });

  it('has no covariance in windows of a day, and a correlation of 0 without variation', () => {
    const one = { days: 3, stocks: 1 };
    const x = Float64Array.of(1, 2, 3);
    const out = new Float64Array(3);
    rollingPairPanel('Cov', x, x, out, one, 1);
    expect(out[2]).toBeNaN();
    rollingPairPanel('Corr', x, Float64Array.of(5, 5, 5), out, one, 2);
    expect(out[2]).toBe(0);
  });
});

describe('native kernels and their reference', () => {
  it.each([Float32Array, Float64Array])('agree to the last bit for any number of threads (%o)', (kind) => {
    const x = samples(2, kind, true);
    const y = samples(3, kind, true);
    const both = (call: (out: PanelValues, threads: number) => void, length = size): void => {
      configureKernels({ native: false });
      const reference = new kind(length);
      call(reference, 1);
      configureKernels({ native: true });
      for (const threads of [1, 3]) {
        const out = new kind(length);
        call(out, threads);
        expect(
          out.findIndex((value, i) => !Object.is(value, reference[i])),
          'first difference',
        ).toBe(-1);
      }
    };
    for (const window of [1, 3, 10, 61]) {
      for (const name of ROLLING_NAMES) both((out, threads) => rollingPanel(name, x, out, shape, window, threads));
      both((out, threads) => rollingPairPanel('Cov', x, y, out, shape, window, threads));
      both((out, threads) => rollingPairPanel('Corr', x, y, out, shape, window, threads));
    }
    for (const name of ELEMENTWISE_NAMES) {
      both((out, threads) => elementwisePanel(name, x, y, out, threads));
      both((out, threads) => elementwisePanel(name, x, Float64Array.of(0.3), out, threads));
      both((out, threads) => elementwisePanel(name, Float64Array.of(-2), y, out, threads));
    }
    for (const ties of ['average', 'order'] as const) {
      both((out, threads) => dayRanks(x, undefined, ties, out, shape, threads));
      both((out, threads) => dayRanks(x, y, ties, out, shape, threads));
    }
    const deviations = (native: boolean): Float64Array[] => {
      configureKernels({ native });
      const found = new Float64Array(shape.days);
      const z = new kind(size);
      normalisePanel(x, z, found, shape);
      return [found, Float64Array.from(z), dayProducts(x, y, shape), dayMoments(x, y, shape)];
    };
    expect(deviations(true)).toEqual(deviations(false));
  });
});

describe('z-scores', () => {
  it.each([true, false])('give the mean itself the score of missing values (native: %s)', (native) => {
    configureKernels({ native });
    const x = Float64Array.of(0, 0.2, 0.4, 0.6, 0.8, Number.NaN);
    const z = new Float64Array(6);
    normalisePanel(x, z, new Float64Array(1), { days: 1, stocks: 6 });
    expect(z[2]).toBe(0);
    expect(z[5]).toBe(0);
  });
});
