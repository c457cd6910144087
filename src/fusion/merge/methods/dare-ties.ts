import { dare } from './dare.js';
import { DENSITY, taskArithmeticMethod } from './task-vectors.js';

export const dareTies = taskArithmeticMethod({
  ...dare,
  name: 'dare_ties',
  summary: 'Task vectors with elements dropped at random; signs elected as in TIES.',
  reference: 'Yu et al., Language models are super Mario (ICML 2024); Yadav et al. 2023',
  consensus: true,
  perModel: [DENSITY],
});
