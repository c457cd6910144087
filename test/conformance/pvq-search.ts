import { searchPulses } from '../../src/kernels/pulse-search.js';
import { cosine, nearestPulses, type SearchMode } from '../../src/kernels/pulse-search-reference.js';
import type { Json } from './harness.js';
import { keysOf, numbers } from './tensors.js';

/** Lists of a golden file: groups and their pulses. */
function groups(inputs: { [key: string]: Json }, kind: string): { x: number[]; pulses: number }[] {
  const [x, counts] = [inputs[`${kind}_x`], inputs[`${kind}_K`]];
  if (!Array.isArray(x)) throw new TypeError(`${kind}_x is not a list`);
  const pulses = numbers(counts, `${kind}_K`);
  return x.map((group, i) => ({ x: numbers(group, `${kind}_x`), pulses: pulses[i] }));
}

function search(x: number[], pulses: number, mode: SearchMode): number[] {
  const found = new Int16Array(x.length);
  searchPulses(Float64Array.from(x), 1, x.length, { D: x.length, K: pulses, mode }, found);
  return Array.from(found);
}

const MODES: Readonly<Record<string, SearchMode>> = {
  greedy: 'greedy',
  optimal: 'exact',
  exact: 'exact',
  best: 'best',
  fixed_point: 'fixed-point',
};

/** `<kind>_<mode>`, `<kind>_<mode>_cos`, `<mode>_cos` (of the small groups), `<kind>_l2_nearest_alpha_K_over_l1`. */
export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const nearest = /^(\w+?)_l2_nearest_alpha_K_over_l1$/.exec(key);
    if (nearest !== null) {
      result[key] = groups(inputs, nearest[1]).map(({ x, pulses }) => Array.from(nearestPulses(x, pulses)));
      continue;
    }
    const parts = /^(?:(small|big|edge)_)?(greedy|optimal|exact|best|fixed_point)(_cos)?$/.exec(key);
    if (parts === null) continue;
    const [, kind = 'small', mode, cosines] = parts;
    result[key] = groups(inputs, kind).map(({ x, pulses }) => {
      const found = search(x, pulses, MODES[mode]);
      return cosines === undefined ? found : cosine(x, found);
    });
  }
  return result;
}
