import { multislerp } from '../../src/fusion/merge/methods/multislerp.js';
import type { Json } from './harness.js';
import { merged, stored, storedList, type TaskSettings } from './merge-task.js';
import { keysOf, numbers } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const models = storedList(inputs.models, 'models');
  const perModel = numbers(inputs.weight, 'weight').map((weight) => ({ weight }));
  const settings: Readonly<Record<string, TaskSettings>> = {
    no_base: { perModel },
    with_base: { perModel, base: stored(inputs.base, 'base') },
    normalize_weights_false: { perModel, parameters: { normalize_weights: false } },
  };
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    if (key in settings) result[key] = merged(multislerp, models, settings[key]).tensor;
  }
  return result;
}
