import { describe, expect, it } from 'vitest';
import { roundedLog } from '../../src/linalg/rounded-log.js';
import {
  chiSquareSurvival,
  digamma,
  EULER_GAMMA,
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
