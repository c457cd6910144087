import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createRandom } from '../../../src/random.js';
import { orient, type PairRows } from '../../../src/steering/methods/contrast.js';
import { LOGISTIC } from '../../../src/steering/methods/logistic.js';
import { firstComponent } from '../../../src/steering/methods/principal-component.js';
import { CONTRAST_METHODS, findMethod } from '../../../src/steering/methods/registry.js';
import { cosine, norm, projections } from '../../../src/steering/vector-measures.js';

/** Coefficients of scikit-learn's LogisticRegression(fit_intercept=False) on rows minus their pair's mean, of length 1. */
const FITTED = [
  {
    pairs: 5,
    width: 7,
    rows: [
      -0.252, 0.225, 2.064, 1.059, -1.241, 0.395, -0.223, -0.251, -2.008, -0.158, -0.165, 1.176, -0.083, 0.111, -1.093,
      2.653, -1.516, 1.502, 0.07, -0.481, -0.256, -1.072, -0.02, -0.51, 1.083, -2.23, -0.403, -1.292, 1.176, -1.718,
      0.056, 0.61, -1.084, 1.385, 0.579, 0.607, 0.559, -1.38, -1.198, -0.603, 0.348, 0.451, -0.31, -0.207, -0.398,
      -0.184, 0.162, 0.268, 2.458, -0.906, -0.689, 0.059, -1.353, -0.769, -0.387, 0.374, -0.916, 1.771, 0.048, 0.569,
      1.247, 1.061, 1.459, -0.227, -0.42, -0.084, -1.396, 0.814, -1.175, -1.66,
    ],
    unit: [
      0.14042052565836743, 0.3490171730842031, 0.2975822538433765, 0.6765556777052087, 0.0998518306111926,
      0.34163499730544755, 0.4306987886774024,
    ],
  },
  {
    pairs: 9,
    width: 4,
    rows: [
      2.456, 0.264, -0.779, 2.252, -0.73, 0.662, -1.229, -0.649, -1.289, -1.509, -0.576, 0.322, 0.398, 2.026, -1.432,
      0.609, -0.204, 0.247, -1.081, -1.079, -1.178, -1.593, -0.404, -1.103, 1.651, 0.553, 0.565, 1.537, 0.118, -0.437,
      -0.491, -0.521, 1.477, 1.183, 0.766, 1.199, -0.945, 0.111, -1.812, 0.947, 0.49, 0.583, 0.999, 0.39, -0.654, 0.79,
      -0.284, -1.316, 0.84, -1.305, 2.056, 0.229, -0.354, 1.858, 1.752, -0.284, 1.025, 1.49, 2.082, 0.269, -0.265,
      0.825, -0.13, 0.354, 1.01, -0.735, -0.459, -2.241, -0.66, 0.939, -1.509, 0.834,
    ],
    unit: [0.713663961975602, -0.3556068575787819, 0.5817884093772879, 0.16046731422465926],
  },
];

/** Pairs that differ along a direction more than by chance. */
function plantedPairs(
  seed: number,
  pairs: number,
  width: number,
  strength = 4,
): { rows: PairRows; planted: Float64Array } {
  const random = createRandom(seed);
  const planted = Float64Array.from({ length: width }, () => random.normal());
  const length = norm(planted);
  const data = Float64Array.from({ length: 2 * pairs * width }, (_, at) => {
    const sign = Math.floor(at / width) % 2 === 0 ? 0.5 : -0.5;
    return random.normal() + (strength * sign * planted[at % width]) / length;
  });
  return { rows: { data, pairs, width }, planted };
}

const method = (name: string) => {
  const found = findMethod(name);
  if (typeof found === 'string') throw new Error(name);
  return found;
};

describe('contrast methods', () => {
  it.each(FITTED)(
    'logistic is that of scikit-learn with $pairs pairs of width $width',
    ({ rows, pairs, width, unit }) => {
      const { vector } = LOGISTIC.direction({ data: Float64Array.from(rows), pairs, width });
      vector.forEach((value, i) => {
        expect(value).toBeCloseTo(unit[i], 8);
      });
    },
  );

  it.each(CONTRAST_METHODS.filter(({ name }) => name !== 'pca-diff'))('$name finds a planted direction', (found) => {
    const { rows, planted } = plantedPairs(1, 40, 12, 8);
    expect(cosine(found.direction(rows).vector, planted)).toBeGreaterThan(0.9);
  });

  it('pca-diff loses the mean difference', () => {
    const { rows, planted } = plantedPairs(1, 40, 12, 8);
    expect(Math.abs(cosine(method('pca-diff').direction(rows).vector, planted))).toBeLessThan(0.6);
  });

  it('pca-pairwise is pca-uncentred, on both sides of the smaller Gram matrix', () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.integer({ min: 2, max: 20 }),
        fc.integer({ min: 2, max: 20 }),
        (seed, pairs, width) => {
          const { rows } = plantedPairs(seed, pairs, width);
          const pairwise = method('pca-pairwise').direction(rows);
          const uncentred = method('pca-uncentred').direction(rows);
          expect(cosine(pairwise.vector, uncentred.vector)).toBeCloseTo(1, 9);
          expect(norm(pairwise.vector)).toBeCloseTo(1, 12);
        },
      ),
      { numRuns: 20 },
    );
  });

  it('agrees with power iteration where subspace iteration runs', () => {
    const { rows } = plantedPairs(9, 200, 170, 3);
    const { vector } = method('pca-global').direction(rows);
    const mean = Float64Array.from({ length: 170 }, (_, i) => {
      let sum = 0;
      for (let r = 0; r < 400; r++) sum += Number(rows.data[r * 170 + i]) / 400;
      return sum;
    });
    const centred = Float64Array.from(rows.data, (value, at) => value - mean[at % 170]);
    let power = Float64Array.from(vector, (value, i) => value + Math.sin(i) / 100);
    for (let step = 0; step < 400; step++) {
      const scores = projections(centred, 170, power);
      const next = new Float64Array(170);
      for (let r = 0; r < 400; r++) for (let i = 0; i < 170; i++) next[i] += scores[r] * centred[r * 170 + i];
      const length = norm(next);
      power = next.map((value) => value / length);
    }
    expect(cosine(vector, power)).toBeGreaterThan(1 - 1e-12);
  });

  it('turns a vector to the majority, or to the mean', () => {
    // Two pairs point left a little, one points right a lot.
    const rows: PairRows = { data: [-1, 0, -1, 0, 9, 0], pairs: 3, width: 1 };
    const right = Float64Array.of(1);
    expect(orient(right, rows, 'majority')).toEqual(Float64Array.of(-1));
    expect(orient(right, rows, 'mean')).toEqual(Float64Array.of(1));
    // As many on both sides: the vector stays.
    expect(orient(Float64Array.of(-1), { data: [1, 0, 0, 1], pairs: 2, width: 1 })).toEqual(Float64Array.of(-1));
  });

  it('does not change by the seed, but for lat', () => {
    const { rows } = plantedPairs(3, 12, 6);
    for (const { name, direction } of CONTRAST_METHODS) {
      const [a, b] = [direction(rows, { seed: 1 }).vector, direction(rows, { seed: 2 }).vector];
      expect(cosine(a, b) > 1 - 1e-12).toBe(name !== 'lat');
      expect(direction(rows, { seed: 1 }).vector).toEqual(a);
    }
  });

  it('refuses pairs without a direction, and entries that are not finite', () => {
    const equal: PairRows = { data: [1, 2, 1, 2, 3, 4, 3, 4], pairs: 2, width: 2 };
    for (const name of ['mean', 'pca', 'pca-uncentred', 'pca-diff', 'logistic', 'lat']) {
      expect(() => method(name).direction(equal)).toThrow(/direction|all zero/);
    }
    expect(() => method('mean').direction({ data: [1, Number.NaN], pairs: 1, width: 1 })).toThrow(
      'the negative row of pair 1 holds NaN at entry 0',
    );
    expect(() => method('mean').direction({ data: [1, 2], pairs: 2, width: 2 })).toThrow('2 pairs');
    expect(() => firstComponent(new Float64Array(4), 2, 'these rows')).toThrow('these rows are all zero');
  });

  it('knows the names of other libraries', () => {
    expect(method('mean_diff').name).toBe('mean-difference');
    expect(method('CAA').name).toBe('mean-difference');
    expect(method('pca').name).toBe('pca-pairwise');
    expect(findMethod('EAST')).toBe('east');
    expect(() => findMethod('logistc')).toThrow('did you mean "logistic"');
  });
});
