import { describe, expect, it } from 'vitest';
import { rotateRows } from '../../src/kernels/hadamard.js';
import { planRotation } from '../../src/linalg/hadamard.js';
import { betaRatio } from '../../src/linalg/special-functions.js';
import {
  addRows,
  createTensorStatistics,
  hessianBound,
  lloydMaxSqnr,
  reverseWaterFilling,
  sqnrDecibels,
  type TensorFigures,
  tensorFigures,
  whiteBound,
} from '../../src/quantization/tensor-statistics.js';
import { createRandom } from '../../src/random.js';

function figures(x: Float32Array, columns: number, groupLength: number, band = 1000): TensorFigures {
  const statistics = createTensorStatistics(columns, groupLength);
  for (let at = 0; at < x.length; at += band * columns) addRows(statistics, x.subarray(at, at + band * columns));
  return tensorFigures(statistics);
}

function normals(length: number, seed: number, change: (value: number) => number = (value) => value): Float32Array {
  const random = createRandom(seed);
  return Float32Array.from({ length }, () => change(random.normal()));
}

/** The distance by sorting all amplitudes. */
function kolmogorovBySorting(x: Float32Array, columns: number, length: number): number {
  const ratios: number[] = [];
  for (let row = 0; row < x.length; row += columns) {
    const energy = (from: number, to: number): number => x.subarray(from, to).reduce((sum, v) => sum + v * v, 0);
    const whole = energy(row, row + columns);
    for (let g = 0; (g + 1) * length <= columns; g++) {
      ratios.push(energy(row + g * length, row + (g + 1) * length) / whole);
    }
  }
  ratios.sort((a, b) => a - b);
  return ratios.reduce((most, value, i) => {
    const law = betaRatio(value, length / 2, (columns - length) / 2).lower;
    return Math.max(most, (i + 1) / ratios.length - law, law - i / ratios.length);
  }, 0);
}

describe('figures of a matrix', () => {
  it('are moments about the mean, however rows are cut into bands', () => {
    const x = normals(60 * 37, 1, (value) => 3 + value ** 3);
    const found = figures(x, 37, 8);
    const mean = x.reduce((a, b) => a + b, 0) / x.length;
    const power = (p: number): number => x.reduce((sum, v) => sum + (v - mean) ** p, 0) / x.length;
    expect(found.kurtosis).toBeCloseTo(power(4) / power(2) ** 2, 9);
    const energy = x.reduce((sum, v) => sum + v * v, 0);
    expect(found.energy / energy).toBeCloseTo(1, 12);
    const largest = x.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
    expect(found.incoherence).toBeCloseTo((largest * Math.sqrt(x.length)) / Math.sqrt(energy), 10);
    expect(figures(x, 37, 8, 7)).toEqual(found);
  });

  it('know spread and concentrated matrices', () => {
    const flat = Float32Array.from({ length: 256 }, (_, i) => (i % 3 === 0 ? -2 : 2));
    expect(figures(flat, 16, 4).incoherence).toBeCloseTo(1, 12);
    const spike = new Float32Array(256);
    spike[40] = 5;
    expect(figures(spike, 16, 4).incoherence).toBeCloseTo(16, 12);
    const zero = figures(new Float32Array(32), 16, 4);
    expect(zero).toMatchObject({ energy: 0, incoherence: Number.NaN, kurtosis: Number.NaN, kolmogorov: null });
  });

  it('count what is not finite and leave it out', () => {
    const x = normals(64, 2);
    x[3] = Number.NaN;
    x[40] = Number.NEGATIVE_INFINITY;
    const found = figures(x, 16, 4);
    expect(found.nonFinite).toBe(2);
    expect(found.energy).toBeCloseTo(
      x.reduce((sum, v) => (Number.isFinite(v) ? sum + v * v : sum), 0),
      10,
    );
  });

  it('hold the distance of amplitudes to their law, within what they say', () => {
    for (const [columns, length] of [
      [64, 4],
      [100, 16],
      [40, 1],
      [17, 16],
      [512, 128],
    ]) {
      const x = normals(80 * columns, length, (value) => value * Math.abs(value) ** 0.3);
      const found = figures(x, columns, length);
      const expected = kolmogorovBySorting(x, columns, length);
      const distance = found.kolmogorov ?? Number.NaN;
      const room = found.kolmogorovResolution ?? Number.NaN;
      expect(room).toBeLessThan(0.01);
      expect(distance).toBeLessThanOrEqual(expected + 1e-9);
      expect(distance).toBeGreaterThanOrEqual(expected - room - 1 / (80 * Math.floor(columns / length)) - 1e-9);
    }
    expect(figures(normals(64, 3), 16, 16).kolmogorov).toBeNull();
  });

  it('move towards the Gaussian ones under a rotation', () => {
    const heavy = normals(64 * 768, 4, (value) => value ** 3);
    const before = figures(heavy, 768, 16);
    rotateRows(heavy, 64, planRotation(768, 1n), 'forward');
    const after = figures(heavy, 768, 16);
    expect(after.incoherence).toBeLessThan(before.incoherence / 5);
    // Rows of heavy tails differ in energy by some six percent, which a rotation of their inputs keeps.
    expect(before.kurtosis).toBeGreaterThan(30);
    expect(Math.abs(after.kurtosis - 3)).toBeLessThan(0.4);
    expect(after.kolmogorov ?? 1).toBeLessThan(0.05);
    expect(before.kolmogorov ?? 0).toBeGreaterThan(0.3);
    expect(after.energy / before.energy).toBeCloseTo(1, 5);
  });

  it('refuse bands that are no rows', () => {
    expect(() => addRows(createTensorStatistics(16, 4), new Float32Array(17))).toThrow('17 weights are no rows of 16');
    expect(() => createTensorStatistics(0, 4)).toThrow(RangeError);
  });
});

describe('bounds', () => {
  it('fill water over Gaussian components', () => {
    // Equal variances: each is coded at the rate itself.
    expect(reverseWaterFilling(new Float64Array(5).fill(2), 3)).toEqual({
      distortion: 2 / 64,
      waterLevel: 2 / 64,
      active: 5,
    });
    // Variances 4 and 1 at half a bit: only the first is coded, with one bit, down to the variance of the other.
    expect(reverseWaterFilling(Float64Array.of(1, 4), 0.5)).toEqual({ distortion: 1, waterLevel: 1, active: 1 });
    expect(reverseWaterFilling(Float64Array.of(1, 4), 0.25)).toEqual({ distortion: 1.5, waterLevel: 2, active: 1 });
    // At no rate all is lost, and dead components take none.
    expect(reverseWaterFilling(Float64Array.of(3, 1, 0, -1e-18), 0)).toMatchObject({ distortion: 1 });
    expect(reverseWaterFilling(Float64Array.of(4, 0, 0, 0), 1).distortion).toBeCloseTo(4 / 256 / 4, 15);
    expect(() => reverseWaterFilling(new Float64Array(0), 1)).toThrow(RangeError);
    expect(() => reverseWaterFilling(Float64Array.of(1), -1)).toThrow(RangeError);
  });

  it('give rates back that they were asked for, and fall as convex functions', () => {
    const random = createRandom(5);
    const spectrum = Float64Array.from({ length: 200 }, () => Math.exp(3 * random.normal()));
    let before = Number.POSITIVE_INFINITY;
    let fall = Number.POSITIVE_INFINITY;
    for (let bits = 0; bits <= 6; bits += 0.25) {
      const { distortion, waterLevel } = reverseWaterFilling(spectrum, bits);
      const rate = spectrum.reduce((sum, v) => sum + Math.max(0, Math.log2(v / waterLevel) / 2), 0) / 200;
      expect(rate).toBeCloseTo(bits, 10);
      expect(distortion).toBeCloseTo(spectrum.reduce((sum, v) => sum + Math.min(v, waterLevel), 0) / 200, 10);
      expect(distortion).toBeLessThan(before);
      if (bits > 0.25) expect(before - distortion).toBeLessThan(fall);
      fall = before - distortion;
      before = distortion;
    }
  });

  it('of a Hessian are at most those of white errors', () => {
    expect(hessianBound(new Float64Array(8).fill(0.3), 2)).toBeCloseTo(whiteBound(2), 15);
    const spectrum = Float64Array.from({ length: 50 }, (_, i) => 1.2 ** i);
    expect(hessianBound(spectrum, 3)).toBeLessThan(whiteBound(3) / 10);
    // All components active: geometric over arithmetic mean.
    const mean = spectrum.reduce((a, b) => a + b, 0) / 50;
    expect(hessianBound(spectrum, 8) / whiteBound(8)).toBeCloseTo(1.2 ** 24.5 / mean, 12);
    expect(() => hessianBound(new Float64Array(4), 1)).toThrow('no positive eigenvalue');
  });

  it('and the scalar reference are those of the literature in decibels', () => {
    expect([2, 3, 4].map((bits) => Number(lloydMaxSqnr(bits).toFixed(3)))).toEqual([9.3, 14.616, 20.222]);
    expect([2, 3, 4].map((bits) => Number(sqnrDecibels(1, whiteBound(bits)).toFixed(2)))).toEqual([
      12.04, 18.06, 24.08,
    ]);
  });
});
