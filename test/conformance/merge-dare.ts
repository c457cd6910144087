import { dareLinear } from '../../src/fusion/merge/methods/dare-linear.js';
import { dareTies } from '../../src/fusion/merge/methods/dare-ties.js';
import { packMask } from '../../src/fusion/merge/methods/random-mask.js';
import { byMask, type Rescale } from '../../src/fusion/merge/methods/sparsify.js';
import { mergeTaskVectors, type Sparsify, sparseTaskVectors } from '../../src/fusion/merge/methods/task-vectors.js';
import type { Json } from './harness.js';
import { forModels, parametersOf, stacked } from './merge-sparse-keys.js';
import { merged, stored, storedList, taskOf } from './merge-task.js';
import { float64, keysOf, numbers, tensor } from './tensors.js';

function rescaleOf(key: string): Rescale {
  if (key.includes('no_rescale')) return 'none';
  return key.includes('inverse') ? 'inverse' : 'l1';
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const base = stored(inputs.base, 'base');
  const models = storedList(inputs.models, 'models');
  if (!Array.isArray(inputs.masks)) throw new TypeError('masks is not a list');
  const masks = inputs.masks.map((mask, j) => packMask(float64(mask, `masks[${j}]`)));
  const densities = forModels(inputs.density, 'density', models.length);
  const perModel = numbers(inputs.weight, 'weight').map((weight, j) => ({ weight, density: densities[j] }));
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const given: Sparsify = (target, input) => {
      const j = Number(/\d+$/.exec(input.model)?.[0]);
      return byMask(target, masks[j], densities[j], rescaleOf(key));
    };
    const consensus = key.startsWith('dare_ties');
    const method = consensus ? dareTies : dareLinear;
    const settings = { base, perModel, parameters: parametersOf(key) };
    if (key.startsWith('sparsified')) {
      const vectors = sparseTaskVectors(taskOf(method, models, settings), given);
      result[key] = tensor([models.length, ...base.shape], stacked(vectors));
    } else if (key.startsWith('dare_')) {
      const masked = {
        ...method,
        merge: (task: ReturnType<typeof taskOf>) => mergeTaskVectors(task, { sparsify: given, consensus }),
      };
      result[key] = merged(masked, models, settings).tensor;
    }
  }
  return result;
}
