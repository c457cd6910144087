import { InputError } from '../../../errors.js';
import type { MergeInput, MergeTask, ParameterValue } from '../types.js';

type Parameters = Readonly<Record<string, ParameterValue | undefined>>;

export interface SplitInputs {
  readonly base: MergeInput | undefined;
  /** In the order of the configuration. */
  readonly others: readonly MergeInput[];
}

/** The base model's input, where there is one, and those of the other models. */
export function splitBase(task: MergeTask): SplitInputs {
  return { base: task.inputs.find((input) => input.isBase), others: task.inputs.filter((input) => !input.isBase) };
}

/**
 * {@link splitBase} for a method that needs its base.
 * @throws InputError naming the tensor when no input is the base
 */
export function requireBase(task: MergeTask): { base: MergeInput; others: readonly MergeInput[] } {
  const { base, others } = splitBase(task);
  if (base === undefined) throw new InputError(`tensor ${task.name}: the base model does not have it`);
  return { base, others };
}

function requiredValue(
  parameters: Parameters,
  name: string,
  kind: 'number' | 'boolean' | 'string',
  owner: string,
): ParameterValue {
  const value = parameters[name];
  if (value === undefined) throw new InputError(`${owner}: parameter ${name} has no value`);
  const found = typeof value;
  if (found !== kind) throw new InputError(`${owner}: parameter ${name} is a ${found}, not a ${kind}`);
  return value;
}

/**
 * A model's own number.
 * @throws InputError naming model and parameter when it is missing or no number
 */
export function numberParameter(input: MergeInput, name: string): number {
  return Number(requiredValue(input.parameters, name, 'number', `model ${input.model}`));
}

/** A number of the tensor. @throws InputError naming tensor and parameter when it is missing or no number */
export function taskNumber(task: MergeTask, name: string): number {
  return Number(requiredValue(task.parameters, name, 'number', `tensor ${task.name}`));
}

/** A switch of the tensor. @throws InputError as {@link taskNumber} */
export function taskBoolean(task: MergeTask, name: string): boolean {
  return requiredValue(task.parameters, name, 'boolean', `tensor ${task.name}`) === true;
}

/** A text of the tensor. @throws InputError as {@link taskNumber} */
export function taskString(task: MergeTask, name: string): string {
  return String(requiredValue(task.parameters, name, 'string', `tensor ${task.name}`));
}

/** A number that every one of some models has of its own, in their order. */
export function numbersOf(inputs: readonly MergeInput[], name: string): number[] {
  return inputs.map((input) => numberParameter(input, name));
}
