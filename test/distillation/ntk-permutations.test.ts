import { describe, expect, it } from 'vitest';
import { ensembleLaw, NTK_PARAMETRISATIONS, permutedBits } from '../../src/distillation/ntk-kernels.js';
import { measureEnsemble, testInputs } from '../../src/distillation/ntk-measurement.js';
import {
  exactProbability,
  modelsForAllInputs,
  modelsNeeded,
  permutationLaw,
  unionFailure,
} from '../../src/distillation/ntk-permutations.js';
import { defaultLearningRate, simulateNetworks } from '../../src/distillation/ntk-simulation.js';
import { createRandom } from '../../src/random.js';

const SCALES = [
  { sigmaW: 1, sigmaB: 0 },
  { sigmaW: 1.4, sigmaB: 0.5 },
];

describe('the law of networks trained on a permutation', () => {
  it('is the same in closed form and by matrices, with biases too', () => {
    const k = 7;
    const permutation = createRandom(4).permutation(k);
    for (const scales of SCALES) {
      for (const parametrisation of NTK_PARAMETRISATIONS) {
        for (let ones = 1; ones <= k; ones++) {
          const input = new Float64Array(k).fill(1 / Math.sqrt(ones), 0, ones);
          const law = ensembleLaw(input, permutation, parametrisation, scales);
          const closed = permutationLaw(k, ones, parametrisation, scales);
          const bits = permutedBits(input, permutation);
          expect(bits.reduce((sum, bit) => sum + bit)).toBe(ones);
          for (const [j, bit] of bits.entries()) {
            expect(law.mean[j]).toBeCloseTo(bit === 1 ? closed.meanOn : (closed.meanOff ?? Number.NaN), 12);
          }
          expect(law.covariance[0]).toBeCloseTo(closed.variance, 12);
        }
      }
    }
  });

  it('needs the published numbers of networks', () => {
    const needed = (k: number, parametrisation: 'ntk' | 'standard'): number | undefined =>
      modelsNeeded(permutationLaw(k, 2, parametrisation), 0.1).gaussianUnion;
    expect([5, 10, 20, 40, 80].map((k) => needed(k, 'ntk'))).toEqual([208, 338, 587, 1128, 2328]);
    expect([5, 10, 20].map((k) => needed(k, 'standard'))).toEqual([28, 59, 123]);
  });

  it('finds the smallest number, and none for a training input or where there is no gap', () => {
    const law = permutationLaw(9, 3, 'ntk');
    const { gaussianUnion = 0 } = modelsNeeded(law, 0.05);
    expect(unionFailure(law, gaussianUnion)).toBeLessThanOrEqual(0.05);
    expect(unionFailure(law, gaussianUnion - 1)).toBeGreaterThan(0.05);
    expect(1 - exactProbability(law, gaussianUnion)).toBeLessThanOrEqual(0.05);
    expect(modelsNeeded(permutationLaw(9, 1, 'ntk'), 0.05)).toEqual({ gaussianUnion: undefined, tailBound: undefined });
    expect(permutationLaw(4, 4, 'ntk').meanOff).toBeUndefined();
    expect(modelsNeeded(permutationLaw(1, 1, 'ntk'), 0.05).gaussianUnion).toBe(1);
    expect(() => permutationLaw(4, 5, 'ntk')).toThrow(/1 to 4 ones, not 5/);
    expect(() => modelsNeeded(law, 1)).toThrow(/delta is 1/);
    expect(() => permutedBits([1, 0], [0, 0])).toThrow(/entry 1/);
  });

  it('asks for more networks when every input counts, about as the square of k', () => {
    const all = [6, 12, 24].map((k) => modelsForAllInputs(k, 0.1, 'ntk'));
    const [a, b, c] = all.map(({ gaussianUnion }) => gaussianUnion ?? 0);
    expect(a).toBeGreaterThan(modelsNeeded(permutationLaw(6, 2, 'ntk'), 0.1).gaussianUnion ?? 0);
    expect(b / a).toBeGreaterThan(1.6);
    expect(c / b).toBeGreaterThan(b / a);
    for (const { gaussianUnion = 0, tailBound = 0 } of all) expect(tailBound).toBeGreaterThan(gaussianUnion);
  });
});

describe('simulated networks', () => {
  const k = 5;
  const ones = 2;
  const inputs = testInputs(k, ones, 100, createRandom(1));
  const permutation = createRandom(2).permutation(k);

  it('follow the law in both parametrisations, whatever range they are trained in', () => {
    expect(inputs).toHaveLength(10 * k);
    for (const parametrisation of NTK_PARAMETRISATIONS) {
      for (const scales of SCALES) {
        const base = { k, width: 600, parametrisation, scales };
        const settings = { ...base, learningRate: defaultLearningRate(base), steps: 400, residual: 1e-4 };
        const run = (from: number, to: number) =>
          simulateNetworks({ ...settings, permutation, inputs, seed: 7, from, to }, () => undefined);
        const all = run(0, 40);
        expect(Array.from(run(13, 15).outputs)).toEqual(
          Array.from(all.outputs.subarray(13 * inputs.length, 15 * inputs.length)),
        );
        for (const residual of all.residuals) expect(residual).toBeLessThanOrEqual(1e-4);
        const law = permutationLaw(k, ones, parametrisation, scales);
        const found = measureEnsemble(all.outputs, inputs, permutation, law, 0.1);
        for (const figure of [found.meanOn, found.meanOff, found.varianceOn, found.varianceOff]) {
          expect(Math.abs(figure?.z ?? 0)).toBeLessThan(4.5);
        }
        const counts = found.histogram.on.reduce((sum, count) => sum + count);
        expect(counts).toBe(40 * 10 * ones);
        expect(found.accuracy.at(-1)?.models).toBe(40);
      }
    }
  });

  it('name the network that diverges', () => {
    const base = { k, width: 50, parametrisation: 'ntk' as const, scales: SCALES[0] };
    const settings = { ...base, learningRate: 1e200, steps: 400, residual: 1e-4, permutation, inputs, seed: 7 };
    expect(() => simulateNetworks({ ...settings, from: 3, to: 4 }, () => undefined)).toThrow(/network 3 \(k = 5\) div/);
  });

  it('are tested at different inputs', () => {
    const drawn = testInputs(12, 6, 300, createRandom(3));
    const rows = Array.from({ length: 300 }, (_, i) => drawn.subarray(i * 12, (i + 1) * 12).join());
    expect(new Set(rows).size).toBe(300);
    for (let i = 0; i < drawn.length; i += 12) {
      expect(drawn.subarray(i, i + 12).reduce((sum, value) => sum + value * value, 0)).toBeCloseTo(1, 12);
    }
  });
});
