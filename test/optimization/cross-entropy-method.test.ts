import { describe, expect, it } from 'vitest';
import {
  boxLaw,
  crossEntropyMethod,
  crossEntropyMethodAsync,
  startCrossEntropy,
} from '../../src/optimization/cross-entropy-method.js';
import {
  bernoulliLaw,
  categoricalLaw,
  exponentialLaw,
  gaussianLaw,
  mixtureLaw,
} from '../../src/optimization/sampling-law.js';
import { searchSpace } from '../../src/optimization/search-space.js';
import { createRandom } from '../../src/random.js';

const listed = (normals: readonly number[]) => {
  let next = 0;
  return {
    normal: () => normals[next++],
    uniform: () => {
      throw new Error('a Gaussian law draws no uniform numbers');
    },
  };
};

describe('cross-entropy method', () => {
  const score = (x: Float64Array): number => -((x[0] - 1) ** 2) - 3 * (x[1] + 2) ** 2;
  const options = { law: gaussianLaw([0, 0], [3, 3]) };

  it('finds a maximum, the same for the same seed and with awaited scores', async () => {
    const found = crossEntropyMethod(score, createRandom(4), options);
    expect(found.converged).toBe(true);
    expect(found.point[0]).toBeCloseTo(1, 4);
    expect(found.point[1]).toBeCloseTo(-2, 4);
    expect(found.rounds[0].elite).toBe(10);
    expect(crossEntropyMethod(score, createRandom(4), options)).toEqual(found);
    const awaited = await crossEntropyMethodAsync(
      async (points, count) => Float64Array.from({ length: count }, (_, i) => score(points.subarray(2 * i, 2 * i + 2))),
      createRandom(4),
      options,
    );
    expect(awaited).toEqual(found);
  });

  it('stays inside its box and scores nothing outside', () => {
    let outside = 0;
    const box = { low: [-5, -1], high: [0.5, 5] };
    const watched = (x: Float64Array): number => {
      if (x[0] > 0.5 || x[1] < -1) outside++;
      return score(x);
    };
    const found = crossEntropyMethod(watched, createRandom(4), { ...options, box });
    expect(outside).toBe(0);
    expect(found.point[0]).toBeCloseTo(0.5, 2);
    expect(found.point[1]).toBeCloseTo(-1, 2);
    const away = { ...options, box: { low: [1e6, 0], high: [1e6 + 1, 1] } };
    expect(() => crossEntropyMethod(score, createRandom(4), away)).toThrow('no sample fell in the box');
  });

  it('follows the update of its definition', () => {
    // Samples of 10 + 2 z, elite of 2 with scores x: mean and population deviation, smoothed by 0.8.
    const { rounds } = crossEntropyMethod((x) => x[0], listed([0, 1, 2, 3]), {
      law: gaussianLaw([10], [2]),
      samples: 4,
      eliteShare: 0.5,
      maxRounds: 1,
    });
    const { law, threshold, entropyNats, divergenceNats } = rounds[0];
    if (law.kind !== 'gaussian') throw new Error('another family');
    expect(law.mean[0]).toBeCloseTo(0.8 * 15 + 0.2 * 10, 12);
    expect(law.deviation[0]).toBeCloseTo(0.8 * 1 + 0.2 * 2, 12);
    expect(threshold).toBe(14);
    expect(entropyNats).toBeCloseTo(Math.log(1.2 * Math.sqrt(2 * Math.PI * Math.E)), 12);
    expect(divergenceNats).toBeCloseTo(Math.log(2 / 1.2) + (1.2 ** 2 + 16) / 8 - 0.5, 12);
  });

  it('breaks ties by the order drawn, or takes all of them; NaN is never elite', () => {
    const flat = { law: gaussianLaw([0], [1]), samples: 4, eliteShare: 0.25, maxRounds: 1, smoothing: 1 };
    const first = crossEntropyMethod(() => 7, listed([3, 1, 2, 4]), flat);
    expect(first.point[0]).toBe(3);
    expect(first.rounds[0].elite).toBe(1);
    const all = crossEntropyMethod(() => 7, listed([3, 1, 2, 4]), { ...flat, ties: 'all' });
    expect(all.rounds[0].elite).toBe(4);
    const search = startCrossEntropy(flat);
    search.ask(listed([3, 1, 2, 4]));
    const round = search.tell([Number.NaN, Number.NaN, 1, Number.NaN]);
    expect([round.elite, round.roundBest]).toEqual([1, 1]);
    const empty = startCrossEntropy(flat);
    empty.ask(listed([3, 1, 2, 4]));
    expect(empty.tell(new Float64Array(4).fill(Number.NaN)).law).toEqual(flat.law);
    expect(() => empty.tell([1])).toThrow('1 scores for 0 points');
  });

  it('does not collapse before the optimum with a falling floor', () => {
    // A far optimum and a tiny elite without smoothing.
    const far = (x: Float64Array): number => -((x[0] - 40) ** 2);
    const greedy = { law: gaussianLaw([0], [1]), samples: 20, eliteShare: 0.05, smoothing: 1 };
    const collapsed = crossEntropyMethod(far, createRandom(1), greedy);
    expect(collapsed.point[0]).toBeLessThan(10);
    const held = crossEntropyMethod(far, createRandom(1), {
      ...greedy,
      maxRounds: 400,
      floor: { deviation: 2, decay: 0.95 },
    });
    expect(held.point[0]).toBeCloseTo(40, 3);
    expect(held.converged).toBe(true);
  });

  it('begins anew after a run and keeps the best', () => {
    // Two hills; the lower one is wide.
    const hills = (x: Float64Array): number => Math.exp(-((x[0] + 3) ** 2)) + 2 * Math.exp(-10 * (x[0] - 3) ** 2);
    const setting = { law: gaussianLaw([-1], [2]), samples: 16, eliteShare: 0.25, patience: 12, maxRounds: 400 };
    const trapped = Array.from({ length: 6 }, (_, seed) => crossEntropyMethod(hills, createRandom(seed), setting));
    expect(trapped.some(({ score: value }) => value < 1.5)).toBe(true);
    const again = crossEntropyMethod(hills, createRandom(0), { ...setting, restarts: 12 });
    expect(again.runs).toBeGreaterThan(1);
    expect(again.score).toBeCloseTo(2, 2);
    const aimed = crossEntropyMethod(hills, createRandom(0), { ...setting, restarts: 12, target: 1.5 });
    expect(aimed.converged).toBe(true);
    expect(aimed.evaluations).toBeLessThanOrEqual(again.evaluations);
  });

  it('holds two optima in a mixture', () => {
    const twin = (x: Float64Array): number => -Math.min((x[0] - 2) ** 2, (x[0] + 2) ** 2);
    const law = mixtureLaw([1, 1], [gaussianLaw([-1], [2]), gaussianLaw([1], [2])]);
    const { rounds } = crossEntropyMethod(twin, createRandom(3), { law, samples: 400, niches: true });
    const last = rounds[rounds.length - 1].law;
    if (last.kind !== 'mixture') throw new Error('another family');
    const means = last.components.map((part) => (part.kind === 'gaussian' ? part.mean[0] : Number.NaN));
    expect(Math.min(...means)).toBeCloseTo(-2, 4);
    expect(Math.max(...means)).toBeCloseTo(2, 4);
  });

  it('searches bits and choices, held off 0 and 1', () => {
    const pattern = [1, 0, 1, 1, 0, 0, 1, 0];
    const matches = (x: Float64Array): number => x.reduce((sum, value, i) => sum + (value === pattern[i] ? 1 : 0), 0);
    const bits = crossEntropyMethod(matches, createRandom(2), {
      law: bernoulliLaw(new Float64Array(8).fill(0.5)),
      floor: { probability: 0.01 },
    });
    expect([...bits.point]).toEqual(pattern);
    expect(bits.converged).toBe(true);
    const choices = crossEntropyMethod((x) => -Math.abs(x[0] - 3) - Math.abs(x[1] - 1), createRandom(2), {
      law: categoricalLaw([
        [1, 1, 1, 1, 1],
        [1, 1],
      ]),
      samples: 40,
    });
    expect([...choices.point]).toEqual([3, 1]);
  });

  it('searches a named space of continuous and discrete variables', () => {
    const space = searchSpace([
      { name: 'strength', kind: 'continuous', low: 0, high: 10 },
      { name: 'rate', kind: 'continuous', low: 1e-4, high: 1, scale: 'log' },
      { name: 'layer', kind: 'choice', values: [4, 8, 12] },
      { name: 'centred', kind: 'flag' },
    ]);
    // The best strength depends on the layer.
    const target = (x: Float64Array): number => {
      const { strength, rate, layer, centred } = space.assignment(x);
      return (
        -((Number(strength) - Number(layer) / 2) ** 2) -
        Math.abs(Number(layer) - 8) -
        Math.log(Number(rate) / 0.01) ** 2 +
        (centred ? 1 : 0)
      );
    };
    const found = crossEntropyMethod(target, createRandom(9), {
      law: space.law,
      box: space.box,
      samples: 200,
      deviationTolerance: 1e-4,
    });
    const best = space.assignment(found.point);
    expect(best.layer).toBe(8);
    expect(best.centred).toBe(true);
    expect(best.strength).toBeCloseTo(4, 3);
    expect(best.rate).toBeCloseTo(0.01, 4);
    const mixed = searchSpace([{ name: 'layer', kind: 'choice', values: [1, 2, 3, 4] }], 2);
    expect(mixed.law.kind).toBe('mixture');
    expect(() => searchSpace([])).toThrow('at least one variable');
    expect(() => searchSpace([{ name: 'a', kind: 'continuous', low: 1, high: 1 }])).toThrow('no width');
  });

  it('fits exponential means', () => {
    const found = crossEntropyMethod((x) => -Math.abs(x[0] - 2), createRandom(1), {
      law: exponentialLaw([1]),
      maxRounds: 10,
    });
    expect(found.point[0]).toBeCloseTo(2, 1);
  });

  it('has the law of a box', () => {
    expect(boxLaw({ low: [0, 12], high: [1, 18] })).toEqual(gaussianLaw([0.5, 15], [1 / 3, 2]));
  });
});
