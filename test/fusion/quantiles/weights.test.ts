import { describe, expect, it } from 'vitest';
import { certifiedWeights } from '../../../src/fusion/quantiles/certified-weights.js';
import { exponentiatedGradient } from '../../../src/fusion/quantiles/exponentiated-gradient.js';
import { fitExactly } from '../../../src/fusion/quantiles/fit-weights.js';
import { meanOf, pinballByLevel } from '../../../src/fusion/quantiles/pinball.js';
import { aggregate, WEIGHT_FORMS } from '../../../src/fusion/quantiles/weight-forms.js';
import {
  programObjective,
  programResiduals,
  type WeightProgram,
} from '../../../src/fusion/quantiles/weight-program.js';
import { createRandom } from '../../../src/random.js';
import { randomForecasts } from './random-forecasts.js';

const SETTINGS = { tolerance: 1e-9, seed: 0, threads: 1 };

function randomProgram(seed: number, rows: number, columns: number, rounded = false): WeightProgram {
  const random = createRandom(seed);
  const round = (x: number): number => (rounded ? Math.round(2 * x) : x);
  const centres = Array.from({ length: rows }, () => random.normal());
  return {
    values: Float64Array.from({ length: rows * columns }, (_, c) =>
      round(centres[Math.floor(c / columns)] + (c % columns) * 0.1 - 0.2 + random.normal()),
    ),
    offsets: Uint32Array.from({ length: rows }, (_, r) => r * columns),
    step: 1,
    columns,
    targets: Float64Array.from(centres, (centre) => round(centre + random.normal())),
    levels: Float64Array.from({ length: rows }, (_, r) => [0.1, 0.5, 0.8][r % 3]),
    incomplete: 0,
  };
}

const lossOf = (program: WeightProgram, weights: ArrayLike<number>): number =>
  programObjective(program, programResiduals(program, weights, new Float64Array(program.offsets.length)));

describe('certified weights', () => {
  it('are the best of a fine grid of the triangle, with ties and without', () => {
    for (const [seed, rows, rounded] of [
      [1, 7, false],
      [2, 40, false],
      [3, 40, true],
      [4, 3, true],
    ] as const) {
      const program = randomProgram(seed, rows, 3, rounded);
      const found = certifiedWeights(program, SETTINGS);
      let best = Number.POSITIVE_INFINITY;
      const steps = 120;
      for (let a = 0; a <= steps; a++) {
        for (let b = 0; a + b <= steps; b++) {
          best = Math.min(best, lossOf(program, [a / steps, b / steps, (steps - a - b) / steps]));
        }
      }
      expect(found.objective).toBeLessThanOrEqual(best + 1e-12);
      expect(found.objective).toBeGreaterThan(best - 0.02);
      expect(lossOf(program, found.weights)).toBeCloseTo(found.objective, 12);
      expect(found.objective - found.bound).toBeLessThan(2e-8 * found.objective);
      expect(found.weights.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 12);
      expect(Math.min(...found.weights)).toBeGreaterThanOrEqual(0);
    }
  });

  it('do not depend on the working set: many rows and columns give the optimum of the whole program', () => {
    const program = randomProgram(5, 3000, 80);
    const found = certifiedWeights(program, SETTINGS);
    expect(found.rounds).toBeGreaterThan(0);
    expect(found.objective - found.bound).toBeLessThanOrEqual(1e-9 * found.objective);
    // The bound is one for every point of the simplex.
    const random = createRandom(6);
    for (let trial = 0; trial < 20; trial++) {
      const raw = Float64Array.from({ length: 80 }, (_, k) => found.weights[k] + 0.02 * random.uniform());
      const total = raw.reduce((sum, weight) => sum + weight, 0);
      expect(
        lossOf(
          program,
          raw.map((weight) => weight / total),
        ),
      ).toBeGreaterThanOrEqual(found.bound);
    }
    const seeded = certifiedWeights(program, { ...SETTINGS, seed: 9 });
    expect(seeded.objective).toBeCloseTo(found.objective, 9);
  });

  it('exponentiated gradients reach the same loss, with a bound that holds', () => {
    const program = randomProgram(7, 300, 12);
    const exact = certifiedWeights(program, SETTINGS);
    const found = exponentiatedGradient(program, { ...SETTINGS, tolerance: 2e-3 });
    expect(found.objective - found.bound).toBeLessThanOrEqual(2e-3 * found.objective);
    expect(found.bound).toBeLessThanOrEqual(exact.objective + 1e-12);
    expect(found.objective).toBeLessThanOrEqual(exact.objective * (1 + 2e-3));
  });

  it('takes one model, models that are all right, and models that all agree', () => {
    const one = certifiedWeights(randomProgram(8, 5, 1), SETTINGS);
    expect([one.weights[0], one.objective - one.bound]).toEqual([1, 0]);
    const program = randomProgram(9, 20, 2);
    const right = { ...program, values: Float64Array.from({ length: 40 }, (_, c) => program.targets[c >> 1]) };
    expect(certifiedWeights(right, SETTINGS).objective).toBe(0);
    const same = { ...program, values: Float64Array.from({ length: 40 }, (_, c) => Math.sin(c >> 1)) };
    expect(certifiedWeights(same, SETTINGS).objective).toBeCloseTo(lossOf(same, [1, 0]), 12);
  });
});

describe('forms', () => {
  const { forecasts, outcomes, levels, rows } = randomForecasts(createRandom(10), 150, 3, 5);
  const lossOn = (quantiles: Float64Array): number => meanOf(pinballByLevel(quantiles, outcomes, levels));
  const optimum = (form: (typeof WEIGHT_FORMS)[number], normalised = true) =>
    fitExactly(forecasts, outcomes, levels, form, rows, 'lp', SETTINGS, normalised);

  it('nest: fine <= medium <= coarse <= best single, and each loss is what its weights give', () => {
    const single = Math.min(
      ...[0, 1, 2].map((k) =>
        lossOn(
          aggregate(
            forecasts,
            'coarse',
            [0, 1, 2].map((l) => Number(l === k)),
          ),
        ),
      ),
    );
    const [coarse, medium, fine] = WEIGHT_FORMS.map((form) => optimum(form));
    expect(coarse.objective).toBeLessThan(single);
    expect(medium.objective).toBeLessThan(coarse.objective);
    expect(fine.objective).toBeLessThan(medium.objective);
    for (const [form, found] of [
      ['coarse', coarse],
      ['medium', medium],
      ['fine', fine],
    ] as const) {
      expect(lossOn(aggregate(forecasts, form, found.weights))).toBeCloseTo(found.objective, 10);
      expect(found.objective - found.bound).toBeLessThan(1e-8);
    }
  });

  it('free weights do at least as well as convex ones, and no small change helps', () => {
    const convex = optimum('medium');
    const free = optimum('medium', false);
    expect(free.objective).toBeLessThanOrEqual(convex.objective + 1e-9);
    expect(free.objective - free.bound).toBeLessThan(1e-6);
    const random = createRandom(11);
    for (let trial = 0; trial < 30; trial++) {
      const moved = free.weights.map((weight) => weight + 1e-3 * random.normal());
      expect(lossOn(aggregate(forecasts, 'medium', moved))).toBeGreaterThanOrEqual(free.objective - 1e-12);
    }
  });

  it('leaves incomplete rows out, and says when none is left', () => {
    const values = forecasts.values.slice();
    values[0] = Number.NaN;
    const found = fitExactly({ ...forecasts, values }, outcomes, levels, 'fine', rows, 'lp', SETTINGS, true);
    expect(found.incomplete).toBe(5);
    values.fill(Number.NaN);
    expect(() => fitExactly({ ...forecasts, values }, outcomes, levels, 'coarse', rows, 'lp', SETTINGS, true)).toThrow(
      '--solver adam takes rows with missing cells',
    );
  });
});
