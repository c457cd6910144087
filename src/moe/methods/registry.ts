import { didYouMean, InputError } from '../../errors.js';
import { average } from './average.js';
import { frequency } from './frequency.js';
import { hcSmoe } from './hc-smoe.js';
import { mSmoe } from './m-smoe.js';
import type { ExpertMethod } from './method.js';
import { naee } from './naee.js';
import { random } from './random.js';
import { eanMean, eanSum, reap, weightedEanSum, weightedFrequency } from './reap.js';
import { subMoe } from './sub-moe.js';

/** All ways to fewer experts, merges first. */
export const EXPERT_METHODS: readonly ExpertMethod[] = [
  mSmoe,
  hcSmoe,
  subMoe,
  average,
  random,
  reap,
  frequency,
  naee,
  eanSum,
  eanMean,
  weightedEanSum,
  weightedFrequency,
];

export const METHOD_NAMES: readonly string[] = EXPERT_METHODS.map(({ name }) => name);

/** @throws InputError for an unknown name */
export function expertMethod(name: string): ExpertMethod {
  const method = EXPERT_METHODS.find((known) => known.name === name);
  if (method) return method;
  throw new InputError(`--method ${name}: unknown${didYouMean(name, METHOD_NAMES)}; known: ${METHOD_NAMES.join(', ')}`);
}
