import { digamma, EULER_GAMMA, logRisingFactorial, trigamma } from '../linalg/special-functions.js';
import type { CountProfile } from './count-profile.js';
import { dirichletMoments } from './entropy-shrinkage.js';

export interface NsbEntropy {
  readonly meanNats: number;
  /** Posterior standard deviation, nats. */
  readonly sdNats: number;
}

/** The weight is followed until it has fallen by this much (in nats) from its peak. */
const DEPTH = 60;
/** A panel of the quadrature is halved until the logarithm of the weight changes by less than this over it. */
const PANEL_CHANGE = 3;
const PANEL_WIDTH = 2;
const MOST_HALVINGS = 60;

/** Nodes and weights of Gauss and Legendre on [-1, 1], by Newton steps from Tricomi's guess. */
function gaussLegendre(n: number): { nodes: Float64Array; weights: Float64Array } {
  const nodes = new Float64Array(n);
  const weights = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    let x = Math.cos((Math.PI * (i + 0.75)) / (n + 0.5));
    let slope = 1;
    for (let step = 0; step < 100; step++) {
      let before = 1;
      let value = x;
      for (let j = 2; j <= n; j++) [before, value] = [value, ((2 * j - 1) * x * value - (j - 1) * before) / j];
      slope = (n * (before - x * value)) / (1 - x * x);
      const change = value / slope;
      x -= change;
      if (Math.abs(change) < 1e-16) break;
    }
    nodes[i] = x;
    weights[i] = 2 / ((1 - x * x) * slope * slope);
  }
  return { nodes, weights };
}

const RULE = gaussLegendre(20);

/**
 * ln of a [K ψ'(Ka+1) - ψ'(a+1)], the prior over ln a that makes the expected entropy nearly uniform. The bracket falls
 * as 1/(2a²) where its terms fall as 1/a, so a series takes over for large a.
 */
function logPrior(a: number, support: number): number {
  if (a < 30) return Math.log(a * (support * trigamma(support * a + 1) - trigamma(a + 1)));
  // ψ'(x+1) = 1/x - 1/(2x²) + 1/(6x³) - 1/(30x⁵) + 1/(42x⁷) - ...
  const r = 1 / support;
  const t = 1 / a;
  const bracket = 0.5 * (1 - r) + t * ((r * r - 1) / 6 - t * t * ((r ** 4 - 1) / 30 - (t * t * (r ** 6 - 1)) / 42));
  return Math.log(bracket) - Math.log(a);
}

/** ln of the weight of u = ln a given the counts, up to a constant. */
function logWeight(profile: CountProfile, support: number, u: number): number {
  const a = Math.exp(u);
  let sum = logPrior(a, support) - logRisingFactorial(support * a, profile.total);
  for (let g = 0; g < profile.values.length; g++) {
    sum += profile.multiplicities[g] * logRisingFactorial(a, profile.values[g]);
  }
  return sum;
}

/** The u of the largest weight: a scan over all magnitudes, then golden sections. */
function peakOf(weight: (u: number) => number, from: number, to: number): number {
  let best = from;
  let highest = Number.NEGATIVE_INFINITY;
  for (let u = from; u <= to; u += 0.5) {
    const value = weight(u);
    if (value > highest) {
      highest = value;
      best = u;
    }
  }
  let [low, high] = [best - 0.5, best + 0.5];
  const ratio = (Math.sqrt(5) - 1) / 2;
  let [left, right] = [high - ratio * (high - low), low + ratio * (high - low)];
  let [atLeft, atRight] = [weight(left), weight(right)];
  for (let step = 0; step < 60 && high - low > 1e-9; step++) {
    if (atLeft > atRight) {
      [high, right, atRight] = [right, left, atLeft];
      left = high - ratio * (high - low);
      atLeft = weight(left);
    } else {
      [low, left, atLeft] = [left, right, atRight];
      right = low + ratio * (high - low);
      atRight = weight(right);
    }
  }
  return (low + high) / 2;
}

/** Panels between `low` and `high` over which the logarithm of the weight is nearly straight. */
function panelsOf(weight: (u: number) => number, low: number, high: number, floor: number): [number, number][] {
  const panels: [number, number][] = [];
  const divide = (a: number, b: number, atA: number, atB: number, depth: number): void => {
    const middle = (a + b) / 2;
    const atMiddle = weight(middle);
    // Two panels that are both far below the peak add less than e^-60 of it.
    if (atA < floor && atB < floor && atMiddle < floor) return;
    const change = Math.max(Math.abs(atA - atMiddle), Math.abs(atB - atMiddle));
    if (depth < MOST_HALVINGS && (b - a > PANEL_WIDTH || change > PANEL_CHANGE)) {
      divide(a, middle, atA, atMiddle, depth + 1);
      divide(middle, b, atMiddle, atB, depth + 1);
    } else panels.push([a, b]);
  };
  divide(low, high, weight(low), weight(high), 0);
  return panels;
}

/**
 * Nemenman, Shafee & Bialek (2002): posterior mean and standard deviation of the entropy, nats, under the mixture of
 * Dirichlet laws over `support` symbols whose expected entropy is nearly uniform. The integral over u = ln a covers all
 * within 60 nats of the peak of its weight, with 20-point Gauss-Legendre panels; the right tail falls as 1/a only, so no
 * bound on a is set.
 */
export function nsbEntropy(profile: CountProfile, support: number): NsbEntropy {
  if (support === 1) return { meanNats: 0, sdNats: 0 };
  const weight = (u: number): number => logWeight(profile, support, u);
  const peak = peakOf(weight, -Math.log(support) - 40, 60);
  const highest = weight(peak);
  const floor = highest - DEPTH;
  let low = peak - 1;
  while (weight(low) > floor && low > -600) low = peak - 2 * (peak - low);
  let high = peak + 1;
  while (weight(high) > floor && high < 600) high = peak + 2 * (high - peak);
  const panels = [...panelsOf(weight, low, peak, floor), ...panelsOf(weight, peak, high, floor)];
  const size = panels.length * RULE.nodes.length;
  const weights = new Float64Array(size);
  const means = new Float64Array(size);
  let mass = 0;
  let sum = 0;
  let within = 0;
  panels.forEach(([a, b], p) => {
    const half = (b - a) / 2;
    for (let i = 0; i < RULE.nodes.length; i++) {
      const u = a + half * (1 + RULE.nodes[i]);
      const w = half * RULE.weights[i] * Math.exp(weight(u) - highest);
      if (w === 0) continue;
      const { meanNats, variance } = dirichletMoments(profile, support, Math.exp(u));
      weights[p * RULE.nodes.length + i] = w;
      means[p * RULE.nodes.length + i] = meanNats;
      mass += w;
      sum += w * meanNats;
      within += w * variance;
    }
  });
  const mean = sum / mass;
  let between = 0;
  for (let i = 0; i < size; i++) between += weights[i] * (means[i] - mean) ** 2;
  return { meanNats: mean, sdNats: Math.sqrt((within + between) / mass) };
}

/**
 * The limit of NSB for an unknown, large support (Nemenman 2011), nats: γ - ln 2 + 2 ln N - ψ(N - k), with standard
 * deviation sqrt(ψ'(N - k)). NaN where no symbol was seen twice.
 */
export function ansbEntropy(profile: CountProfile): NsbEntropy {
  const coincidences = profile.total - profile.observed;
  if (coincidences === 0) return { meanNats: Number.NaN, sdNats: Number.NaN };
  return {
    meanNats: EULER_GAMMA - Math.LN2 + 2 * Math.log(profile.total) - digamma(coincidences),
    sdNats: Math.sqrt(trigamma(coincidences)),
  };
}
