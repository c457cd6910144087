import { InputError } from '../../../errors.js';
import { elementCount } from '../../../formats/tensor.js';
import { allElements, combineElements, gramOfElements } from '../../../kernels/merge-dense.js';
import type { MergeMethod, MergeOutcome, MergeTask } from '../types.js';
import { numbersOf, splitBase, taskBoolean, taskNumber } from './method-inputs.js';
import { copyTensor } from './passthrough.js';
import { dotOfCombinations, normOfCombination, pairIndex } from './spherical-interpolation.js';

export interface MultislerpResult {
  /** Of the vectors as they are; undefined where their weighted directions cancel. */
  readonly coefficients: readonly number[] | undefined;
  /** |sum w_i u_i|: 1 where all vectors point one way. */
  readonly meanNorm: number;
  /** |sum w_i t_i| in the tangent space at the mean, radians. */
  readonly tangentNorm: number;
}

/**
 * Coefficients of x_i from their Gram matrix: u_i = x_i / (|x_i| + eps), m the normalised sum of w_i u_i,
 * r = sum of w_i (u_i - (u_i m) m), and [m cos(|r| + eps) + r sin(|r| + eps) / (|r| + eps)] times the sum of w_i |x_i|.
 */
export function multislerpCoefficients(
  gram: ArrayLike<number>,
  weights: readonly number[],
  eps: number,
): MultislerpResult {
  const n = weights.length;
  const norms = weights.map((_, i) => Math.sqrt(gram[pairIndex(n, i, i)]));
  const unit = norms.map((norm) => 1 / (norm + eps));
  const sum = weights.map((weight, i) => weight * unit[i]);
  const meanNorm = normOfCombination(gram, sum);
  if (!(meanNorm >= eps)) return { coefficients: undefined, meanNorm, tangentNorm: 0 };
  const mean = sum.map((entry) => entry / meanNorm);
  const along = weights.map((_, i) => {
    const direction = weights.map((__, j) => (i === j ? unit[i] : 0));
    return dotOfCombinations(gram, direction, mean);
  });
  const projected = weights.reduce((total, weight, i) => total + weight * along[i], 0);
  const tangent = sum.map((entry, i) => entry - projected * mean[i]);
  const tangentNorm = normOfCombination(gram, tangent);
  const angle = tangentNorm + eps;
  const scale = weights.reduce((total, weight, i) => total + weight * norms[i], 0);
  const coefficients = mean.map((m, i) => scale * (m * Math.cos(angle) + tangent[i] * (Math.sin(angle) / angle)));
  return { coefficients, meanNorm, tangentNorm };
}

/** |sum w_i u_i| below this is too near to rounding of the Gram matrix: it is taken from the vectors themselves. */
const NEARLY_CANCELLED = 1e-5;

/** Weights as the method uses them. @throws InputError when they are to be normalised and sum to 0 */
function usedWeights(task: MergeTask, weights: readonly number[]): readonly number[] {
  if (!taskBoolean(task, 'normalize_weights')) return weights;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (total === 0) {
    throw new InputError(`tensor ${task.name}: the weights sum to 0; set other weights, or normalize_weights: false`);
  }
  return weights.map((weight) => weight / total);
}

function mergeMultislerp(task: MergeTask): MergeOutcome {
  const { base, others } = splitBase(task);
  if (others.length === 1) {
    copyTensor(others[0].tensor, task.output, task.threads);
    return {};
  }
  const weights = usedWeights(task, numbersOf(others, 'weight'));
  const eps = taskNumber(task, 'eps');
  const inputs = (base === undefined ? others : [base, ...others]).map((input) => input.tensor);
  const groups = allElements(elementCount(task.output.shape));
  const options = { relative: base !== undefined, threads: task.threads };
  const gram = gramOfElements(inputs, groups, options);
  let found = multislerpCoefficients(gram, weights, eps);
  const warnings: string[] = [];
  if (found.meanNorm < NEARLY_CANCELLED) {
    const directions = weights.map((weight, i) => weight / (Math.sqrt(gram[pairIndex(weights.length, i, i)]) + eps));
    const [square] = gramOfElements(inputs, groups, { ...options, combination: Float64Array.from(directions) });
    if (Math.sqrt(square) < eps) found = { ...found, coefficients: undefined, meanNorm: Math.sqrt(square) };
  }
  let { coefficients } = found;
  if (coefficients === undefined) {
    if (others.length > 2) {
      throw new InputError(
        `tensor ${task.name}: the weighted directions of the models cancel (length ${found.meanNorm}); set other weights`,
      );
    }
    warnings.push('the weighted directions of the models cancel; interpolated on a straight line');
    coefficients = weights;
  }
  combineElements(
    inputs,
    Float64Array.from(base === undefined ? coefficients : [1, ...coefficients]),
    task.output,
    groups,
    options,
  );
  return { figures: { mean_direction_norm: found.meanNorm, tangent_norm_radians: found.tangentNorm }, warnings };
}

export const multislerp: MergeMethod = {
  name: 'multislerp',
  summary: 'Weighted mean of directions on the sphere, with the mean length; of models or of task vectors.',
  reference: 'Goddard, Multi-SLERP (2024), as in mergekit',
  base: 'optional',
  models: { least: 1 },
  perModel: [{ name: 'weight', kind: 'number', required: true, summary: 'Weight of the model.' }],
  global: [
    { name: 'normalize_weights', kind: 'boolean', default: true, summary: 'Divide weights by their sum.' },
    { name: 'eps', kind: 'number', default: 1e-8, minimum: 0, summary: 'Least length of a direction.' },
  ],
  taskVectors: false,
  span: () => 'tensor',
  workBytes: () => 0,
  merge: mergeMultislerp,
};
