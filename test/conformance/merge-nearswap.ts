import { nearswap } from '../../src/fusion/merge/methods/nearswap.js';
import type { Json } from './harness.js';
import { merged, stored } from './merge-task.js';
import { number } from './tensors.js';

export function run(inputs: { [key: string]: Json }, _wanted: Json): unknown {
  const base = stored(inputs.base, 'base');
  const parameters = { t: number(inputs.t, 't') };
  return { merged: merged(nearswap, [stored(inputs.other, 'other')], { base, parameters }).tensor };
}
