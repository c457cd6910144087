import fc from 'fast-check';
import { Matrix, solve } from 'ml-matrix';
import { describe, expect, it } from 'vitest';
import {
  checkProportions,
  divergenceFromUniform,
  entropyNats,
  exponentiatedStep,
  proportionsOf,
  withFloor,
} from '../../../src/fusion/mixing/exponentiated-gradient.js';
import { matrixAgreement, predictionOf } from '../../../src/fusion/mixing/fidelity.js';
import { normaliseMatrix } from '../../../src/fusion/mixing/group-matrix.js';
import { diagonalProbes, probeMixture, probeMixtures, solveProbes } from '../../../src/fusion/mixing/probe-mixtures.js';
import { dogeScores } from '../../../src/fusion/mixing/rows/doge.js';
import { MIXING_METHODS, mixingMethod } from '../../../src/fusion/mixing/rows/registry.js';
import { learnedGraph } from '../../../src/fusion/mixing/rows/skill-it.js';
import type { Evidence, Mixer, MixingParameters } from '../../../src/fusion/mixing/types.js';
import { createRandom } from '../../../src/random.js';

const GROUPS = ['a', 'b', 'c'];
const create = (name: string, own: Partial<MixingParameters> = {}, more: object = {}, groups = GROUPS): Mixer => {
  const method = mixingMethod(name);
  const parameters = { ...method.parameters(groups.length), ...own } as MixingParameters;
  return method.create({ groups, parameters, seed: 0, ...more });
};
const vector = (...values: number[]): Float64Array => Float64Array.from(values);
const sum = (values: ArrayLike<number>): number => Array.from(values).reduce((a, b) => a + b, 0);

describe('exponentiated gradient', () => {
  it('multiplies proportions by exponentials, at any size of the exponents', () => {
    const p = proportionsOf(exponentiatedStep(vector(0, 0, 0), vector(1e4, 1e4 - 1, 0)));
    expect(p[0]).toBeCloseTo(1 / (1 + Math.exp(-1)), 14);
    expect(p[2]).toBe(0);
    // What has become 0 comes back.
    const back = exponentiatedStep(exponentiatedStep(vector(0, 0), vector(2000, 0)), vector(0, 2000));
    expect([...proportionsOf(back)]).toEqual([0.5, 0.5]);
  });

  it('keeps a floor and the sum', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0, max: 30, noNaN: true }), { minLength: 2, maxLength: 8 }), (logs) => {
        const p = proportionsOf(logs);
        const raised = withFloor(p, 0.05);
        expect(sum(raised)).toBeCloseTo(1, 12);
        expect(Math.min(...raised)).toBeGreaterThan(0.05 - 1e-15);
        expect(Array.from(raised).every((share, j) => share >= 0.05 && (p[j] > 0.05 || share === 0.05))).toBe(true);
      }),
    );
    expect(() => withFloor(vector(0.5, 0.5), 0.6)).toThrow(/floor of 0.6/);
  });

  it('has the entropy and the divergence of the uniform mixture', () => {
    expect(entropyNats([0.25, 0.25, 0.25, 0.25])).toBeCloseTo(Math.log(4), 14);
    expect(entropyNats([1, 0])).toBe(0);
    expect(divergenceFromUniform([1, 0])).toBeCloseTo(Math.log(2), 14);
  });

  it.each([
    [[1, 0, 1], /proportion of b is 0/],
    [[1, Number.NaN, 1], /proportion of b is NaN/],
    [[1, 1], /2 proportions for 3 groups/],
  ])('refuses %j as a start', (values, message) => {
    expect(() => checkProportions(values, GROUPS, 'start')).toThrow(message);
  });

  it('needs two groups', () => {
    expect(() => checkProportions([1], ['a'], 'start')).toThrow(/1 group; mixing needs two/);
  });
});

describe('probe mixtures', () => {
  it('inverts W as a general solver does', () => {
    const random = createRandom(1);
    for (const [k, gamma] of [
      [2, 0.625],
      [3, 0.5],
      [7, 0.75],
      [9, 0.02],
    ]) {
      const mixtures = probeMixtures(k, gamma);
      const w = Matrix.zeros(k, k);
      for (let j = 0; j < k; j++) w.setRow(j, [...probeMixture(mixtures, j)]);
      const drops = Float64Array.from({ length: k * k }, () => random.normal());
      const found = solveProbes(mixtures, drops);
      for (let i = 0; i < k; i++) {
        const row = solve(w, Matrix.columnVector([...drops.subarray(i * k, (i + 1) * k)])).to1DArray();
        row.forEach((entry, j) => {
          expect(found[i * k + j]).toBeCloseTo(entry, 9);
        });
      }
      // Eigenvalues of W are 1 and, k - 1 times, gamma - c.
      expect(w.mmul(w.transpose()).trace()).toBeCloseTo(1 + (k - 1) / mixtures.condition ** 2, 10);
    }
  });

  it('takes drops as they are at gamma 1, and the diagonal alone where asked', () => {
    const drops = vector(1, 2, 3, 4);
    expect([...solveProbes(probeMixtures(2, 1), drops)]).toEqual([1, 2, 3, 4]);
    expect([...diagonalProbes(probeMixtures(2, 0.5 + 0.25), drops)]).toEqual([1 / 0.75, 0, 0, 4 / 0.75]);
  });

  it('refuses mixtures that are all alike', () => {
    expect(() => probeMixtures(4, 0.25)).toThrow(/W is singular/);
    expect(() => probeMixtures(3, 0)).toThrow(/gamma 0/);
    expect(() => probeMixtures(1, 0.5)).toThrow(/two or more/);
  });
});

describe('Aioli', () => {
  /** Probes of a world L <- L - A q. */
  const probesOf = (a: readonly number[], gamma: number, sweeps: number): Evidence => {
    const mixtures = probeMixtures(3, gamma);
    let losses = vector(5, 4, 6);
    const start = losses;
    const probes = Array.from({ length: 3 * sweeps }, (_, n) => {
      const q = probeMixture(mixtures, n % 3);
      losses = losses.map((loss, i) => loss - q.reduce((drop, share, j) => drop + a[3 * i + j] * share, 0));
      return { group: n % 3, losses };
    });
    return { kind: 'probes', start, probes };
  };
  const A = [0.03, 0.01, 0, 0.02, 0.03, -0.01, 0, 0, 0.04];

  it('finds the matrix of a linear world', () => {
    for (const gamma of [0.5, 0.75, 1]) {
      const { matrix, condition, signalToNoise } = create('aioli', { gamma, ema: null }).update(probesOf(A, gamma, 2));
      A.forEach((entry, e) => {
        expect(matrix?.[e]).toBeCloseTo(entry, 12);
      });
      expect(condition).toBeCloseTo(1 / (gamma - (1 - gamma) / 2), 12);
      expect(signalToNoise).toBeGreaterThan(1e6);
    }
  });

  it('accumulates weights or begins at uniform, as told', () => {
    const own = { eta: 0.5, ema: null, normalise: false, gamma: 0.5 };
    const accumulating = create('aioli', { ...own, memory: 'accumulate' });
    const anew = create('aioli', { ...own, memory: 'uniform' });
    const evidence = probesOf(A, 0.5, 1);
    const first = anew.update(evidence).proportions;
    expect([...anew.update(evidence).proportions]).toEqual([...first]);
    accumulating.update(evidence);
    const twice = accumulating.update(evidence).proportions;
    const expected = proportionsOf(first.map((share) => 2 * Math.log(share)));
    twice.forEach((share, j) => {
      expect(share).toBeCloseTo(expected[j], 12);
    });
  });

  it('averages matrices with those of before', () => {
    const mixer = create('aioli', { ema: 0.25, normalise: false, gamma: 0.5 });
    mixer.update(probesOf(A, 0.5, 1));
    const doubled = A.map((entry) => 2 * entry);
    const { used } = mixer.update(probesOf(doubled, 0.5, 1));
    A.forEach((entry, e) => {
      expect(used?.[e]).toBeCloseTo((0.75 * 2 + 0.25) * entry, 12);
    });
  });

  it('normalises to a sum of 1 without a negative entry', () => {
    const found = normaliseMatrix(vector(-1, 0, 2, 1));
    expect([...found]).toEqual([0, 1 / 6, 3 / 6, 2 / 6]);
    expect([...normaliseMatrix(new Float64Array(4))]).toEqual([0, 0, 0, 0]);
  });

  it('refuses losses that are no numbers and groups that were not probed', () => {
    const start = vector(1, 1, 1);
    const probe = (group: number, loss = 1) => ({ group, losses: vector(1, loss, 1) });
    const update = (probes: { group: number; losses: Float64Array }[]) => () =>
      create('aioli').update({ kind: 'probes', start, probes });
    expect(update([probe(0), probe(1, Number.NaN), probe(2)])).toThrow(/behind probe 1 \(b\): the loss of b is NaN/);
    expect(update([probe(0), probe(1)])).toThrow(/group c was not probed/);
    expect(update([probe(0), probe(1), probe(2), probe(0)])).toThrow(/probed 1 times and a 2 times/);
  });
});

describe('other rows', () => {
  it('all begin at uniform and stay on the simplex', () => {
    const sweepless = MIXING_METHODS.filter(({ name }) => name !== 'dml' && name !== 'skill-it');
    for (const { name } of sweepless) {
      expect([...create(name).proportions]).toEqual([...vector(1 / 3, 1 / 3, 1 / 3)]);
    }
    expect(() => mixingMethod('ailoi')).toThrow(/did you mean "aioli"/);
  });

  it('DoReMi keeps the score of a group that a batch lacks, and recommends the mean', () => {
    const mixer = create('doremi', { mu: 1, smoothing: 0 });
    const reference = vector(1, 1, 1);
    const first = mixer.update({ kind: 'excess', losses: vector(2, 0.5, 1), reference });
    expect([...(first.matrix ?? [])]).toEqual([1, 0, 0, 0, 0, 0, 0, 0, 1e-6]);
    const second = mixer.update({ kind: 'excess', losses: vector(1, 1.5, 1), reference });
    expect([...(second.matrix ?? [])]).toEqual([1, 0, 0, 0, 0.5, 0, 0, 0, 1e-6]);
    mixer.result().forEach((share, j) => {
      expect(share).toBeCloseTo((first.proportions[j] + second.proportions[j]) / 2, 14);
    });
  });

  it('DoGE clips its scores', () => {
    const scores = dogeScores(vector(-1, 1, 1e9), vector(1, 1, 1), { learningRate: 0.1, clip: 5 });
    expect(scores[0]).toBe(0);
    expect(scores[1]).toBeCloseTo(0.1, 6);
    expect(scores[2]).toBe(0.5);
    expect(() =>
      create('doge').update({
        kind: 'alignments',
        inner: vector(1, Number.NaN, 0),
        norms: vector(1, 1, 1),
        learningRate: 1,
      }),
    ).toThrow(/inner products: the loss of b is NaN/);
  });

  it('Skill-It reads its graph by the trained group and sums a window of losses', () => {
    const graph = vector(1, 0.5, 0, 0, 1, 0, 0, 0, 1);
    const mixer = create('skill-it', { eta: 1, window: 2 }, { graph });
    const first = proportionsOf([1.5, 1, 1]);
    expect([...mixer.proportions]).toEqual([...first]);
    for (const losses of [vector(9, 9, 9), vector(1, 2, 3), vector(0.5, 1, 0)])
      mixer.update({ kind: 'losses', losses });
    // Window: (1.5, 3, 3); training a helps a fully and b by half.
    const expected = proportionsOf([1.5 + 1.5, 3, 3]);
    mixer.proportions.forEach((share, j) => {
      expect(share).toBeCloseTo(expected[j], 14);
    });
    expect(() => create('skill-it')).toThrow(/needs a graph/);
  });

  it('learns the graph from short runs; edges of exactly 1 count half', () => {
    const found = learnedGraph(vector(4, 2), vector(2, 0, 3, 1));
    expect([...found]).toEqual([0.5, 0.5, 0.25, 0.5]);
  });
});

describe('fidelity', () => {
  it('does not see a constant on a row where it should not', () => {
    const a = vector(3, 1, 0, 1, 2, 5, 0, 1, 1);
    const shifted = a.map((entry, e) => entry + [10, -3, 0.5][Math.floor(e / 3)]);
    const found = matrixAgreement(a, shifted, 3);
    expect(found.centredCosine).toBeCloseTo(1, 12);
    expect(found.centredColumnCosine).toBeCloseTo(1, 12);
    expect(found.columnRankCorrelation).toBeCloseTo(1, 12);
    expect(found.cosine).toBeLessThan(0.9);
  });

  it('explains nothing by the mean and everything by the truth', () => {
    const measured = vector(1, 5, 2, 6, 3, 7);
    expect(predictionOf(measured, measured, 2)).toMatchObject({ mse: 0, r2: 1 });
    const byMean = predictionOf(new Float64Array(6).fill(4), measured, 2);
    expect(byMean.r2).toBeCloseTo(0, 14);
    expect(byMean.groupR2[0]).toBeLessThan(0);
  });
});
