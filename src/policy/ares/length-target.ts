import { InputError } from '../../errors.js';
import { percentile } from './window-entropy.js';

/** Responses of a cold start: pass rate of their prompt and length, [responses] each. */
export interface ColdStart {
  readonly passRate: Float64Array;
  readonly length: ArrayLike<number>;
  /** Responses to keep in every eighth of the pass rate. */
  readonly perBin: number;
}

export interface LengthTargets {
  /** Median lengths at pass rates 0 and 1. */
  readonly longest: number;
  readonly shortest: number;
  /** [responses]: (1 - p) L_0 + p L_1. */
  readonly target: Float64Array;
  /** [responses]: number of the nearest eighth, 0..8. */
  readonly bin: Uint8Array;
  /** [responses]: 1 for those that stay. */
  readonly kept: Uint8Array;
}

/**
 * Cold start by length targets (spec 4.7): the target falls linearly in the pass rate from the median length at p = 0 to that at
 * p = 1; of every eighth of p the same number of responses nearest their targets stays, the first of equals.
 * @throws InputError where no response has pass rate 0, or none has 1
 */
export function lengthTargets({ passRate, length, perBin }: ColdStart): LengthTargets {
  const lengths = Float64Array.from(length);
  const medianAt = (p: number): number => {
    const at = lengths.filter((_, r) => passRate[r] === p);
    if (at.length === 0)
      throw new InputError(`length targets need responses of prompts with pass rate ${p}; there are none`);
    return percentile(at, 50);
  };
  const longest = medianAt(0);
  const shortest = medianAt(1);
  const target = passRate.map((p) => (1 - p) * longest + p * shortest);
  const bin = Uint8Array.from(passRate, (p) => Math.round(8 * p));
  const kept = new Uint8Array(lengths.length);
  const away = (r: number): number => Math.abs(lengths[r] - target[r]);
  for (let b = 0; b <= 8; b++) {
    const members = Array.from(bin.keys()).filter((r) => bin[r] === b && Number.isFinite(passRate[r]));
    members.sort((x, y) => away(x) - away(y) || x - y);
    for (const r of members.slice(0, perBin)) kept[r] = 1;
  }
  return { longest, shortest, target, bin, kept };
}
