import { InputError } from '../../../errors.js';
import { elementCount } from '../../../formats/tensor.js';
import { allElements, combineElements } from '../../../kernels/merge-dense.js';
import type { MergeMethod, MergeOutcome, MergeTask } from '../types.js';
import { numbersOf, taskBoolean } from './method-inputs.js';

/** Sum of w_i theta_i, over the sum of the weights unless `normalize` is off. */
function mergeLinear(task: MergeTask): MergeOutcome {
  const weights = numbersOf(task.inputs, 'weight');
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const magnitude = weights.reduce((sum, weight) => sum + Math.abs(weight), 0);
  const normalize = taskBoolean(task, 'normalize');
  if (normalize && total === 0) {
    throw new InputError(`tensor ${task.name}: the weights sum to 0; set other weights, or normalize: false`);
  }
  const coefficients = normalize ? weights.map((weight) => weight / total) : weights;
  combineElements(
    task.inputs.map((input) => input.tensor),
    Float64Array.from(coefficients),
    task.output,
    allElements(elementCount(task.output.shape)),
    { threads: task.threads },
  );
  if (!normalize) return { weights: coefficients };
  return { weights: coefficients, smallestDivisor: Math.abs(total), figures: { absolute_weights: magnitude } };
}

export const linear: MergeMethod = {
  name: 'linear',
  summary: 'Weighted average of the models.',
  reference: 'Wortsman et al., Model soups (ICML 2022)',
  base: 'none',
  models: { least: 1 },
  perModel: [{ name: 'weight', kind: 'number', required: true, summary: 'Weight of the model.' }],
  global: [{ name: 'normalize', kind: 'boolean', default: true, summary: 'Divide by the sum of the weights.' }],
  taskVectors: false,
  span: () => 'element',
  workBytes: () => 0,
  merge: mergeLinear,
};
