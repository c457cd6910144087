/**
 * Koopman representations trained by the training engine (Cheng et al. 2025; specification of entropy analyses, section E): the
 * experiment of koopman-information.mjs with deeper encoders. Claims, at this size: the latent mutual information and the von
 * Neumann entropy help rollouts of deep encoders as they help a shallow one.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { latentEntropy } from '../../dist/src/koopman/latent-entropy.js';
import { fitKoopmanNetwork } from '../../dist/src/koopman/network-fit.js';
import { rolloutErrors } from '../../dist/src/koopman/rollout.js';

const SEEDS = [1, 2];
const HORIZONS = [5, 20];
const NETWORKS = ['mlp:64,tanh', 'mlp:64-64,tanh', 'mlp:64-64,silu'];
const SETTINGS = [
  { alpha: 0, gamma: 0 },
  { alpha: 1, gamma: 0 },
  { alpha: 1, gamma: 0.2 },
];

/** Lorenz-63 by steps of 0.02 after a transient, standardised as a whole. */
function lorenz(starts, length) {
  const derivative = ([x, y, z]) => [10 * (y - x), x * (28 - z) - y, x * y - (8 / 3) * z];
  const moved = (state, slope, share) => state.map((value, i) => value + share * 0.02 * slope[i]);
  const next = (state) => {
    const a = derivative(state);
    const b = derivative(moved(state, a, 0.5));
    const c = derivative(moved(state, b, 0.5));
    const d = derivative(moved(state, c, 1));
    return state.map((value, i) => value + (0.02 / 6) * (a[i] + 2 * b[i] + 2 * c[i] + d[i]));
  };
  const data = new Float64Array(starts.length * length * 3);
  starts.forEach((start, s) => {
    let state = start;
    for (let t = -500; t < length; t++) {
      if (t >= 0) data.set(state, (s * length + t) * 3);
      state = next(state);
    }
  });
  for (let j = 0; j < 3; j++) {
    const rows = data.length / 3;
    let [mean, square] = [0, 0];
    for (let i = j; i < data.length; i += 3) mean += data[i] / rows;
    for (let i = j; i < data.length; i += 3) square += (data[i] - mean) ** 2 / rows;
    for (let i = j; i < data.length; i += 3) data[i] = (data[i] - mean) / Math.sqrt(square);
  }
  return { data, width: 3, lengths: starts.map(() => length) };
}

const training = lorenz(
  [...Array(8)].map((_, i) => [1 + i / 3, 1 - i / 5, 20 + i]),
  500,
);
const held = lorenz(
  [...Array(4)].map((_, i) => [-3 + i / 2, 2 + i / 7, 24 - i]),
  500,
);

const header = ['network', 'alpha', 'gamma', 'rmse_5', 'rmse_20', 'effective_dimension'];
const rows = [];
for (const network of NETWORKS) {
  for (const { alpha, gamma } of SETTINGS) {
    const found = [];
    for (const seed of SEEDS) {
      const fit = await fitKoopmanNetwork(training, {
        variant: 'paper',
        window: 2,
        temperature: 0.1,
        ridge: 0.1,
        weights: { alpha, beta: 1, gamma, reconstruction: 0 },
        latent: 16,
        hidden: 64,
        steps: 1200,
        batch: 16,
        windowLength: 16,
        learningRate: 1e-3,
        decayEvery: 0,
        clip: 1,
        seed,
        logEvery: 1200,
        network,
        precision: 'f32',
        threads: 2,
      });
      const z = await fit.encode(held.data);
      const errors = await rolloutErrors(held, z, 16, fit.koopman, HORIZONS, (latents) => fit.decode(latents), 5);
      const { effectiveDimension } = latentEntropy(z, z.length / 16, 16, 'paper');
      found.push([...errors.map(({ rmse }) => rmse), effectiveDimension]);
      await fit.close();
    }
    const means = found[0].map((_, i) => found.reduce((sum, one) => sum + one[i], 0) / found.length);
    rows.push([network, alpha, gamma, ...means.map((value) => value.toFixed(3))]);
    console.log(rows.at(-1).join(' '));
  }
}
mkdirSync('docs/papers', { recursive: true });
const lines = [header, ...rows].map((row) =>
  row.map((cell) => (String(cell).includes(',') ? `"${cell}"` : cell)).join(','),
);
writeFileSync('docs/papers/koopman-networks.csv', `${lines.join('\n')}\n`);
