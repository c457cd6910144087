import type { MergeSpan, ParameterDeclaration } from '../types.js';
import { numberParameter, taskBoolean } from './method-inputs.js';
import { betweenMagnitudes } from './sparsify.js';
import { DENSITY, rescaleDeclaration, type Sparsify, selectionBytes, taskArithmeticMethod } from './task-vectors.js';

const GAMMA: ParameterDeclaration = {
  name: 'gamma',
  kind: 'number',
  default: 0.01,
  minimum: 0,
  maximum: 1,
  summary: 'Share of the largest elements that is dropped.',
};

/** What `breadcrumbs` and `breadcrumbs_ties` share. */
export const crumbs = {
  sparsify: ((target, input, task) =>
    betweenMagnitudes(
      target,
      numberParameter(input, 'density'),
      numberParameter(input, 'gamma'),
      taskBoolean(task, 'rescale') ? 'l1' : 'none',
    )) satisfies Sparsify,
  perModel: [DENSITY, GAMMA],
  global: [rescaleDeclaration(false)],
  normalize: false,
  span: (): MergeSpan => 'tensor',
  // Two cuts.
  workBytes: (elements: number) => 2 * selectionBytes(elements),
} as const;

export const breadcrumbs = taskArithmeticMethod({
  ...crumbs,
  name: 'breadcrumbs',
  summary: 'Task vectors without their smallest and their very largest elements, added up.',
  reference: 'Davari & Belilovsky, Model Breadcrumbs (ECCV 2024)',
  consensus: false,
});
