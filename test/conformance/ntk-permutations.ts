import { ensembleLaw, type NtkParametrisation, permutedBits } from '../../src/distillation/ntk-kernels.js';
import { modelsNeeded, permutationLaw } from '../../src/distillation/ntk-permutations.js';
import type { Json } from './harness.js';
import { float64, int32, number, numbers, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }): unknown {
  const k = number(inputs.k, 'k');
  const permutation = int32(inputs.permutation_rows, 'permutation_rows');
  const points = float64(inputs.test_inputs, 'test_inputs');
  const [rows] = shapeOf(inputs.test_inputs, 'test_inputs');
  const delta = number(inputs.delta, 'delta');
  const side = (parametrisation: NtkParametrisation): object => {
    const law = ensembleLaw(points, permutation, parametrisation);
    return {
      train_kernel: tensor([k, k], law.trainKernel),
      test_train_kernel: tensor([rows, k], law.testTrainKernel),
      mean: tensor([rows, k], law.mean),
      variance_matrix: tensor([rows, rows], law.covariance),
      closed_form: numbers(inputs.ones, 'ones').map((ones) => {
        const { meanOn, meanOff, variance } = permutationLaw(k, ones, parametrisation);
        const { gaussianUnion, tailBound } = modelsNeeded(permutationLaw(k, ones, parametrisation), delta);
        return {
          ones,
          mean_on: meanOn,
          mean_off: meanOff ?? null,
          variance,
          models_gaussian_union: gaussianUnion ?? null,
          models_tail_bound: tailBound ?? null,
        };
      }),
    };
  };
  return {
    ntk: side('ntk'),
    nngp_last_layer: side('standard'),
    nngp_train: tensor([k, k], ensembleLaw(points, permutation, 'ntk').nngpTrain),
    correct_output: tensor([rows, k], permutedBits(points, permutation)),
  };
}
