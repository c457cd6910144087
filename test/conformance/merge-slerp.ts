import { slerp } from '../../src/fusion/merge/methods/slerp.js';
import type { TensorBytes } from '../../src/fusion/merge/types.js';
import type { Json } from './harness.js';
import { merged, stored } from './merge-task.js';
import { keysOf } from './tensors.js';

/** The other vector of each family of cases. */
function otherOf(family: string, inputs: { [key: string]: Json }, base: TensorBytes): TensorBytes | undefined {
  if (family === 'general') return stored(inputs.v1, 'v1');
  if (family === 'near_colinear') return stored(inputs.near_colinear_v1, 'near_colinear_v1');
  const values = new Float64Array(base.bytes.buffer);
  if (family === 'antipodal') return { ...base, bytes: new Uint8Array(values.map((value) => -value).buffer) };
  if (family === 'v1_zero') return { ...base, bytes: new Uint8Array(base.bytes.length) };
  return undefined;
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const base = stored(inputs.v0, 'v0');
  const result: Record<string, Record<string, unknown>> = {};
  for (const [family, cases] of Object.entries(wanted as { [key: string]: Json })) {
    const other = otherOf(family, inputs, base);
    if (other === undefined) continue;
    result[family] = {};
    for (const key of keysOf(cases)) {
      const parameters = { t: Number(key.replace(/^t=/, '')) };
      result[family][key] = merged(slerp, [other], { base, parameters }).tensor;
    }
  }
  return result;
}
