import type { Cell } from '../../report/csv.js';
import { finiteOrName } from '../../report/values.js';
import type { FitFacts } from './methods.js';
import { type MethodResult, PIT_BINS, type QuantilesResult, standardError } from './quantiles-job.js';
import type { QuantileScores } from './scores.js';
import { weightShape } from './weight-forms.js';

/** Name of the report's schema. */
export const QUANTILES_SCHEMA = 'fuse-quantiles';

export const PREDICTION_COLUMNS = ['id', 'split', 'method', 'tau', 'q', 'y'];
export const SCORE_COLUMNS = [
  ...['method', 'stage', 'kind', 'nominal', 'pinball', 'coverage', 'width', 'interval_score'],
];
export const WEIGHT_COLUMNS = ['method', 'output_tau', 'model', 'input_tau', 'weight'];

/** Weights below this share are not counted as in use. */
const IN_USE = 1e-6;

function scoresBody(scores: QuantileScores) {
  const orNull = (value: number): number | null => (Number.isNaN(value) ? null : value);
  return {
    rows: scores.rows,
    mean_pinball: scores.meanPinball,
    pinball_by_level: scores.pinballByLevel,
    wis: orNull(scores.wis),
    crps_approximation: scores.crps,
    coverage_by_level: scores.levelCoverage,
    mean_absolute_calibration_error: scores.meanAbsoluteCalibrationError,
    rms_calibration_error: scores.rmsCalibrationError,
    mean_interval_coverage_error: orNull(scores.meanCoverageError),
    intervals: scores.intervals.map(({ miscoverage, coverage, width, score }) => ({
      nominal_coverage: 1 - miscoverage,
      coverage,
      coverage_se: Math.sqrt((coverage * (1 - coverage)) / scores.rows),
      mean_width: width,
      interval_score: score,
    })),
    crossing_pairs_share: scores.crossingPairs,
    crossing_rows_share: scores.crossingRows,
  };
}

function fitBody(facts: FitFacts) {
  const { objective, bound, chosen } = facts;
  return {
    mean_pinball: objective,
    lower_bound: bound ?? null,
    duality_gap: bound === undefined ? null : objective - bound,
    rounds: facts.rounds ?? null,
    fitted_cells: facts.cells ?? null,
    incomplete_cells: facts.incomplete ?? null,
    model: facts.model ?? null,
    parameters: facts.parameters ?? null,
    trials: facts.trials?.length ?? null,
    chosen:
      chosen === undefined
        ? null
        : {
            crossing_penalty: chosen.crossing,
            margin: chosen.margin,
            learning_rate: chosen.learningRate,
            hidden: chosen.hidden,
            layers: chosen.layers,
            dropout: chosen.dropout,
            steps: chosen.bestSteps,
            validation_mean_pinball: chosen.validation,
          },
  };
}

function methodBody(method: MethodResult) {
  const { weights, calibration } = method;
  return {
    name: method.name,
    fit: fitBody(method.facts),
    weights:
      weights === undefined
        ? null
        : { form: weights.form, in_use: weights.values.filter((weight) => Math.abs(weight) > IN_USE).length },
    test_mean_pinball: method.shaped.meanPinball,
    test_mean_pinball_se: standardError(method.rowLosses),
    scores: {
      aggregated: scoresBody(method.aggregated),
      non_crossing: scoresBody(method.shaped),
      conformal: method.conformal === undefined ? null : scoresBody(method.conformal),
    },
    conformal:
      calibration === undefined
        ? null
        : {
            kind: calibration.kind,
            intervals: calibration.intervals.map(({ interval, offsets }) => ({
              nominal_coverage: 1 - interval.miscoverage,
              rows: offsets.rows,
              rank: offsets.rank,
              lower_offset: finiteOrName(offsets.lower),
              upper_offset: finiteOrName(offsets.upper),
            })),
          },
    pit_counts: method.pitCounts,
  };
}

/** Mean over rows of the difference of two methods' losses, with its standard error. */
function differences({ methods }: QuantilesResult) {
  return methods.flatMap((method, a) =>
    methods.slice(0, a).map((against) => {
      const difference = method.rowLosses.map((loss, i) => loss - against.rowLosses[i]);
      const kept = difference.filter((value) => !Number.isNaN(value));
      return {
        method: method.name,
        against: against.name,
        rows: kept.length,
        mean_pinball_difference: kept.reduce((sum, value) => sum + value, 0) / kept.length,
        standard_error: standardError(difference),
      };
    }),
  );
}

/** Whether the losses of the fit nest as the forms do; null where forms are missing, not certified, or rows differ. */
function nesting({ methods, data }: QuantilesResult) {
  const order = ['best-single', 'coarse', 'medium', 'fine'];
  const found = order.map((name) => methods.find((method) => method.name === name));
  if (data.missingCells > 0 || found.some((method) => method === undefined)) return null;
  const losses = found.map((method) => (method as MethodResult).facts);
  if (losses.slice(1).some(({ bound }) => bound === undefined)) return null;
  return {
    best_single: losses[0].objective,
    coarse: losses[1].objective,
    medium: losses[2].objective,
    fine: losses[3].objective,
    holds: losses.slice(1).every(({ bound = 0 }, at) => bound <= losses[at].objective * (1 + 1e-9)),
  };
}

/** Body of the report. */
export function quantilesBody(result: QuantilesResult) {
  const { data, splitRows, models, methods } = result;
  const best = methods.reduce((a, b) => (b.shaped.meanPinball < a.shaped.meanPinball ? b : a));
  return {
    rows: data.rows,
    model_names: [...data.models],
    levels: data.levels,
    features: [...data.featureNames],
    layout: data.layout,
    storage: data.storage,
    levels_were_sorted: data.levelsSorted,
    repeated_forecasts: data.duplicateLevels,
    missing_forecasts: data.missingCells,
    incomplete_rows: data.incompleteRows,
    split_by: data.splitBy,
    train_rows: splitRows.train,
    calibration_rows: splitRows.calibration,
    test_rows: splitRows.test,
    predict_rows: splitRows.predict,
    best_method: best.name,
    best_test_mean_pinball: best.shaped.meanPinball,
    models: models.map(({ name, missingCells, crossingPairs, train, test, testRowLosses }) => ({
      name,
      missing_forecasts: missingCells,
      crossing_pairs_share: crossingPairs,
      train_mean_pinball: train.meanPinball,
      test_mean_pinball: test.meanPinball,
      test_mean_pinball_se: standardError(testRowLosses),
      test_wis: Number.isNaN(test.wis) ? null : test.wis,
      test_mean_absolute_calibration_error: test.meanAbsoluteCalibrationError,
    })),
    methods: methods.map(methodBody),
    differences: differences(result),
    nesting: nesting(result),
    pit_bins: PIT_BINS,
    warnings: [...result.warnings],
  };
}

/** Rows of `--out`: final quantiles of test and predict rows. */
export function* predictionRows({
  methods,
  output,
  data,
}: QuantilesResult): Generator<readonly Cell[], void, undefined> {
  if (output === undefined) return;
  const m = data.levels.length;
  for (const { name, predictions } of methods) {
    if (predictions === undefined) continue;
    for (let i = 0; i < output.ids.length; i++) {
      const y = output.outcomes[i];
      for (let j = 0; j < m; j++) {
        const q = predictions[i * m + j];
        yield [
          ...[output.ids[i], output.splits[i], name, data.levels[j]],
          ...[Number.isNaN(q) ? null : q, Number.isNaN(y) ? null : y],
        ];
      }
    }
  }
}

/** Rows of `--table`: scores by method, stage, level and interval. */
export function* scoreRows({ methods, data }: QuantilesResult): Generator<readonly Cell[], void, undefined> {
  for (const method of methods) {
    const stages = [
      ['aggregated', method.aggregated],
      ['non_crossing', method.shaped],
      ['conformal', method.conformal],
    ] as const;
    for (const [stage, scores] of stages) {
      if (scores === undefined) continue;
      yield [method.name, stage, 'mean', null, scores.meanPinball, null, null, null];
      for (let j = 0; j < data.levels.length; j++) {
        const [level, loss, coverage] = [data.levels[j], scores.pinballByLevel[j], scores.levelCoverage[j]];
        yield [method.name, stage, 'level', level, loss, coverage, null, null];
      }
      for (const { miscoverage, coverage, width, score } of scores.intervals) {
        yield [method.name, stage, 'interval', 1 - miscoverage, null, coverage, width, score];
      }
    }
  }
}

/** Rows of `--weights`: weights that are not zero; of local methods their means over the test rows. */
export function* weightRows({ methods, data }: QuantilesResult): Generator<readonly Cell[], void, undefined> {
  const m = data.levels.length;
  for (const { name, weights } of methods) {
    if (weights === undefined) continue;
    const [inputs, columns] = weightShape(weights.form, data.models.length, m);
    for (let column = 0; column < columns; column++) {
      for (let r = 0; r < inputs; r++) {
        const weight = weights.values[r * columns + column];
        if (weight === 0) continue;
        const model = weights.form === 'fine' ? Math.floor(r / m) : r;
        const output = weights.form === 'coarse' ? null : data.levels[column];
        const input = weights.form === 'fine' ? data.levels[r % m] : output;
        yield [name, output, data.models[model], input, weight];
      }
    }
  }
}
