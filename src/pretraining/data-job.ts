import { InputError } from '../errors.js';
import { openFeatures } from '../features/open-features.js';
import { arrayMatrix, eachBlock, type FeatureMatrix, loadMatrix } from '../formats/feature-matrix.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { configureKernels } from '../kernels/native.js';
import { createRandom } from '../random.js';
import { fitFactorModel, leadingSpectrum, posteriorMeans } from './factor-model.js';
import { assignComponents, fitMixture, majorityHead, type Reseed } from './gaussian-mixture.js';
import { leastSquares, linearPredictions } from './least-squares.js';
import { meanOf, streamedSpectrum } from './moments.js';
import type { Estimate } from './rates.js';
import type { DataArguments, DataSettings } from './settings.js';
import { baselineClasses, logisticClasses } from './simulate.js';

/** The latent-variable model that the unlabelled rows gave. */
export interface FittedLatent {
  readonly kind: 'factor' | 'mixture';
  /** exact, randomised, em or stepwise-em. */
  readonly path: string;
  readonly latent: number;
  readonly effectiveLatent: number;
  readonly logLikelihoodPerRow: number;
  readonly noiseVariance: number | null;
  readonly eigenvalues: Float64Array | null;
  /** Of EM: log-likelihood per row before every M step and at the end. */
  readonly logLikelihoods: readonly number[];
  readonly startLogLikelihoods: readonly number[];
  readonly reseeds: readonly Reseed[];
  /** Mean variance of a feature about the mean of its component; the model takes it to be 1. */
  readonly withinVariance: number | null;
}

export interface DataResult {
  readonly model: FittedLatent;
  readonly rows: {
    readonly unlabelled: number;
    readonly labelled: number;
    readonly test: number;
    readonly features: number;
  };
  readonly measure: 'mse' | 'error';
  readonly pretrained: Estimate;
  readonly supervised: Estimate;
  readonly trivial: Estimate;
  /** Risk of supervised learning minus that of pretraining, on the same resampled test rows. */
  readonly gain: Estimate;
  /** Test rows that stand among the unlabelled ones, entry for entry. */
  readonly sharedTestRows: number;
  readonly warnings: readonly string[];
}

/** A row's bytes as a key. */
function rowKey(rows: Float64Array, at: number, d: number): string {
  return Buffer.from(rows.buffer, rows.byteOffset + 8 * at * d, 8 * d).toString('latin1');
}

/** How many rows of `test` are rows of the unlabelled matrix too. */
async function countShared(unlabelled: FeatureMatrix, test: Float64Array, rows: number): Promise<number> {
  const d = unlabelled.columns;
  const keys = new Map<string, number>();
  for (let r = 0; r < rows; r++) keys.set(rowKey(test, r, d), (keys.get(rowKey(test, r, d)) ?? 0) + 1);
  let shared = 0;
  await eachBlock(unlabelled, 1024, 'f64', (block, _, count) => {
    for (let r = 0; r < count; r++) {
      const key = rowKey(block, r, d);
      shared += keys.get(key) ?? 0;
      keys.delete(key);
    }
  });
  return shared;
}

/** The unlabelled rows with the test rows below them. */
async function withTestRows(unlabelled: FeatureMatrix, test: Float64Array, rows: number): Promise<FeatureMatrix> {
  const d = unlabelled.columns;
  const joined = arrayMatrix('test rows', test, rows, d);
  return {
    ...unlabelled,
    rows: unlabelled.rows + rows,
    readRows(start, count, target) {
      const first = Math.max(0, Math.min(count, unlabelled.rows - start));
      if (first > 0) unlabelled.readRows(start, first, target);
      if (first < count) joined.readRows(start + first - unlabelled.rows, count - first, target.subarray(first * d));
    },
  };
}

function subtract(x: Float64Array, rows: number, mean: Float64Array): void {
  const d = mean.length;
  for (let r = 0; r < rows; r++) for (let j = 0; j < d; j++) x[r * d + j] -= mean[j];
}

const columnMeans = (x: Float64Array, rows: number, d: number): Float64Array => {
  const mean = new Float64Array(d);
  for (let r = 0; r < rows; r++) for (let j = 0; j < d; j++) mean[j] += x[r * d + j] / rows;
  return mean;
};

/** Percentile interval over resampled test rows of a statistic of mean losses. */
function resampled(
  losses: readonly Float64Array[],
  statistics: readonly ((means: readonly number[]) => number)[],
  { resamples, seed }: DataSettings,
): Estimate[] {
  const items = losses[0].length;
  const root = createRandom(seed).fork(0x626f6f74);
  const counts = new Int32Array(items);
  const means = (): number[] =>
    losses.map((loss) => loss.reduce((sum, value, i) => sum + counts[i] * value, 0) / items);
  counts.fill(1);
  const whole = means();
  const drawn = statistics.map(() => new Float64Array(resamples));
  for (let b = 0; b < resamples; b++) {
    const random = root.fork(b);
    counts.fill(0);
    for (let i = 0; i < items; i++) counts[random.integer(items)]++;
    const own = means();
    statistics.forEach((statistic, s) => {
      drawn[s][b] = statistic(own);
    });
  }
  return statistics.map((statistic, s) => {
    const sorted = drawn[s].sort();
    const at = (share: number): number => sorted[Math.round(share * (sorted.length - 1))] ?? Number.NaN;
    return { value: statistic(whole), low: at(0.025), high: at(0.975) };
  });
}

interface Losses {
  readonly pretrained: Float64Array;
  readonly supervised: Float64Array;
  readonly trivial: Float64Array;
}

interface Rows {
  readonly x: Float64Array;
  readonly n: number;
  readonly test: Float64Array;
  readonly tests: number;
  readonly d: number;
}

const squared = (predictions: Float64Array, targets: ArrayLike<number>): Float64Array =>
  predictions.map((value, i) => (value - targets[i]) ** 2);

const wrong = (predictions: ArrayLike<number>, targets: ArrayLike<number>): Float64Array =>
  Float64Array.from(targets, (target, i) => (predictions[i] === target ? 0 : 1));

function majorityClass(labels: ArrayLike<number>, classes: number): number {
  const counts = new Int32Array(classes);
  for (let i = 0; i < labels.length; i++) counts[labels[i]]++;
  return counts.indexOf(Math.max(...counts));
}

/** Heads over posterior means against the same head over x. */
function factorLosses(args: DataArguments, rows: Rows, features: { own: Float64Array; test: Float64Array }): Losses {
  const { settings, classes } = args;
  const { x, n, test, tests, d } = rows;
  const r = settings.latent;
  if (classes !== null) {
    const y = Int32Array.from(args.y);
    return {
      pretrained: wrong(logisticClasses(features.own, y, n, r, features.test, tests), args.yTest),
      supervised: wrong(logisticClasses(x, y, n, d, test, tests), args.yTest),
      trivial: wrong(new Int32Array(tests).fill(majorityClass(args.y, classes.length)), args.yTest),
    };
  }
  // With centred rows the intercept of both heads is the mean of y.
  const mean = settings.centre ? Float64Array.from(args.y).reduce((sum, value) => sum + value, 0) / n : 0;
  const y = Float64Array.from(args.y, (value) => value - mean);
  const { headNorm, truncate } = settings;
  const predict = (own: Float64Array, onTest: Float64Array, columns: number): Float64Array => {
    const centre = settings.centre ? columnMeans(own, n, columns) : new Float64Array(columns);
    const [left, right] = [own.slice(), onTest.slice()];
    subtract(left, n, centre);
    subtract(right, tests, centre);
    const weights = leastSquares(left, y, n, columns, { normBound: headNorm });
    return linearPredictions(right, weights, tests, truncate).map((value) => value + mean);
  };
  return {
    pretrained: squared(predict(features.own, features.test, r), args.yTest),
    supervised: squared(predict(x, test, d), args.yTest),
    trivial: squared(new Float64Array(tests).fill(mean), args.yTest),
  };
}

async function fitFactors(
  args: DataArguments,
  pool: FeatureMatrix,
  rows: Rows,
): Promise<{ model: FittedLatent; losses: Losses }> {
  const { settings } = args;
  const { x, n, test, tests, d } = rows;
  const { latent, seed } = settings;
  if (latent >= d) {
    throw new InputError(`--latent-dim ${latent} must be below the ${d} features; lower it`);
  }
  const centre = settings.centre ? await meanOf(pool) : null;
  const { spectrum, path } = await streamedSpectrum(pool, latent, centre, seed, (moment, order) =>
    leadingSpectrum(moment, order, latent, seed),
  );
  const model = fitFactorModel(spectrum, latent, settings.noise);
  const through = (from: Float64Array, count: number): Float64Array => {
    const own = from.slice();
    if (centre) subtract(own, count, centre);
    return posteriorMeans(model, own, count);
  };
  const features = { own: through(x, n), test: through(test, tests) };
  return {
    losses: factorLosses(args, rows, features),
    model: {
      kind: 'factor',
      path,
      latent,
      effectiveLatent: model.effectiveFactors,
      logLikelihoodPerRow: model.logLikelihoodPerRow,
      noiseVariance: model.noiseVariance,
      eigenvalues: model.eigenvalues,
      logLikelihoods: [],
      startLogLikelihoods: [],
      reseeds: [],
      withinVariance: null,
    },
  };
}

function fitComponents(args: DataArguments, pool: FeatureMatrix, rows: Rows): { model: FittedLatent; losses: Losses } {
  const { settings, classes } = args;
  const { x, n, test, tests, d } = rows;
  if (classes === null) {
    throw new InputError('--case mixture needs labels that are classes; use --case factor or --label-kind classes');
  }
  if (8 * pool.rows * d > settings.maxMemoryBytes / 2) {
    throw new InputError(`${pool.name}: ${pool.rows} x ${d} rows do not fit --max-memory; raise it or use --limit`);
  }
  const unlabelled = loadMatrix(pool);
  const K = settings.latent;
  const fit = fitMixture(unlabelled, pool.rows, d, K, {
    starts: settings.starts,
    startRows: settings.startRows,
    seed: settings.seed,
    ...(settings.emBatch > 0 && { batch: settings.emBatch }),
  });
  const assigned = assignComponents(fit, unlabelled, pool.rows);
  let within = 0;
  assigned.forEach((component, r) => {
    for (let j = 0; j < d; j++) within += (unlabelled[r * d + j] - fit.means[component * d + j]) ** 2;
  });
  const y = Int32Array.from(args.y);
  const head = majorityHead(assignComponents(fit, x, n), y, K, classes.length);
  const pretrained = assignComponents(fit, test, tests).map((component) => head[component]);
  const [last] = fit.logLikelihoods.slice(-1);
  return {
    losses: {
      pretrained: wrong(pretrained, args.yTest),
      supervised: wrong(baselineClasses(settings.baseline, x, y, n, d, test, tests), args.yTest),
      trivial: wrong(new Int32Array(tests).fill(majorityClass(y, classes.length)), args.yTest),
    },
    model: {
      kind: 'mixture',
      path: settings.emBatch > 0 ? 'stepwise-em' : 'em',
      latent: K,
      effectiveLatent: new Set(assigned).size,
      logLikelihoodPerRow: last / pool.rows,
      noiseVariance: null,
      eigenvalues: null,
      logLikelihoods: fit.logLikelihoods.map((value) => value / pool.rows),
      startLogLikelihoods: fit.startLogLikelihoods,
      reseeds: fit.reseeds,
      withinVariance: within / (pool.rows * d),
    },
  };
}

function warningsOf(model: FittedLatent, shared: number, settings: DataSettings): string[] {
  const warnings: string[] = [];
  if (model.kind === 'factor' && model.effectiveLatent < model.latent) {
    warnings.push(
      `${model.effectiveLatent} effective factors of ${model.latent}: the other eigenvalues do not exceed the noise ` +
        `variance ${model.noiseVariance?.toPrecision(4)}; lower --latent-dim or use --noise estimate`,
    );
  }
  if (model.kind === 'mixture' && model.effectiveLatent < model.latent) {
    warnings.push(`${model.latent - model.effectiveLatent} of ${model.latent} components hold no unlabelled row`);
  }
  for (const { iteration, component, row } of model.reseeds) {
    warnings.push(`component ${component} was empty in iteration ${iteration}; it was put on row ${row}`);
  }
  const { withinVariance } = model;
  if (withinVariance !== null && (withinVariance < 0.5 || withinVariance > 2)) {
    warnings.push(
      `the variance within components is ${withinVariance.toPrecision(3)}, the model takes it to be 1; ` +
        `divide the features by ${Math.sqrt(withinVariance).toPrecision(3)}`,
    );
  }
  if (shared > 0 && !settings.transductive) {
    warnings.push(`${shared} test rows are also unlabelled rows; remove them, or say --transductive`);
  }
  return warnings;
}

/**
 * Two-phase estimate on the user's rows against supervised learning on the labelled ones, with a bootstrap over test rows.
 * @throws InputError for other numbers of features, a latent dimension that is too large, values that are not finite
 */
export async function compareOnData(args: DataArguments): Promise<DataResult> {
  const { settings } = args;
  configureKernels({ threads: settings.threads });
  const opened = [
    await openFeatures(args.unlabelled),
    await openFeatures(args.labelled),
    await openFeatures(args.test),
  ] as const;
  try {
    const [unlabelled, labelled, testMatrix] = opened;
    for (const other of [labelled, testMatrix]) {
      if (other.columns === unlabelled.columns) continue;
      throw new InputError(
        `${other.name}: ${other.columns} features, but the unlabelled rows have ${unlabelled.columns}; use the same features`,
      );
    }
    const rows: Rows = {
      x: loadMatrix(labelled),
      n: labelled.rows,
      test: loadMatrix(testMatrix),
      tests: testMatrix.rows,
      d: unlabelled.columns,
    };
    const shared = await countShared(unlabelled, rows.test, rows.tests);
    const pool = settings.transductive ? await withTestRows(unlabelled, rows.test, rows.tests) : unlabelled;
    const { model, losses } =
      settings.case === 'factor' ? await fitFactors(args, pool, rows) : fitComponents(args, pool, rows);
    const [pretrained, supervised, trivial, gain] = resampled(
      [losses.pretrained, losses.supervised, losses.trivial],
      [([a]) => a, ([, b]) => b, ([, , c]) => c, ([a, b]) => b - a],
      settings,
    );
    return {
      model,
      rows: { unlabelled: pool.rows, labelled: rows.n, test: rows.tests, features: rows.d },
      measure: args.classes === null ? 'mse' : 'error',
      pretrained,
      supervised,
      trivial,
      gain,
      sharedTestRows: shared,
      warnings: warningsOf(model, shared, settings),
    };
  } finally {
    for (const matrix of opened) matrix.close();
  }
}

export const COMPARE_ON_DATA: ComputeReference<DataArguments, DataResult> = {
  module: import.meta.url,
  job: compareOnData,
};
