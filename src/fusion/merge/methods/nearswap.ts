import { swapNear } from '../../../kernels/merge-dense.js';
import type { MergeMethod, MergeOutcome, MergeTask } from '../types.js';
import { requireBase, taskNumber } from './method-inputs.js';
import { copyTensor } from './passthrough.js';

/** Where the other model is near the base, the other: g b + (1 - g) a with g = clamp(t / max(|a - b|, 1e-6), 0, 1). */
function mergeNearswap(task: MergeTask): MergeOutcome {
  const { base, others } = requireBase(task);
  if (others.length === 0) {
    copyTensor(base.tensor, task.output, task.threads);
    return { warnings: ['only the base model has it; copied'] };
  }
  swapNear(base.tensor, others[0].tensor, taskNumber(task, 't'), task.output, task.threads);
  return {};
}

export const nearswap: MergeMethod = {
  name: 'nearswap',
  summary: 'The other model where it is within t of the base, fading out with the distance beyond.',
  reference: 'alchemonaut, QuartetAnemoi (2024), as in mergekit; no paper',
  base: 'required',
  models: { least: 1, most: 1 },
  perModel: [],
  global: [{ name: 't', kind: 'number', required: true, summary: 'Distance up to which the other model is taken.' }],
  taskVectors: false,
  span: () => 'element',
  workBytes: () => 0,
  merge: mergeNearswap,
};
