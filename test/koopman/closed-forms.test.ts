import { describe, expect, it } from 'vitest';
import { entropyRegularisedAllocation, waterFilling } from '../../src/koopman/allocation.js';
import { gaussianFit } from '../../src/koopman/audit.js';
import { codeCoherenceLoss, paperCoherence } from '../../src/koopman/coherence.js';
import { latentInformation } from '../../src/koopman/gaussian-information.js';
import { consistencyLoss, koopmanMatrix } from '../../src/koopman/koopman-matrix.js';
import { latentEntropy } from '../../src/koopman/latent-entropy.js';
import { koopmanModes } from '../../src/koopman/modes.js';
import { rolloutErrors } from '../../src/koopman/rollout.js';
import { sequencesOf } from '../../src/koopman/sequences.js';
import { createRandom } from '../../src/random.js';

const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);

describe('allocation of a budget', () => {
  const gains = Float64Array.of(5, 2, 0.4, 0.01);

  it('sums to the budget, and meets the conditions of its optimum', () => {
    for (const budget of [0.05, 1, 20]) {
      const filled = waterFilling(gains, budget);
      expect(sum(filled.power)).toBeCloseTo(budget, 10);
      filled.power.forEach((p, i) => {
        if (p > 0) expect(p + 1 / gains[i]).toBeCloseTo(filled.level, 10);
        else expect(filled.level).toBeLessThanOrEqual(1 / gains[i] + 1e-12);
      });
      const regularised = entropyRegularisedAllocation(gains, budget, 0.3);
      expect(sum(regularised.power)).toBeCloseTo(budget, 9);
      regularised.power.forEach((p, i) => {
        const slope = gains[i] / (2 * (1 + gains[i] * p)) - (0.3 / budget) * (Math.log(p / budget) + 1);
        expect(slope).toBeCloseTo(regularised.level, 8);
      });
    }
  });

  it('becomes water-filling as gamma falls, and uniform as it grows', () => {
    const filled = waterFilling(gains, 1).power;
    const nearly = entropyRegularisedAllocation(gains, 1, 1e-9).power;
    for (const [i, p] of filled.entries()) expect(nearly[i]).toBeCloseTo(p, 5);
    for (const p of entropyRegularisedAllocation(gains, 1, 1e6).power) expect(p).toBeCloseTo(0.25, 5);
    expect(waterFilling(Float64Array.of(0, 0), 1).effectiveDimension).toBeCloseTo(2, 10);
  });
});

describe('linear-Gaussian information', () => {
  it('is that of a scalar process', () => {
    // z' = a z + w: I over n steps is ½ log(1 + a²ⁿ C / M), M = q (1 − a²ⁿ) / (1 − a²).
    const [a, q, c] = [0.8, 0.3, 2];
    const system = { width: 1, koopman: Float64Array.of(a), noise: Float64Array.of(q), covariance: Float64Array.of(c) };
    for (const lag of [1, 2, 7]) {
      const noise = (q * (1 - a ** (2 * lag))) / (1 - a * a);
      const found = latentInformation(system, lag);
      expect(found.accumulatedNoise[0]).toBeCloseTo(noise, 12);
      expect(found.latentNats).toBeCloseTo(0.5 * Math.log(1 + (a ** (2 * lag) * c) / noise), 12);
      expect(found.gains[0]).toBeCloseTo(a ** (2 * lag) / noise, 12);
    }
  });

  it('names the smallest eigenvalue of a singular noise', () => {
    const system = {
      width: 2,
      koopman: Float64Array.of(1, 0, 0, 1),
      noise: Float64Array.of(1, 1, 1, 1),
      covariance: Float64Array.of(1, 0, 0, 1),
    };
    expect(() => latentInformation(system, 1)).toThrow(/noise of 1 step is singular: its smallest eigenvalue/);
  });

  it('is recovered from a long simulated trajectory', () => {
    const random = createRandom(7);
    const steps = 40000;
    const z = new Float64Array(steps * 2);
    for (let t = 1; t < steps; t++) {
      z[2 * t] = 0.9 * z[2 * t - 2] + 0.2 * z[2 * t - 1] + 0.5 * random.normal();
      z[2 * t + 1] = 0.6 * z[2 * t - 1] + 0.3 * random.normal();
    }
    const sequences = sequencesOf(z, 2, [steps]);
    const c = koopmanMatrix(sequences);
    expect(c[0]).toBeCloseTo(0.9, 1);
    expect(c[2]).toBeCloseTo(0.2, 1);
    const { system, noiseRidge } = gaussianFit(sequences, c);
    expect(noiseRidge).toBe(0);
    expect(system.noise[0]).toBeCloseTo(0.25, 2);
    expect(system.noise[3]).toBeCloseTo(0.09, 2);
  });
});

describe('Koopman matrix', () => {
  it('recovers a rotation, its modes and its rollouts', async () => {
    const angle = 0.3;
    const z = Float64Array.from({ length: 400 }, (_, i) =>
      i % 2 === 0 ? 100 * Math.cos((angle * i) / 2) : 100 * Math.sin((angle * (i - 1)) / 2),
    );
    const sequences = sequencesOf(z, 2, [200]);
    const c = koopmanMatrix(sequences, 1e-9);
    expect(consistencyLoss(sequences, c)).toBeLessThan(1e-15 * 1e4);
    const modes = koopmanModes(c, 2);
    expect(modes.map(({ modulus }) => modulus)).toEqual([expect.closeTo(1, 9), expect.closeTo(1, 9)]);
    expect(Math.abs(modes[0].argument)).toBeCloseTo(angle, 9);
    const [error] = await rolloutErrors({ data: z, width: 2, lengths: [200] }, z, 2, c, [20], (rows) => rows);
    expect(error.predictions).toBe(180);
    expect(error.nrmse).toBeLessThan(1e-8);
  });

  it('solves short and long sequences alike', () => {
    // The two forms of the ridge solution agree where both apply.
    const random = createRandom(8);
    const z = Float64Array.from({ length: 4 * 4 }, () => random.normal());
    const next = Float64Array.from({ length: 4 * 4 }, () => random.normal());
    const square = koopmanMatrix(sequencesOf(z, 4, [4], next));
    const padded = (rows: Float64Array): Float64Array => Float64Array.from([...rows, 0, 0, 0, 0]);
    const tall = koopmanMatrix(sequencesOf(padded(z), 4, [5], padded(next)));
    for (const [i, value] of square.entries()) expect(tall[i]).toBeCloseTo(value, 10);
    const wide = (rows: Float64Array): Float64Array => rows.subarray(0, 8);
    const short = koopmanMatrix(sequencesOf(wide(z), 4, [2], wide(next)));
    const zeros = Float64Array.from([...wide(z), ...new Float64Array(12)]);
    const after = Float64Array.from([...wide(next), ...new Float64Array(12)]);
    const long = koopmanMatrix(sequencesOf(zeros, 4, [5], after));
    for (const [i, value] of short.entries()) expect(long[i]).toBeCloseTo(value, 10);
  });
});

describe('entropy and coherence at their limits', () => {
  it('is 0 for equal latents and log width for an isotropic cloud', () => {
    expect(latentEntropy(new Float64Array(12).fill(3), 4, 3)).toMatchObject({ entropyNats: 0, collapsed: true });
    const axes = Float64Array.of(1, 0, -1, 0, 0, 1, 0, -1);
    expect(latentEntropy(axes, 4, 2).effectiveDimension).toBeCloseTo(2, 12);
    // Fewer latents than dimensions: the dual has the same spectrum.
    const random = createRandom(9);
    const few = Float64Array.from({ length: 3 * 5 }, () => random.normal());
    const padded = latentEntropy(few, 3, 5);
    const { entropyNats } = latentEntropy(Float64Array.from([...few, ...few]), 6, 5);
    expect(padded.entropyNats).toBeCloseTo(entropyNats, 10);
  });

  it('has no anchor in sequences of at most twice the window', () => {
    const sequences = sequencesOf(new Float64Array(10).fill(1), 2, [5]);
    const options = { window: 2, temperature: 0.1 };
    expect(codeCoherenceLoss(sequences, options)).toMatchObject({ nats: 0, anchors: 0 });
    expect(paperCoherence(sequences, options)).toMatchObject({ nats: 0, anchors: 0 });
  });

  it('is the log of the number of steps when all latents are alike', () => {
    const sequences = sequencesOf(new Float64Array(18).fill(1), 2, [9]);
    const options = { window: 1, temperature: 0.3 };
    expect(paperCoherence(sequences, options).nats).toBeCloseTo(-Math.log(8), 12);
  });
});
