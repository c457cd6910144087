import { karcher } from '../../src/fusion/merge/methods/karcher.js';
import type { Json } from './harness.js';
import { merged, storedList } from './merge-task.js';
import { keysOf, number } from './tensors.js';

const LISTS: Readonly<Record<string, string>> = { merged: 'tensors', merged_with_zero: 'with_zero' };

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const parameters = { max_iter: number(inputs.max_iter, 'max_iter'), tol: number(inputs.tol, 'tol') };
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    if (!(key in LISTS)) continue;
    result[key] = merged(karcher, storedList(inputs[LISTS[key]], LISTS[key]), { parameters }).tensor;
  }
  return result;
}
