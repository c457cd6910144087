import { didYouMean, InputError } from '../../../errors.js';
import type { MergeMethod } from '../types.js';
import { arceeFusion } from './arcee-fusion.js';
import { breadcrumbs } from './breadcrumbs.js';
import { breadcrumbsTies } from './breadcrumbs-ties.js';
import { dareLinear } from './dare-linear.js';
import { dareTies } from './dare-ties.js';
import { della } from './della.js';
import { dellaLinear } from './della-linear.js';
import { karcher } from './karcher.js';
import { linear } from './linear.js';
import { modelStock } from './model-stock.js';
import { multislerp } from './multislerp.js';
import { nearswap } from './nearswap.js';
import { nuslerp } from './nuslerp.js';
import { passthrough } from './passthrough.js';
import { ram } from './ram.js';
import { ramplusTl } from './ramplus-tl.js';
import { sce } from './sce.js';
import { slerp } from './slerp.js';
import { taskArithmetic } from './task-arithmetic.js';
import { ties } from './ties.js';
import { varm } from './varm.js';

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
  taskArithmetic,
  ties,
  dareLinear,
  dareTies,
  breadcrumbs,
  breadcrumbsTies,
  della,
  dellaLinear,
  sce,
  ram,
  ramplusTl,
  varm,
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
