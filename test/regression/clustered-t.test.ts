import { describe, expect, it } from 'vitest';
import { createRandom } from '../../src/random.js';
import {
  bestFreedom,
  type ClusteredFitOptions,
  clusteredLogLikelihood,
  clusterWeights,
  fitClustered,
} from '../../src/regression/clustered-t.js';
import {
  type ClusteredData,
  clusterScale,
  decayingCorrelation,
  errorCorrelation,
  factorCluster,
  gatherClusters,
  mahalanobis,
} from '../../src/regression/clusters.js';
import { effectErrors } from '../../src/regression/effect-errors.js';
import { fitFixedEffects } from '../../src/regression/generalised-least-squares.js';
import { fitJoint } from '../../src/regression/joint-model.js';
import { profileInterval } from '../../src/regression/mixed-report.js';
import { createPenalty } from '../../src/regression/penalty.js';
import {
  covarianceFactor,
  freedomOfQ,
  jointProfileTerm,
  logNormaliser,
  qGaussianLogDensity,
  qOfFreedom,
  tsallisEntropy,
  tsallisJoint,
} from '../../src/regression/tsallis.js';

const THETA = [1, 2, -1];

/** Clusters of unequal size with a random intercept and slope; `shift` moves the first one away. */
function sample(clusters: number, seed: number, shift = 0, extra = 0): ClusteredData {
  const random = createRandom(seed);
  const y: number[] = [];
  const x: number[] = [];
  const z: number[] = [];
  const group: number[] = [];
  for (let c = 0; c < clusters; c++) {
    const b = [0.8 * random.normal(), 0.4 * random.normal()];
    for (let i = 0; i < 4 + (c % 3); i++) {
      const row = [1, random.normal(), random.normal(), ...Array.from({ length: extra }, () => random.normal())];
      const fixed = row[0] * THETA[0] + row[1] * THETA[1] + row[2] * THETA[2];
      x.push(...row);
      z.push(row[0], row[1]);
      group.push(c);
      y.push(fixed + b[0] + b[1] * row[1] + 0.5 * random.normal() + (c === 0 ? shift : 0));
    }
  }
  const names = Array.from({ length: clusters }, (_, c) => `c${c}`);
  const of = (values: number[]): Float64Array => Float64Array.from(values);
  return gatherClusters(of(y), of(x), of(z), Int32Array.from(group), names);
}

const plain: ClusteredFitOptions = { correlation: errorCorrelation() };
const furthest = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i])));

describe('q-Gaussians', () => {
  it('keep the degrees of freedom in their marginals, and know their limits', () => {
    expect(qOfFreedom(4, 4)).toBe(1.25);
    expect(freedomOfQ(qOfFreedom(3.7, 9), 9, 'x')).toBeCloseTo(3.7, 10);
    expect(() => freedomOfQ(1.31, 8, 'cluster 4')).toThrow(
      'q=1.31 needs q < 1+2/n = 1.25 for n=8 observations in cluster 4',
    );
    expect(() => freedomOfQ(1, 8, 'cluster 4')).toThrow('needs q > 1');
    expect(covarianceFactor(4)).toBe(2);
    expect(covarianceFactor(2)).toBe(Number.POSITIVE_INFINITY);
  });

  it('are Cauchy for m = 1 and normal for m = 1e8, without cancellation', () => {
    for (const x of [0, 0.7, 3]) {
      expect(qGaussianLogDensity(1, 1, x * x, 0)).toBeCloseTo(-Math.log(Math.PI * (1 + x * x)), 12);
      expect(qGaussianLogDensity(1e8, 1, x * x, 0)).toBeCloseTo(-0.5 * (Math.log(2 * Math.PI) + x * x), 5);
    }
    expect(logNormaliser(1e12, 5)).toBeCloseTo(-2.5 * Math.log(2), 9);
  });

  it('are pseudo-additive in their entropy', () => {
    const [a, b] = [
      [0.2, 0.3, 0.5],
      [0.6, 0.4],
    ];
    const joint = a.flatMap((p) => b.map((r) => p * r));
    for (const q of [0.5, 1, 1.5, 2]) {
      const split = tsallisJoint(tsallisEntropy(a, q), tsallisEntropy(b, q), q);
      expect(tsallisEntropy(joint, q)).toBeCloseTo(split, 12);
    }
    expect(tsallisEntropy([0.25, 0.25, 0.25, 0.25], 1)).toBeCloseTo(Math.log(4), 12);
  });
});

describe('clusters', () => {
  it('have autoregressive errors whose inverse and determinant are those of the matrix', () => {
    const correlation = errorCorrelation(0.6);
    for (const n of [1, 2, 5]) {
      const r = correlation.matrix(n);
      expect([...r]).toEqual([...decayingCorrelation(0.6, n)]);
      const inverse = correlation.inverse(n);
      for (let i = 0; i < n; i++)
        for (let j = 0; j < n; j++) {
          let sum = 0;
          for (let k = 0; k < n; k++) sum += r[i * n + k] * inverse[k * n + j];
          expect(sum).toBeCloseTo(i === j ? 1 : 0, 12);
        }
    }
    expect(() => errorCorrelation(1)).toThrow('between -1 and 1');
  });

  it('are gathered in the order of their first row', () => {
    const data = gatherClusters(
      Float64Array.of(1, 2, 3),
      Float64Array.of(1, 2, 3),
      Float64Array.of(1, 1, 1),
      Int32Array.of(1, 0, 1),
      ['a', 'b'],
    );
    expect(data.clusters.map(({ name, n }) => [name, n])).toEqual([
      ['b', 2],
      ['a', 1],
    ]);
    expect([...data.clusters[0].y]).toEqual([1, 3]);
  });
});

describe('the clustered fit', () => {
  it('is at a maximum: no small change of any parameter raises the likelihood', () => {
    const data = sample(25, 3, 6);
    const fit = fitClustered(data, { ...plain, tolerance: 1e-11 });
    expect(fit.converged).toBe(true);
    const likelihoodAt = (theta: Float64Array, psi: Float64Array, sigma2: number, m: number): number => {
      const solves = data.clusters.map((cluster) => factorCluster(cluster, { psi, sigma2 }, plain.correlation));
      return clusteredLogLikelihood(data, solves, mahalanobis(data, solves, theta), m);
    };
    const best = likelihoodAt(fit.theta, fit.psi, fit.sigma2, fit.m);
    expect(best).toBeCloseTo(fit.logLikelihood, 9);
    for (const h of [1e-3, -1e-3]) {
      for (let j = 0; j < 3; j++) {
        const theta = fit.theta.map((value, k) => value + (k === j ? h : 0));
        expect(likelihoodAt(theta, fit.psi, fit.sigma2, fit.m)).toBeLessThan(best);
      }
      for (const k of [0, 3]) {
        const psi = fit.psi.map((value, i) => value * (i === k ? 1 + h : 1));
        expect(likelihoodAt(fit.theta, psi, fit.sigma2, fit.m)).toBeLessThan(best);
      }
      expect(likelihoodAt(fit.theta, fit.psi, fit.sigma2 * (1 + h), fit.m)).toBeLessThan(best);
      expect(likelihoodAt(fit.theta, fit.psi, fit.sigma2, fit.m * (1 + 10 * h))).toBeLessThan(best);
    }
    // At the maximum the weights have mean 1.
    expect(fit.weights.reduce((sum, w) => sum + w, 0) / 25).toBeCloseTo(1, 5);
  });

  it('rises at every step', () => {
    let last = Number.NEGATIVE_INFINITY;
    fitClustered(sample(20, 5, 4), {
      ...plain,
      onIteration: (_, likelihood) => {
        expect(likelihood).toBeGreaterThanOrEqual(last - 1e-9);
        last = likelihood;
      },
    });
    expect(last).toBeGreaterThan(Number.NEGATIVE_INFINITY);
  });

  it('with m = 1e8 equals the normal fit, and its theta generalised least squares, to 1e-6', () => {
    const data = sample(15, 7);
    const normal = fitClustered(data, { ...plain, m: Number.POSITIVE_INFINITY, tolerance: 1e-12 });
    const nearly = fitClustered(data, { ...plain, m: 1e8, tolerance: 1e-12 });
    expect(furthest(nearly.theta, normal.theta)).toBeLessThan(1e-6);
    expect(Math.abs(nearly.logLikelihood - normal.logLikelihood)).toBeLessThan(1e-4);
    const gls = fitFixedEffects(data, normal.solves, new Float64Array(15).fill(1));
    expect(furthest(normal.theta, gls)).toBeLessThan(1e-9);
    expect(furthest(nearly.theta, gls)).toBeLessThan(1e-6);
  });

  it('stays bounded when one cluster goes to infinity, which ruins the normal fit', () => {
    const near = fitClustered(sample(15, 9), { ...plain, m: 4 });
    const far = fitClustered(sample(15, 9, 1e6), { ...plain, m: 4 });
    const ruined = fitClustered(sample(15, 9, 1e6), { ...plain, m: Number.POSITIVE_INFINITY });
    expect(furthest(far.theta, near.theta)).toBeLessThan(0.6);
    expect(far.weights[0]).toBeLessThan(1e-6);
    expect(furthest(ruined.theta, THETA)).toBeGreaterThan(1e3);
  });

  it('gives random effects that shrink towards 0, and weights by distance', () => {
    const data = sample(12, 11);
    const fit = fitClustered(data, { ...plain, m: 6 });
    const expected = clusterWeights(data, fit.distances2, 6);
    expect([...fit.weights]).toEqual([...expected]);
    const flat = fitClustered(data, { ...plain, m: 6, scales: { psi: new Float64Array(4), sigma2: 1 } });
    expect(Math.max(...flat.blups.map(Math.abs))).toBe(0);
  });

  it('finds fewer degrees of freedom where tails are heavy', () => {
    const data = sample(40, 13);
    const light = Float64Array.from(data.clusters, ({ n }) => n);
    const heavy = light.map((value, i) => (i % 10 === 0 ? 40 * value : 0.5 * value));
    expect(bestFreedom(data, light)).toBeGreaterThan(100);
    expect(bestFreedom(data, heavy)).toBeLessThan(4);
  });

  it('sets the effects of unrelated columns to 0 under a penalty, and keeps the others', () => {
    const data = sample(30, 17, 0, 5);
    const penalised = new Uint8Array(8).fill(1);
    penalised[0] = 0;
    const fit = fitClustered(data, { ...plain, effectPenalty: { penalty: createPenalty('scad', 0.15), penalised } });
    expect(fit.converged).toBe(true);
    expect(furthest(fit.theta.subarray(1, 3), THETA.slice(1))).toBeLessThan(0.3);
    expect([...fit.theta.subarray(3)]).toEqual([0, 0, 0, 0, 0]);
    const active = Uint8Array.from(fit.theta, (value) => (value === 0 ? 0 : 1));
    const errors = effectErrors(data, fit, active);
    expect(errors.information[1]).toBeGreaterThan(0);
    expect(Number.isNaN(errors.information[4])).toBe(true);
  });

  it('has standard errors that cover: mean of 30 fits within 3 standard errors, spread as reported', () => {
    const fits = Array.from({ length: 30 }, (_, k) => {
      const data = sample(20, 100 + k);
      const fit = fitClustered(data, { ...plain, tolerance: 1e-6 });
      return { theta: fit.theta[2], ...effectErrors(data, fit) };
    });
    const mean = fits.reduce((sum, { theta }) => sum + theta, 0) / 30;
    const sd = Math.sqrt(fits.reduce((sum, { theta }) => sum + (theta - mean) ** 2, 0) / 29);
    const reported = fits.reduce((sum, { information }) => sum + information[2], 0) / 30;
    const sandwich = fits.reduce((sum, fit) => sum + fit.sandwich[2], 0) / 30;
    expect(Math.abs(mean - THETA[2])).toBeLessThan((3 * sd) / Math.sqrt(30));
    expect(sd / reported).toBeGreaterThan(0.7);
    expect(sd / reported).toBeLessThan(1.4);
    expect(sandwich / reported).toBeGreaterThan(0.7);
    expect(sandwich / reported).toBeLessThan(1.3);
  });

  it('refuses collinear effects and scales that are not positive', () => {
    const data = sample(6, 19);
    const doubled: ClusteredData = {
      ...data,
      fixed: 4,
      clusters: data.clusters.map((cluster) => ({
        ...cluster,
        x: Float64Array.from(
          { length: cluster.n * 4 },
          (_, k) => cluster.x[Math.floor(k / 4) * 3 + Math.min(k % 4, 2)],
        ),
      })),
    };
    expect(() => fitClustered(doubled, plain)).toThrow('linearly dependent');
    const scales = { psi: Float64Array.of(-5, 0, 0, 1), sigma2: 0.1 };
    expect(() => factorCluster(data.clusters[0], scales, plain.correlation)).toThrow('cluster c0');
    expect(clusterScale(data.clusters[0], scales, plain.correlation).length).toBe(data.clusters[0].n ** 2);
  });
});

describe('the joint model', () => {
  it('has a likelihood that rises with m without end, and theta that does not know q', () => {
    const terms = [1, 4, 16, 1000, 1e6].map((m) => jointProfileTerm(m, 24));
    for (let k = 1; k < terms.length; k++) expect(terms[k]).toBeGreaterThan(terms[k - 1]);
    const data = sample(10, 23);
    const scales = { psi: Float64Array.of(0.6, 0.1, 0.1, 0.3), sigma2: 0.5 };
    const solves = data.clusters.map((cluster) => factorCluster(cluster, scales, plain.correlation));
    const joint = fitJoint(data, solves, [1, 10, 100]);
    expect(furthest(joint.theta, fitFixedEffects(data, solves, new Float64Array(10).fill(1)))).toBe(0);
    expect(joint.profile[2].logLikelihood).toBeGreaterThan(joint.profile[0].logLikelihood);
  });
});

it('reads the interval of m from its profile', () => {
  const profile = [1, 2, 4, 8, 16, 32].map((m) => ({ m, logLikelihood: -((Math.log(m) - Math.log(4)) ** 2) }));
  const [low, high] = profileInterval(profile, { m: 4, logLikelihood: 0 }) ?? [Number.NaN, Number.NaN];
  expect(low).toBeCloseTo(1, 1);
  expect(high).toBeCloseTo(16, -1);
  expect(profileInterval([], { m: 4, logLikelihood: 0 })).toBeNull();
});
