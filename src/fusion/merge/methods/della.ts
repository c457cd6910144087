import type { ParameterDeclaration, ParameterValue } from '../types.js';
import { rescaleKind, rescaleOf, spanWithout } from './dare.js';
import { numberParameter } from './method-inputs.js';
import { byRank } from './sparsify.js';
import { DENSITY, maskBytes, rescaleDeclaration, type Sparsify, taskArithmeticMethod } from './task-vectors.js';

const EPSILON: ParameterDeclaration = {
  name: 'epsilon',
  kind: 'number',
  default: 0.15,
  minimum: 0,
  summary: 'Half the spread of the probabilities to be kept within a row.',
};

const KIND = 'della_rescale';

/** Masks, and probabilities of every element for the rescaling that needs them. */
function workBytes(elements: number, inputs: number): number {
  return maskBytes(elements, inputs) + 8 * elements * inputs;
}

/** What `della` and `della_linear` share. */
export const magPrune = {
  sparsify: ((target, input, task) =>
    byRank(
      target,
      numberParameter(input, 'density'),
      numberParameter(input, 'epsilon'),
      rescaleOf(task, KIND),
    )) satisfies Sparsify,
  perModel: [DENSITY, EPSILON],
  global: [rescaleDeclaration(true), rescaleKind(KIND, 'divides by the probability of the element')],
  random: true,
  workBytes,
  span: (parameters: Readonly<Record<string, ParameterValue | undefined>>) => spanWithout(parameters, KIND, 'row'),
} as const;

export const della = taskArithmeticMethod({
  ...magPrune,
  name: 'della',
  summary: 'Elements dropped at random, small ones of a row rather than large ones; signs elected as in TIES.',
  reference: 'Deep et al., DELLA-Merging (2024)',
  consensus: true,
  normalize: true,
});
