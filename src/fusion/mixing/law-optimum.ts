import { minimiseOnSimplex, type SimplexFunction } from '../../linalg/simplex-minimum.js';
import { createRandom } from '../../random.js';
import { dirichlet } from './dirichlet.js';
import { groupLoss, type LinearLaw, type LogLinearLaw, predictLinear } from './law-fit.js';

/** The mixture that a law thinks best, and what it promises there. */
export interface LawOptimum {
  /** [sources]. */
  readonly mixture: Float64Array;
  /** Mean of the predicted losses of all evaluated groups, nats. */
  readonly meanLoss: number;
  /** Predicted losses there, [evaluated]. */
  readonly losses: Float64Array;
  /** Whether a group's law bends the other way (a < 0): minima are then searched, not proved. */
  readonly convex: boolean;
}

/** Random mixtures from which the minimum is searched, beside the uniform one, edges and vertices. */
const RANDOM_STARTS = 32;
/** Pairs of groups whose middle is a start. */
const MOST_EDGES = 64;

/** The minimum over the simplex of the mean of a law's losses. */
export function lawOptimum(law: LogLinearLaw, { seed }: { readonly seed: number }): LawOptimum {
  const k = law.sources.length;
  const found = minimiseOnSimplex(meanLoss(law), k, startingMixtures(k, seed));
  const losses = Float64Array.from(law.groups, (group) => groupLoss(group, law.centre, found.point));
  return {
    mixture: found.point,
    meanLoss: found.value,
    losses,
    convex: law.groups.every(({ curvature }) => curvature >= 0),
  };
}

/** A straight law is least at a vertex. */
export function linearOptimum(law: LinearLaw): LawOptimum {
  const [k, width] = [law.sources.length, law.evaluated.length];
  let best = 0;
  const mean = (j: number): number => {
    let sum = 0;
    for (let i = 0; i < width; i++) sum += law.coefficients[j * width + i];
    return sum / width;
  };
  for (let j = 1; j < k; j++) if (mean(j) < mean(best)) best = j;
  const mixture = new Float64Array(k).fill(1, best, best + 1);
  return { mixture, meanLoss: mean(best), losses: predictLinear(law, mixture), convex: true };
}

function startingMixtures(k: number, seed: number): Float64Array[] {
  const random = createRandom(seed).fork(0x6f707469);
  const starts: Float64Array[] = [new Float64Array(k).fill(1 / k)];
  const nearly = (entries: readonly number[]): Float64Array =>
    Float64Array.from({ length: k }, (_, j) => (entries.includes(j) ? 0.98 / entries.length : 0) + 0.02 / k);
  for (let j = 0; j < k; j++) starts.push(nearly([j]));
  for (let i = 0; i < k && starts.length < k + MOST_EDGES; i++) for (let j = 0; j < i; j++) starts.push(nearly([i, j]));
  for (let n = 0; n < RANDOM_STARTS; n++) starts.push(dirichlet(random, new Float64Array(k).fill(1)));
  return starts;
}

function meanLoss(law: LogLinearLaw): SimplexFunction {
  const k = law.sources.length;
  const width = law.groups.length;
  const exponents = (p: Float64Array): Float64Array =>
    Float64Array.from(law.groups, ({ slope, curvature }) => {
      let t = 0;
      for (let j = 0; j < k; j++) t += slope[j] * (p[j] - law.centre[j]);
      return Math.exp(curvature * t);
    });
  return {
    value(p) {
      let sum = 0;
      for (const group of law.groups) sum += groupLoss(group, law.centre, p);
      return sum / width;
    },
    gradient(p, into) {
      into.fill(0);
      const factors = exponents(p);
      law.groups.forEach(({ slope }, i) => {
        for (let j = 0; j < k; j++) into[j] += (factors[i] * slope[j]) / width;
      });
    },
    hessian(p, into) {
      into.fill(0);
      const factors = exponents(p);
      law.groups.forEach(({ slope, curvature }, i) => {
        const factor = (curvature * factors[i]) / width;
        for (let j = 0; j < k; j++) for (let l = 0; l < k; l++) into[j * k + l] += factor * slope[j] * slope[l];
      });
    },
  };
}
