import { describe, expect, it } from 'vitest';
import type { Aggregator } from '../../../src/fusion/quantiles/aggregator.js';
import { amsgrad } from '../../../src/fusion/quantiles/amsgrad.js';
import { marginTable } from '../../../src/fusion/quantiles/crossing-penalty.js';
import { fitExactly } from '../../../src/fusion/quantiles/fit-weights.js';
import { globalAggregator, globalWeights } from '../../../src/fusion/quantiles/global-aggregator.js';
import { localAggregator, standardiseFeatures } from '../../../src/fusion/quantiles/local-aggregator.js';
import { smoothPinball, smoothPinballSlope } from '../../../src/fusion/quantiles/pinball.js';
import { batchLoss, batchRowsOf, CODE_TRAINING, type TrainingLoss } from '../../../src/fusion/quantiles/training.js';
import { aggregate, WEIGHT_FORMS } from '../../../src/fusion/quantiles/weight-forms.js';
import { drawTrial, type SearchSettings, searchWeights } from '../../../src/fusion/quantiles/weight-search.js';
import { createRandom } from '../../../src/random.js';
import { randomForecasts } from './random-forecasts.js';

const lossOf = (levels: Float64Array): TrainingLoss => ({
  levels,
  smoothing: 0.3,
  crossing: 1.5,
  margins: marginTable({ kind: 'levels', margins: levels, scale: 0.2 }, levels.length),
});

/** Largest difference of the gradient from central differences, over the size of the gradient. */
function gradientError(aggregator: Aggregator, outcomes: Float64Array, rows: Int32Array, levels: Float64Array): number {
  const loss = lossOf(levels);
  const random = createRandom(1);
  const parameters = aggregator.initial(random).map((value) => value + 0.3 * random.normal());
  const slopes = new Float64Array(rows.length * levels.length);
  batchLoss(aggregator.forward(parameters, rows), outcomes, rows, loss, slopes);
  const gradient = new Float64Array(aggregator.parameterCount);
  aggregator.backward(parameters, slopes, gradient);
  const at = (k: number, step: number): number => {
    const moved = parameters.slice();
    moved[k] += step;
    return batchLoss(aggregator.forward(moved, rows), outcomes, rows, loss);
  };
  let [worst, size] = [0, 0];
  const stride = Math.max(1, Math.floor(parameters.length / 60));
  for (let k = 0; k < parameters.length; k += stride) {
    const difference = (at(k, 1e-6) - at(k, -1e-6)) / 2e-6;
    worst = Math.max(worst, Math.abs(difference - gradient[k]));
    size = Math.max(size, Math.abs(gradient[k]));
  }
  expect(size).toBeGreaterThan(1e-4);
  return worst / size;
}

describe('gradients', () => {
  it('of the smoothed pinball loss are its slopes', () => {
    for (const error of [-2, -0.05, 0.04, 0.3]) {
      // In the quantile, which moves against the error.
      const slope = (smoothPinball(0.2, error - 1e-6, 0.1) - smoothPinball(0.2, error + 1e-6, 0.1)) / 2e-6;
      expect(smoothPinballSlope(0.2, error, 0.1)).toBeCloseTo(slope, 6);
    }
    expect([smoothPinball(0.2, 0.1, 0.1), smoothPinballSlope(0.2, 0, 0)]).toEqual([0.2 * 0.05, 0]);
  });

  it('of global weights equal central differences, for all forms, with missing cells and without, convex and free', () => {
    for (const missing of [0, 0.15]) {
      const { forecasts, outcomes, levels, rows } = randomForecasts(createRandom(2), 12, 3, 4, missing);
      for (const form of WEIGHT_FORMS) {
        const convex = globalAggregator(forecasts, form, true);
        expect(gradientError(convex, outcomes, rows, levels)).toBeLessThan(1e-6);
        if (missing > 0) continue;
        expect(gradientError(globalAggregator(forecasts, form, false), outcomes, rows, levels)).toBeLessThan(1e-6);
      }
    }
  });

  it('of local weights equal central differences through the perceptron', () => {
    const random = createRandom(3);
    for (const missing of [0, 0.15]) {
      const { forecasts, outcomes, levels, rows } = randomForecasts(random, 9, 2, 3, missing);
      const x = Float64Array.from({ length: 18 }, () => random.normal());
      const features = standardiseFeatures(x, 2, rows);
      const network = { hidden: 5, layers: 3, dropout: 0 };
      for (const form of WEIGHT_FORMS) {
        const convex = localAggregator(forecasts, features, form, network, true);
        expect(gradientError(convex, outcomes, rows, levels)).toBeLessThan(1e-5);
        if (missing > 0) continue;
        const free = localAggregator(forecasts, features, form, network, false);
        expect(gradientError(free, outcomes, rows, levels)).toBeLessThan(1e-5);
      }
    }
  });
});

describe('training', () => {
  it('global quantiles of a batch are those of its weights, in rows with missing cells too', () => {
    const { forecasts, outcomes, levels, rows } = randomForecasts(createRandom(4), 15, 3, 4, 0.2);
    const random = createRandom(5);
    for (const form of WEIGHT_FORMS) {
      const aggregator = globalAggregator(forecasts, form, true);
      const parameters = Float64Array.from({ length: aggregator.parameterCount }, () => random.normal());
      const direct = aggregate(forecasts, form, globalWeights(form, 3, 4, parameters, true));
      const batch = aggregator.forward(parameters, rows);
      direct.forEach((q, at) => {
        if (Number.isNaN(q)) expect(batch[at]).toBeNaN();
        else expect(batch[at]).toBeCloseTo(q, 10);
      });
    }
    expect(outcomes.length * levels.length).toBe(60);
  });

  it('amsgrad keeps the largest second moment', () => {
    const step = amsgrad(1, { learningRate: 0.1, penalty: 0 });
    const parameters = Float64Array.of(1);
    step(parameters, Float64Array.of(2));
    expect(parameters[0]).toBeCloseTo(0.9, 6);
    let [m, v, largest, p] = [0.2, 0.004, 0.004, parameters[0]];
    for (const [t, g] of [0.01, -0.02, 0.5].entries()) {
      step(parameters, Float64Array.of(g));
      m = 0.9 * m + 0.1 * g;
      v = 0.999 * v + 0.001 * g * g;
      largest = Math.max(largest, v);
      p -= (0.1 * (m / (1 - 0.9 ** (t + 2)))) / (Math.sqrt(largest / (1 - 0.999 ** (t + 2))) + 1e-8);
      expect(parameters[0]).toBeCloseTo(p, 12);
    }
  });

  it('comes near the certified optimum, the same from the same seed', () => {
    const { forecasts, outcomes, levels, rows } = randomForecasts(createRandom(6), 400, 3, 5);
    const exact = fitExactly(
      forecasts,
      outcomes,
      levels,
      'medium',
      rows,
      'lp',
      { tolerance: 1e-8, seed: 0, threads: 1 },
      true,
    );
    const settings: SearchSettings = {
      margins: 'single',
      smoothing: 0,
      trials: 1,
      validationShare: 0.2,
      crossing: 0,
      seed: 3,
      training: { ...CODE_TRAINING, mostSteps: 3000 },
    };
    const train = () =>
      searchWeights(forecasts, outcomes, levels, rows, () => globalAggregator(forecasts, 'medium', true), settings);
    const found = train();
    expect(found.objective).toBeGreaterThanOrEqual(exact.bound);
    expect(found.objective).toBeLessThan(1.01 * exact.objective);
    expect(Array.from(train().parameters)).toEqual(Array.from(found.parameters));
  });

  it('draws trials from the values of the authors, and batches by the number of rows', () => {
    const random = createRandom(7);
    for (let t = 0; t < 50; t++) {
      const single = drawTrial(random, 'single');
      expect(single.margin).toBeGreaterThanOrEqual(1e-4);
      expect(single.margin).toBeLessThanOrEqual(9.9e-3);
      expect(single.learningRate).toBe(1e-3);
      const adapt = drawTrial(random, 'adapt', 7);
      expect([0.1, 0.01, 0.001, 0.0001]).toContain(adapt.margin);
      expect(adapt.crossing).toBe(7);
    }
    expect([9, 10, 999, 1000, 100_000].map(batchRowsOf)).toEqual([8, 16, 32, 64, 256]);
  });
});
