import { numberParameter } from './method-inputs.js';
import { UNTOUCHED } from './sparsify.js';
import { DENSITY, rescaleDeclaration, taskArithmeticMethod } from './task-vectors.js';

const noEffect = 'Of no effect here: nothing is dropped. Configurations have it.';

export const taskArithmetic = taskArithmeticMethod({
  name: 'task_arithmetic',
  summary: 'Base plus the weighted sum of task vectors.',
  reference: 'Ilharco et al., Editing models with task arithmetic (ICLR 2023)',
  consensus: false,
  sparsify: (_, input) =>
    numberParameter(input, 'density') < 1
      ? { ...UNTOUCHED, warnings: ['task_arithmetic drops nothing: density has no effect'] }
      : UNTOUCHED,
  perModel: [{ ...DENSITY, summary: noEffect }],
  global: [{ ...rescaleDeclaration(false), summary: noEffect }],
  normalize: false,
  span: () => 'element',
  workBytes: () => 0,
});
