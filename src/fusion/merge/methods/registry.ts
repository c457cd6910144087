import { didYouMean, InputError } from '../../../errors.js';
import type { MergeMethod } from '../types.js';
import { linear } from './linear.js';
import { passthrough } from './passthrough.js';

/** Every method by which tensors are merged; a new one is one line here. */
export const MERGE_METHODS: readonly MergeMethod[] = [linear, passthrough];

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
