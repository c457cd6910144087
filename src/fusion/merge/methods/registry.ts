import { didYouMean, InputError } from '../../../errors.js';
import type { MergeMethod } from '../types.js';
import { arceeFusion } from './arcee-fusion.js';
import { karcher } from './karcher.js';
import { linear } from './linear.js';
import { modelStock } from './model-stock.js';
import { multislerp } from './multislerp.js';
import { nearswap } from './nearswap.js';
import { nuslerp } from './nuslerp.js';
import { passthrough } from './passthrough.js';
import { slerp } from './slerp.js';

/** Every method by which tensors are merged; a new one is one line here. */
export const MERGE_METHODS: readonly MergeMethod[] = [
  linear,
  slerp,
  nuslerp,
  multislerp,
  karcher,
  modelStock,
  nearswap,
  arceeFusion,
  passthrough,
];

export const METHOD_NAMES: readonly string[] = MERGE_METHODS.map((method) => method.name);

const byName = new Map(MERGE_METHODS.map((method) => [method.name, method]));

/**
 * The method that a configuration calls `name`.
 * @throws InputError with the nearest name when there is none
 */
export function mergeMethod(name: string): MergeMethod {
  const method = byName.get(name);
  if (method !== undefined) return method;
  throw new InputError(
    `unknown merge method "${name}"${didYouMean(name, METHOD_NAMES)}; known: ${METHOD_NAMES.join(', ')}`,
  );
}
