import { addSecondMoment } from '../kernels/gemm.js';
import { applyProbe, fitLogisticProbe } from '../linalg/linear-probe.js';
import { createRandom, type Random } from '../random.js';
import { fitPairs, pairFeatures } from './contrastive.js';
import { type FactorModel, fitFactorModel, leadingSpectrum, posteriorMeans } from './factor-model.js';
import { assignComponents, fitMixture, type GaussianMixture, majorityHead } from './gaussian-mixture.js';
import { leastSquares, linearPredictions } from './least-squares.js';
import { largestPrincipalAngle } from './principal-angles.js';
import { errorRate } from './risks.js';
import type { StudySettings } from './settings.js';

export type Method = 'pretrained' | 'supervised' | 'oracle';

/** One estimator on one draw. */
export interface Run {
  readonly seed: number;
  readonly signal: number;
  /** Unlabelled rows; 0 for estimators that use none. */
  readonly m: number;
  readonly n: number;
  readonly method: Method;
  /** Mean squared error, or error rate, on the population or the test rows. */
  readonly risk: number;
  /** Over the risk of the best predictor that knows the truth. */
  readonly excess: number;
  /** Of the best constant prediction. */
  readonly trivialRisk: number;
  /** Factors with an eigenvalue above the noise, or components that never lost their points; null for the others. */
  readonly effectiveLatent: number | null;
  /** Largest angle to the true loadings, in radians. */
  readonly angle: number | null;
}

/** Runs every size of one draw. */
export function runSeed(settings: StudySettings, seed: number, signal: number): Run[] {
  if (settings.case === 'factor') return runFactor(settings, seed, signal);
  return settings.case === 'mixture' ? runMixture(settings, seed, signal) : runContrastive(settings, seed, signal);
}

/** The truth of a factor model: `x = B z + mu`, `y = beta . z + nu`. */
interface FactorTruth {
  readonly d: number;
  readonly r: number;
  /** `[d, r]` with orthogonal columns of length `signal`. */
  readonly loadings: Float64Array;
  readonly beta: Float64Array;
  /** The best predictor `E[y|x] = w . x`. */
  readonly best: Float64Array;
  readonly bestRisk: number;
  readonly trivialRisk: number;
}

function drawTruth(settings: StudySettings, signal: number, random: Random): FactorTruth {
  const { dimension: d, latent: r, labelNoise } = settings;
  const loadings = new Float64Array(d * r);
  for (let k = 0; k < r; k++) {
    const column = Float64Array.from({ length: d }, () => random.normal());
    for (let round = 0; round < 2; round++) {
      for (let l = 0; l < k; l++) {
        let dot = 0;
        for (let j = 0; j < d; j++) dot += loadings[j * r + l] * column[j];
        for (let j = 0; j < d; j++) column[j] -= dot * loadings[j * r + l];
      }
    }
    const norm = Math.sqrt(column.reduce((sum, value) => sum + value * value, 0));
    for (let j = 0; j < d; j++) loadings[j * r + k] = column[j] / norm;
  }
  const beta = Float64Array.from({ length: r }, () => random.normal());
  const length = Math.sqrt(beta.reduce((sum, value) => sum + value * value, 0));
  for (let k = 0; k < r; k++) beta[k] /= length;
  const best = new Float64Array(d);
  for (let j = 0; j < d; j++) {
    for (let k = 0; k < r; k++) {
      best[j] += (signal * loadings[j * r + k] * beta[k]) / (1 + signal * signal);
      loadings[j * r + k] *= signal;
    }
  }
  const trivialRisk = 1 + labelNoise * labelNoise;
  return { d, r, loadings, beta, best, bestRisk: trivialRisk - signal ** 2 / (1 + signal ** 2), trivialRisk };
}

/** `(w - w*)^T (B B^T + I) (w - w*)`: what a linear predictor loses in expectation. */
function excessOf({ d, r, loadings, best }: FactorTruth, w: Float64Array): number {
  const difference = w.map((value, j) => value - best[j]);
  let sum = difference.reduce((total, value) => total + value * value, 0);
  for (let k = 0; k < r; k++) {
    let along = 0;
    for (let j = 0; j < d; j++) along += loadings[j * r + k] * difference[j];
    sum += along * along;
  }
  return sum;
}

/** Rows of x, and of y where `targets` is given. */
function drawRows(
  truth: FactorTruth,
  count: number,
  random: Random,
  x: Float64Array,
  labelled?: { readonly y: Float64Array; readonly noise: number },
): void {
  const { d, r, loadings, beta } = truth;
  const z = new Float64Array(r);
  for (let row = 0; row < count; row++) {
    for (let k = 0; k < r; k++) z[k] = random.normal();
    for (let j = 0; j < d; j++) {
      let value = random.normal();
      for (let k = 0; k < r; k++) value += loadings[j * r + k] * z[k];
      x[row * d + j] = value;
    }
    if (labelled === undefined) continue;
    let target = labelled.noise * random.normal();
    for (let k = 0; k < r; k++) target += beta[k] * z[k];
    labelled.y[row] = target;
  }
}

/** Weights over x of a head over the posterior means of a model. */
function weightsThrough(model: FactorModel, head: Float64Array): Float64Array {
  const { dimension: d, factors, loadings, noiseVariance } = model;
  const w = new Float64Array(d);
  for (let k = 0; k < factors; k++) {
    let square = 0;
    for (let j = 0; j < d; j++) square += loadings[j * factors + k] ** 2;
    if (square === 0) continue;
    for (let j = 0; j < d; j++) w[j] += (loadings[j * factors + k] * head[k]) / (noiseVariance + square);
  }
  return w;
}

function trueModel(truth: FactorTruth): FactorModel {
  const { d, r, loadings } = truth;
  return {
    dimension: d,
    factors: r,
    loadings,
    eigenvalues: new Float64Array(r),
    noiseVariance: 1,
    effectiveFactors: r,
    logLikelihoodPerRow: Number.NaN,
  };
}

/** Rows that are drawn at a time: the unlabelled rows are never all held. */
const DRAW_ROWS = 1000;

function runFactor(settings: StudySettings, seed: number, signal: number): Run[] {
  const root = createRandom(settings.seed).fork(seed);
  const truth = drawTruth(settings, signal, root.fork(0));
  const { d, r } = truth;
  const { labelled, unlabelled, latent } = settings;
  const most = labelled[labelled.length - 1];
  const x = new Float64Array(most * d);
  const y = new Float64Array(most);
  drawRows(truth, most, root.fork(1), x, { y, noise: settings.labelNoise });
  const bound = { normBound: settings.headNorm };
  const runs: Run[] = [];
  const base = { seed, signal, trivialRisk: truth.trivialRisk };
  const add = (m: number, n: number, method: Method, w: Float64Array, model?: FactorModel, angle?: number): void => {
    const excess = excessOf(truth, w);
    const effectiveLatent = model?.effectiveFactors ?? null;
    runs.push({ ...base, m, n, method, risk: truth.bestRisk + excess, excess, effectiveLatent, angle: angle ?? null });
  };
  const headOf = (model: FactorModel, n: number): Float64Array => {
    const rows = x.subarray(0, n * d);
    return weightsThrough(model, leastSquares(posteriorMeans(model, rows, n), y, n, model.factors, bound));
  };
  const known = trueModel(truth);
  for (const n of labelled) {
    add(0, n, 'supervised', leastSquares(x.subarray(0, n * d), y, n, d, bound));
    add(0, n, 'oracle', headOf(known, n));
  }
  const sum = new Float64Array(d * d);
  const block = new Float64Array(DRAW_ROWS * d);
  const draws = root.fork(2);
  let drawn = 0;
  for (const m of unlabelled) {
    while (drawn < m) {
      const count = Math.min(DRAW_ROWS, m - drawn);
      drawRows(truth, count, draws, block);
      addSecondMoment(block.subarray(0, count * d), count, d, sum);
      drawn += count;
    }
    const moment = new Float64Array(d * d);
    for (let i = 0; i < d; i++) {
      for (let j = 0; j <= i; j++) {
        moment[i * d + j] = sum[i * d + j] / m;
        moment[j * d + i] = moment[i * d + j];
      }
    }
    const model = fitFactorModel(leadingSpectrum(moment, d, latent), latent, settings.noise);
    const angle = signal > 0 ? largestPrincipalAngle(model.loadings, truth.loadings, d, r) : Math.PI / 2;
    for (const n of labelled) add(m, n, 'pretrained', headOf(model, n), model, angle);
  }
  return runs;
}

/** Rows of a mixture, and their classes. */
function drawMixture(
  mixture: GaussianMixture,
  count: number,
  classOf: Int32Array,
  flips: number,
  random: Random,
): { x: Float64Array; y: Int32Array } {
  const { means, components: K, dimension: d } = mixture;
  const classes = 1 + classOf.reduce((most, value) => Math.max(most, value), 0);
  const x = new Float64Array(count * d);
  const y = new Int32Array(count);
  for (let row = 0; row < count; row++) {
    const k = random.integer(K);
    for (let j = 0; j < d; j++) x[row * d + j] = means[k * d + j] + random.normal();
    y[row] = flips > 0 && random.uniform() < flips ? random.integer(classes) : classOf[k];
  }
  return { x, y };
}

/** Class of the nearest labelled row. */
function nearestClass(
  x: Float64Array,
  y: Int32Array,
  n: number,
  d: number,
  test: Float64Array,
  rows: number,
): Int32Array {
  return Int32Array.from({ length: rows }, (_, r) => {
    let best = Number.POSITIVE_INFINITY;
    let label = 0;
    for (let i = 0; i < n; i++) {
      let square = 0;
      for (let j = 0; j < d && square < best; j++) square += (test[r * d + j] - x[i * d + j]) ** 2;
      if (square < best) {
        best = square;
        label = y[i];
      }
    }
    return label;
  });
}

/** Predictions of multinomial logistic regression with decay 1/n; of one class when only that was seen. */
export function logisticClasses(
  x: Float64Array,
  y: Int32Array,
  n: number,
  d: number,
  test: Float64Array,
  rows: number,
): Int32Array {
  const seen = [...new Set(y.subarray(0, n))].sort((a, b) => a - b);
  if (seen.length === 1) return new Int32Array(rows).fill(seen[0]);
  const codes = Int32Array.from(y.subarray(0, n), (label) => seen.indexOf(label));
  const probe = fitLogisticProbe(x.subarray(0, n * d), codes, n, d, seen.length, 1 / n);
  const scores = applyProbe(probe, test, rows);
  return Int32Array.from({ length: rows }, (_, r) => {
    let best = 0;
    for (let k = 1; k < seen.length; k++) {
      if (scores[r * seen.length + k] > scores[r * seen.length + best]) best = k;
    }
    return seen[best];
  });
}

/** What supervised learning on the labelled rows alone predicts. */
export function baselineClasses(
  baseline: StudySettings['baseline'],
  x: Float64Array,
  y: Int32Array,
  n: number,
  d: number,
  test: Float64Array,
  rows: number,
): Int32Array {
  return baseline === 'nearest' ? nearestClass(x, y, n, d, test, rows) : logisticClasses(x, y, n, d, test, rows);
}

function runMixture(settings: StudySettings, seed: number, signal: number): Run[] {
  const root = createRandom(settings.seed).fork(seed);
  const { dimension: d, latent: K, classes, labelled, unlabelled, labelNoise, testRows } = settings;
  const truth = root.fork(0);
  const means = new Float64Array(K * d);
  for (let k = 0; k < K; k++) {
    const direction = Float64Array.from({ length: d }, () => truth.normal());
    const norm = Math.sqrt(direction.reduce((sum, value) => sum + value * value, 0));
    for (let j = 0; j < d; j++) means[k * d + j] = (signal * direction[j]) / norm;
  }
  const known: GaussianMixture = { means, components: K, dimension: d };
  const classOf = Int32Array.from({ length: K }, (_, k) => k % classes);
  const most = labelled[labelled.length - 1];
  const { x, y } = drawMixture(known, most, classOf, labelNoise, root.fork(1));
  const test = drawMixture(known, testRows, classOf, labelNoise, root.fork(2));
  const assignedTest = assignComponents(known, test.x, testRows);
  const bestRisk = errorRate(
    assignedTest.map((component) => classOf[component]),
    test.y,
  );
  const shares = new Float64Array(classes);
  for (const label of test.y) shares[label] += 1 / testRows;
  const trivialRisk = 1 - Math.max(...shares);
  const runs: Run[] = [];
  const add = (m: number, n: number, method: Method, predicted: Int32Array, effectiveLatent: number | null): void => {
    const risk = errorRate(predicted, test.y);
    runs.push({ seed, signal, m, n, method, risk, excess: risk - bestRisk, trivialRisk, effectiveLatent, angle: null });
  };
  const through = (assigned: Int32Array, onTest: Int32Array, n: number): Int32Array => {
    const head = majorityHead(assigned.subarray(0, n), y, K, classes);
    return onTest.map((component) => head[component]);
  };
  const assigned = assignComponents(known, x, most);
  for (const n of labelled) {
    add(0, n, 'oracle', through(assigned, assignedTest, n), null);
    add(0, n, 'supervised', baselineClasses(settings.baseline, x, y, n, d, test.x, testRows), null);
  }
  const pool = drawMixture(known, unlabelled[unlabelled.length - 1], classOf, 0, root.fork(3)).x;
  for (const m of unlabelled) {
    const fit = fitMixture(pool, m, d, K, {
      starts: settings.starts,
      startRows: settings.startRows,
      seed: settings.seed + seed,
      ...(settings.emBatch > 0 && { batch: settings.emBatch }),
    });
    const own = assignComponents(fit, x, most);
    const onTest = assignComponents(fit, test.x, testRows);
    const effective = K - new Set(fit.reseeds.map(({ component }) => component)).size;
    for (const n of labelled) add(m, n, 'pretrained', through(own, onTest, n), effective);
  }
  return runs;
}

/** `[count, columns + 1]` with ones at the end: an intercept for features that are not centred. */
function withOnes(x: Float64Array, count: number, columns: number): Float64Array {
  const wide = new Float64Array(count * (columns + 1));
  for (let r = 0; r < count; r++) {
    wide.set(x.subarray(r * columns, (r + 1) * columns), r * (columns + 1));
    wide[r * (columns + 1) + columns] = 1;
  }
  return wide;
}

function runContrastive(settings: StudySettings, seed: number, signal: number): Run[] {
  const root = createRandom(settings.seed).fork(seed);
  const truth = drawTruth(settings, signal, root.fork(0));
  const { d, r, loadings } = truth;
  const { labelled, unlabelled, testRows, headNorm, truncate } = settings;
  const most = labelled[labelled.length - 1];
  const x = new Float64Array(most * d);
  const y = new Float64Array(most);
  drawRows(truth, most, root.fork(1), x, { y, noise: settings.labelNoise });
  const test = new Float64Array(testRows * d);
  drawRows(truth, testRows, root.fork(2), test);
  const target = linearPredictions(test, truth.best, testRows);
  const runs: Run[] = [];
  const add = (m: number, n: number, method: Method, predicted: Float64Array): void => {
    // E (f - y)^2 = E (f - E[y|x])^2 + E (E[y|x] - y)^2: the first is the excess, without the noise of y.
    const excess = predicted.reduce((sum, value, i) => sum + (value - target[i]) ** 2, 0) / testRows;
    const { trivialRisk } = truth;
    const risk = truth.bestRisk + excess;
    runs.push({ seed, signal, m, n, method, risk, excess, trivialRisk, effectiveLatent: null, angle: null });
  };
  const fitted = (own: Float64Array, onTest: Float64Array, columns: number, n: number): Float64Array => {
    const weights = leastSquares(own.subarray(0, n * columns), y, n, columns, { normBound: headNorm });
    return linearPredictions(onTest, weights, testRows, truncate);
  };
  const known = trueModel(truth);
  const [knownX, knownTest] = [posteriorMeans(known, x, most), posteriorMeans(known, test, testRows)];
  for (const n of labelled) {
    add(0, n, 'supervised', fitted(x, test, d, n));
    add(0, n, 'oracle', fitted(knownX, knownTest, r, n));
  }
  const pairs = drawPairs(truth, loadings, unlabelled[unlabelled.length - 1], root.fork(3));
  for (const m of unlabelled) {
    const network = fitPairs(pairs.x, pairs.x2, pairs.t, m, d, settings.latent, {
      hidden: settings.hidden,
      epochs: settings.epochs,
      seed: settings.seed + seed,
    });
    const columns = settings.latent + 1;
    const own = withOnes(pairFeatures(network, x, most), most, settings.latent);
    const onTest = withOnes(pairFeatures(network, test, testRows), testRows, settings.latent);
    for (const n of labelled) add(m, n, 'pretrained', fitted(own, onTest, columns, n));
  }
  return runs;
}

/** Pairs that share their z (t = 1) or do not, half and half. */
function drawPairs(
  { d, r }: FactorTruth,
  loadings: Float64Array,
  count: number,
  random: Random,
): { x: Float64Array; x2: Float64Array; t: Float64Array } {
  const x = new Float64Array(count * d);
  const x2 = new Float64Array(count * d);
  const t = new Float64Array(count);
  const z = new Float64Array(r);
  const draw = (): void => {
    for (let k = 0; k < r; k++) z[k] = random.normal();
  };
  const observe = (target: Float64Array, row: number): void => {
    for (let j = 0; j < d; j++) {
      let value = random.normal();
      for (let k = 0; k < r; k++) value += loadings[j * r + k] * z[k];
      target[row * d + j] = value;
    }
  };
  for (let row = 0; row < count; row++) {
    draw();
    observe(x, row);
    t[row] = random.uniform() < 0.5 ? 1 : 0;
    if (t[row] === 0) draw();
    observe(x2, row);
  }
  return { x, x2, t };
}
