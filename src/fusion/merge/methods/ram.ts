import { elementCount } from '../../../formats/tensor.js';
import { type ActiveCounts, activeCounts, mixActive } from '../../../kernels/merge-sparse.js';
import type { MergeMethod, MergeOutcome, MergeTask, ParameterDeclaration } from '../types.js';
import { taskNumber } from './method-inputs.js';
import { keepBase, nanWarnings, perInput, taskVectorsOf } from './task-vectors.js';

export const ACTIVE_EPSILON: ParameterDeclaration = {
  name: 'epsilon',
  kind: 'number',
  default: 1e-5,
  minimum: 0,
  summary: 'Elements of a task vector count as active above this magnitude.',
};

/** Merges with each model's factor of what it alone has changed, from how many elements it shares. */
export function mergeActive(task: MergeTask, factorsOf: (counts: ActiveCounts) => Float64Array): MergeOutcome {
  const kept = keepBase(task);
  if (kept) return kept;
  const { others, ...vectors } = taskVectorsOf(task);
  const count = elementCount(task.output.shape);
  const epsilon = taskNumber(task, 'epsilon');
  const counts = activeCounts(vectors, count, epsilon, task.threads);
  const factors = factorsOf(counts);
  mixActive(vectors, count, epsilon, factors, task.output, task.threads);
  const shares = others.map((_, j) => (counts.shared[j] + counts.unique[j]) / count);
  const unique = counts.unique.reduce((sum, elements) => sum + elements, 0) / count;
  return {
    weights: perInput(task, factors, 1),
    keptDensity: perInput(task, shares, 1),
    figures: { unique_share: unique },
    warnings: nanWarnings(others, counts.nans),
  };
}

export const ram: MergeMethod = {
  name: 'ram',
  summary: 'What several models have changed is averaged among them; what one alone has changed stays whole.',
  reference: 'Reinforced Agent Merging (arXiv 2601.13572, 2026)',
  base: 'required',
  models: { least: 1 },
  perModel: [],
  global: [ACTIVE_EPSILON],
  taskVectors: true,
  span: () => 'element',
  workBytes: () => 0,
  merge: (task) => mergeActive(task, ({ unique }) => new Float64Array(unique.length).fill(1)),
};
