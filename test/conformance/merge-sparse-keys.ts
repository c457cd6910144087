import type { ParameterValue } from '../../src/fusion/merge/types.js';
import type { Json } from './harness.js';
import { number, numbers } from './tensors.js';

/** Global parameters that the name of an expected entry carries: `merged_normalize_false_lambda_1.3`, `..._count_consensus`. */
export function parametersOf(key: string): Record<string, ParameterValue> {
  const parameters: Record<string, ParameterValue> = {};
  for (const [, name, value] of key.matchAll(/(normalize|rescale)_(true|false)/g)) parameters[name] = value === 'true';
  const factor = /lambda_(-?[\d.]+(?:e-?\d+)?)/.exec(key);
  if (factor !== null) parameters.lambda = Number(factor[1]);
  const consensus = /(count|sum)_consensus/.exec(key);
  if (consensus !== null) parameters.consensus_method = consensus[1];
  return parameters;
}

/** A number for each model: a list, or one for all. */
export function forModels(value: Json, name: string, models: number): number[] {
  return Array.isArray(value) ? numbers(value, name) : new Array<number>(models).fill(number(value, name));
}

/** Rows of one shape beside each other. */
export function stacked(rows: readonly ArrayLike<number>[]): number[] {
  return rows.flatMap((row) => Array.from(row));
}
