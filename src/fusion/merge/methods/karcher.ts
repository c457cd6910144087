import { elementCount } from '../../../formats/tensor.js';
import { allElements, combineElements, gramOfElements } from '../../../kernels/merge-dense.js';
import type { MergeMethod, MergeOutcome, MergeTask } from '../types.js';
import { taskNumber } from './method-inputs.js';
import { copyTensor } from './passthrough.js';
import { clampedCosine, dotOfCombinations, normOfCombination, pairIndex } from './spherical-interpolation.js';

/** Directions with a smaller sine to the mean at an angle near pi are opposite to it: no way to them is the shortest. */
const OPPOSITE_SINE = 1e-7;

export interface KarcherResult {
  /** Of the vectors as they are. */
  readonly coefficients: readonly number[];
  readonly iterations: number;
  /** Length of the last tangent step, radians. */
  readonly tangentNorm: number;
  /** Directions that were opposite to the mean in the last step, and so left out of it. */
  readonly opposite: number;
}

/** One step: sum over i of alpha (theta_i / sin theta_i)(u_i - cos theta_i u), coefficients of the units. */
function tangentStep(
  gram: ArrayLike<number>,
  mean: readonly number[],
  tol: number,
): { tangent: number[]; opposite: number } {
  const alpha = 1 / mean.length;
  const tangent = mean.map(() => 0);
  let opposite = 0;
  mean.forEach((_, i) => {
    const cosine = clampedCosine(mean.reduce((sum, entry, j) => sum + entry * gram[pairIndex(mean.length, i, j)], 0));
    const angle = Math.acos(cosine);
    if (angle < tol) return;
    const sine = Math.sin(angle);
    if (sine < OPPOSITE_SINE && cosine < 0) {
      opposite++;
      return;
    }
    const factor = alpha * (angle / sine);
    tangent[i] += factor;
    for (let j = 0; j < mean.length; j++) tangent[j] -= factor * cosine * mean[j];
  });
  return { tangent, opposite };
}

/**
 * Coefficients of x_i from their Gram matrix: the Karcher mean with equal weights of the directions of all vectors longer
 * than `tol`, times the mean length of all vectors. All of it happens in the span of the vectors, where lengths and
 * angles follow from the Gram matrix.
 */
export function karcherCoefficients(gram: ArrayLike<number>, n: number, maxIter: number, tol: number): KarcherResult {
  const norms = Array.from({ length: n }, (_, i) => Math.sqrt(gram[pairIndex(n, i, i)]));
  const valid = norms.flatMap((norm, i) => (norm > tol ? [i] : []));
  const none = { iterations: 0, tangentNorm: 0, opposite: 0 };
  if (valid.length === 0) return { coefficients: norms.map(() => 0), ...none };
  const k = valid.length;
  const units = new Float64Array((k * (k + 1)) / 2);
  for (let i = 0; i < k; i++) {
    for (let j = i; j < k; j++) {
      const dot = gram[pairIndex(n, valid[i], valid[j])];
      units[pairIndex(k, i, j)] = dot / (norms[valid[i]] * norms[valid[j]]);
    }
  }
  let mean = valid.map(() => 1 / k);
  const length = normOfCombination(units, mean);
  mean = length < tol ? mean.map((_, i) => (i === 0 ? 1 : 0)) : mean.map((entry) => entry / length);
  let [iterations, tangentNorm, opposite] = [0, 0, 0];
  for (; iterations < maxIter; iterations++) {
    const step = tangentStep(units, mean, tol);
    const { tangent } = step;
    opposite = step.opposite;
    tangentNorm = Math.sqrt(Math.max(0, dotOfCombinations(units, tangent, tangent)));
    if (tangentNorm < tol) break;
    const [cosine, sine] = [Math.cos(tangentNorm), Math.sin(tangentNorm) / tangentNorm];
    mean = mean.map((entry, i) => cosine * entry + sine * tangent[i]);
    const norm = normOfCombination(units, mean);
    if (norm > tol) mean = mean.map((entry) => entry / norm);
  }
  const scale = norms.reduce((sum, norm) => sum + norm / n, 0);
  const coefficients = norms.map(() => 0);
  valid.forEach((place, i) => {
    coefficients[place] = (scale * mean[i]) / norms[place];
  });
  return { coefficients, iterations, tangentNorm, opposite };
}

function mergeKarcher(task: MergeTask): MergeOutcome {
  if (task.inputs.length === 1) {
    copyTensor(task.inputs[0].tensor, task.output, task.threads);
    return {};
  }
  const inputs = task.inputs.map((input) => input.tensor);
  const groups = allElements(elementCount(task.output.shape));
  const gram = gramOfElements(inputs, groups, { threads: task.threads });
  const tol = taskNumber(task, 'tol');
  const maxIter = taskNumber(task, 'max_iter');
  const found = karcherCoefficients(gram, inputs.length, maxIter, tol);
  combineElements(inputs, Float64Array.from(found.coefficients), task.output, groups, { threads: task.threads });
  const warnings: string[] = [];
  if (found.opposite > 0) warnings.push('a model points away from the mean, which is then not unique');
  if (found.tangentNorm >= tol && maxIter > 0) warnings.push(`no convergence in ${maxIter} iterations`);
  return {
    weights: found.coefficients,
    figures: { iterations: found.iterations, tangent_norm_radians: found.tangentNorm },
    warnings,
  };
}

export const karcher: MergeMethod = {
  name: 'karcher',
  summary: 'Karcher mean of the directions on the sphere, with the mean length.',
  reference: 'Karcher, Riemannian center of mass (1977)',
  base: 'none',
  models: { least: 1 },
  perModel: [],
  global: [
    { name: 'max_iter', kind: 'integer', default: 10, minimum: 0, summary: 'Most steps towards the mean.' },
    { name: 'tol', kind: 'number', default: 1e-5, minimum: 0, summary: 'Step in radians at which it stops.' },
  ],
  taskVectors: false,
  span: () => 'tensor',
  workBytes: () => 0,
  merge: mergeKarcher,
};
