import { nuslerp } from '../../src/fusion/merge/methods/nuslerp.js';
import type { Json } from './harness.js';
import { merged, stored } from './merge-task.js';
import { keysOf, numbers } from './tensors.js';

const VECTORS: Readonly<Record<string, { nuslerp_flatten: boolean; nuslerp_row_wise: boolean }>> = {
  flatten: { nuslerp_flatten: true, nuslerp_row_wise: false },
  per_last_dim: { nuslerp_flatten: false, nuslerp_row_wise: false },
  row_wise_dim0: { nuslerp_flatten: false, nuslerp_row_wise: true },
};

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const models = [stored(inputs.v0, 'v0'), stored(inputs.v1, 'v1')];
  const perModel = numbers(inputs.weight, 'weight').map((weight) => ({ weight }));
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const parameters = VECTORS[key.replace(/^with_base_/, '')];
    if (parameters === undefined) continue;
    const base = key.startsWith('with_base_') ? stored(inputs.base, 'base') : undefined;
    result[key] = merged(nuslerp, models, { base, perModel, parameters }).tensor;
  }
  return result;
}
