import { dare } from './dare.js';
import { DENSITY, taskArithmeticMethod } from './task-vectors.js';

export const dareLinear = taskArithmeticMethod({
  ...dare,
  name: 'dare_linear',
  summary: 'Task vectors with elements dropped at random, the rest rescaled and added up.',
  reference: 'Yu et al., Language models are super Mario (ICML 2024)',
  consensus: false,
  perModel: [DENSITY],
});
