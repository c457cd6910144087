import { numberParameter, taskBoolean } from './method-inputs.js';
import { byMagnitude } from './sparsify.js';
import { DENSITY, rescaleDeclaration, type Sparsify, selectionBytes, taskArithmeticMethod } from './task-vectors.js';

/** The largest |delta| of each model stay. */
export const trim: Sparsify = (target, input, task) =>
  byMagnitude(target, numberParameter(input, 'density'), taskBoolean(task, 'rescale') ? 'l1' : 'none');

export const ties = taskArithmeticMethod({
  name: 'ties',
  summary: 'Task vectors trimmed to their largest elements; signs elected, those that agree averaged.',
  reference: 'Yadav et al., TIES-Merging (NeurIPS 2023)',
  consensus: true,
  sparsify: trim,
  perModel: [DENSITY],
  global: [rescaleDeclaration(false)],
  normalize: true,
  span: () => 'tensor',
  workBytes: selectionBytes,
});
