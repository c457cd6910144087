import { crumbs } from './breadcrumbs.js';
import { taskArithmeticMethod } from './task-vectors.js';

export const breadcrumbsTies = taskArithmeticMethod({
  ...crumbs,
  name: 'breadcrumbs_ties',
  summary: 'Task vectors without their smallest and their very largest elements; signs elected as in TIES.',
  reference: 'Davari & Belilovsky, Model Breadcrumbs (ECCV 2024); Yadav et al. 2023',
  consensus: true,
});
