import { taskArithmetic } from '../../src/fusion/merge/methods/task-arithmetic.js';
import type { Json } from './harness.js';
import { parametersOf } from './merge-sparse-keys.js';
import { merged, stored, storedList } from './merge-task.js';
import { keysOf, numbers } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const base = stored(inputs.base, 'base');
  const models = storedList(inputs.models, 'models');
  const perModel = numbers(inputs.weight, 'weight').map((weight) => ({ weight }));
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    result[key] = merged(taskArithmetic, models, { base, perModel, parameters: parametersOf(key) }).tensor;
  }
  return result;
}
