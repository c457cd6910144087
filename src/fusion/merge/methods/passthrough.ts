import { elementCount } from '../../../formats/tensor.js';
import { allElements, combineElements } from '../../../kernels/merge-dense.js';
import type { MergeMethod, MergeOutcome, MergeTask, TensorBytes } from '../types.js';

/** A tensor in another's element type: the same bytes where the types agree, NaNs included. */
export function copyTensor(source: TensorBytes, target: TensorBytes, threads: number): void {
  if (source.dtype === target.dtype) target.bytes.set(source.bytes);
  else combineElements([source], Float64Array.of(1), target, allElements(elementCount(target.shape)), { threads });
}

/** theta, times `scale` where there is one. */
function mergePassthrough(task: MergeTask): MergeOutcome {
  const [input] = task.inputs;
  const scale = input.parameters.scale;
  if (typeof scale !== 'number' || scale === 1) {
    copyTensor(input.tensor, task.output, task.threads);
    return {};
  }
  const groups = allElements(elementCount(task.output.shape));
  combineElements([input.tensor], Float64Array.of(scale), task.output, groups, { threads: task.threads });
  return { weights: [scale] };
}

export const passthrough: MergeMethod = {
  name: 'passthrough',
  summary: 'Tensors of one model as they are; for stacking layers of several.',
  reference: 'mergekit; no paper',
  base: 'none',
  models: { least: 1, most: 1 },
  perModel: [{ name: 'scale', kind: 'number', summary: 'Factor of the tensor; none: an exact copy.' }],
  global: [],
  taskVectors: false,
  span: () => 'element',
  workBytes: () => 0,
  merge: mergePassthrough,
};
