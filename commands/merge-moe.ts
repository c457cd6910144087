import type { Command } from 'commander';
import { type Action, declareActions } from './actions.js';

const ACTIONS: readonly Action[] = [
  {
    name: 'merge',
    summary: 'reduce the experts of a model by merging or pruning (default)',
    load: () => import('./merge-moe-merge.js'),
  },
  {
    name: 'calibrate',
    summary: 'statistics of routing and experts on a text, as files that can be added',
    load: () => import('./merge-moe-calibrate.js'),
  },
  {
    name: 'entropy',
    summary: 'entropy of routing, usage, load balance and co-activation by layer',
    load: () => import('./merge-moe-entropy.js'),
  },
  {
    name: 'compress',
    summary: 'experts as low rank plus rows that stay',
    load: () => import('./merge-moe-compress.js'),
  },
  {
    name: 'recover',
    summary: 'train a merged or compressed model by the original, or prune its experts while it is trained',
    load: () => import('./merge-moe-recover.js'),
  },
  {
    name: 'gradients',
    summary: 'gradients of the loss in the weights of the experts, for merge and compress',
    load: () => import('./merge-moe-gradients.js'),
  },
  {
    name: 'compare',
    summary: 'methods at equal size side by side on unseen text, all in one run',
    load: () => import('./merge-moe-compare.js'),
  },
];

/** Declares `surprisal merge-moe` and what it does. */
export function configure(command: Command, argv: readonly string[]): Promise<void> {
  return declareActions(command, argv, ACTIONS);
}
