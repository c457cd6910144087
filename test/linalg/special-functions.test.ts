import { describe, expect, it } from 'vitest';
import { roundedLog } from '../../src/linalg/rounded-log.js';
import {
  betaDensity,
  betaQuantile,
  betaRatio,
  chiSquareSurvival,
  digamma,
  EULER_GAMMA,
  gammaHalfStep,
  logBeta,
  logGamma,
  logRisingFactorial,
  normalCdf,
  normalQuantile,
  scaledExponentialIntegral,
  trigamma,
  upperGammaRatio,
} from '../../src/linalg/special-functions.js';

/** Expected figures are of mpmath with 80 digits. */
function close(found: number, expected: number, relative = 1e-13): void {
  expect(Math.abs(found - expected)).toBeLessThanOrEqual(relative * Math.max(Math.abs(expected), 1e-300));
}

describe('gamma functions', () => {
  it('ln Γ', () => {
    close(logGamma(1e-12), 27.63102111592797);
    close(logGamma(0.5), 0.5723649429247001);
    close(logGamma(1.5), -0.12078223763524522);
    close(logGamma(11.9), 17.25847745059552);
    close(logGamma(1e7), 151180949.3694739);
    close(logGamma(1e20), 4.505170185988091e21);
    expect(logGamma(1)).toBe(0);
    expect(logGamma(0)).toBeNaN();
  });

  it('ψ and its derivative', () => {
    close(digamma(1), -EULER_GAMMA);
    close(digamma(1e-5), -100000.57719921567);
    close(digamma(3.7), 1.1671535393615113);
    close(digamma(1e12), 27.63102111592805);
    close(trigamma(1), Math.PI ** 2 / 6);
    close(trigamma(0.1), 101.43329915079275);
    close(trigamma(12.1), 0.08615364647098629);
    close(trigamma(1e7), 1.0000000500000017e-7);
  });

  it('ln of a rising factorial, also where both gammas are huge', () => {
    const offset = (n: number): number => n * Math.log(n) - n;
    close(logRisingFactorial(0.5, 3), Math.log(0.5 * 1.5 * 2.5) - offset(3));
    close(logRisingFactorial(3.7, 1e4), 28.964463176924717);
    close(logRisingFactorial(1e-12, 13), -27.988148267263536);
    close(logRisingFactorial(1e12, 1e9), 7908255112.398254);
    close(logRisingFactorial(1e20, 100), 4244.653167389282);
    close(logRisingFactorial(0.25, 5.5), logGamma(5.75) - logGamma(0.25) - offset(5.5), 1e-12);
    expect(logRisingFactorial(2, 0)).toBe(0);
  });

  it('the regularised upper gamma function and χ²', () => {
    close(upperGammaRatio(0.5, 0.5), 0.3173105078629141);
    close(upperGammaRatio(3, 2.4), 0.56970874665751, 1e-12);
    close(upperGammaRatio(5000, 5000), 0.49811936596618267);
    close(upperGammaRatio(5000, 6000), 1.1470065524601248e-40, 1e-12);
    close(upperGammaRatio(1, 12), Math.exp(-12));
    close(chiSquareSurvival(13.739988852025036, 6), 0.03267940018290453, 1e-12);
    expect(chiSquareSurvival(3, 0)).toBe(1);
    expect(upperGammaRatio(2, 0)).toBe(1);
  });

  it('the exponential integral', () => {
    close(scaledExponentialIntegral(1e-12), 27.05380545105507);
    close(scaledExponentialIntegral(0.99), 0.60041394194164, 1e-12);
    close(scaledExponentialIntegral(1.01), 0.5923404212715494, 1e-12);
    close(scaledExponentialIntegral(500), 0.001996015904760411);
  });

  it('the normal distribution and its inverse', () => {
    close(normalCdf(-8), 6.220960574271784e-16, 1e-12);
    close(normalCdf(2), 0.9772498680518208);
    close(normalQuantile(0.975), 1.9599639845400538);
    close(normalQuantile(1e-20), -9.262340089798407);
    for (const p of [1e-300, 0.02, 0.3, 0.7, 0.999]) close(normalCdf(normalQuantile(p)), p, 1e-11);
    expect(normalQuantile(0)).toBe(Number.NEGATIVE_INFINITY);
  });
});

describe('beta functions', () => {
  it('half a step of Γ', () => {
    close(gammaHalfStep(0.5), 1 / Math.sqrt(Math.PI), 1e-15);
    close(gammaHalfStep(0.01), 0.017483353835975518, 1e-15);
    close(gammaHalfStep(8), 2.7846046217228992, 1e-15);
    close(gammaHalfStep(127.5), 11.280525057701663, 1e-15);
    close(gammaHalfStep(14336), 119.73199239209153, 1e-15);
    expect(gammaHalfStep(0)).toBeNaN();
  });

  it('ln B', () => {
    close(logBeta(8, 2040), -52.45418803409829, 1e-15);
    close(logBeta(128, 14208), -732.8966598118853, 1e-15);
    close(logBeta(43, 0.67), -2.218663449721471);
    close(logBeta(2.5, 3), -2.979983916585852);
    close(logBeta(0.5, 0.5), Math.log(Math.PI));
    expect(logBeta(3, 70)).toBe(logBeta(70, 3));
    expect(logBeta(0, 1)).toBeNaN();
  });

  it('the regularised incomplete beta function and its complement', () => {
    const cases: readonly (readonly [x: number, a: number, b: number, lower: number, upper: number])[] = [
      [0.0039, 8, 2040, 0.544974464217035, 0.45502553578296506],
      [0.006, 8, 2040, 0.9227252796340945, 0.07727472036590557],
      [0.3, 2.5, 3, 0.2412375539211816, 0.7587624460788184],
      [0.01, 128, 14208, 0.9101961371335392, 0.08980386286646082],
      [0.9, 43, 0.67, 0.004656568506001588, 0.9953434314939984],
      [0.002, 0.5, 2040, 0.9957344593620651, 0.004265540637934993],
    ];
    for (const [x, a, b, lower, upper] of cases) {
      const found = betaRatio(x, a, b);
      close(found.lower, lower);
      close(found.upper, upper);
      const turned = betaRatio(1 - x, b, a, x);
      close(turned.lower, upper);
      close(turned.upper, lower);
    }
    // Closed forms: a power, and the arcsine law.
    close(betaRatio(0.2, 3, 1).lower, 0.008, 1e-14);
    close(betaRatio(1e-8, 0.5, 0.5).lower, (2 / Math.PI) * Math.asin(1e-4), 1e-14);
    close(betaRatio(1, 7.5, 0.5, 0).lower, 1);
    expect(betaRatio(0, 2, 3)).toEqual({ lower: 0, upper: 1 });
    expect(betaRatio(0.5, -1, 3).lower).toBeNaN();
  });

  it('its density and its inverse', () => {
    close(betaDensity(0.25, 2, 3), 12 * 0.25 * 0.75 ** 2, 1e-14);
    close(betaDensity(0.5, 0.5, 0.5), 2 / Math.PI, 1e-14);
    expect(betaDensity(0, 1, 4)).toBe(4);
    expect(betaDensity(1, 3, 1)).toBe(3);
    expect(betaDensity(0, 0.5, 4)).toBe(Number.POSITIVE_INFINITY);
    close(betaQuantile(0.008, 3, 1), 0.2, 1e-14);
    close(betaQuantile(0.5, 40, 40), 0.5, 1e-14);
    for (const [a, b] of [
      [0.5, 0.5],
      [0.5, 2040],
      [8, 2040],
      [43, 0.67],
      [128, 14208],
      [200, 1],
    ]) {
      for (const p of [1e-12, 0.001, 0.3, 0.5, 0.9, 0.999]) {
        const x = betaQuantile(p, a, b);
        if (p <= 0.5) close(betaRatio(x, a, b).lower, p, 1e-11);
        else expect(Math.abs(betaRatio(x, a, b).lower - p)).toBeLessThan(1e-8);
      }
    }
    expect([betaQuantile(0, 2, 3), betaQuantile(1, 2, 3)]).toEqual([0, 1]);
    expect(betaQuantile(1.1, 2, 3)).toBeNaN();
  });
});

describe('roundedLog', () => {
  it('rounds to the nearest where Math.log may not', () => {
    expect(roundedLog(19 / 60)).toBe(-1.1499055830556604);
    expect(roundedLog(14 / 60)).toBe(-1.455287232606842);
    expect(roundedLog(1)).toBe(0);
    expect(roundedLog(2)).toBe(Math.LN2);
    expect(roundedLog(5e-324)).toBe(-744.4400719213812);
    for (let i = 1; i < 200; i++)
      close(roundedLog(i / 37), Math.log(i / 37), 3e-16 / Math.min(1, Math.abs(Math.log(i / 37)) || 1));
  });
});
