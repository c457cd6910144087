import type { Forecasts } from '../../../src/fusion/quantiles/weight-forms.js';
import type { Random } from '../../../src/random.js';

export interface RandomForecasts {
  readonly forecasts: Forecasts;
  readonly outcomes: Float64Array;
  readonly levels: Float64Array;
  readonly rows: Int32Array;
}

/** Outcomes of a normal law of changing spread, and models that are shifted, scaled and noisy. */
export function randomForecasts(random: Random, rows: number, models: number, m: number, missing = 0): RandomForecasts {
  const levels = Float64Array.from({ length: m }, (_, j) => (j + 1) / (m + 1));
  const outcomes = new Float64Array(rows);
  const values = new Float64Array(rows * models * m);
  for (let i = 0; i < rows; i++) {
    const centre = random.normal();
    const spread = 0.5 + random.uniform();
    outcomes[i] = centre + spread * random.normal();
    for (let k = 0; k < models; k++) {
      const [shift, scale] = [0.3 * random.normal() + 0.1 * k, 0.7 + 0.3 * k];
      for (let j = 0; j < m; j++) {
        const value = centre + shift + spread * scale * Math.log(levels[j] / (1 - levels[j])) * 0.6;
        values[(i * models + k) * m + j] = random.uniform() < missing ? Number.NaN : value + 0.05 * random.normal();
      }
    }
  }
  const forecasts = { values, rows, models, levels: m };
  return { forecasts, outcomes, levels, rows: Int32Array.from({ length: rows }, (_, i) => i) };
}
