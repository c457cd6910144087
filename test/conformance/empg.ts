import { empgSteps, scoreNorms } from '../../src/policy/empg.js';
import type { Json } from './harness.js';
import { float64, number, numbers, shapeOf, tensor } from './tensors.js';

function scoreNormCase(logits: Json): unknown {
  const [rows, size] = shapeOf(logits, 'logits');
  const { expectedSquaredNorm, renyi2 } = scoreNorms(float64(logits, 'logits'), size);
  return { expected_sq_norm: tensor([rows], expectedSquaredNorm), renyi2: tensor([rows], renyi2) };
}

export function run(inputs: { [key: string]: Json }): unknown {
  if (inputs.logits !== undefined) return scoreNormCase(inputs.logits);
  if (!Array.isArray(inputs.step_entropy)) throw new TypeError('step_entropy is not a list');
  const trajectories = inputs.step_entropy.map((steps) => numbers(steps, 'step_entropy'));
  const offsets = new Int32Array(trajectories.length + 1);
  trajectories.forEach((steps, i) => {
    offsets[i + 1] = offsets[i] + steps.length;
  });
  const steps = empgSteps(
    Float64Array.from(trajectories.flat()),
    offsets,
    Float64Array.from(numbers(inputs.traj_advantage, 'traj_advantage')),
    {
      k: number(inputs.k, 'k'),
      kFuture: number(inputs.k_future, 'k_future'),
      zeta: number(inputs.zeta, 'zeta'),
      eps: number(inputs.eps, 'eps'),
    },
  );
  const shape = [offsets[trajectories.length]];
  return {
    h_norm: tensor(shape, steps.normalised),
    g: tensor(shape, steps.scale),
    bonus: tensor(shape, steps.bonus),
    a_mod: tensor(shape, steps.modulated),
    a_final: tensor(shape, steps.final),
  };
}
