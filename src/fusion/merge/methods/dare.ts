import type { MergeSpan, MergeTask, ParameterDeclaration, ParameterValue } from '../types.js';
import { numberParameter, taskBoolean, taskString } from './method-inputs.js';
import { byChance, type Rescale } from './sparsify.js';
import { maskBytes, rescaleDeclaration, type Sparsify } from './task-vectors.js';

/** Declaration of how a method that drops at random makes up for it. */
export function rescaleKind(name: string, inverse: string): ParameterDeclaration {
  return {
    name,
    kind: 'string',
    default: 'l1',
    choices: ['l1', 'inverse'],
    summary: `With rescale: \`l1\` keeps the sum of |delta| of the tensor, \`inverse\` ${inverse}.`,
  };
}

/** How a task makes up for what is dropped; `kind` names the parameter. */
export function rescaleOf(task: MergeTask, kind: string): Rescale {
  if (!taskBoolean(task, 'rescale')) return 'none';
  return taskString(task, kind) === 'inverse' ? 'inverse' : 'l1';
}

/** Only the sum of |delta| needs the whole tensor. */
export function spanWithout(
  parameters: Readonly<Record<string, ParameterValue | undefined>>,
  kind: string,
  otherwise: MergeSpan,
): MergeSpan {
  return parameters.rescale !== false && parameters[kind] !== 'inverse' ? 'tensor' : otherwise;
}

const KIND = 'dare_rescale';

/** DARE's part of `dare_linear` and `dare_ties`. */
export const dare = {
  sparsify: ((target, input, task) =>
    byChance(target, numberParameter(input, 'density'), rescaleOf(task, KIND))) satisfies Sparsify,
  global: [rescaleDeclaration(true), rescaleKind(KIND, 'divides by the density')],
  normalize: false,
  random: true,
  workBytes: maskBytes,
  span: (parameters: Readonly<Record<string, ParameterValue | undefined>>) => spanWithout(parameters, KIND, 'element'),
} as const;
