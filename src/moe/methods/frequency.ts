import { scorePruning } from './score-pruning.js';

export const frequency = scorePruning({
  name: 'frequency',
  summary: 'drops the experts that are chosen least',
  reference: 'baseline of M-SMoE, 2023, section 4, and REAP, 2025',
  score: 'frequency',
});
