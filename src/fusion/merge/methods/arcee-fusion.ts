import { elementCount } from '../../../formats/tensor.js';
import { importances, importancesAtRanks, rowDivergences, takeImportant } from '../../../kernels/merge-importance.js';
import type { MergeMethod, MergeOutcome, MergeTask, TensorBytes } from '../types.js';
import { requireBase } from './method-inputs.js';
import { copyTensor } from './passthrough.js';

/** Interquartile ranges above the median from which on an element counts as changed. */
const RANGES = 1.5;

/** 0-based ranks of the quartiles in ascending order: floor(q (n - 1)). */
export function quartileRanks(elements: number): [number, number, number] {
  return [Math.floor(0.25 * (elements - 1)), Math.floor(0.5 * (elements - 1)), Math.floor(0.75 * (elements - 1))];
}

/** Softmax runs over the last axis: how many of its vectors a shape has. A scalar and a vector have one. */
export function softmaxRows(shape: readonly number[]): number {
  const elements = elementCount(shape);
  if (elements === 0) return 0;
  return shape.length <= 1 ? 1 : elements / shape[shape.length - 1];
}

/** Threshold on |b - a| KL(softmax b || softmax a): the median and 1.5 interquartile ranges of a tensor, exactly. */
export function fusionThreshold(
  base: TensorBytes,
  other: TensorBytes,
  divergences: Float64Array,
  threads: number,
): number {
  const ranks = quartileRanks(elementCount(base.shape));
  const [lower, median, upper] = importancesAtRanks(base, other, divergences, ranks, threads);
  return median + RANGES * (upper - lower);
}

/** What decides the fusion of two tensors, element by element: importance, threshold, and 1 where the other is taken. */
export function fusionParts(
  base: TensorBytes,
  other: TensorBytes,
): { importance: Float64Array; threshold: number; mask: Float64Array } {
  const divergences = rowDivergences(base, other, softmaxRows(base.shape));
  const importance = importances(base, other, divergences);
  const threshold = fusionThreshold(base, other, divergences, 1);
  return { importance, threshold, mask: importance.map((value) => Number(value >= threshold)) };
}

/** The other model's elements where it changed most, the base's elsewhere. */
function mergeArcee(task: MergeTask): MergeOutcome {
  if (task.inputs.length === 1) {
    copyTensor(task.inputs[0].tensor, task.output, task.threads);
    return { warnings: ['only one model has it; copied'] };
  }
  const { base, others } = requireBase(task);
  const elements = elementCount(task.output.shape);
  if (elements === 0) return {};
  const other = others[0].tensor;
  const divergences = rowDivergences(base.tensor, other, softmaxRows(task.output.shape), task.threads);
  const threshold = fusionThreshold(base.tensor, other, divergences, task.threads);
  const taken = takeImportant(base.tensor, other, divergences, threshold, task.output, task.threads);
  return {
    keptDensity: task.inputs.map((input) => (input.isBase ? 1 - taken / elements : taken / elements)),
    figures: { threshold },
    warnings: Number.isNaN(threshold) ? ['NaN or infinite weights leave no threshold; the base is kept'] : [],
  };
}

export const arceeFusion: MergeMethod = {
  name: 'arcee_fusion',
  summary: 'Elements of the other model where it differs most from the base, by difference and divergence of rows.',
  reference: 'Arcee AI, Arcee Fusion (2024), as in mergekit; no paper',
  base: 'required',
  models: { least: 1, most: 1 },
  perModel: [],
  global: [],
  taskVectors: false,
  span: () => 'tensor',
  // Divergences of rows of a hundred elements or more, counts of digits, sorted copies of small tensors.
  workBytes: (elements) => elements / 12 + 6 * 65536 * 8,
  merge: mergeArcee,
};
