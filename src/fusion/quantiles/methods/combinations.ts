import { medianOf } from '../crossing-penalty.js';
import { linearPool } from '../linear-pool.js';
import type { FitProblem, Method } from '../methods.js';
import { meanOf, pinball, pinballByLevel } from '../pinball.js';
import { aggregate } from '../weight-forms.js';

/** Mean pinball loss of every base model on its own cells of `rows`: mean over rows of each level, then over levels. */
export function modelLosses(
  { forecasts, levels, outcomes }: Pick<FitProblem, 'forecasts' | 'levels' | 'outcomes'>,
  rows: ArrayLike<number>,
): Float64Array {
  const { values, models, levels: m } = forecasts;
  const sums = new Float64Array(models * m);
  const counts = new Float64Array(models * m);
  for (let at = 0; at < rows.length; at++) {
    const y = outcomes[rows[at]];
    const base = rows[at] * models * m;
    for (let c = 0; c < models * m; c++) {
      const error = y - values[base + c];
      if (Number.isNaN(error)) continue;
      sums[c] += pinball(levels[c % m], error);
      counts[c]++;
    }
  }
  return Float64Array.from({ length: models }, (_, k) =>
    meanOf(sums.subarray(k * m, (k + 1) * m).map((sum, j) => sum / counts[k * m + j])),
  );
}

const lossOn = ({ outcomes, levels, rows }: FitProblem, quantiles: Float64Array): number =>
  meanOf(
    pinballByLevel(
      quantiles,
      Float64Array.from(rows, (row) => outcomes[row]),
      levels,
    ),
  );

export const BEST_SINGLE: Method = {
  name: 'best-single',
  summary: 'the base model with the least mean pinball loss on the rows of the fit',
  fit(problem) {
    const { forecasts, models } = problem;
    const losses = modelLosses(problem, problem.rows);
    let best = 0;
    for (let k = 1; k < losses.length; k++) if (losses[k] < losses[best] || Number.isNaN(losses[best])) best = k;
    const values = new Float64Array(forecasts.models);
    values[best] = 1;
    return {
      facts: { objective: losses[best], model: models[best] },
      weights: { form: 'coarse', values },
      predict: (rows) => aggregate(forecasts, 'coarse', values, rows),
    };
  },
};

export const EQUAL_AVERAGE: Method = {
  name: 'average',
  summary: 'the mean of the models, level by level',
  fit(problem) {
    const { forecasts } = problem;
    const values = new Float64Array(forecasts.models).fill(1 / forecasts.models);
    const predict = (rows: Int32Array): Float64Array => aggregate(forecasts, 'coarse', values, rows);
    return {
      facts: { objective: lossOn(problem, predict(problem.rows)) },
      weights: { form: 'coarse', values },
      predict,
    };
  },
};

export const MEDIAN_ENSEMBLE: Method = {
  name: 'median',
  summary: 'the median of the models, level by level',
  fit(problem) {
    const { values, models, levels: m } = problem.forecasts;
    const across = new Float64Array(models);
    const predict = (rows: Int32Array): Float64Array => {
      const result = new Float64Array(rows.length * m);
      rows.forEach((row, at) => {
        for (let j = 0; j < m; j++) {
          for (let k = 0; k < models; k++) across[k] = values[(row * models + k) * m + j];
          result[at * m + j] = medianOf(across);
        }
      });
      return result;
    };
    return { facts: { objective: lossOn(problem, predict(problem.rows)) }, predict };
  },
};

export const POOL: Method = {
  name: 'linear-pool',
  summary: 'the mixture of the models with equal weights: distribution functions averaged, then inverted',
  fit(problem) {
    const { values, models, levels: m } = problem.forecasts;
    const equal = new Float64Array(models).fill(1 / models);
    const predict = (rows: Int32Array): Float64Array => {
      const result = new Float64Array(rows.length * m);
      rows.forEach((row, at) => {
        result.set(linearPool(values, row * models * m, equal, problem.levels), at * m);
      });
      return result;
    };
    return { facts: { objective: lossOn(problem, predict(problem.rows)) }, predict };
  },
};
