import { elementCount } from '../../../formats/tensor.js';
import { measureTaskVector, mixTaskVectors, varianceCut, varianceMask } from '../../../kernels/merge-sparse.js';
import type { MergeMethod, MergeOutcome, MergeTask } from '../types.js';
import { taskNumber, taskString } from './method-inputs.js';
import { keepBase, maskBytes, nanWarnings, perInput, selectionBytes, taskVectorsOf } from './task-vectors.js';

/** mergekit's guards: weights are uniform below it, and no divisor is smaller. */
const MERGEKIT_GUARD = 1e-6;

interface Selected {
  /** Of the selected elements; absent when all are. */
  readonly mask?: Uint8Array;
  /** Each model's sum of delta^2 over the selected elements. */
  readonly squares: ArrayLike<number>;
  readonly selected: number;
}

/** The share of elements whose task vectors differ most between the models. */
function select(task: MergeTask, count: number, share: number): Selected {
  const { others: _, ...vectors } = taskVectorsOf(task);
  const { base, models, wide } = vectors;
  if (share >= 1) {
    const squares = models.map((model) => measureTaskVector({ base, model, wide }, count, {}, task.threads).squares);
    return { squares, selected: count };
  }
  const { cut, selected } = varianceCut(vectors, count, Math.max(0, share), task.threads);
  return { ...varianceMask(vectors, count, cut, task.threads), selected };
}

/** eta_j: mean squares over their sum; equal where the sum is not above `epsilon`. */
export function varianceWeights(squares: ArrayLike<number>, count: number, epsilon: number): number[] {
  const means = Array.from(squares, (square) => square / count);
  const total = means.reduce((sum, mean) => sum + mean, 0);
  if (total === 0 || total < epsilon) return means.map(() => 1 / means.length);
  return means.map((mean) => mean / total);
}

/**
 * Selects the elements of largest variance between the task vectors, calculates a weight for each model from what is left of
 * it, erases what is against the sign of the (unweighted) sum, and averages the rest.
 */
function mergeSce(task: MergeTask): MergeOutcome {
  const kept = keepBase(task);
  if (kept) return kept;
  const { others, base, models, wide } = taskVectorsOf(task);
  const count = elementCount(task.output.shape);
  const mergekit = task.variant === 'mergekit';
  const { mask, squares, selected } = select(task, count, taskNumber(task, 'select_topk'));
  const given = task.parameters.sce_eps;
  const epsilon = typeof given === 'number' ? given : mergekit ? MERGEKIT_GUARD : 0;
  const weights = varianceWeights(squares, count, epsilon);
  const sparsity = mask === undefined || taskString(task, 'sce_variant') === 'fusechat' ? {} : { mask };
  const figures = mixTaskVectors(
    base,
    models.map((tensor, j) => ({ tensor, sparsity, weight: weights[j], coefficient: weights[j], election: 1 })),
    {
      wide,
      consensus: 'sum',
      divideByAgreeing: true,
      ...(mergekit ? { leastDivisor: MERGEKIT_GUARD } : {}),
      smallDivisor: 0,
      divisor: 1,
      factor: 1,
      ontoBase: true,
    },
    task.output,
    count,
    task.threads,
  );
  const shares = Array.from(figures.kept, (elements) => elements / count);
  return {
    weights: perInput(task, weights, 1),
    keptDensity: perInput(task, shares, 1),
    ...(Number.isFinite(figures.smallestDivisor) ? { smallestDivisor: figures.smallestDivisor } : {}),
    figures: { selected_share: selected / count },
    warnings: nanWarnings(others, figures.nans),
  };
}

export const sce: MergeMethod = {
  name: 'sce',
  summary: 'Elements that differ most between the models, weighted by how far each has moved; minority signs erased.',
  reference: 'Wan et al., FuseChat (2024), select, calculate, erase',
  base: 'required',
  models: { least: 1 },
  perModel: [],
  global: [
    {
      name: 'select_topk',
      kind: 'number',
      default: 1,
      summary: 'Share of the elements with a variance between the models that is merged, the largest variances first.',
    },
    {
      name: 'sce_eps',
      kind: 'number',
      minimum: 0,
      summary: 'Weights are equal where the mean squares sum to less (default 0; 1e-6 in the variant mergekit).',
    },
    {
      name: 'sce_variant',
      kind: 'string',
      default: 'mergekit',
      choices: ['mergekit', 'fusechat'],
      summary: 'Elements not selected stay at the base, or (fusechat) only do not count in the weights.',
    },
    { name: 'int8_mask', kind: 'boolean', default: false, summary: 'Of no effect on values: masks are bits.' },
  ],
  taskVectors: true,
  span: () => 'tensor',
  // One mask, whatever the number of models.
  workBytes: (elements) => selectionBytes(elements) + maskBytes(elements, 1),
  merge: mergeSce,
};
