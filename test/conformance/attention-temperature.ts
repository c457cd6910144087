import { attentionOfScores, temperedScores } from '../../src/entropy/attention-temperature.js';
import {
  fusedScaledFfn,
  fuseFfn,
  powerIteration,
  scaledFfn,
  spectrallyNormalised,
  spectralNorm,
  type WeightMatrix,
  weightNormalised,
} from '../../src/entropy/ffn-normalisation.js';
import type { Json } from './harness.js';
import { float64, number, shapeOf, tensor } from './tensors.js';

function matrix(value: Json, name: string): WeightMatrix {
  const [rows, columns] = shapeOf(value, name);
  return { data: float64(value, name), rows, columns };
}

const matrixTensor = ({ data, rows, columns }: WeightMatrix): unknown => tensor([rows, columns], data);

export function run(inputs: { [key: string]: Json }): unknown {
  const [heads, queryCount, headDim] = shapeOf(inputs.q, 'q');
  const keyCount = shapeOf(inputs.k, 'k')[1];
  const scores = temperedScores({
    queries: float64(inputs.q, 'q'),
    keys: float64(inputs.k, 'k'),
    heads,
    queryCount,
    keyCount,
    headDim,
    temperatures: float64(inputs.temperature, 'temperature'),
    causal: inputs.causal === true,
  });
  const { attention, rows } = attentionOfScores(scores, { heads, queries: queryCount, keys: keyCount });
  const means = Array.from({ length: heads }, (_, head) => {
    const own = rows.entropyNats.subarray(head * queryCount, (head + 1) * queryCount);
    return own.reduce((sum, entropy) => sum + entropy, 0) / queryCount;
  });
  const weight = matrix(inputs.W, 'W');
  const start = float64(inputs.spectral_u0, 'spectral_u0');
  const { sigma } = powerIteration(weight, start, number(inputs.spectral_iterations, 'spectral_iterations'));
  const x = matrix(inputs.x, 'x');
  const inward = matrix(inputs.W_in, 'W_in');
  const outward = matrix(inputs.W_out, 'W_out');
  const scales = { alpha: number(inputs.alpha, 'alpha'), beta: number(inputs.beta, 'beta') };
  return {
    row_entropy_closed_form: tensor([heads, queryCount], rows.entropyNats),
    head_entropy: tensor([heads], means),
    attention: tensor([heads, queryCount, keyCount], attention),
    W_weight_norm: matrixTensor(weightNormalised(weight, float64(inputs.weight_norm_gain, 'weight_norm_gain'))),
    sigma_power_iteration: sigma,
    W_spectral_norm: matrixTensor(spectrallyNormalised(weight, sigma)),
    sigma_exact: spectralNorm(weight),
    ffn_scaled: matrixTensor(scaledFfn(x, inward, outward, scales)),
    ffn_scaled_fused: matrixTensor(fusedScaledFfn(x, fuseFfn(inward, outward), scales)),
  };
}
