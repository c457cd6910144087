import {
  adaptiveMargins,
  crossingPenalty,
  type Margins,
  marginTable,
} from '../../src/fusion/quantiles/crossing-penalty.js';
import { fitExactly } from '../../src/fusion/quantiles/fit-weights.js';
import { modelLosses } from '../../src/fusion/quantiles/methods/combinations.js';
import { type FitProblem, METHODS } from '../../src/fusion/quantiles/methods.js';
import { type NonCrossing, withoutCrossing } from '../../src/fusion/quantiles/non-crossing.js';
import { meanOf, pinballByLevel } from '../../src/fusion/quantiles/pinball.js';
import { scoreQuantiles } from '../../src/fusion/quantiles/scores.js';
import {
  aggregate,
  type Forecasts,
  softmaxColumns,
  type WeightForm,
  weightShape,
} from '../../src/fusion/quantiles/weight-forms.js';
import type { Json } from './harness.js';
import { float64, keysOf, listed, number, shapeOf, tensor } from './tensors.js';

const MAPS: Readonly<Record<string, NonCrossing>> = {
  raw: 'none',
  sorted: 'sort',
  isotonic: 'isotonic',
  minmax_sweep_from_median: 'sweep',
  cummax: 'cummax',
  mean_of_cummin_cummax: 'mean-cummin-cummax',
};

/** The noise that makes quantiles cross is in the expected predictions alone. */
export function undetermined(inputs: { [key: string]: Json }): readonly string[] {
  if (inputs.crossing_noise !== true) return [];
  return [
    'crossing_prediction',
    ...Object.keys(MAPS).flatMap((name) => [name, `metrics_${name}`]),
    'crossing_penalty_margin_0.01',
    'crossing_penalty_adaptive_scale_0.1',
    'huber_pinball_alpha_0.05',
  ];
}

const metrics = (quantiles: Float64Array, outcomes: Float64Array, levels: Float64Array): Record<string, unknown> => {
  const scores = scoreQuantiles(quantiles, outcomes, levels);
  return {
    pinball_per_level: scores.pinballByLevel,
    mean_pinball: scores.meanPinball,
    interval_scores: scores.intervals.map(({ score }) => score),
    wis: scores.wis,
    interval_coverage: scores.intervals.map(({ coverage }) => coverage),
    mean_coverage_error: scores.meanCoverageError,
    level_coverage: scores.levelCoverage,
    mean_abs_calibration_error: scores.meanAbsoluteCalibrationError,
    rms_calibration_error: scores.rmsCalibrationError,
    crossing_rate: scores.crossingPairs,
  };
};

const picked = (from: Record<string, unknown>, wanted: Json): Record<string, unknown> =>
  Object.fromEntries(keysOf(wanted).map((key) => [key, from[key]]));

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const levels = Float64Array.from(listed(inputs.tau, 'tau'));
  const outcomes = float64(inputs.y, 'y');
  const [rows, models, m] = shapeOf(inputs.base, 'base');
  const forecasts: Forecasts = { values: float64(inputs.base, 'base'), rows, models, levels: m };
  const every = Int32Array.from({ length: rows }, (_, i) => i);
  const shape = [rows, m];
  const logits = inputs.logits as { [form: string]: Json };
  const ofForm = (form: WeightForm): Float64Array => {
    const given = logits[form];
    const [inputCount, columns] = shapeOf(given, form);
    return aggregate(forecasts, form, softmaxColumns(float64(given, form), inputCount, columns));
  };
  const problem: FitProblem = {
    forecasts,
    models: Array.from({ length: models }, (_, k) => String(k)),
    levels,
    outcomes,
    rows: every,
    settings: {
      ...{ solver: 'lp', tolerance: 1e-10, normalised: true, margins: 'single', smoothing: 0, trials: 1 },
      ...{ validationShare: 0.2, mostSteps: 1, seed: 0, threads: 1 },
    },
    progress: () => undefined,
  };
  const byMethod = (name: string) => {
    const method = METHODS.find((entry) => entry.name === name);
    if (method === undefined) throw new TypeError(`no method ${name}`);
    return method.fit(problem);
  };
  const crossing = ofForm('medium');
  const mapped = (map: NonCrossing) => withoutCrossing(crossing, m, map);
  const penalty = (margins: Margins) => crossingPenalty(crossing, m, marginTable(margins, m)) / rows;
  const margins = adaptiveMargins(forecasts.values, outcomes, models, levels);
  const noisy = inputs.crossing_noise === true;
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    if (noisy && undetermined(inputs).includes(key)) continue;
    const map = MAPS[key];
    const metric = /^metrics_(.+)$/.exec(key)?.[1];
    const optimum = /^optimal_(.+)$/.exec(key)?.[1] as WeightForm | undefined;
    const single = /^crossing_penalty_margin_([\d.e-]+)$/.exec(key)?.[1];
    const scale = /^crossing_penalty_adaptive_scale_([\d.e-]+)$/.exec(key)?.[1];
    const alpha = /^huber_pinball_alpha_([\d.e-]+)$/.exec(key)?.[1];
    const wantedHere = (wanted as { [key: string]: Json })[key];
    if (key === 'coarse' || key === 'medium' || key === 'fine') {
      result[key] = { logits: logits[key], prediction: tensor(shape, ofForm(key)) };
    } else if (key === 'crossing_prediction') result[key] = tensor(shape, crossing);
    else if (map !== undefined) result[key] = tensor(shape, mapped(map));
    else if (metric !== undefined) result[key] = picked(metrics(mapped(MAPS[metric]), outcomes, levels), wantedHere);
    else if (single !== undefined) result[key] = penalty({ kind: 'single', margin: Number(single) });
    else if (scale !== undefined) result[key] = penalty({ kind: 'levels', margins, scale: Number(scale) });
    else if (alpha !== undefined)
      result[key] = meanOf(pinballByLevel(crossing, outcomes, levels, number(Number(alpha), key)));
    else if (key === 'adaptive_margin') result[key] = margins;
    else if (key === 'equal_average') result[key] = tensor(shape, byMethod('average').predict(every));
    else if (key === 'median_ensemble') result[key] = tensor(shape, byMethod('median').predict(every));
    else if (key === 'best_single_mean_pinball') result[key] = Math.min(...modelLosses(problem, every));
    else if (key === 'equal_average_mean_pinball') result[key] = byMethod('average').facts.objective;
    else if (optimum !== undefined) {
      const settings = { tolerance: 1e-10, seed: 0, threads: 1 };
      const fit = fitExactly(forecasts, outcomes, levels, optimum, every, 'lp', settings, true);
      result[key] = { weights: tensor(weightShape(optimum, models, m), fit.weights), mean_pinball: fit.objective };
    }
  }
  return result;
}
