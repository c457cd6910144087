import { InputError } from '../errors.js';
import { multiply } from '../kernels/gemm.js';
import { createRandom, type Random } from '../random.js';

/** A component that lost its points, and the row that it was put on. */
export interface Reseed {
  readonly iteration: number;
  readonly component: number;
  readonly row: number;
}

/** A mixture of K Gaussians with equal weights and identity covariance. */
export interface GaussianMixture {
  /** `[K, d]` */
  readonly means: Float64Array;
  readonly components: number;
  readonly dimension: number;
}

export interface MixtureFit extends GaussianMixture {
  /** Log-likelihood of all rows before every M step, and at the end. */
  readonly logLikelihoods: readonly number[];
  readonly reseeds: readonly Reseed[];
  readonly converged: boolean;
}

const BLOCK_ROWS = 4096;
/** A component with fewer points than this is empty. */
const EMPTY = 1e-6;

/**
 * Joint log densities `log(1/K) + log N(x; u_k, I)` of rows start..start+count-1 into `target [count, K]`.
 */
function logDensities(
  x: Float64Array,
  mixture: GaussianMixture,
  start: number,
  count: number,
  target: Float64Array,
): void {
  const { means, components: K, dimension: d } = mixture;
  const constant = -Math.log(K) - 0.5 * d * Math.log(2 * Math.PI);
  const norms = new Float64Array(K);
  for (let k = 0; k < K; k++) for (let j = 0; j < d; j++) norms[k] += means[k * d + j] ** 2;
  const rows = x.subarray(start * d, (start + count) * d);
  multiply(rows, means, target, { m: count, n: K, k: d }, { transposeB: true });
  for (let r = 0; r < count; r++) {
    let square = 0;
    for (let i = r * d; i < (r + 1) * d; i++) square += rows[i] * rows[i];
    for (let k = 0; k < K; k++) target[r * K + k] += constant - 0.5 * (square + norms[k]);
  }
}

/** Responsibilities in place; returns the log density of every row. */
function normaliseRows(values: Float64Array, count: number, K: number): Float64Array {
  const logs = new Float64Array(count);
  for (let r = 0; r < count; r++) {
    let max = Number.NEGATIVE_INFINITY;
    for (let k = 0; k < K; k++) max = Math.max(max, values[r * K + k]);
    let total = 0;
    for (let k = 0; k < K; k++) {
      values[r * K + k] = Math.exp(values[r * K + k] - max);
      total += values[r * K + k];
    }
    for (let k = 0; k < K; k++) values[r * K + k] /= total;
    logs[r] = max + Math.log(total);
  }
  return logs;
}

interface Expectation {
  readonly logLikelihood: number;
  /** Sum of responsibilities of every component. */
  readonly counts: Float64Array;
  /** Sums of rows, weighed by responsibility, `[K, d]`. */
  readonly sums: Float64Array;
  /** Rows from the least likely on, as many as there are components. */
  readonly worst: readonly number[];
}

/** One pass over rows `from` to `to`. */
function expectation(x: Float64Array, mixture: GaussianMixture, from: number, to: number): Expectation {
  const { components: K, dimension: d } = mixture;
  const counts = new Float64Array(K);
  const sums = new Float64Array(K * d);
  const block = new Float64Array(Math.min(BLOCK_ROWS, to - from) * K);
  const worst: { row: number; log: number }[] = [];
  let logLikelihood = 0;
  for (let start = from; start < to; start += BLOCK_ROWS) {
    const count = Math.min(BLOCK_ROWS, to - start);
    logDensities(x, mixture, start, count, block);
    const logs = normaliseRows(block, count, K);
    for (let r = 0; r < count; r++) {
      logLikelihood += logs[r];
      for (let k = 0; k < K; k++) counts[k] += block[r * K + k];
      if (worst.length < K || logs[r] < worst[worst.length - 1].log) {
        worst.push({ row: start + r, log: logs[r] });
        worst.sort((a, b) => a.log - b.log || a.row - b.row);
        if (worst.length > K) worst.pop();
      }
    }
    multiply(block, x.subarray(start * d), sums, { m: K, n: d, k: count }, { transposeA: true, beta: 1 });
  }
  return { logLikelihood, counts, sums, worst: worst.map(({ row }) => row) };
}

export interface EmOptions {
  /** Iterations, exactly so many when `tolerance` is 0; default 500. */
  readonly iterations?: number;
  /** Rise of the log-likelihood, relative, below which it ends; default 1e-8. */
  readonly tolerance?: number;
}

/** New means; a component that lost its points goes to the row that is explained worst. */
function maximise(
  x: Float64Array,
  { counts, sums, worst }: Expectation,
  mixture: GaussianMixture,
  iteration: number,
  reseeds: Reseed[],
): GaussianMixture {
  const { components: K, dimension: d } = mixture;
  const means = new Float64Array(K * d);
  let taken = 0;
  for (let k = 0; k < K; k++) {
    if (counts[k] > EMPTY) {
      for (let j = 0; j < d; j++) means[k * d + j] = sums[k * d + j] / counts[k];
      continue;
    }
    const row = worst[taken++];
    means.set(x.subarray(row * d, (row + 1) * d), k * d);
    reseeds.push({ iteration, component: k, row });
  }
  return { ...mixture, means };
}

/** Expectation-maximisation from given means on the first `rows` rows of `x [., d]`. */
export function runEm(x: Float64Array, rows: number, start: GaussianMixture, options: EmOptions = {}): MixtureFit {
  const { iterations = 500, tolerance = 1e-8 } = options;
  const reseeds: Reseed[] = [];
  const logLikelihoods: number[] = [];
  let mixture = start;
  let converged = false;
  for (let iteration = 0; iteration < iterations && !converged; iteration++) {
    const expected = expectation(x, mixture, 0, rows);
    const before = logLikelihoods[iteration - 1] ?? Number.NEGATIVE_INFINITY;
    logLikelihoods.push(expected.logLikelihood);
    const rise = expected.logLikelihood - before;
    const settled = tolerance > 0 && rise >= 0 && rise <= tolerance * Math.abs(expected.logLikelihood);
    mixture = maximise(x, expected, mixture, iteration, reseeds);
    converged = settled && reseeds[reseeds.length - 1]?.iteration !== iteration;
  }
  logLikelihoods.push(expectation(x, mixture, 0, rows).logLikelihood);
  return { ...mixture, logLikelihoods, reseeds, converged };
}

/** Power of the step size of stepwise EM, in (1/2, 1]. */
const STEP_POWER = 0.7;

/**
 * Stepwise EM on batches of rows (Cappe & Moulines 2009): running means of the sufficient statistics, with steps
 * `(t + 2)^-0.7`. For more rows than passes over all of them can be afforded.
 */
export function runBatchEm(
  x: Float64Array,
  rows: number,
  start: GaussianMixture,
  options: { readonly batch: number; readonly epochs: number; readonly seed: number },
): MixtureFit {
  const { components: K, dimension: d } = start;
  const random = createRandom(options.seed);
  const reseeds: Reseed[] = [];
  const counts = new Float64Array(K);
  const sums = new Float64Array(K * d);
  const logLikelihoods: number[] = [];
  let mixture = start;
  let step = 0;
  const buffer = new Float64Array(options.batch * d);
  for (let epoch = 0; epoch < options.epochs; epoch++) {
    logLikelihoods.push(expectation(x, mixture, 0, rows).logLikelihood);
    const order = random.permutation(rows);
    for (let from = 0; from < rows; from += options.batch) {
      const count = Math.min(options.batch, rows - from);
      for (let r = 0; r < count; r++) {
        const row = order[from + r];
        buffer.set(x.subarray(row * d, (row + 1) * d), r * d);
      }
      const expected = expectation(buffer, mixture, 0, count);
      const share = step === 0 ? 1 : (step + 2) ** -STEP_POWER;
      for (let k = 0; k < K; k++) counts[k] += share * (expected.counts[k] / count - counts[k]);
      for (let i = 0; i < K * d; i++) sums[i] += share * (expected.sums[i] / count - sums[i]);
      const worst = expected.worst.map((row) => order[from + row]);
      mixture = maximise(x, { ...expected, counts, sums, worst }, mixture, step, reseeds);
      step++;
    }
  }
  logLikelihoods.push(expectation(x, mixture, 0, rows).logLikelihood);
  return { ...mixture, logLikelihoods, reseeds, converged: true };
}

/** Seeds of k-means++ (Arthur & Vassilvitskii 2007): rows drawn with probability by squared distance to the nearest. */
export function seedMeans(x: Float64Array, rows: number, d: number, K: number, random: Random): GaussianMixture {
  const means = new Float64Array(K * d);
  const nearest = new Float64Array(rows).fill(Number.POSITIVE_INFINITY);
  let row = random.integer(rows);
  for (let k = 0; k < K; k++) {
    means.set(x.subarray(row * d, (row + 1) * d), k * d);
    let total = 0;
    for (let r = 0; r < rows; r++) {
      let square = 0;
      for (let j = 0; j < d; j++) square += (x[r * d + j] - means[k * d + j]) ** 2;
      if (square < nearest[r]) nearest[r] = square;
      total += nearest[r];
    }
    let left = random.uniform() * total;
    row = rows - 1;
    for (let r = 0; r < rows; r++) {
      left -= nearest[r];
      if (left < 0) {
        row = r;
        break;
      }
    }
  }
  return { means, components: K, dimension: d };
}

export interface MixtureOptions {
  /** Starts from seeds of k-means++; the best likelihood is kept. Default 20. */
  readonly starts?: number;
  readonly seed?: number;
  /** Rows on which the starts compete; the best goes on with all rows. Default 5000. */
  readonly startRows?: number;
  /** Rows of a batch, for stepwise EM instead of full passes in the second part. */
  readonly batch?: number;
  readonly em?: EmOptions;
}

export interface BestMixture extends MixtureFit {
  /** Log-likelihood per row that every start came to on its rows. */
  readonly startLogLikelihoods: readonly number[];
}

/** How far the starts are run before the best is chosen and goes on to the end. */
const TRIAL: Required<EmOptions> = { iterations: 60, tolerance: 1e-6 };

/** Passes over the rows by stepwise EM. */
const BATCH_EPOCHS = 5;

/**
 * Maximum likelihood of a mixture of `K` by EM from several seeded starts. Starts are run for up to 60 steps on the first
 * `startRows` rows; the likeliest of them is then fitted to all rows.
 * @throws InputError for fewer rows than components
 */
export function fitMixture(
  x: Float64Array,
  rows: number,
  d: number,
  K: number,
  options: MixtureOptions = {},
): BestMixture {
  if (rows < K) throw new InputError(`${rows} unlabelled rows for ${K} components; give more rows or fewer components`);
  const { starts = 20, seed = 0, startRows = 5000 } = options;
  const random = createRandom(seed);
  const few = Math.min(rows, startRows);
  const reached: number[] = [];
  let best: MixtureFit | undefined;
  for (let s = 0; s < starts; s++) {
    const fit = runEm(x, few, seedMeans(x, few, d, K, random.fork(s)), TRIAL);
    const [last] = fit.logLikelihoods.slice(-1);
    reached.push(last / few);
    if (best === undefined || last > best.logLikelihoods[best.logLikelihoods.length - 1]) best = fit;
  }
  if (best === undefined) throw new RangeError('a mixture needs one start');
  const { reseeds } = best;
  best = options.batch
    ? runBatchEm(x, rows, best, { batch: options.batch, epochs: BATCH_EPOCHS, seed })
    : runEm(x, rows, best, options.em);
  return { ...best, reseeds: [...reseeds, ...best.reseeds], startLogLikelihoods: reached };
}

/** The likeliest component of every row `[rows, d]`; the first of equals. */
export function assignComponents(mixture: GaussianMixture, x: Float64Array, rows: number): Int32Array {
  const K = mixture.components;
  const block = new Float64Array(Math.min(BLOCK_ROWS, rows) * K);
  const result = new Int32Array(rows);
  for (let start = 0; start < rows; start += BLOCK_ROWS) {
    const count = Math.min(BLOCK_ROWS, rows - start);
    logDensities(x, mixture, start, count, block);
    for (let r = 0; r < count; r++) {
      let best = 0;
      for (let k = 1; k < K; k++) if (block[r * K + k] > block[r * K + best]) best = k;
      result[start + r] = best;
    }
  }
  return result;
}

/** The smallest of the most frequent classes. */
function majority(counts: Int32Array): number {
  let best = 0;
  for (let c = 1; c < counts.length; c++) if (counts[c] > counts[best]) best = c;
  return best;
}

/**
 * The head of a mixture: for every component the majority class of its labelled rows, the smallest of equals; the
 * majority of all labelled rows where it has none.
 */
export function majorityHead(assigned: Int32Array, labels: ArrayLike<number>, K: number, classes: number): Int32Array {
  const all = new Int32Array(classes);
  const counts = Array.from({ length: K }, () => new Int32Array(classes));
  assigned.forEach((component, r) => {
    counts[component][labels[r]]++;
    all[labels[r]]++;
  });
  return Int32Array.from(counts, (own) => (own.some((count) => count > 0) ? majority(own) : majority(all)));
}
