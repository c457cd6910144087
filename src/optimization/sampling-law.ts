import type { Random } from '../random.js';

/**
 * A family of distributions over points of d coordinates that the cross-entropy method draws from and refits. Discrete
 * coordinates are numbers too: 0 or 1 (Bernoulli), the index of the choice (categorical). Structured-cloneable.
 */
export type SamplingLaw =
  | { readonly kind: 'gaussian'; readonly mean: Float64Array; readonly deviation: Float64Array }
  | { readonly kind: 'exponential'; readonly mean: Float64Array }
  | { readonly kind: 'uniform'; readonly low: Float64Array; readonly high: Float64Array }
  | { readonly kind: 'bernoulli'; readonly probability: Float64Array }
  | { readonly kind: 'categorical'; readonly probabilities: readonly Float64Array[] }
  /** Independent blocks of coordinates, one after the other. */
  | { readonly kind: 'product'; readonly factors: readonly SamplingLaw[] }
  /** `fixedWeights`: refits move the components and leave their weights (a defensive part keeps its share). */
  | {
      readonly kind: 'mixture';
      readonly weights: Float64Array;
      readonly components: readonly SamplingLaw[];
      readonly fixedWeights?: boolean;
    };

/** What draws need; a test gives numbers of its own. */
export type DrawSource = Pick<Random, 'normal' | 'uniform'>;

const HALF_LOG_TWO_PI = 0.5 * Math.log(2 * Math.PI);

const sameLengths = (what: string, ...parts: readonly ArrayLike<number>[]): void => {
  if (parts.some(({ length }) => length !== parts[0].length || length === 0)) {
    throw new RangeError(`${what}: parameters of ${parts.map(({ length }) => length).join(' and ')} coordinates`);
  }
};

/** Independent normal coordinates. Throws RangeError unless both are of one length and deviations are finite, >= 0. */
export function gaussianLaw(mean: ArrayLike<number>, deviation: ArrayLike<number>): SamplingLaw {
  sameLengths('Gaussian law', mean, deviation);
  const law = { kind: 'gaussian', mean: Float64Array.from(mean), deviation: Float64Array.from(deviation) } as const;
  if (!law.mean.every(Number.isFinite) || !law.deviation.every((value) => value >= 0 && Number.isFinite(value))) {
    throw new RangeError('Gaussian law: means must be finite, deviations finite and not negative');
  }
  return law;
}

/** Independent exponential coordinates with these means. Throws RangeError unless they are positive. */
export function exponentialLaw(mean: ArrayLike<number>): SamplingLaw {
  const law = { kind: 'exponential', mean: Float64Array.from(mean) } as const;
  if (mean.length === 0 || !law.mean.every((value) => value > 0 && Number.isFinite(value))) {
    throw new RangeError('exponential law: means must be positive');
  }
  return law;
}

/** Uniform on a box. Throws RangeError unless low < high everywhere. */
export function uniformLaw(low: ArrayLike<number>, high: ArrayLike<number>): SamplingLaw {
  sameLengths('uniform law', low, high);
  const law = { kind: 'uniform', low: Float64Array.from(low), high: Float64Array.from(high) } as const;
  if (!law.low.every((value, i) => value < law.high[i])) throw new RangeError('uniform law: low must be below high');
  return law;
}

/** Independent coordinates 0 or 1. Throws RangeError unless probabilities are in [0, 1]. */
export function bernoulliLaw(probability: ArrayLike<number>): SamplingLaw {
  const law = { kind: 'bernoulli', probability: Float64Array.from(probability) } as const;
  if (probability.length === 0 || !law.probability.every((value) => value >= 0 && value <= 1)) {
    throw new RangeError('Bernoulli law: probabilities must lie in [0, 1]');
  }
  return law;
}

/** Independent choices, one distribution a coordinate, normalised here. Throws RangeError where one has no mass. */
export function categoricalLaw(probabilities: readonly ArrayLike<number>[]): SamplingLaw {
  if (probabilities.length === 0) throw new RangeError('categorical law: no coordinates');
  return { kind: 'categorical', probabilities: probabilities.map((row) => normalised(row, 'categorical law')) };
}

/** Independent blocks of coordinates. */
export function productLaw(factors: readonly SamplingLaw[]): SamplingLaw {
  if (factors.length === 0) throw new RangeError('product law: no factors');
  return { kind: 'product', factors };
}

/** A mixture; weights are normalised here. Throws RangeError where components differ in their number of coordinates. */
export function mixtureLaw(
  weights: ArrayLike<number>,
  components: readonly SamplingLaw[],
  fixedWeights = false,
): SamplingLaw {
  if (weights.length !== components.length || components.length === 0) {
    throw new RangeError(`mixture: ${weights.length} weights for ${components.length} components`);
  }
  if (components.some((component) => dimensionOf(component) !== dimensionOf(components[0]))) {
    throw new RangeError('mixture: components differ in their number of coordinates');
  }
  return { kind: 'mixture', weights: normalised(weights, 'mixture'), components, fixedWeights };
}

function normalised(values: ArrayLike<number>, what: string): Float64Array {
  const row = Float64Array.from(values);
  const sum = row.reduce((total, value) => total + value, 0);
  if (!(sum > 0 && Number.isFinite(sum)) || row.some((value) => value < 0)) {
    throw new RangeError(`${what}: probabilities must not be negative, and have a positive sum`);
  }
  return row.map((value) => value / sum);
}

/** Number of coordinates of a point. */
export function dimensionOf(law: SamplingLaw): number {
  switch (law.kind) {
    case 'gaussian':
    case 'exponential':
      return law.mean.length;
    case 'uniform':
      return law.low.length;
    case 'bernoulli':
      return law.probability.length;
    case 'categorical':
      return law.probabilities.length;
    case 'product':
      return law.factors.reduce((sum, factor) => sum + dimensionOf(factor), 0);
    case 'mixture':
      return dimensionOf(law.components[0]);
  }
}

/** Index drawn from a distribution by inversion; mass lost to rounding goes to the last entry that has any. */
function drawIndex(probabilities: Float64Array, random: DrawSource): number {
  const u = random.uniform();
  let sum = 0;
  let last = 0;
  for (let i = 0; i < probabilities.length; i++) {
    if (probabilities[i] === 0) continue;
    sum += probabilities[i];
    last = i;
    if (u < sum) return i;
  }
  return last;
}

/** An exponential with mean `mean` is -mean ln U; U = 0 is drawn anew. */
function drawExponential(mean: number, random: DrawSource): number {
  let u = random.uniform();
  while (u === 0) u = random.uniform();
  return -mean * Math.log(u);
}

/**
 * Draws one point into `into` at `at`. Numbers are consumed in the order of the coordinates: one normal a Gaussian one,
 * one uniform any other; a mixture takes one uniform for its component first.
 */
export function drawPoint(law: SamplingLaw, random: DrawSource, into: Float64Array, at = 0): void {
  switch (law.kind) {
    case 'gaussian':
      for (let i = 0; i < law.mean.length; i++) into[at + i] = law.mean[i] + law.deviation[i] * random.normal();
      return;
    case 'exponential':
      for (let i = 0; i < law.mean.length; i++) into[at + i] = drawExponential(law.mean[i], random);
      return;
    case 'uniform':
      for (let i = 0; i < law.low.length; i++) {
        into[at + i] = law.low[i] + (law.high[i] - law.low[i]) * random.uniform();
      }
      return;
    case 'bernoulli':
      for (let i = 0; i < law.probability.length; i++) into[at + i] = random.uniform() < law.probability[i] ? 1 : 0;
      return;
    case 'categorical':
      law.probabilities.forEach((row, i) => {
        into[at + i] = drawIndex(row, random);
      });
      return;
    case 'product': {
      let offset = at;
      for (const factor of law.factors) {
        drawPoint(factor, random, into, offset);
        offset += dimensionOf(factor);
      }
      return;
    }
    case 'mixture':
      drawPoint(law.components[drawIndex(law.weights, random)], random, into, at);
  }
}

/** ln f(x) of the d coordinates of `x` from `at` on; discrete coordinates count as masses. */
export function logDensity(law: SamplingLaw, x: Float64Array, at = 0): number {
  let sum = 0;
  switch (law.kind) {
    case 'gaussian':
      for (let i = 0; i < law.mean.length; i++) {
        const z = (x[at + i] - law.mean[i]) / law.deviation[i];
        sum -= 0.5 * z * z + Math.log(law.deviation[i]) + HALF_LOG_TWO_PI;
      }
      return sum;
    case 'exponential':
      for (let i = 0; i < law.mean.length; i++) {
        if (!(x[at + i] >= 0)) return Number.NEGATIVE_INFINITY;
        sum -= x[at + i] / law.mean[i] + Math.log(law.mean[i]);
      }
      return sum;
    case 'uniform':
      for (let i = 0; i < law.low.length; i++) {
        if (!(x[at + i] >= law.low[i] && x[at + i] <= law.high[i])) return Number.NEGATIVE_INFINITY;
        sum -= Math.log(law.high[i] - law.low[i]);
      }
      return sum;
    case 'bernoulli':
      for (let i = 0; i < law.probability.length; i++) {
        sum += Math.log(x[at + i] === 1 ? law.probability[i] : 1 - law.probability[i]);
      }
      return sum;
    case 'categorical':
      law.probabilities.forEach((row, i) => {
        sum += Math.log(row[x[at + i]] ?? 0);
      });
      return sum;
    case 'product': {
      let offset = at;
      for (const factor of law.factors) {
        sum += logDensity(factor, x, offset);
        offset += dimensionOf(factor);
      }
      return sum;
    }
    case 'mixture':
      return logMixture(law.weights, (k) => logDensity(law.components[k], x, at));
  }
}

/** ln Σ w_k exp(l_k), without overflow. */
function logMixture(weights: Float64Array, logOf: (k: number) => number): number {
  let top = Number.NEGATIVE_INFINITY;
  const logs = weights.map((weight, k) => {
    const value = weight > 0 ? Math.log(weight) + logOf(k) : Number.NEGATIVE_INFINITY;
    if (value > top) top = value;
    return value;
  });
  if (top === Number.NEGATIVE_INFINITY) return top;
  return top + Math.log(logs.reduce((sum, value) => sum + Math.exp(value - top), 0));
}

/**
 * Entropy in nats: differential for continuous coordinates (a Gaussian one has ln(sd sqrt(2 pi e))), plain for discrete
 * ones. Of a mixture the upper bound H(w) + Σ w_k H(f_k), reached where components do not overlap.
 */
export function lawEntropyNats(law: SamplingLaw): number {
  const plain = (row: Float64Array): number => row.reduce((sum, p) => sum - (p > 0 ? p * Math.log(p) : 0), 0);
  switch (law.kind) {
    case 'gaussian':
      return law.deviation.reduce((sum, value) => sum + Math.log(value) + HALF_LOG_TWO_PI + 0.5, 0);
    case 'exponential':
      return law.mean.reduce((sum, value) => sum + 1 + Math.log(value), 0);
    case 'uniform':
      return law.low.reduce((sum, value, i) => sum + Math.log(law.high[i] - value), 0);
    case 'bernoulli':
      return law.probability.reduce((sum, p) => sum + plain(Float64Array.of(p, 1 - p)), 0);
    case 'categorical':
      return law.probabilities.reduce((sum, row) => sum + plain(row), 0);
    case 'product':
      return law.factors.reduce((sum, factor) => sum + lawEntropyNats(factor), 0);
    case 'mixture':
      return law.components.reduce(
        (sum, component, k) => sum + (law.weights[k] > 0 ? law.weights[k] * lawEntropyNats(component) : 0),
        plain(law.weights),
      );
  }
}

/**
 * KL(to || from) in nats between two laws of one family and shape. Of mixtures the upper bound
 * KL(w' || w) + Σ w'_k KL(f'_k || f_k) (log-sum inequality). Throws RangeError where the families differ.
 */
export function lawDivergenceNats(to: SamplingLaw, from: SamplingLaw): number {
  const discrete = (p: ArrayLike<number>, q: ArrayLike<number>): number => {
    let sum = 0;
    for (let i = 0; i < p.length; i++) if (p[i] > 0) sum += p[i] * Math.log(p[i] / q[i]);
    return sum;
  };
  if (to.kind === 'gaussian' && from.kind === 'gaussian') {
    return to.mean.reduce((sum, mean, i) => {
      const [s, s0] = [to.deviation[i], from.deviation[i]];
      return sum + Math.log(s0 / s) + (s * s + (mean - from.mean[i]) ** 2) / (2 * s0 * s0) - 0.5;
    }, 0);
  }
  if (to.kind === 'exponential' && from.kind === 'exponential') {
    return to.mean.reduce((sum, mean, i) => sum + Math.log(from.mean[i] / mean) + mean / from.mean[i] - 1, 0);
  }
  if (to.kind === 'bernoulli' && from.kind === 'bernoulli') {
    return to.probability.reduce(
      (sum, p, i) => sum + discrete([p, 1 - p], [from.probability[i], 1 - from.probability[i]]),
      0,
    );
  }
  if (to.kind === 'categorical' && from.kind === 'categorical') {
    return to.probabilities.reduce((sum, row, i) => sum + discrete(row, from.probabilities[i]), 0);
  }
  if (to.kind === 'product' && from.kind === 'product') {
    return to.factors.reduce((sum, factor, i) => sum + lawDivergenceNats(factor, from.factors[i]), 0);
  }
  if (to.kind === 'mixture' && from.kind === 'mixture') {
    return to.components.reduce(
      (sum, component, k) =>
        sum + (to.weights[k] > 0 ? to.weights[k] * lawDivergenceNats(component, from.components[k]) : 0),
      discrete(to.weights, from.weights),
    );
  }
  if (to.kind === 'uniform' && from.kind === 'uniform') {
    const inside = to.low.every((value, i) => value >= from.low[i] && to.high[i] <= from.high[i]);
    return inside ? lawEntropyNats(from) - lawEntropyNats(to) : Number.POSITIVE_INFINITY;
  }
  throw new RangeError(`no divergence between a ${to.kind} and a ${from.kind} law`);
}

/**
 * How far a law still is from one point: largest deviation of a continuous and largest 1 - max p of a discrete part, of
 * which what a floor of the probabilities holds there is taken off.
 */
export interface LawSpread {
  readonly deviation: number;
  readonly indecision: number;
}

export function lawSpread(law: SamplingLaw, probabilityFloor = 0): LawSpread {
  const largest = (values: Iterable<number>): number => {
    let top = 0;
    for (const value of values) if (value > top) top = value;
    return top;
  };
  switch (law.kind) {
    case 'gaussian':
      return { deviation: largest(law.deviation), indecision: 0 };
    case 'exponential':
      return { deviation: largest(law.mean), indecision: 0 };
    case 'uniform':
      return { deviation: largest(law.low.map((low, i) => (law.high[i] - low) / Math.sqrt(12))), indecision: 0 };
    case 'bernoulli':
      return { deviation: 0, indecision: largest(law.probability.map((p) => Math.min(p, 1 - p) - probabilityFloor)) };
    case 'categorical':
      return {
        deviation: 0,
        indecision: largest(law.probabilities.map((row) => 1 - largest(row) - (row.length - 1) * probabilityFloor)),
      };
    case 'product':
    case 'mixture': {
      const parts = (law.kind === 'product' ? law.factors : law.components).map((part) =>
        lawSpread(part, probabilityFloor),
      );
      return {
        deviation: largest(parts.map(({ deviation }) => deviation)),
        indecision: largest(parts.map(({ indecision }) => indecision)),
      };
    }
  }
}
