import { didYouMean, InputError } from '../../errors.js';
import type { Baseline } from './baseline.js';
import type { BaselineMethod } from './composed.js';
import { GGML_BASELINES } from './ggml.js';
import { LLOYD_MAX } from './lloyd-max.js';
import { NF4, NF4_DOUBLE } from './nf4.js';
import { RTN } from './rtn.js';
import { RTN_ASYMMETRIC } from './rtn-asymmetric.js';
import { RTN_CLIPPED } from './rtn-clipped.js';

/** Every baseline by itself. */
export const BASELINES: readonly Baseline[] = [
  RTN,
  RTN_ASYMMETRIC,
  RTN_CLIPPED,
  LLOYD_MAX,
  NF4,
  NF4_DOUBLE,
  ...GGML_BASELINES,
];

/** A baseline plain, with feedback, on rotated rows, and both. */
function combinations(baseline: Baseline): BaselineMethod[] {
  const make = (rotated: boolean, feedback: boolean): BaselineMethod => ({
    name: `${rotated ? 'rotated-' : ''}${baseline.name}${feedback ? '-feedback' : ''}`,
    title: `${rotated ? 'rotated ' : ''}${baseline.title}${feedback ? ' + feedback' : ''}`,
    baseline,
    rotated,
    feedback,
  });
  return [make(false, false), make(false, true), make(true, false), make(true, true)];
}

const METHODS: ReadonlyMap<string, BaselineMethod> = new Map(
  BASELINES.flatMap(combinations).map((method) => [method.name, method]),
);

/** Names of all methods. */
export function methodNames(): string[] {
  return [...METHODS.keys()];
}

export function isMethod(name: string): boolean {
  return METHODS.has(name);
}

/** @throws InputError for an unknown name */
export function findMethod(name: string): BaselineMethod {
  const method = METHODS.get(name);
  if (method) return method;
  throw new InputError(`no quantisation method "${name}"${didYouMean(name, METHODS.keys())}`);
}
