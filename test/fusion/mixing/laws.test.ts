import { describe, expect, it } from 'vitest';
import { dirichlet } from '../../../src/fusion/mixing/dirichlet.js';
import { predictionOf } from '../../../src/fusion/mixing/fidelity.js';
import {
  fitLinearLaw,
  fitLogLinearLaw,
  lawConstants,
  predictLinear,
  predictLosses,
} from '../../../src/fusion/mixing/law-fit.js';
import { lawOptimum, linearOptimum } from '../../../src/fusion/mixing/law-optimum.js';
import { leaveOneOut } from '../../../src/fusion/mixing/leave-one-out.js';
import { designMixtures } from '../../../src/fusion/mixing/mixture-design.js';
import type { Sweep } from '../../../src/fusion/mixing/types.js';
import { createRandom } from '../../../src/random.js';

const names = (k: number): string[] => Array.from({ length: k }, (_, j) => `g${j}`);

/** A sweep whose losses are a function of the mixture. */
function sweepOf(k: number, count: number, lossOf: (p: Float64Array, i: number) => number, width = k): Sweep {
  const random = createRandom(7);
  const mixtures = new Float64Array(count * k);
  const losses = new Float64Array(count * width);
  for (let r = 0; r < count; r++) {
    const p = dirichlet(random, new Float64Array(k).fill(1.5));
    mixtures.set(p, r * k);
    for (let i = 0; i < width; i++) losses[r * width + i] = lossOf(p, i);
  }
  return { count, sources: names(k), evaluated: names(width), mixtures, losses };
}

const B = [1.9, 2.1, 1.2, 0.8];
const SCALE = [0.9, 0.5, 1.5, 0.4];
const M = [
  [-2.5, 0.3, 0.1, -0.2],
  [0.2, -3, -0.4, 0.5],
  [-0.1, -0.2, -1.5, 0.3],
  [0.4, -1, 0.2, -4],
];
const law = (p: Float64Array, i: number): number =>
  B[i] + SCALE[i] * Math.exp(p.reduce((sum, share, j) => sum + M[i][j] * share, 0));

describe('log-linear law', () => {
  it('finds a law that made the losses, in its gauge', () => {
    const sweep = sweepOf(4, 24, law);
    const fitted = fitLogLinearLaw(sweep, { seed: 0 });
    expect(predictionOf(predictLosses(fitted, sweep.mixtures), sweep.losses, 4).mse).toBeLessThan(1e-20);
    fitted.groups.forEach((group, i) => {
      const { a, b, M: found } = lawConstants(group, fitted.centre);
      const mean = M[i].reduce((sum, entry) => sum + entry, 0) / 4;
      expect(b).toBeCloseTo(B[i], 6);
      expect(a).toBeCloseTo(SCALE[i] * Math.exp(mean), 6);
      found.forEach((entry, j) => {
        expect(entry).toBeCloseTo(M[i][j] - mean, 5);
      });
    });
  });

  it('fits losses that bend the other way, are straight, or do not change', () => {
    const kinds = (p: Float64Array, i: number): number => [3 - 0.4 * Math.exp(1.5 * p[0]), 2 + p[0] - 0.5 * p[1], 4][i];
    const sweep = sweepOf(3, 15, kinds, 3);
    const fitted = fitLogLinearLaw(sweep, { seed: 0 });
    const error = predictionOf(predictLosses(fitted, sweep.mixtures), sweep.losses, 3);
    expect(error.mse).toBeLessThan(1e-16);
    expect(fitted.groups[0].curvature).toBeLessThan(0);
    expect(Math.abs(fitted.groups[1].curvature)).toBeLessThan(1e-5);
    expect(lawConstants(fitted.groups[2], fitted.centre)).toMatchObject({ a: null, b: null });
  });

  it('does not fit worse than the straight law, and depends on nothing but its inputs', () => {
    const random = createRandom(3);
    const sweep = sweepOf(3, 12, (p, i) => law(p, i) + 0.05 * random.normal(), 3);
    const mse = (seed: number): number =>
      predictionOf(predictLosses(fitLogLinearLaw(sweep, { seed }), sweep.mixtures), sweep.losses, 3).mse;
    const straight = predictionOf(predictLinear(fitLinearLaw(sweep), sweep.mixtures), sweep.losses, 3).mse;
    expect(mse(0)).toBeLessThanOrEqual(straight);
    expect(mse(0)).toBe(mse(0));
    expect(mse(1)).toBeCloseTo(mse(0), 8);
  });

  it.each([
    [{ count: 3 }, /3 runs for 3 groups/],
    [{ mixtures: Float64Array.from({ length: 30 }, () => 0.5) }, /run 1: the proportions sum to 1.5/],
    [{ losses: new Float64Array(30).fill(Number.NaN) }, /run 1: the loss of g0 is NaN/],
  ])('refuses %o', (change, message) => {
    const sweep = sweepOf(3, 10, law, 3);
    expect(() => fitLogLinearLaw({ ...sweep, ...change }, { seed: 0 })).toThrow(message);
  });
});

describe('optimum', () => {
  it('is not above any point of a fine grid', () => {
    const random = createRandom(11);
    for (let trial = 0; trial < 6; trial++) {
      const m = Array.from({ length: 9 }, () => 2 * random.normal());
      const sign = trial < 3 ? 1 : -1;
      const sweep = sweepOf(
        3,
        12,
        (p, i) => {
          const bend = i === 1 ? sign : 1;
          return 2 + 0.4 * bend * Math.exp(m[3 * i] * p[0] + m[3 * i + 1] * p[1] + m[3 * i + 2] * p[2]);
        },
        3,
      );
      const fitted = fitLogLinearLaw(sweep, { seed: 0 });
      const found = lawOptimum(fitted, { seed: 0 });
      expect(found.mixture.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 12);
      let least = Number.POSITIVE_INFINITY;
      for (let a = 0; a <= 100; a++) {
        for (let b = 0; a + b <= 100; b++) {
          const losses = predictLosses(fitted, Float64Array.of(a / 100, b / 100, (100 - a - b) / 100));
          least = Math.min(least, (losses[0] + losses[1] + losses[2]) / 3);
        }
      }
      expect(found.meanLoss).toBeLessThanOrEqual(least + 1e-12);
      expect(found.meanLoss).toBeGreaterThan(least - 1e-3);
    }
  });

  it('lies inside where each group helps itself alone, by symmetry at the middle', () => {
    const sweep = sweepOf(3, 20, (p, i) => 1 + Math.exp(-3 * p[i]), 3);
    const { mixture, meanLoss, convex } = lawOptimum(fitLogLinearLaw(sweep, { seed: 0 }), { seed: 0 });
    mixture.forEach((share) => {
      expect(share).toBeCloseTo(1 / 3, 6);
    });
    expect(meanLoss).toBeCloseTo(1 + Math.exp(-1), 9);
    expect(convex).toBe(true);
  });

  it('of a straight law is a vertex', () => {
    const sweep = sweepOf(3, 9, (p, i) => 3 + (i + 1) * p[0] - p[1] + 0.5 * p[2], 3);
    expect([...linearOptimum(fitLinearLaw(sweep)).mixture]).toEqual([0, 1, 0]);
  });
});

describe('leave-one-out', () => {
  it('predicts each run without it', () => {
    const sweep = sweepOf(2, 7, law, 2);
    const left = leaveOneOut(sweep, { seed: 0 });
    const without: Sweep = {
      ...sweep,
      count: 6,
      mixtures: sweep.mixtures.slice(2),
      losses: sweep.losses.slice(2),
    };
    const expected = predictLinear(fitLinearLaw(without), sweep.mixtures.subarray(0, 2));
    expect([...left.linear.subarray(0, 2)]).toEqual([...expected]);
    expect(predictionOf(left.logLinear, sweep.losses, 2).mse).toBeLessThan(1e-16);
  });
});

describe('design', () => {
  it('spreads mixtures over the simplex, the same for a seed', () => {
    const settings = { groups: 3, count: 12, seed: 4 };
    const mixtures = designMixtures(settings);
    expect(mixtures.length).toBe(36);
    expect([...designMixtures(settings)]).toEqual([...mixtures]);
    const least = (of: Float64Array): number => {
      let best = Number.POSITIVE_INFINITY;
      for (let a = 0; a < 12; a++) {
        expect(of[3 * a] + of[3 * a + 1] + of[3 * a + 2]).toBeCloseTo(1, 12);
        for (let b = 0; b < a; b++) {
          best = Math.min(
            best,
            Math.hypot(of[3 * a] - of[3 * b], of[3 * a + 1] - of[3 * b + 1], of[3 * a + 2] - of[3 * b + 2]),
          );
        }
      }
      return best;
    };
    expect(least(mixtures)).toBeGreaterThan(least(designMixtures({ ...settings, oversampling: 0 })));
    expect(() => designMixtures({ ...settings, oversampling: 20 })).toThrow(/lower the oversampling/);
  });

  it('merges the closest pair into its middle, as a plain search does', () => {
    const [groups, count, oversampling, seed] = [3, 3, 2, 9];
    const points: Float64Array[] = Array.from({ length: 12 }, () => new Float64Array(0));
    const random = createRandom(seed);
    points.forEach((_, i) => {
      points[i] = dirichlet(random, new Float64Array(groups).fill(1.5));
    });
    while (points.length > count) {
      let [best, a, b] = [Number.POSITIVE_INFINITY, 0, 0];
      for (let i = 0; i < points.length; i++) {
        for (let j = i + 1; j < points.length; j++) {
          const apart = points[i].reduce((sum, x, d) => sum + (x - points[j][d]) ** 2, 0);
          if (apart < best) [best, a, b] = [apart, i, j];
        }
      }
      points[a] = points[a].map((x, d) => (x + points[b][d]) / 2);
      points.splice(b, 1);
    }
    expect([...designMixtures({ groups, count, oversampling, seed })]).toEqual(points.flatMap((p) => [...p]));
  });
});
