import { magPrune } from './della.js';
import { taskArithmeticMethod } from './task-vectors.js';

export const dellaLinear = taskArithmeticMethod({
  ...magPrune,
  name: 'della_linear',
  summary: 'Elements dropped at random, small ones of a row rather than large ones; the rest added up.',
  reference: 'Deep et al., DELLA-Merging (2024)',
  consensus: false,
  normalize: false,
});
