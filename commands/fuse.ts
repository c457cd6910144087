import type { Command } from 'commander';
import { type Action, declareActions } from './actions.js';

const ACTIONS: readonly Action[] = [
  {
    name: 'merge',
    summary: 'merge models by their weights, as a mergekit YAML or flags say (default)',
    load: () => import('./fuse-merge.js'),
  },
  {
    name: 'align',
    summary: 'align the tokens of two tokenizers: how much of a model can teach another, by domain',
    load: () => import('./fuse-align.js'),
  },
  {
    name: 'quantiles',
    summary: 'quantile forecasts of several models into one, with certified weights and conformal intervals',
    load: () => import('./fuse-quantiles.js'),
  },
  {
    name: 'mix',
    summary: 'proportions of training data from measured losses: Aioli, DoReMi, DoGE, Skill-It, mixing laws',
    load: () => import('./fuse-mix.js'),
  },
  {
    name: 'knowledge',
    summary: 'models with other tokenizers teach one: FuseLLM, FuseChat, Fusion-X',
    load: () => import('./fuse-knowledge.js'),
  },
  {
    name: 'select',
    summary: 'the selector of Fusion-X fitted to cross-entropies of sequences alone',
    load: () => import('./fuse-select.js'),
  },
  {
    name: 'evidence',
    summary: 'evidence of several sources into one: Dempster-Shafer rules, and substitutions between alloys',
    load: () => import('./fuse-evidence.js'),
  },
];

/** Declares `surprisal fuse` and what it does. */
export function configure(command: Command, argv: readonly string[]): Promise<void> {
  return declareActions(command, argv, ACTIONS);
}
