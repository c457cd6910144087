import { describe, expect, it } from 'vitest';
import { cachedSimplex, cachedSimplexSearch } from '../../../src/linalg/cached-simplex.js';
import { distanceToHull } from '../../../src/linalg/convex-hull.js';
import { fitGaussianProcess } from '../../../src/linalg/gaussian-process.js';
import { localRegression } from '../../../src/linalg/local-regression.js';
import { minimiseInBox } from '../../../src/linalg/quasi-newton.js';
import { evaluationScore } from '../../../src/policy/reward/evaluation-score.js';
import { replayAdvantages, replayMultipliers } from '../../../src/policy/reward/multiplier-replay.js';
import { standardiseAdvantages, USUAL_MULTIPLIERS } from '../../../src/policy/reward/multipliers.js';
import { boxOf, leastRows, proxyPoints } from '../../../src/policy/reward/proxy-points.js';
import { fitQuadratic, quadraticMaximumOnBox } from '../../../src/policy/reward/quadratic-surface.js';
import { drawSimplex, searchThresholds, tableScore } from '../../../src/policy/reward/threshold-search.js';
import { createRandom } from '../../../src/random.js';

const uniform = (count: number, seed = 1): Float64Array => {
  const random = createRandom(seed);
  return Float64Array.from({ length: count }, () => random.uniform());
};
/** Score of rows of `x` [rows, n] by a function of a row. */
const scored = (x: Float64Array, n: number, f: (row: Float64Array) => number): Float64Array =>
  Float64Array.from({ length: x.length / n }, (_, r) => f(x.subarray(r * n, (r + 1) * n)));
const options = { smoother: 'quadratic', span: 0.75, seed: 0, draws: 0, level: 0.9 } as const;
const runsOf = (rewards: Float64Array, n: number, f: (row: Float64Array) => number) => ({
  names: Array.from({ length: n }, (_, i) => `r${i}`),
  rows: rewards.length / n,
  rewards,
  score: scored(rewards, n, f),
});

const GP = { logLikelihood: 4.911315154424944, mean: [0.87202891818686, -0.1637372119000426, -0.4501063214764748] };
const LOESS = [0.8869020184212368, -0.16297242563292766, -0.3778678682643407];

describe('proxy points', () => {
  it('are exact for a quadratic in three rewards, whatever their units', () => {
    const rewards = uniform(60 * 3).map((value, at) => (at % 3 === 2 ? 1e-3 * value + 5 : value));
    const f = ([a, b, c]: Float64Array) =>
      1 - (a - 0.4) ** 2 - 2 * (b - 0.6) ** 2 - 1e6 * (c - 5.0005) ** 2 + 0.5 * (a - 0.4) * (b - 0.6);
    const { joint, individual } = proxyPoints(runsOf(rewards, 3, f), options);
    expect([...joint.point]).toEqual([0.4, 0.6, 5.0005].map((value) => expect.closeTo(value, 8)));
    expect(joint).toMatchObject({ interior: true, status: 'interior', hullDistance: 0 });
    expect(joint.leftOutR2).toBeCloseTo(1, 6);
    expect(individual).toHaveLength(3);
  });

  it('stand on the border of the box where the surface has no maximum, by all faces', () => {
    const rewards = uniform(80 * 2);
    const saddle = proxyPoints(
      runsOf(rewards, 2, ([a, b]) => a * a - (b - 0.3) ** 2 + a * b),
      options,
    );
    expect(saddle.joint.status).toBe('on the border of the data box');
    expect(saddle.joint.fitted.quadratic?.negativeDefinite).toBe(false);
    const box = boxOf(rewards, 2);
    expect(saddle.joint.point[0]).toBe(box.high[0]);
    expect(saddle.joint.point[1]).toBeCloseTo(0.3 + box.high[0] / 2, 6);
  });

  it('on random boxes are at least as high as a fine grid', () => {
    for (let seed = 0; seed < 12; seed++) {
      const random = createRandom(seed);
      const c = Array.from({ length: 6 }, () => random.normal());
      const x = uniform(40 * 2, seed);
      const f = ([a, b]: Iterable<number>) => c[0] + c[1] * a + c[2] * b + c[3] * a * a + c[4] * b * b + c[5] * a * b;
      const box = boxOf(x, 2);
      const surface = fitQuadratic(x, scored(x, 2, f), 2, box);
      if (surface === undefined) throw new Error('no fit');
      const found = f(quadraticMaximumOnBox(surface, box));
      for (let i = 0; i <= 20; i++) {
        for (let j = 0; j <= 20; j++) {
          const place = [i, j].map((k, d) => box.low[d] + (k / 20) * (box.high[d] - box.low[d]));
          expect(f(place)).toBeLessThanOrEqual(found + 1e-9);
        }
      }
    }
  });

  it('outside the hull of correlated runs are said to be there', () => {
    const t = uniform(40);
    const rewards = Float64Array.from({ length: 80 }, (_, at) => t[at >> 1] + 0.02 * Math.sin(37 * at) * (at % 2));
    const found = proxyPoints(
      runsOf(rewards, 2, ([a, b]) => 1 - (a - 0.7) ** 2 - (b - 0.3) ** 2),
      options,
    );
    expect(found.joint.status).toBe('outside the convex hull of the data');
    expect(found.joint.hullDistance).toBeGreaterThan(0.1);
  });

  it('smoothers agree on a smooth bump, and intervals hold the point', () => {
    const rewards = uniform(60 * 2);
    const random = createRandom(5);
    const runs = runsOf(
      rewards,
      2,
      ([a, b]) => 1 - 2 * (a - 0.45) ** 2 - 2 * (b - 0.55) ** 2 + 0.005 * random.normal(),
    );
    for (const smoother of ['quadratic', 'gp', 'loess'] as const) {
      const { joint, shift } = proxyPoints(runs, { ...options, smoother, draws: 8 });
      expect(joint.point[0]).toBeCloseTo(0.45, 1);
      expect(joint.intervals?.[1].low).toBeLessThan(0.57);
      expect(joint.intervals?.[1].high).toBeGreaterThan(0.53);
      expect(shift).toHaveLength(2);
    }
  });

  it('name what is missing', () => {
    expect(leastRows(2)).toBe(11);
    const f = () => 1;
    expect(() => proxyPoints(runsOf(uniform(20), 2, f), options)).toThrow('needs 11 rows or more, got 10');
    const constant = uniform(40).map((value, at) => (at % 2 === 0 ? value : 3));
    expect(() => proxyPoints(runsOf(constant, 2, f), options)).toThrow('reward "r1" is the same in all rows');
    const twice = uniform(40).map((_, at, all) => all[at - (at % 2)]);
    expect(() => proxyPoints(runsOf(twice, 2, f), options)).toThrow('linearly dependent');
  });
});

describe('numerics', () => {
  it('distances to hulls', () => {
    const square = Float64Array.of(0, 0, 1, 0, 0, 1, 1, 1);
    expect(distanceToHull(square, 4, 2, [0.5, 0.5])).toBeCloseTo(0, 12);
    expect(distanceToHull(square, 4, 2, [1, 0.3])).toBeCloseTo(0, 12);
    expect(distanceToHull(square, 4, 2, [2, 2])).toBeCloseTo(Math.SQRT2, 12);
    expect(distanceToHull(square, 4, 2, [0.5, -0.25])).toBeCloseTo(0.25, 12);
    // A segment in three dimensions: a hull without an inside.
    expect(distanceToHull(Float64Array.of(0, 0, 0, 2, 0, 0), 2, 3, [1, 3, 4])).toBeCloseTo(5, 12);
  });

  it('Gaussian process and loess as scikit-learn and NumPy have them', () => {
    const x = Float64Array.from({ length: 24 }, (_, i) => i / 4);
    const y = x.map((value, i) => Math.sin(value) + 0.1 * Math.cos(17 * i));
    const process = fitGaussianProcess(x, y, 1);
    expect(process.logLikelihood).toBeCloseTo(GP.logLikelihood, 6);
    expect([1.1, 3.3, 5.9].map((at) => process.mean([at]))).toEqual(GP.mean.map((value) => expect.closeTo(value, 5)));
    const local = localRegression(x, y, 1, 0.5);
    expect([1.1, 3.3, 5.9].map((at) => local.at([at]))).toEqual(LOESS.map((value) => expect.closeTo(value, 10)));
    // What a row says of itself once it is left out.
    const rest = localRegression(
      x.filter((_, i) => i !== 7),
      y.filter((_, i) => i !== 7),
      1,
      12 / 23,
    );
    expect(Math.abs(local.at([x[7]], 7) - rest.at([x[7]]))).toBeLessThan(0.02);
  });

  it('minimises in a box', () => {
    const f = ([x, y]: Float64Array, g: Float64Array): number => {
      g[0] = -400 * x * (y - x * x) - 2 * (1 - x);
      g[1] = 200 * (y - x * x);
      return 100 * (y - x * x) ** 2 + (1 - x) ** 2;
    };
    const free = minimiseInBox(f, [-1.2, 1], [-5, -5], [5, 5]);
    expect([...free.point]).toEqual([expect.closeTo(1, 6), expect.closeTo(1, 6)]);
    const held = minimiseInBox(f, [-1.2, 1], [-5, -5], [0.5, 5]);
    expect([...held.point]).toEqual([0.5, expect.closeTo(0.25, 6)]);
  });
});

describe('multipliers', () => {
  const log = Float64Array.from({ length: 40 }, (_, u) => 0.02 * u);
  const base = { ...USUAL_MULTIPLIERS, start: Float64Array.of(0.01) };
  const replay = (variant: 'xi-ppo' | 'mu-ppo' | 'all-ppo' | 'ppo-sat' | 'ppo', squash: 'tanh' | 'sigmoid' | 'none') =>
    replayMultipliers(log, Float64Array.of(0.4), { ...base, variant, squash });

  it('rise below the threshold and fall above it, in the range of their squash', () => {
    const met = replay('xi-ppo', 'tanh');
    expect(met.weight.indexOf(Math.max(...met.weight))).toBeGreaterThan(18);
    expect(met.weight[39]).toBeLessThan(met.weight[20]);
    expect(met.divergence[5]).toBeCloseTo(1 - met.multiplier[5], 12);
    const lower = replay('mu-ppo', 'sigmoid');
    expect(Math.min(...lower.weight)).toBeGreaterThan(0);
    const bounded = replay('all-ppo', 'sigmoid');
    expect(bounded.weight[20]).toBeGreaterThan(bounded.weight[0]);
    expect(bounded.weight[39]).toBeLessThan(bounded.weight[20]);
    expect(bounded.divergence[0]).toBe(1);
    const saturated = replay('ppo-sat', 'none');
    expect([saturated.weight[19], saturated.weight[20], saturated.weight[30]]).toEqual([0.01, 0, 0]);
    expect(Math.min(...replay('xi-ppo', 'none').raw)).toBeGreaterThanOrEqual(0);
  });

  it('mix advantages of each update by its weights', () => {
    const found = replay('xi-ppo', 'tanh');
    const update = Int32Array.of(3, 3, 3, 8, 8);
    const divergence = Float64Array.of(1, 2, 4, 5, 7);
    const constraint = Float64Array.of(3, 1, 1, 0, 2);
    const mixed = replayAdvantages({ update, divergence, constraints: [constraint] }, found);
    const [d, c] = [standardiseAdvantages(divergence.slice(0, 3)), standardiseAdvantages(constraint.slice(0, 3))];
    expect(mixed[1]).toBeCloseTo((1 - found.weight[3]) * d[1] + found.weight[3] * c[1], 12);
    expect(() => standardiseAdvantages(Float64Array.of(1))).toThrow('no sample deviation');
  });
});

describe('search', () => {
  const f = ([x, y]: Float64Array): number => (x - 0.3) ** 2 + (y - 0.6) ** 2;

  it('shares values within the tolerance and stops at its budget', () => {
    const simplex = [
      [0, 0],
      [0.001, 0.001],
      [1, 1],
    ];
    const found = cachedSimplex(f, simplex, { maxEvaluations: 4 });
    expect(found.nearAnswers).toBeGreaterThan(0);
    expect(found.evaluated.length).toBeLessThanOrEqual(6);
    expect(cachedSimplex(f, simplex, { maxEvaluations: 1 }).passes).toHaveLength(1);
    expect(() => cachedSimplexSearch([[0, 0]], { maxEvaluations: 4 }).next()).toThrow('n + 1 points');
  });

  it('finds a maximum, and waits where a table has no score', () => {
    const range = { low: Float64Array.of(0, 0), high: Float64Array.of(1, 1) };
    const simplex = drawSimplex(range, 0);
    const settings = { maxEvaluations: 60, tolerance: 1e-4, cacheTolerance: 1e-3 };
    const found = searchThresholds((x) => 1 - f(x), simplex, settings);
    expect(found.best?.score).toBeGreaterThan(0.999);
    expect(found.evaluated.length).toBeLessThan(60);
    // Rows are added until the search needs no more: what a trainer would do.
    const rows: { x: Float64Array; score: number }[] = [];
    for (let round = 0; round < 80; round++) {
      const table = {
        names: ['a', 'b'],
        rows: rows.length,
        rewards: Float64Array.from(rows.flatMap(({ x }) => [...x])),
        score: Float64Array.from(rows, ({ score }) => score),
      };
      const step = searchThresholds(tableScore(table, [1e-9, 1e-9]), simplex, settings);
      if (step.next === undefined) {
        expect(step.best).toEqual(found.best);
        return;
      }
      rows.push({ x: step.next, score: 1 - f(step.next) });
    }
    throw new Error('the search did not end');
  });
});

it('scores metrics by groups', () => {
  const metrics = new Map([
    ['a', Float64Array.of(0, 1)],
    ['b', Float64Array.of(10, 30)],
    ['c', Float64Array.of(2, 4)],
  ]);
  const recipe = { groups: [['a', 'b'], ['c']], ranges: new Map([['b', [0, 40] as const]]) };
  expect([...evaluationScore(metrics, recipe)]).toEqual([0.0625, 0.9375]);
  expect(() =>
    evaluationScore(new Map([['a', Float64Array.of(1, 1)]]), { groups: [['a']], ranges: new Map() }),
  ).toThrow('range 1 to 1');
});
