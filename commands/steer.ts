import type { Command } from 'commander';
import { type Action, declareActions } from './actions.js';

const ACTIONS: readonly Action[] = [
  {
    name: 'run',
    summary: 'generate with steering vectors (default)',
    load: () => import('./steer-run.js'),
  },
  {
    name: 'sweep',
    summary: 'strength by layer against the entropy of actions, with controls and guards',
    load: () => import('./steer-sweep.js'),
  },
  {
    name: 'bandit',
    summary: 'play an agent on a Gaussian bandit and log what it was unsure of',
    load: () => import('./steer-bandit.js'),
  },
];

/** Declares `surprisal steer` and what it does. */
export function configure(command: Command, argv: readonly string[]): Promise<void> {
  return declareActions(command, argv, ACTIONS);
}
