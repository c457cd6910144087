import { describe, expect, it } from 'vitest';
import { codeCoherenceLoss, paperCoherence } from '../../src/koopman/coherence.js';
import { batchGradients } from '../../src/koopman/fit.js';
import { koopmanMatrix } from '../../src/koopman/koopman-matrix.js';
import { type LagrangianSettings, lagrangianGradients, lagrangianTerms } from '../../src/koopman/lagrangian.js';
import { latentEntropy, latentEntropyGradient } from '../../src/koopman/latent-entropy.js';
import { createPerceptron } from '../../src/koopman/perceptron.js';
import { type Sequences, sequencesOf } from '../../src/koopman/sequences.js';
import { createRandom } from '../../src/random.js';

const WIDTH = 3;
const LENGTHS = [7, 6];
const SETTINGS: LagrangianSettings = {
  variant: 'paper',
  window: 2,
  temperature: 0.5,
  ridge: 0.1,
  weights: { alpha: 1.3, beta: 0.7, gamma: 0.4, reconstruction: 0.1 },
};

function latents(seed: number): Float64Array {
  const random = createRandom(seed);
  const rows = LENGTHS.reduce((sum, length) => sum + length, 0);
  return Float64Array.from({ length: rows * WIDTH }, () => random.normal());
}

/** Central differences of a function of the stacked latents. */
function differences(z: Float64Array, value: (z: Float64Array) => number, step = 1e-6): Float64Array {
  return z.map((entry, i) => {
    const up = z.slice();
    const down = z.slice();
    up[i] = entry + step;
    down[i] = entry - step;
    return (value(up) - value(down)) / (2 * step);
  });
}

function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, digits = 6): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) expect(actual[i]).toBeCloseTo(expected[i], digits);
}

/** Gradients of z and of next, put back on the stacked rows that they come from. */
function stacked(lengths: readonly number[], z: readonly Float64Array[], next: readonly Float64Array[]): Float64Array {
  const result = new Float64Array(lengths.reduce((sum, length) => sum + length, 0) * WIDTH);
  let at = 0;
  lengths.forEach((length, s) => {
    z[s].forEach((value, i) => {
      result[at + i] += value;
    });
    next[s].forEach((value, i) => {
      result[at + WIDTH + i] += value;
    });
    at += length * WIDTH;
  });
  return result;
}

const sequencesAt = (z: Float64Array): Sequences => sequencesOf(z, WIDTH, LENGTHS);

describe('gradients against central differences', () => {
  it.each(['paper', 'code'] as const)('of the entropy, %s', (variant) => {
    const z = latents(1);
    const rows = z.length / WIDTH;
    const gradient = latentEntropyGradient(z, rows, WIDTH, variant);
    expectClose(
      gradient,
      differences(z, (moved) => latentEntropy(moved, rows, WIDTH, variant).entropyNats),
    );
  });

  it.each([
    ['paper', 'cosine', 'sequence'],
    ['paper', 'inner-product', 'minibatch'],
    ['code', 'cosine', 'sequence'],
    ['code', 'inner-product', 'sequence'],
  ] as const)('of the coherence, %s, %s, %s', (variant, similarity, denominator) => {
    const z = latents(2);
    const options = { window: 1, temperature: 0.8, similarity, denominator };
    const measure = variant === 'paper' ? paperCoherence : codeCoherenceLoss;
    const found = measure(sequencesAt(z), options, true).gradients ?? [];
    const none = LENGTHS.map(() => new Float64Array(0));
    expectClose(
      stacked(LENGTHS, found, none),
      differences(z, (moved) => measure(sequencesAt(moved), options).nats),
    );
  });

  it.each(['paper', 'code'] as const)('of the Lagrangian with C held fixed, %s', (variant) => {
    const z = latents(3);
    const settings = { ...SETTINGS, variant };
    const koopman = koopmanMatrix(sequencesAt(z));
    const { z: own, next } = lagrangianGradients(sequencesAt(z), settings, koopman);
    expectClose(
      stacked(LENGTHS, own, next),
      differences(z, (moved) => lagrangianTerms(sequencesAt(moved), settings, koopman).lagrangian),
      5,
    );
  });

  it('of encoder and decoder', () => {
    // Without consistency the objective does not depend on C, which the gradient holds fixed.
    const settings = { ...SETTINGS, weights: { ...SETTINGS.weights, beta: 0 }, windowLength: 6, latent: WIDTH };
    const encoder = createPerceptron({ input: 2, hidden: 4, output: WIDTH }, createRandom(4));
    const decoder = createPerceptron({ input: WIDTH, hidden: 4, output: 2 }, createRandom(5));
    const random = createRandom(6);
    const inputs = Float64Array.from({ length: 2 * 6 * 2 }, () => random.normal());
    const zeros = (): Float64Array[] => [encoder, decoder].map(({ parameters }) => new Float64Array(parameters.length));
    const gradients = zeros();
    batchGradients({ encoder, decoder }, inputs, 2, settings, gradients);
    const objective = (e: Float64Array, d: Float64Array): number =>
      batchGradients(
        { encoder: { ...encoder, parameters: e }, decoder: { ...decoder, parameters: d } },
        inputs,
        2,
        settings,
        zeros(),
      ).objective;
    expectClose(
      gradients[0],
      differences(encoder.parameters, (moved) => objective(moved, decoder.parameters)),
      5,
    );
    expectClose(
      gradients[1],
      differences(decoder.parameters, (moved) => objective(encoder.parameters, moved)),
      5,
    );
  });
});
