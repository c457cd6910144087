import type { Command } from 'commander';
import { type Action, declareActions } from './actions.js';

const ACTIONS: readonly Action[] = [
  {
    name: 'dynamics',
    summary: 'entropy, covariance and quadrants of a rollout dump by step; predicted and measured change (default)',
    load: () => import('./policy-dynamics.js'),
  },
  {
    name: 'law',
    summary: 'the law R = -a e^H + b: fit, ceiling, prediction from early steps, with intervals',
    load: () => import('./policy-law.js'),
  },
  {
    name: 'interventions',
    summary: 'what each intervention on entropy would do to one dump, side by side',
    load: () => import('./policy-interventions.js'),
  },
  {
    name: 'difficulty',
    summary: 'entropy against difficulty, a probe on hidden states, and routing to decoding settings',
    load: () => import('./policy-difficulty.js'),
  },
  {
    name: 'reward',
    summary: 'several rewards: proxy points, correlation, multipliers, thresholds',
    load: () => import('./policy-reward.js'),
  },
  {
    name: 'lab',
    summary: 'train small policies until their entropy collapses, under every intervention',
    load: () => import('./policy-lab.js'),
  },
  {
    name: 'mine-alpha',
    summary: 'search formulas over a panel of prices whose combination predicts returns',
    load: () => import('./policy-mine-alpha.js'),
  },
];

/** Declares `surprisal analyze-policy` and what it does. */
export function configure(command: Command, argv: readonly string[]): Promise<void> {
  return declareActions(command, argv, ACTIONS);
}
