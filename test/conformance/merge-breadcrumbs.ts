import { breadcrumbs, crumbs } from '../../src/fusion/merge/methods/breadcrumbs.js';
import { breadcrumbsTies } from '../../src/fusion/merge/methods/breadcrumbs-ties.js';
import { sparseTaskVectors } from '../../src/fusion/merge/methods/task-vectors.js';
import type { Json } from './harness.js';
import { forModels, parametersOf, stacked } from './merge-sparse-keys.js';
import { merged, stored, storedList, taskOf } from './merge-task.js';
import { keysOf, numbers, tensor } from './tensors.js';

/** A parameter of the entry's own, as `density2` for `sparsified_density2`, else the plain one. */
function valueFor(inputs: { [key: string]: Json }, name: string, key: string): Json {
  const own = new RegExp(`${name}\\d+`).exec(key)?.[0];
  return own !== undefined && own in inputs ? inputs[own] : inputs[name];
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const base = stored(inputs.base, 'base');
  const models = storedList(inputs.models, 'models');
  const weights = numbers(inputs.weight, 'weight');
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const densities = forModels(valueFor(inputs, 'density', key), 'density', models.length);
    const gammas = forModels(valueFor(inputs, 'gamma', key), 'gamma', models.length);
    const perModel = weights.map((weight, j) => ({ weight, density: densities[j], gamma: gammas[j] }));
    const settings = { base, perModel, parameters: parametersOf(key) };
    if (key.startsWith('sparsified')) {
      const vectors = sparseTaskVectors(taskOf(breadcrumbs, models, settings), crumbs.sparsify);
      result[key] = tensor([models.length, ...base.shape], stacked(vectors));
    } else if (key.startsWith('breadcrumbs')) {
      const method = key.startsWith('breadcrumbs_ties') ? breadcrumbsTies : breadcrumbs;
      result[key] = merged(method, models, settings).tensor;
    }
  }
  return result;
}
