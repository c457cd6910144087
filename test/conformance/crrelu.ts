import { activationOf, likeliestBranch } from '../../src/distillation/activation-bases.js';
import {
  firstVariation,
  functionalGrid,
  numericDerivative,
  perturbedEntropy,
} from '../../src/distillation/activation-functional.js';
import { crrelu, crreluGradients } from '../../src/distillation/crrelu.js';
import { normalDensity } from '../../src/distillation/input-density.js';
import type { Json } from './harness.js';
import { float64, number, numbers, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }): unknown {
  return inputs.x === undefined ? search(inputs) : forwardBackward(inputs);
}

function forwardBackward(inputs: { [key: string]: Json }): unknown {
  const shape = shapeOf(inputs.x, 'x');
  const x = float64(inputs.x, 'x');
  const eps = number(inputs.eps, 'eps');
  const gradients = crreluGradients(x, eps, float64(inputs.grad_output, 'grad_output'));
  return { y: tensor(shape, crrelu(x, eps)), grad_x: tensor(shape, gradients.x), grad_eps: gradients.epsilon };
}

function search(inputs: { [key: string]: Json }): unknown {
  const activation = activationOf(String(inputs.base));
  const density = normalDensity();
  const nodes = { values: float64(inputs.nodes, 'nodes'), weights: float64(inputs.weights, 'weights') };
  const grid = functionalGrid(activation, likeliestBranch(activation, density), density, nodes);
  const sweep = numbers(inputs.eps, 'eps').map((eps) => perturbedEntropy(grid, eps));
  return {
    inverse: tensor(
      [nodes.values.length],
      grid.points.map(({ inverse }) => inverse[0]),
    ),
    eta: tensor(
      [nodes.values.length],
      grid.points.map(({ eta }) => eta),
    ),
    H0: perturbedEntropy(grid, 0).nats,
    first_variation: firstVariation(grid),
    numeric_derivative: numericDerivative(grid),
    sweep: tensor(
      [sweep.length, 3],
      sweep.flatMap(({ eps, nats, increasing }) => [eps, nats, increasing ? 1 : 0]),
    ),
  };
}
