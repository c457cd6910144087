import { linear } from '../../src/fusion/merge/methods/linear.js';
import type { Json } from './harness.js';
import { merged, storedList } from './merge-task.js';
import { keysOf, numbers } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const models = storedList(inputs.models, 'models');
  const perModel = numbers(inputs.weight, 'weight').map((weight) => ({ weight }));
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const normalize = { normalized: true, unnormalized: false }[key];
    if (normalize === undefined) continue;
    result[key] = merged(linear, models, { perModel, parameters: { normalize } }).tensor;
  }
  return result;
}
