import { InputError } from '../../errors.js';
import type { ComputeReference } from '../../kernels/compute-thread.js';
import { createRandom } from '../../random.js';
import { type ForecastData, type ForecastSource, readForecasts } from './forecast-data.js';
import { standardiseFeatures } from './local-aggregator.js';
import { type FitFacts, type FitSettings, type FittedMethod, METHODS, type Method } from './methods.js';
import { largestGap } from './non-crossing.js';
import {
  type Calibration,
  type ConformalKind,
  calibrate,
  conformalised,
  type ShapeSettings,
  shapeQuantiles,
} from './pipeline.js';
import { pinballByRow, pitOf, type QuantileScores, scoreQuantiles } from './scores.js';
import { drawSplits, rowsOfSplit, type SplitSettings } from './splits.js';
import { aggregate, type Forecasts, type WeightForm } from './weight-forms.js';

export interface QuantilesArguments {
  readonly source: ForecastSource;
  /** Names of methods, in order. */
  readonly methods: readonly string[];
  readonly fit: FitSettings;
  /** Used where the data have no split column. */
  readonly split: SplitSettings;
  readonly shape: ShapeSettings;
  readonly conformal: ConformalKind;
  /** Whether the final quantiles of test and predict rows are given back. */
  readonly keepPredictions: boolean;
  readonly maxMemoryBytes: number;
}

export interface MethodResult {
  readonly name: string;
  readonly facts: FitFacts;
  readonly weights?: { readonly form: WeightForm; readonly values: Float64Array };
  /** Scores on the test rows: as combined, without crossings, with conformal intervals. */
  readonly aggregated: QuantileScores;
  readonly shaped: QuantileScores;
  readonly conformal?: QuantileScores;
  readonly calibration?: Calibration;
  /** Mean pinball loss over levels of each test row, without crossings `[test rows]`. */
  readonly rowLosses: Float64Array;
  /** Counts of the probability integral transform in ten bins, without crossings. */
  readonly pitCounts: Int32Array;
  /** Final quantiles `[output rows, m]`. */
  readonly predictions?: Float64Array;
}

export interface ModelResult {
  readonly name: string;
  readonly missingCells: number;
  /** Of its own forecasts on all rows, before anything is mended. */
  readonly crossingPairs: number;
  readonly train: QuantileScores;
  /** Sorted where the run ends crossings. */
  readonly test: QuantileScores;
  readonly testRowLosses: Float64Array;
}

export interface QuantilesResult {
  readonly data: Pick<ForecastData, 'models' | 'levels' | 'layout' | 'levelsSorted' | 'duplicateLevels'> & {
    readonly rows: number;
    readonly featureNames: readonly string[];
    readonly storage: 'f64' | 'f32';
    readonly missingCells: number;
    readonly incompleteRows: number;
    readonly splitBy: 'column' | 'random' | 'order';
  };
  readonly splitRows: Readonly<Record<'train' | 'calibration' | 'test' | 'predict', number>>;
  readonly models: readonly ModelResult[];
  readonly methods: readonly MethodResult[];
  /** Rows of the predictions: their names, splits and outcomes. */
  readonly output?: {
    readonly ids: readonly string[];
    readonly splits: readonly string[];
    readonly outcomes: Float64Array;
  };
  readonly warnings: readonly string[];
}

export const PIT_BINS = 10;

/** Reads, fits, shapes, calibrates and scores. Runs in a thread of its own. */
export async function aggregateQuantiles(
  args: QuantilesArguments,
  progress: (value: { done: number; what: string }) => void,
): Promise<QuantilesResult> {
  const data = await readForecasts(args.source, args.maxMemoryBytes);
  const chosen = chooseMethods(args, data);
  const warnings = [...chosen.notes];
  const codes = data.splits ?? drawSplits(data.outcomes, args.split);
  // A row without outcome can only be predicted, whatever its split says.
  for (let i = 0; i < codes.length; i++) if (Number.isNaN(data.outcomes[i])) codes[i] = 0;
  const rows = {
    train: rowsOfSplit(codes, 'train'),
    calibration: rowsOfSplit(codes, 'calibration'),
    test: rowsOfSplit(codes, 'test'),
    predict: rowsOfSplit(codes, 'predict'),
  };
  if (rows.train.length < 2) throw new InputError(`${rows.train.length} rows to fit on; at least 2 are needed`);
  if (rows.test.length < 2) throw new InputError(`${rows.test.length} rows to test on; at least 2 are needed`);
  const forecasts: Forecasts = {
    values: data.values,
    rows: data.outcomes.length,
    models: data.models.length,
    levels: data.levels.length,
  };
  const missing = countMissing(forecasts);
  if (missing.cells > 0 && !args.fit.normalised) {
    throw new InputError(`${missing.cells} forecasts are missing; --unnormalized weights cannot be renormalised`);
  }
  const calibrated = args.conformal !== 'none' && rows.calibration.length > 0;
  if (args.conformal !== 'none' && !calibrated) warnings.push('no calibration rows: intervals stay as they are');
  const models = judgeModels(forecasts, data, rows.train, rows.test, args.shape);
  warnings.push(...dataWarnings(args, data, forecasts, rows.train, models));

  const output = [...rows.test, ...rows.predict];
  const outputRows = Int32Array.from(output).sort();
  const methods: MethodResult[] = [];
  for (const [at, method] of chosen.methods.entries()) {
    progress({ done: at, what: method.name });
    const fitted = method.fit({
      forecasts,
      models: data.models,
      levels: data.levels,
      outcomes: data.outcomes,
      rows: rows.train,
      ...(data.features && {
        features: standardiseFeatures(data.features.values, data.features.names.length, rows.train),
      }),
      settings: args.fit,
      progress: (done, of) => progress({ done: at + done / of, what: method.name }),
    });
    methods.push(
      judgeMethod(method, fitted, args, data, rows, calibrated, args.keepPredictions ? outputRows : undefined),
    );
  }
  warnings.push(...methodWarnings(methods));
  const names = ['predict', 'train', 'calibration', 'test'];
  return {
    data: {
      models: data.models,
      levels: data.levels,
      layout: data.layout,
      levelsSorted: data.levelsSorted,
      duplicateLevels: data.duplicateLevels,
      rows: forecasts.rows,
      featureNames: data.features?.names ?? [],
      storage: data.values instanceof Float64Array ? 'f64' : 'f32',
      missingCells: missing.cells,
      incompleteRows: missing.rows,
      splitBy: data.splits ? 'column' : args.split.by,
    },
    splitRows: {
      train: rows.train.length,
      calibration: rows.calibration.length,
      test: rows.test.length,
      predict: rows.predict.length,
    },
    models,
    methods,
    ...(args.keepPredictions && {
      output: {
        ids: Array.from(outputRows, (row) => data.ids?.[row] ?? String(row)),
        splits: Array.from(outputRows, (row) => names[codes[row]]),
        outcomes: Float64Array.from(outputRows, (row) => data.outcomes[row]),
      },
    }),
    warnings,
  };
}

export const AGGREGATE_QUANTILES: ComputeReference<QuantilesArguments, QuantilesResult> = {
  module: import.meta.url,
  job: aggregateQuantiles,
};

/** Outputs of a perceptron beyond which `all` leaves the fine local weights out. */
const MOST_LOCAL_OUTPUTS = 4096;

function chooseMethods(args: QuantilesArguments, data: ForecastData): { methods: Method[]; notes: string[] } {
  const notes: string[] = [];
  const all = args.methods.includes('all');
  const methods = METHODS.filter(({ name, needsFeatures }) => {
    if (!all) return args.methods.includes(name);
    if (needsFeatures && data.features === undefined) return false;
    const outputs = data.models.length * data.levels.length ** 2;
    if (name === 'local-fine' && outputs > MOST_LOCAL_OUTPUTS) {
      notes.push(
        `local-fine was left out: its network would have ${outputs} outputs; name it with --method to have it`,
      );
      return false;
    }
    return true;
  });
  const wanting = methods.find(({ needsFeatures }) => needsFeatures);
  if (wanting && data.features === undefined) {
    throw new InputError(`--method ${wanting.name}: needs features of the rows; name their columns with --features`);
  }
  return { methods, notes };
}

function countMissing({ values, rows, models, levels }: Forecasts): { cells: number; rows: number } {
  const width = models * levels;
  let cells = 0;
  let incomplete = 0;
  for (let i = 0; i < rows; i++) {
    const before = cells;
    for (let at = i * width; at < (i + 1) * width; at++) if (Number.isNaN(values[at])) cells++;
    if (cells > before) incomplete++;
  }
  return { cells, rows: incomplete };
}

const outcomesOf = (data: ForecastData, rows: Int32Array): Float64Array =>
  Float64Array.from(rows, (row) => data.outcomes[row]);

function judgeModels(
  forecasts: Forecasts,
  data: ForecastData,
  train: Int32Array,
  test: Int32Array,
  shape: ShapeSettings,
): ModelResult[] {
  const { models, levels: m, values, rows } = forecasts;
  return data.models.map((name, k) => {
    const of = (chosen: Int32Array): Float64Array => {
      const own = new Float64Array(chosen.length * m);
      chosen.forEach((row, at) => {
        for (let j = 0; j < m; j++) own[at * m + j] = values[(row * models + k) * m + j];
      });
      return own;
    };
    let missing = 0;
    let [crossings, pairs] = [0, 0];
    for (let i = 0; i < rows; i++) {
      const base = (i * models + k) * m;
      for (let j = 0; j < m; j++) {
        if (Number.isNaN(values[base + j])) missing++;
        if (j === 0 || Number.isNaN(values[base + j] - values[base + j - 1])) continue;
        pairs++;
        if (values[base + j] < values[base + j - 1]) crossings++;
      }
    }
    const tested = shapeQuantiles(of(test), m, shape.sort === 'hard' ? shape : { ...shape, sort: 'hard' });
    const y = outcomesOf(data, test);
    return {
      name,
      missingCells: missing,
      crossingPairs: pairs > 0 ? crossings / pairs : 0,
      train: scoreQuantiles(of(train), outcomesOf(data, train), data.levels),
      test: scoreQuantiles(tested, y, data.levels),
      testRowLosses: pinballByRow(tested, y, data.levels),
    };
  });
}

function judgeMethod(
  method: Method,
  fitted: FittedMethod,
  args: QuantilesArguments,
  data: ForecastData,
  rows: { readonly calibration: Int32Array; readonly test: Int32Array },
  calibrated: boolean,
  outputRows: Int32Array | undefined,
): MethodResult {
  const { levels } = data;
  const m = levels.length;
  const y = outcomesOf(data, rows.test);
  const raw = fitted.predict(rows.test);
  const shaped = shapeQuantiles(raw, m, args.shape);
  let calibration: Calibration | undefined;
  if (calibrated && args.conformal !== 'none') {
    const held = shapeQuantiles(fitted.predict(rows.calibration), m, args.shape);
    calibration = calibrate(held, outcomesOf(data, rows.calibration), levels, args.conformal);
  }
  const finish = (quantiles: Float64Array): Float64Array =>
    calibration === undefined ? quantiles : conformalised(quantiles, m, calibration, args.shape);
  const weights = fitted.weights ?? fitted.meanWeights?.(rows.test);
  return {
    name: method.name,
    facts: fitted.facts,
    ...(weights && { weights }),
    aggregated: scoreQuantiles(raw, y, levels),
    shaped: scoreQuantiles(shaped, y, levels),
    ...(calibration && { conformal: scoreQuantiles(finish(shaped), y, levels), calibration }),
    rowLosses: pinballByRow(shaped, y, levels),
    pitCounts: pitCounts(shaped, y, levels, args.fit.seed),
    ...(outputRows && { predictions: finish(shapeQuantiles(fitted.predict(outputRows), m, args.shape)) }),
  };
}

function pitCounts(quantiles: Float64Array, outcomes: Float64Array, levels: Float64Array, seed: number): Int32Array {
  const counts = new Int32Array(PIT_BINS);
  const ties = createRandom(seed).fork(11);
  const m = levels.length;
  for (let i = 0; i < outcomes.length; i++) {
    const tie = ties.uniform();
    const row = quantiles.slice(i * m, (i + 1) * m).sort();
    if (row.some(Number.isNaN) || Number.isNaN(outcomes[i])) continue;
    counts[Math.min(PIT_BINS - 1, Math.floor(PIT_BINS * pitOf(row, outcomes[i], levels, tie)))]++;
  }
  return counts;
}

/** Test losses this many standard errors and this share above those of the fit speak of in-sample forecasts. */
const SUSPICIOUS_ERRORS = 5;
const SUSPICIOUS_SHARE = 0.15;

function dataWarnings(
  args: QuantilesArguments,
  data: ForecastData,
  forecasts: Forecasts,
  train: Int32Array,
  models: readonly ModelResult[],
): string[] {
  const found: string[] = [];
  const { levels } = data;
  if (!data.levelsSorted) found.push('levels were not in ascending order; they were sorted');
  if (data.duplicateLevels > 0) found.push(`${data.duplicateLevels} forecasts were given twice with one value`);
  const extreme = Math.min(levels[0], 1 - levels[levels.length - 1]);
  if (extreme * train.length < 5) {
    const rows = (extreme * train.length).toPrecision(2);
    found.push(
      `about ${rows} of ${train.length} rows of the fit lie beyond the outermost level; weights there are guesses`,
    );
  }
  for (const { name, train: fitted, test, testRowLosses } of models) {
    const error = standardError(testRowLosses);
    if (
      test.meanPinball - fitted.meanPinball > SUSPICIOUS_ERRORS * error &&
      test.meanPinball > (1 + SUSPICIOUS_SHARE) * fitted.meanPinball
    ) {
      found.push(
        `model ${name} loses ${test.meanPinball.toPrecision(4)} on test rows but ${fitted.meanPinball.toPrecision(4)} on rows of the ` +
          'fit; if it was trained on these rows, give out-of-fold forecasts, or weights favour what overfits',
      );
    }
  }
  const crossing = models.filter(({ crossingPairs }) => crossingPairs > 0);
  if (crossing.length > 0) found.push(`quantiles of ${crossing.map(({ name }) => name).join(', ')} cross`);
  if (args.shape.nonCrossing === 'sort' && args.shape.sort === 'soft-library') {
    const equal = new Float64Array(forecasts.models).fill(1 / forecasts.models);
    const gap = largestGap(aggregate(forecasts, 'coarse', equal), levels.length);
    if (gap > 1) {
      found.push(
        `gaps between quantiles reach ${gap.toPrecision(3)}; the library's soft sort shrinks gaps above 1: scale the outcomes, or use --sort hard`,
      );
    }
  }
  return found;
}

function methodWarnings(methods: readonly MethodResult[]): string[] {
  const found: string[] = [];
  for (const { name, facts, calibration } of methods) {
    if (facts.incomplete !== undefined && facts.incomplete > 0) {
      found.push(`${name}: ${facts.incomplete} cells with a missing forecast were left out of the fit`);
    }
    const infinite = calibration?.intervals.filter(({ offsets }) => !Number.isFinite(offsets.lower)) ?? [];
    if (infinite.length > 0) {
      const named = infinite.map(({ interval }) => 1 - interval.miscoverage).map((share) => share.toPrecision(3));
      found.push(
        `${name}: ${infinite[0].offsets.rows} calibration rows are too few for intervals of ${named.join(', ')}; they are infinite`,
      );
    }
  }
  return found;
}

/** Standard error of the mean of independent values; NaN for fewer than two. */
export function standardError(values: Float64Array): number {
  const kept = values.filter((value) => !Number.isNaN(value));
  const n = kept.length;
  if (n < 2) return Number.NaN;
  const mean = kept.reduce((sum, value) => sum + value, 0) / n;
  const squares = kept.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return Math.sqrt(squares / (n - 1) / n);
}
