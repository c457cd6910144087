import { arceeFusion, fusionParts } from '../../src/fusion/merge/methods/arcee-fusion.js';
import type { Json } from './harness.js';
import { merged, stored } from './merge-task.js';
import { keysOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const base = stored(inputs.base, 'base');
  const other = stored(inputs.other, 'other');
  const parts = fusionParts(base, other);
  const named: Readonly<Record<string, () => unknown>> = {
    importance: () => tensor(base.shape, parts.importance),
    threshold: () => parts.threshold,
    mask: () => tensor(base.shape, parts.mask),
    merged: () => merged(arceeFusion, [other], { base }).tensor,
  };
  return Object.fromEntries(keysOf(wanted).flatMap((key) => (key in named ? [[key, named[key]()]] : [])));
}
