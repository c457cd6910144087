import { scorePruning } from './score-pruning.js';

export const reap = scorePruning({
  name: 'reap',
  summary: 'drops the experts with the least mean of router weight times norm of output over their own tokens',
  reference: 'REAP, 2025 (ICLR 2026)',
  score: 'reap',
});

export const eanSum = scorePruning({
  name: 'ean-sum',
  summary: 'drops the experts with the least sum of output norms',
  reference: 'baseline of REAP, 2025',
  score: 'eanSum',
});

export const eanMean = scorePruning({
  name: 'ean-mean',
  summary: 'drops the experts with the least mean output norm',
  reference: 'baseline of REAP, 2025',
  score: 'eanMean',
});

export const weightedEanSum = scorePruning({
  name: 'weighted-ean-sum',
  summary: 'drops the experts with the least sum of router weight times norm of output',
  reference: 'baseline of REAP, 2025',
  score: 'weightedEanSum',
});

export const weightedFrequency = scorePruning({
  name: 'weighted-frequency',
  summary: 'drops the experts with the least sum of router weights',
  reference: 'baseline of REAP, 2025',
  score: 'weightedFrequency',
});
