import { dimensionOf, logDensity, type SamplingLaw } from './sampling-law.js';

/** Points [count, d], row-major, and the weight of each. */
export interface WeightedPoints {
  readonly points: Float64Array;
  readonly weights: Float64Array;
}

/**
 * The member of a law's family with the largest weighted likelihood: weighted means and population deviations, means of
 * exponentials, frequencies of discrete coordinates, and one step of expectation-maximisation for mixtures. A uniform
 * part, and a component that no point belongs to, stay as they are.
 */
export function refitLaw(law: SamplingLaw, { points, weights }: WeightedPoints): SamplingLaw {
  return refitBlock(law, points, dimensionOf(law), 0, weights);
}

/** @param stride coordinates of a point; the block begins at coordinate `at` */
function refitBlock(
  law: SamplingLaw,
  points: Float64Array,
  stride: number,
  at: number,
  weights: Float64Array,
): SamplingLaw {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (!(total > 0)) return law;
  const meanOf = (coordinate: number, value = (x: number): number => x): number => {
    let sum = 0;
    for (let i = 0; i < weights.length; i++) sum += weights[i] * value(points[i * stride + at + coordinate]);
    return sum / total;
  };
  switch (law.kind) {
    case 'gaussian': {
      const mean = law.mean.map((_, i) => meanOf(i));
      return { ...law, mean, deviation: mean.map((centre, i) => Math.sqrt(meanOf(i, (x) => (x - centre) ** 2))) };
    }
    case 'exponential':
      return { ...law, mean: law.mean.map((_, i) => meanOf(i)) };
    case 'uniform':
      return law;
    case 'bernoulli':
      return { ...law, probability: law.probability.map((_, i) => meanOf(i)) };
    case 'categorical':
      return {
        ...law,
        probabilities: law.probabilities.map((row, i) => row.map((_, k) => meanOf(i, (x) => (x === k ? 1 : 0)))),
      };
    case 'product': {
      let offset = at;
      return {
        ...law,
        factors: law.factors.map((factor) => {
          const fitted = refitBlock(factor, points, stride, offset, weights);
          offset += dimensionOf(factor);
          return fitted;
        }),
      };
    }
    case 'mixture': {
      const shares = responsibilities(law, points, stride, at, weights);
      return {
        ...law,
        weights: law.fixedWeights
          ? law.weights
          : Float64Array.from(shares, (share) => share.reduce((sum, value) => sum + value, 0) / total),
        components: law.components.map((component, k) => refitBlock(component, points, stride, at, shares[k])),
      };
    }
  }
}

/** The component of a mixture that most likely gave the point at `at`; ties and impossible points: the first. */
export function likeliestComponent(law: SamplingLaw, points: Float64Array, at: number): number {
  if (law.kind !== 'mixture') return 0;
  let best = 0;
  let top = Number.NEGATIVE_INFINITY;
  law.components.forEach((component, k) => {
    const value = Math.log(law.weights[k]) + logDensity(component, points, at);
    if (value > top) {
      top = value;
      best = k;
    }
  });
  return best;
}

/** Weight of every point that each component answers for: w_i times its posterior probability. */
function responsibilities(
  law: Extract<SamplingLaw, { kind: 'mixture' }>,
  points: Float64Array,
  stride: number,
  at: number,
  weights: Float64Array,
): Float64Array[] {
  const shares = law.components.map(() => new Float64Array(weights.length));
  const logs = new Float64Array(law.components.length);
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] === 0) continue;
    let top = Number.NEGATIVE_INFINITY;
    law.components.forEach((component, k) => {
      logs[k] =
        law.weights[k] > 0
          ? Math.log(law.weights[k]) + logDensity(component, points, i * stride + at)
          : Number.NEGATIVE_INFINITY;
      if (logs[k] > top) top = logs[k];
    });
    if (top === Number.NEGATIVE_INFINITY) continue;
    const sum = logs.reduce((total, value) => total + Math.exp(value - top), 0);
    for (let k = 0; k < logs.length; k++) shares[k][i] = (weights[i] * Math.exp(logs[k] - top)) / sum;
  }
  return shares;
}

/** alpha * fitted + (1 - alpha) * old, parameter by parameter; both of one family and shape. */
export function smoothLaw(old: SamplingLaw, fitted: SamplingLaw, alpha: number, deviationAlpha = alpha): SamplingLaw {
  const mixed = (from: Float64Array, to: Float64Array, share = alpha): Float64Array =>
    to.map((value, i) => share * value + (1 - share) * from[i]);
  if (old.kind === 'gaussian' && fitted.kind === 'gaussian') {
    return {
      kind: 'gaussian',
      mean: mixed(old.mean, fitted.mean),
      deviation: mixed(old.deviation, fitted.deviation, deviationAlpha),
    };
  }
  if (old.kind === 'exponential' && fitted.kind === 'exponential') {
    return { kind: 'exponential', mean: mixed(old.mean, fitted.mean) };
  }
  if (old.kind === 'bernoulli' && fitted.kind === 'bernoulli') {
    return { kind: 'bernoulli', probability: mixed(old.probability, fitted.probability) };
  }
  if (old.kind === 'categorical' && fitted.kind === 'categorical') {
    return {
      kind: 'categorical',
      probabilities: fitted.probabilities.map((row, i) => mixed(old.probabilities[i], row)),
    };
  }
  if (old.kind === 'product' && fitted.kind === 'product') {
    return {
      kind: 'product',
      factors: fitted.factors.map((factor, i) => smoothLaw(old.factors[i], factor, alpha, deviationAlpha)),
    };
  }
  if (old.kind === 'mixture' && fitted.kind === 'mixture') {
    return {
      ...fitted,
      weights: fitted.fixedWeights ? fitted.weights : mixed(old.weights, fitted.weights),
      components: fitted.components.map((component, k) =>
        smoothLaw(old.components[k], component, alpha, deviationAlpha),
      ),
    };
  }
  return fitted;
}

/** Bounds that keep a law from collapsing before the optimum. */
export interface LawFloor {
  /** Least deviation of a Gaussian coordinate; one for all or one a coordinate of the whole point. */
  readonly deviation?: number | ArrayLike<number>;
  /** Least probability of either value of a Bernoulli and of every choice of a categorical coordinate. */
  readonly probability?: number;
}

/** The law with its deviations and probabilities lifted to a floor. */
export function liftLaw(law: SamplingLaw, floor: LawFloor, at = 0): SamplingLaw {
  const { probability = 0, deviation = 0 } = floor;
  const least = (i: number): number => (typeof deviation === 'number' ? deviation : deviation[at + i]);
  switch (law.kind) {
    case 'gaussian':
      return { ...law, deviation: law.deviation.map((value, i) => Math.max(value, least(i))) };
    case 'bernoulli':
      return {
        ...law,
        probability: law.probability.map((value) => Math.min(1 - probability, Math.max(probability, value))),
      };
    case 'categorical':
      return { ...law, probabilities: law.probabilities.map((row) => liftedRow(row, probability)) };
    case 'product': {
      let offset = at;
      return {
        ...law,
        factors: law.factors.map((factor) => {
          const lifted = liftLaw(factor, floor, offset);
          offset += dimensionOf(factor);
          return lifted;
        }),
      };
    }
    case 'mixture':
      return { ...law, components: law.components.map((component) => liftLaw(component, floor, at)) };
    default:
      return law;
  }
}

/** A mixture with the uniform distribution where any entry is below the floor: all are then at least the floor. */
function liftedRow(row: Float64Array, floor: number): Float64Array {
  const bound = Math.min(floor, 1 / row.length);
  if (row.every((value) => value >= bound)) return row;
  return row.map((value) => bound + (1 - bound * row.length) * value);
}
