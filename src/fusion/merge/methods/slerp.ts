import { elementCount } from '../../../formats/tensor.js';
import { allElements, combineElements, gramOfElements } from '../../../kernels/merge-dense.js';
import type { MergeMethod, MergeOutcome, MergeTask } from '../types.js';
import { requireBase, taskNumber } from './method-inputs.js';
import { copyTensor } from './passthrough.js';
import { arcCoefficients, clampedCosine, type Interpolation } from './spherical-interpolation.js';

/** Above this |cosine| the straight line stands in for the arc. */
const COLLINEAR = 0.9995;
/** A vector no longer than this counts as it is, not as a direction. */
const NO_DIRECTION = 1e-8;

/**
 * Coefficients of v0 and v1 at t from their dot products (v0 v0, v0 v1, v1 v1): sin((1 - t) phi) / sin phi and
 * sin(t phi) / sin phi, on a straight line where |cos phi| > 0.9995, opposite vectors included. (Shoemake 1985.)
 */
export function slerpCoefficients(dots: ArrayLike<number>, t: number): Interpolation {
  const [norm0, norm1] = [Math.sqrt(dots[0]), Math.sqrt(dots[2])];
  const lengths = (norm0 > NO_DIRECTION ? norm0 : 1) * (norm1 > NO_DIRECTION ? norm1 : 1);
  const cosine = clampedCosine(dots[1] / lengths);
  const angle = Math.acos(cosine);
  if (Math.abs(cosine) > COLLINEAR) return { coefficients: [1 - t, t], cosine, angle, linear: true };
  return { coefficients: arcCoefficients(angle, t), cosine, angle, linear: false };
}

/** On the arc from the base to the other model at t, each tensor one vector. */
function mergeSlerp(task: MergeTask): MergeOutcome {
  if (task.inputs.length === 1) {
    copyTensor(task.inputs[0].tensor, task.output, task.threads);
    return { warnings: ['only one model has it; copied'] };
  }
  const { base, others } = requireBase(task);
  const inputs = [base.tensor, others[0].tensor];
  const groups = allElements(elementCount(task.output.shape));
  const dots = gramOfElements(inputs, groups, { threads: task.threads });
  const { coefficients, cosine, angle, linear } = slerpCoefficients(dots, taskNumber(task, 't'));
  combineElements(inputs, Float64Array.from(coefficients), task.output, groups, { threads: task.threads });
  return {
    weights: task.inputs.map((input) => coefficients[input.isBase ? 0 : 1]),
    figures: { cosine, angle_radians: angle, linear: Number(linear) },
  };
}

export const slerp: MergeMethod = {
  name: 'slerp',
  summary: 'Two models on the arc between them, tensor by tensor.',
  reference: 'Shoemake, Animating rotation with quaternion curves (SIGGRAPH 1985)',
  base: 'required',
  models: { least: 1, most: 1 },
  perModel: [],
  global: [
    { name: 't', kind: 'number', required: true, summary: 'Place on the arc: 0 is the base model, 1 the other.' },
  ],
  taskVectors: false,
  span: () => 'tensor',
  workBytes: () => 0,
  merge: mergeSlerp,
};
