import { agreement, sparseTaskVectors } from '../../src/fusion/merge/methods/task-vectors.js';
import { ties, trim } from '../../src/fusion/merge/methods/ties.js';
import type { Json } from './harness.js';
import { forModels, parametersOf, stacked } from './merge-sparse-keys.js';
import { merged, stored, storedList, taskOf } from './merge-task.js';
import { keysOf, numbers, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const base = stored(inputs.base, 'base');
  const models = storedList(inputs.models, 'models');
  const weights = numbers(inputs.weight, 'weight');
  const densities = forModels(inputs.density, 'density', models.length);
  const perModel = weights.map((weight, j) => ({ weight, density: densities[j] }));
  const settings = { base, perModel };
  const vectors = sparseTaskVectors(taskOf(ties, models, settings), trim);
  const shape = [models.length, ...base.shape];
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    if (key === 'sparsified') result[key] = tensor(shape, stacked(vectors));
    else if (key === 'agree_mask') result[key] = booleans(shape, stacked(agreement(vectors, weights, 'sum')));
    else if (key === 'kept') result[key] = keptElements(models, settings);
    else if (key.startsWith('merged')) {
      result[key] = merged(ties, models, { ...settings, parameters: parametersOf(key) }).tensor;
    }
  }
  return result;
}

function booleans(shape: readonly number[], bits: readonly number[]): unknown {
  return { shape, dtype: 'bool', data: bits.map((bit) => bit === 1) };
}

function keptElements(models: Parameters<typeof merged>[1], settings: Parameters<typeof merged>[2]): number[] {
  const { outcome } = merged(ties, models, settings);
  const elements = models[0].shape.reduce((product, extent) => product * extent, 1);
  return (outcome.keptDensity ?? []).slice(1).map((share) => Math.round(share * elements));
}
