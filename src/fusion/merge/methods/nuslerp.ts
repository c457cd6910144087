import { elementCount } from '../../../formats/tensor.js';
import {
  allElements,
  combineElements,
  type ElementGroups,
  gramOfElements,
  groupCount,
} from '../../../kernels/merge-dense.js';
import type { MergeMethod, MergeOutcome, MergeTask } from '../types.js';
import { numbersOf, splitBase, taskBoolean } from './method-inputs.js';
import { copyTensor } from './passthrough.js';
import { arcCoefficients, clampedCosine, type Interpolation } from './spherical-interpolation.js';

/** Lengths of vectors count as no less. */
const LEAST_NORM = 1e-7;
/** Below this |sine| the straight line stands in for the arc. */
const COLLINEAR_SINE = 1e-8;
/** Weights whose sum is nearer to 0 count half each. */
const LEAST_WEIGHT = 1e-6;

/** t = w2 / (w1 + w2), one half where the sum is nearly 0. */
export function interpolationFactor(weights: readonly number[]): number {
  const total = weights[0] + weights[1];
  return Math.abs(total) < LEAST_WEIGHT ? 0.5 : weights[1] / total;
}

/** Coefficients of v0 and v1 at t from their dot products (v0 v0, v0 v1, v1 v1). */
export function nuslerpCoefficients(dots: ArrayLike<number>, t: number): Interpolation {
  const [norm0, norm1] = [dots[0], dots[2]].map((square) => Math.max(Math.sqrt(square), LEAST_NORM));
  const cosine = clampedCosine(dots[1] / (norm0 * norm1));
  const angle = Math.acos(cosine);
  const linear = 1 - cosine * cosine <= COLLINEAR_SINE * COLLINEAR_SINE;
  return { coefficients: linear ? [1 - t, t] : arcCoefficients(angle, t), cosine, angle, linear };
}

/** Which elements of a tensor are one vector: all, those along the last axis, or with `rowWise` those along the first. */
export function vectorGroups(shape: readonly number[], flatten: boolean, rowWise: boolean): ElementGroups {
  const elements = elementCount(shape);
  if (flatten || shape.length <= 1 || elements === 0) return allElements(elements);
  if (rowWise) return { rows: shape[0], columns: elements / shape[0], along: 'columns' };
  const columns = shape[shape.length - 1];
  return { rows: elements / columns, columns, along: 'rows' };
}

/** Each vector on the arc between two models, or between their differences from the base. */
function mergeNuslerp(task: MergeTask): MergeOutcome {
  if (task.inputs.length === 1) {
    copyTensor(task.inputs[0].tensor, task.output, task.threads);
    return { warnings: ['only one model has it; copied'] };
  }
  const { base, others } = splitBase(task);
  const t = interpolationFactor(numbersOf(others, 'weight'));
  const shape = task.output.shape;
  const groups = vectorGroups(shape, taskBoolean(task, 'nuslerp_flatten'), taskBoolean(task, 'nuslerp_row_wise'));
  const inputs = (base === undefined ? others : [base, ...others]).map((input) => input.tensor);
  const options = { relative: base !== undefined, threads: task.threads };
  const gram = gramOfElements(inputs, groups, options);
  const count = groupCount(groups);
  const first = inputs.length - 2;
  const coefficients = new Float64Array(inputs.length * count).fill(1);
  let [cosines, lines] = [0, 0];
  for (let group = 0; group < count; group++) {
    const found = nuslerpCoefficients(gram.subarray(3 * group, 3 * group + 3), t);
    coefficients[first * count + group] = found.coefficients[0];
    coefficients[(first + 1) * count + group] = found.coefficients[1];
    cosines += found.cosine;
    lines += Number(found.linear);
  }
  combineElements(inputs, coefficients, task.output, groups, options);
  return { figures: { t, mean_cosine: cosines / count, linear: lines / count } };
}

export const nuslerp: MergeMethod = {
  name: 'nuslerp',
  summary: 'Two models on the arc between them, or between their task vectors; whole tensors or single vectors.',
  reference: 'mergekit; Shoemake (SIGGRAPH 1985)',
  base: 'optional',
  models: { least: 2, most: 2 },
  perModel: [{ name: 'weight', kind: 'number', required: true, summary: 'Weight of the model; t = w2 / (w1 + w2).' }],
  global: [
    { name: 'nuslerp_flatten', kind: 'boolean', default: true, summary: 'A tensor is one vector.' },
    {
      name: 'nuslerp_row_wise',
      kind: 'boolean',
      default: false,
      summary: 'Without flattening: vectors run along the first axis, not along the last.',
    },
  ],
  taskVectors: false,
  span: (parameters) =>
    parameters.nuslerp_flatten === false && parameters.nuslerp_row_wise !== true ? 'row' : 'tensor',
  // Dot products and coefficients of rows or columns of some thousand elements, about 100 bytes each.
  workBytes: (elements) => elements / 16,
  merge: mergeNuslerp,
};
