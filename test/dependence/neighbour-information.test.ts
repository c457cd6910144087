import { describe, expect, it } from 'vitest';
import { equalMassBins, equalWidthBins, freedmanDiaconisBins } from '../../src/dependence/binning.js';
import { checkNeighbours, NEIGHBOUR_ESTIMATORS, splitEstimates } from '../../src/dependence/continuous-analysis.js';
import {
  continuousVariable,
  frenzelPompe,
  joinPoints,
  kozachenkoLeonenko,
  ksg1,
  ksg2,
  mixedInformation,
} from '../../src/dependence/neighbour-information.js';
import { makeVariable, symbolPoints } from '../../src/dependence/variables.js';
import { InputError } from '../../src/errors.js';
import { digamma } from '../../src/linalg/special-functions.js';
import { createRandom } from '../../src/random.js';

/** x, y of correlation `rho`, and z that both depend on by `shared`. */
function gaussians(n: number, rho: number, shared = 0, seed = 1) {
  const random = createRandom(seed);
  const [x, y, z] = [0, 0, 0].map(() => new Float64Array(n));
  for (let i = 0; i < n; i++) {
    z[i] = random.normal();
    const a = random.normal();
    x[i] = a + shared * z[i];
    y[i] = rho * a + Math.sqrt(1 - rho * rho) * random.normal() + shared * z[i];
  }
  return { x: continuousVariable(x), y: continuousVariable(y), z: continuousVariable(z) };
}

describe('estimators from neighbours', () => {
  it('find the mutual information of normal pairs', () => {
    for (const rho of [0, 0.5, 0.9]) {
      const { x, y } = gaussians(6000, rho);
      const exact = -0.5 * Math.log(1 - rho * rho);
      for (const estimate of [ksg1, ksg2, mixedInformation]) {
        expect(Math.abs(estimate(x, y, { k: 4 }).valueNats - exact)).toBeLessThan(0.045);
      }
    }
  });

  it('find what is left when a third variable is known', () => {
    const { x, y, z } = gaussians(5000, 0.5, 1);
    expect(Math.abs(frenzelPompe(x, y, z, { k: 4 }).valueNats + 0.5 * Math.log(0.75))).toBeLessThan(0.05);
    expect(ksg1(x, y, { k: 4 }).valueNats).toBeGreaterThan(0.25);
  });

  it('find differential entropies in one dimension and more', () => {
    const { x, y } = gaussians(8000, 0.6);
    const one = 0.5 * Math.log(2 * Math.PI * Math.E);
    expect(Math.abs(kozachenkoLeonenko([x], { k: 3 }).valueNats - one)).toBeLessThan(0.04);
    expect(Math.abs(kozachenkoLeonenko([x, y], { k: 3 }).valueNats - 2 * one - 0.5 * Math.log(0.64))).toBeLessThan(
      0.06,
    );
    const random = createRandom(2);
    const cube = { data: Float64Array.from({ length: 13 * 800 }, () => random.uniform()), rows: 800, columns: 13 };
    expect(Number.isFinite(kozachenkoLeonenko([cube], { k: 3 }).valueNats)).toBe(true);
  });

  it('do not change when a variable is moved or two change places', () => {
    const { x, y } = gaussians(500, 0.7);
    const moved = continuousVariable(y.data.map((value) => value + 4));
    expect(ksg1(x, moved, { k: 3 }).valueNats).toBeCloseTo(ksg1(x, y, { k: 3 }).valueNats, 9);
    expect(ksg1(y, x, { k: 3 }).valueNats).toBe(ksg1(x, y, { k: 3 }).valueNats);
    expect(joinPoints([x, y]).columns).toBe(2);
  });

  it('the mixed estimator on symbols is the plug-in sum with ψ for the logarithm', () => {
    const random = createRandom(3);
    const n = 300;
    const a = Float64Array.from({ length: n }, () => random.integer(3));
    const b = Float64Array.from(a, (value) => (random.uniform() < 0.7 ? value : random.integer(3)));
    let sum = 0;
    for (let i = 0; i < n; i++) {
      const count = (same: (j: number) => boolean): number => a.reduce((c, _, j) => c + (same(j) ? 1 : 0), 0);
      const both = count((j) => a[j] === a[i] && b[j] === b[i]);
      sum += digamma(both) - digamma(count((j) => a[j] === a[i])) - digamma(count((j) => b[j] === b[i]));
    }
    const found = mixedInformation(continuousVariable(a), continuousVariable(b), { k: 3 });
    expect(found.valueNats).toBeCloseTo(Math.log(n) + sum / n, 10);
    expect(found.zeroDistances).toBe(n);
  });

  it('the mixed estimator tells a symbol from a number', () => {
    const random = createRandom(5);
    const n = 4000;
    const codes = Int32Array.from({ length: n }, () => random.integer(2));
    const y = continuousVariable(Float64Array.from(codes, (code) => 8 * code + random.normal()));
    const x = symbolPoints({ codes, size: 2 }, y);
    expect(Math.abs(mixedInformation(x, y, { k: 3 }).valueNats - Math.LN2)).toBeLessThan(0.02);
  });
});

describe('ties and samples', () => {
  const tied = continuousVariable(Float64Array.from({ length: 200 }, (_, i) => i % 5));
  const { x } = gaussians(200, 0);
  const run = (wanted: string, y = tied) =>
    splitEstimates(
      NEIGHBOUR_ESTIMATORS.mutual_information,
      wanted,
      [tied, y],
      { k: 3 },
      'I(a; b)',
      createRandom(1),
      () => undefined,
    );

  it('are refused above one in a hundred, with what helps', () => {
    expect(() => run('ksg1')).toThrow(/200 of 200 points \(100 %\) lie on 3 others.*--jitter 1e-10.*mixed/);
    const { estimates } = run('mixed');
    expect(estimates.find(({ estimator }) => estimator === 'ksg2')).toMatchObject({
      valueNats: Number.NaN,
      seNats: null,
    });
    expect(run('ksg1', x).estimates.every(({ valueNats }) => Number.isFinite(valueNats))).toBe(true);
  });

  it('are broken by jitter, which the seed decides', () => {
    const settings = { as: 'numbers', binning: null, bins: null, jitter: 1e-10, standardise: false } as const;
    const make = (seed: number) =>
      makeVariable('a', [{ name: 'a', kind: 'numbers', values: tied.data }], settings, createRandom(seed));
    const [one, same, other] = [make(1), make(1), make(2)];
    expect(one).toEqual(same);
    expect(one).not.toEqual(other);
    if (one.kind === 'numbers') expect(new Set(one.points.data).size).toBe(200);
  });

  it('fewer samples than neighbours are refused with both numbers', () => {
    expect(() => checkNeighbours(4, 3, 'I(a; b)')).toThrow(/4 samples, but k = 3 neighbours need at least 5/);
  });

  it('the standard error from splits is near the spread over data sets', () => {
    const values: number[] = [];
    const errors: number[] = [];
    for (let seed = 0; seed < 24; seed++) {
      const { x: a, y: b } = gaussians(800, 0.6, 0, seed);
      const { estimates } = splitEstimates(
        [NEIGHBOUR_ESTIMATORS.mutual_information[0]],
        'ksg1',
        [a, b],
        { k: 3 },
        '',
        createRandom(seed),
        () => undefined,
      );
      values.push(estimates[0].valueNats);
      errors.push(estimates[0].seNats ?? Number.NaN);
    }
    const mean = values.reduce((a, b) => a + b, 0) / 24;
    const spread = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 23);
    const error = errors.reduce((a, b) => a + b, 0) / 24;
    expect(error / spread).toBeGreaterThan(0.6);
    expect(error / spread).toBeLessThan(1.7);
  });
});

describe('bins', () => {
  it('of equal width close the last one on both sides', () => {
    const { codes, size } = equalWidthBins(Float64Array.of(0, 0.25, 0.5, 0.75, 1), 4);
    expect(Array.from(codes)).toEqual([0, 1, 2, 3, 3]);
    expect(size).toBe(4);
    // 0.1 * 3 > 0.3 in floating point: edges, not quotients, decide.
    const tenths = Float64Array.from({ length: 11 }, (_, i) => i / 10);
    const { codes: exact } = equalWidthBins(tenths, 10);
    tenths.forEach((value, i) => {
      const edge = tenths[0] + exact[i] * 0.1;
      expect(value >= edge).toBe(true);
    });
    expect(equalWidthBins(Float64Array.of(2, 2), 5)).toMatchObject({ size: 1, bins: 1 });
    expect(equalWidthBins(Float64Array.of(0, 9), 5)).toMatchObject({ size: 2, bins: 5 });
  });

  it('of equal mass keep equal values together', () => {
    expect(Array.from(equalMassBins(Float64Array.of(5, 1, 2, 3), 2).codes)).toEqual([1, 0, 0, 1]);
    expect(Array.from(equalMassBins(Float64Array.of(1, 1, 1, 2), 4).codes)).toEqual([0, 0, 0, 1]);
  });

  it('by Freedman and Diaconis need a spread', () => {
    const values = Float64Array.from({ length: 1000 }, (_, i) => i);
    // IQR 499.5, width 99.9, range 999
    expect(freedmanDiaconisBins(values, 'a')).toBe(10);
    expect(freedmanDiaconisBins(Float64Array.of(3, 3), 'a')).toBe(1);
    expect(() => freedmanDiaconisBins(Float64Array.of(0, 1, 1, 1, 1, 9), 'a')).toThrow(InputError);
  });
});
