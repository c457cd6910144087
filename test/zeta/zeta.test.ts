import { describe, expect, it } from 'vitest';
import { createRandom } from '../../src/random.js';
import { gramPoint, hardyZ, riemannSiegelZ, theta } from '../../src/zeta/riemann-siegel.js';
import { searchZeros } from '../../src/zeta/zero-search.js';
import { countZeros, gramTiles, zerosByNumber, zerosOnLine } from '../../src/zeta/zeros.js';
import { absoluteZeta, polishZero, reflectedZeta, zeta, zetaWithDerivative } from '../../src/zeta/zeta-function.js';
import { exploreZeta } from '../../src/zeta/zeta-job.js';

/** Reference values to 25 digits from an arbitrary-precision library. */
describe('zeta', () => {
  it('has its values in and left of the strip, and at heights of thousands', () => {
    const near = (found: { re: number; im: number }, re: number, im: number, tolerance: number): void => {
      expect(Math.hypot(found.re - re, found.im - im) / Math.hypot(re, im)).toBeLessThan(tolerance);
    };
    near(zeta(2, 0), Math.PI ** 2 / 6, 0, 1e-15);
    near(zeta(0, 0), -0.5, 0, 1e-14);
    near(zeta(0.3, 12345.678), 3.1975870969896825, -2.1888156538371133, 1e-13);
    near(zeta(-7.25, 31.5), 77662.19087054896, 276222.477348525, 1e-12);
    near(zeta(0.3, -12345.678), 3.1975870969896825, 2.1888156538371133, 1e-13);
    near(zetaWithDerivative(0.5, 77).derivative, 0.9857675650755865, 0.8735406903911946, 1e-12);
    expect(absoluteZeta(-4, 0)).toBe(0);
  });

  it('satisfies the functional equation to 1e-10 on random points', () => {
    const random = createRandom(1);
    for (let i = 0; i < 60; i++) {
      const [sigma, t] = [-1.5 * random.uniform(), 400 * random.uniform()];
      const direct = zeta(sigma, t);
      const mirrored = reflectedZeta(sigma, t);
      expect(Math.hypot(direct.re - mirrored.re, direct.im - mirrored.im)).toBeLessThan(
        1e-10 * Math.hypot(direct.re, direct.im),
      );
    }
  });

  it('refuses its pole, heights beyond its range, and NaN', () => {
    expect(() => zeta(1, 0)).toThrow('pole');
    expect(() => zeta(0.5, 2e6)).toThrow('beyond the range');
    expect(() => zeta(Number.NaN, 3)).toThrow('not a number');
  });

  it('agrees with the Riemann-Siegel formula within its remainder', () => {
    for (const t of [200.3, 500.7, 999.5, 1400, 5000.25]) {
      const { re, im } = zeta(0.5, t);
      expect(Math.abs(Math.abs(riemannSiegelZ(t)) - Math.hypot(re, im))).toBeLessThan(0.017 * t ** -2.75 + 1e-13);
    }
    expect(hardyZ(237.4)).toBeCloseTo(-0.9237743790642303, 13);
    expect(hardyZ(123456.789)).toBeCloseTo(0.34970786463457343, 11);
    expect(riemannSiegelZ(1e8 + 0.5)).toBeCloseTo(10.604181919142828, 11);
    // One correction alone leaves 3e-3 at t = 100.
    expect(Math.abs(riemannSiegelZ(100.5, 1) - hardyZ(100.5))).toBeGreaterThan(1e-5);
    expect(theta(gramPoint(126))).toBeCloseTo(126 * Math.PI, 10);
    expect(theta(9.9999999)).toBeCloseTo(theta(10), 7);
  });

  it('has its first hundred zeros, and counts them', () => {
    const zeros = zerosByNumber(1, 100);
    for (const t of zeros) expect(absoluteZeta(0.5, t)).toBeLessThan(1e-9);
    expect(zeros[0]).toBeCloseTo(14.134725141734695, 12);
    expect(zeros[99]).toBeCloseTo(236.5242296658162, 11);
    expect(zerosByNumber(1000, 1)[0]).toBeCloseTo(1419.4224809459956, 9);
    // Gram's law fails here for the first time: no zero between g_125 and g_126.
    expect([...zerosByNumber(126, 2)]).toEqual([
      expect.closeTo(279.22925092774517, 10),
      expect.closeTo(282.4651147650521, 10),
    ]);
    expect([13, 20, 282.5, 1000, 20000.5].map(countZeros)).toEqual([0, 1, 127, 649, 22492]);
    expect(zerosOnLine(100, 110).complete).toBe(true);
    expect(() => countZeros(2e6)).toThrow('between 0 and');
    expect(() => zerosByNumber(0, 1)).toThrow('from 1 on');
  });

  it('polishes to a zero, and says when there is none', () => {
    const found = polishZero(0.48, 14.2);
    expect(found.converged).toBe(true);
    expect(found.absoluteValue).toBeLessThan(1e-12);
    expect(found.sigma).toBeCloseTo(0.5, 14);
    expect(polishZero(8, 0.5, 5).converged).toBe(false);
  });
});

describe('search of zeros', () => {
  it('finds what the argument principle counts, also where Gram intervals hold none or two', () => {
    const settings = { seed: 1, deviationTolerance: 1e-2 };
    for (const t of [
      [10, 50],
      [278, 296],
    ] as const) {
      const found = searchZeros({ sigma: [0, 1], t }, settings);
      expect(found.complete).toBe(true);
      expect(found.missed).toHaveLength(0);
      expect(found.largestOffLine).toBeLessThan(1e-12);
      expect(found.largestDifference).toBeLessThan(1e-11);
    }
    expect(gramTiles(10, 30).length).toBe(5);
  });

  it('expects none off the line, and refuses a box with the pole', () => {
    const right = searchZeros({ sigma: [0.6, 1], t: [10, 30] }, { seed: 1, maxRounds: 5 });
    expect([right.expected, right.zeros.length, right.complete]).toEqual([0, 0, true]);
    expect(() => searchZeros({ sigma: [0, 1], t: [0, 10] }, { seed: 1 })).toThrow('pole');
    expect(() => searchZeros({ sigma: [-1, 1], t: [1, 10] }, { seed: 1 })).toThrow('critical strip');
  });
});

describe('rare events of zeta', () => {
  const run = (seed: number, t: readonly [number, number], eps: readonly number[], finalSamples: number) =>
    exploreZeta(
      {
        mode: 'rare-event',
        box: { sigma: [0, 1], t },
        search: { seed, deviationTolerance: 1e-2, samples: 60 },
        rareEvent: {
          eps,
          proposal: 'basins',
          regions: ['line', 'strip'],
          samples: 1000,
          finalSamples,
          eliteShare: 0.1,
          smoothing: 0.8,
          maxLevels: 50,
          defensive: 0.1,
        },
        grid: [0, 0],
      },
      () => undefined,
    ).estimates;

  it('covers the exact values within four standard errors on 20 seeds', () => {
    for (let seed = 0; seed < 20; seed++) {
      for (const { found, exact } of run(seed, [10, 24], [0.01], 600)) {
        expect(Math.abs(found.estimate - (exact.value ?? Number.NaN))).toBeLessThan(4 * found.standardError);
      }
    }
  });

  it('reaches 3 % at eps = 0.001 with 10,000 draws, where plain Monte Carlo has 52 %', () => {
    const [line, strip] = run(3, [10, 50], [0.001], 10_000);
    expect(line.found.relativeError).toBeLessThan(0.01);
    expect(line.crudeRelativeError).toBeCloseTo(0.5186, 3);
    expect(strip.found.relativeError).toBeLessThan(0.01);
    expect(line.exact.value).toBeCloseTo(3.7175068583404067e-4, 12);
    expect(strip.exact.value).toBeCloseTo(4.6526939176686414e-7, 14);
    expect(line.basinsCovered).toBe(10);
  });
});
