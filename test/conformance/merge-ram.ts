import { ram } from '../../src/fusion/merge/methods/ram.js';
import { ramplusTl } from '../../src/fusion/merge/methods/ramplus-tl.js';
import type { Json } from './harness.js';
import { merged, stored, storedList } from './merge-task.js';
import { keysOf, number } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const base = stored(inputs.base, 'base');
  const models = storedList(inputs.models, 'models');
  const [epsilon, r, alpha] = ['epsilon', 'r', 'alpha'].map((name) => number(inputs[name], name));
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    if (key === 'ram') result[key] = merged(ram, models, { base, parameters: { epsilon } }).tensor;
    if (key === 'ramplus_tl') {
      result[key] = merged(ramplusTl, models, { base, parameters: { epsilon, r, alpha }, variant: 'mergekit' }).tensor;
    }
  }
  return result;
}
