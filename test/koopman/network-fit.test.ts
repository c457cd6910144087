import { describe, expect, it } from 'vitest';
import { batchGradients } from '../../src/koopman/fit.js';
import { fitKoopmanNetwork, lagrangianObjective } from '../../src/koopman/network-fit.js';
import { createPerceptron, perceptronParts } from '../../src/koopman/perceptron.js';
import { createRandom } from '../../src/random.js';
import { composeAutoencoder } from '../../src/training/autoencoder.js';
import { parseNetwork } from '../../src/training/network-text.js';
import { NETWORK_LOGITS } from '../../src/training/networks.js';
import { openOnnxStudent } from '../../src/training/onnx-student.js';
import type { FeatureBatch } from '../../src/training/types.js';

const [width, hidden, latent, batch, windowLength] = [3, 5, 4, 2, 9];
const settings = {
  variant: 'paper' as const,
  window: 2,
  temperature: 0.1,
  ridge: 0.1,
  weights: { alpha: 1.5, beta: 0.7, gamma: 0.3, reconstruction: 0 },
  latent,
  hidden,
  steps: 120,
  batch,
  windowLength,
  learningRate: 0.01,
  decayEvery: 0,
  clip: 1,
  seed: 4,
  logEvery: 10,
  network: `mlp:${hidden},tanh`,
  precision: 'f64' as const,
  threads: 1,
};

/** A slow rotation seen through three coordinates. */
function spiral(steps: number): Float64Array {
  return Float64Array.from({ length: 3 * steps }, (_, i) => {
    const t = Math.floor(i / 3);
    return [Math.cos(0.2 * t), Math.sin(0.2 * t) + 0.3, Math.sin(0.4 * t) * 2][i % 3];
  });
}

describe('Koopman representations by the training engine', () => {
  it('have the objective and the gradients of the built-in fit', async () => {
    const random = createRandom(1);
    const rows = batch * windowLength;
    const features = Float64Array.from({ length: rows * width }, () => random.normal());
    const scale = { mean: new Float64Array(width), inverse: new Float64Array(width).fill(1) };
    const options = { width, latent, seed: 3, precision: 'f64' as const, scale };
    const autoencoder = composeAutoencoder(parseNetwork(settings.network), options);
    const student = await openOnnxStudent<FeatureBatch>(autoencoder.model, {
      precision: 'f64',
      threads: 1,
      logits: NETWORK_LOGITS,
      train: autoencoder.parameters,
      dims: [width],
    });
    const set = student.parameters;
    const slice = (name: string, values: ArrayLike<number>): Float64Array => {
      const found = set.parameters.find((parameter) => parameter.name === name);
      if (!found) throw new Error(name);
      return Float64Array.from({ length: found.length }, (_, i) => values[found.offset + i]);
    };
    const transposed = (matrix: Float64Array, columns: number): Float64Array =>
      matrix.map(
        (_, i) => matrix[(i % (matrix.length / columns)) * columns + Math.floor(i / (matrix.length / columns))],
      );
    // The engine stores weights [out, in], the built-in fit [in, out].
    const fill = (prefix: string, input: number, output: number) => {
      const network = createPerceptron({ input, hidden, output }, createRandom(0));
      const parts = perceptronParts(network.shape, network.parameters);
      parts.first.set(transposed(slice(`${prefix}.layers.0.weight`, set.values), input));
      parts.firstBias.set(slice(`${prefix}.layers.0.bias`, set.values));
      parts.second.set(transposed(slice(`${prefix}.head.weight`, set.values), hidden));
      parts.secondBias.set(slice(`${prefix}.head.bias`, set.values));
      return network;
    };
    const encoder = fill('encoder', width, latent);
    const decoder = fill('decoder', latent, width);
    const expected = [encoder, decoder].map(({ parameters }) => new Float64Array(parameters.length));
    const { objective } = batchGradients({ encoder, decoder }, features, batch, settings, expected);

    const logged: number[] = [];
    const visit = lagrangianObjective({ width, ...scale }, settings, (step) => logged.push(step.objective)).begin(
      { features, rows, labels: new Int32Array(rows), indices: new Int32Array(rows) },
      { step: 1, epoch: 0 },
    );
    const data = { features, rows, labels: new Int32Array(rows), indices: new Int32Array(rows) };
    await student.accumulate(data, visit.visit, { wholeBatch: true });
    expect(logged[0]).toBeCloseTo(objective, 10);
    expect(visit.totals().sum / rows).toBeCloseTo(objective, 10);
    const shapes = { encoder: [width, latent], decoder: [latent, width] } as const;
    Object.entries(shapes).forEach(([prefix, [input, output]], n) => {
      const parts = perceptronParts({ input, hidden, output }, expected[n]);
      const own = (name: string): Float64Array =>
        slice(`${prefix}.${name}`, set.gradients).map((value) => value / rows);
      const pairs: [Float64Array, Float64Array][] = [
        [transposed(own('layers.0.weight'), input), parts.first],
        [own('layers.0.bias'), parts.firstBias],
        [transposed(own('head.weight'), hidden), parts.second],
        [own('head.bias'), parts.secondBias],
      ];
      for (const [found, wanted] of pairs) {
        for (const [i, value] of found.entries()) expect(value).toBeCloseTo(wanted[i], 9);
      }
    });
    await student.close();
  });

  it('learn, encode and decode', async () => {
    const trajectories = { data: spiral(200), width, lengths: [120, 80] };
    const fit = await fitKoopmanNetwork(trajectories, { ...settings, network: 'mlp:16-16,tanh', steps: 200 });
    const { steps } = fit;
    expect(steps[0].step).toBe(0);
    expect(steps[steps.length - 1].step).toBe(199);
    expect(steps[steps.length - 1].reconstruction).toBeLessThan(0.2 * steps[0].reconstruction);
    expect(fit.latents).toHaveLength(200 * latent);
    const decoded = await fit.decode(fit.latents);
    let error = 0;
    decoded.forEach((value, i) => {
      error += ((value - trajectories.data[i]) / fit.scale[i % width]) ** 2 / decoded.length;
    });
    expect(error).toBeLessThan(0.3);
    await fit.close();
  });

  it('refuse other networks and the objective of the released code', async () => {
    const trajectories = { data: spiral(40), width, lengths: [40] };
    await expect(fitKoopmanNetwork(trajectories, { ...settings, network: 'cnn:4' })).rejects.toThrow(/an mlp/);
    await expect(fitKoopmanNetwork(trajectories, { ...settings, variant: 'code' })).rejects.toThrow(
      /paper's objective/,
    );
    await expect(fitKoopmanNetwork(trajectories, { ...settings, windowLength: 50 })).rejects.toThrow(/has 50 steps/);
  });
});
