import type { Command } from 'commander';
import { type Action, declareActions } from './actions.js';

const ACTIONS: readonly Action[] = [
  {
    name: 'train',
    summary: 'train a student by any of the losses (default)',
    load: () => import('./distill-train.js'),
  },
  {
    name: 'compare',
    summary: 'losses side by side on one task: seeds, spreads, values chosen on held-out rows',
    load: () => import('./distill-compare.js'),
  },
  {
    name: 'capture',
    summary: "keep a teacher's likeliest tokens in a file, to train in its absence",
    load: () => import('./distill-capture.js'),
  },
  {
    name: 'activations',
    summary: 'search an activation by the entropy of its outputs, and compare activations by training',
    load: () => import('./distill-activations.js'),
  },
  {
    name: 'score',
    summary: 'audit a teacher and a student without training: all losses, ranks, calibration, error bounds',
    load: () => import('./distill-score.js'),
  },
  {
    name: 'heads',
    summary: 'distil several networks into one with a head for each: distilled concatenation of representations',
    load: () => import('./distill-heads.js'),
  },
  {
    name: 'ensemble',
    summary: 'mixtures of models under log loss: regret, posterior, weight of a hypothesis and its bounds',
    load: () => import('./distill-ensemble.js'),
  },
  {
    name: 'ntk',
    summary: 'permutations learnt exactly by ensembles of wide networks: prediction and simulation',
    load: () => import('./distill-ntk.js'),
  },
];

/** Declares `surprisal distill-pld`. */
export async function configure(command: Command, argv: readonly string[]): Promise<void> {
  await declareActions(command, argv, ACTIONS);
}
