import type { Command } from 'commander';
import { type Action, declareActions } from './actions.js';

const VIEWS: readonly Action[] = [
  {
    name: 'tokens',
    summary: 'surprisal and entropy of every token of a text (default)',
    load: () => import('./analyze-entropy-tokens.js'),
  },
  {
    name: 'logits',
    summary: 'the same measures from stored logits or top-k log-probabilities, with no model',
    load: () => import('./analyze-entropy-logits.js'),
  },
  {
    name: 'attention',
    summary: 'entropy of every attention head, with collapse and overload',
    load: () => import('./analyze-entropy-attention.js'),
  },
  {
    name: 'layers',
    summary: 'residual norm, logit lens and effective rank, layer by layer',
    load: () => import('./analyze-entropy-layers.js'),
  },
  {
    name: 'choices',
    summary: 'multiple choice: accuracy, calibration and entropy over the choices',
    load: () => import('./analyze-entropy-choices.js'),
  },
  {
    name: 'compare',
    summary: 'a base model against candidates on the same text: KL, entropy change, agreement',
    load: () => import('./analyze-entropy-compare.js'),
  },
  {
    name: 'representations',
    summary: 'diffusion entropy, mutual information and ranks of features, by layer or file',
    load: () => import('./analyze-entropy-representations.js'),
  },
  {
    name: 'diversity',
    summary: 'effective number of distinct items: the Vendi score and its kin, of texts or features',
    load: () => import('./analyze-entropy-diversity.js'),
  },
  {
    name: 'dependence',
    summary: 'entropies and dependence of columns by every estimator, with tests and intervals',
    load: () => import('./analyze-entropy-dependence.js'),
  },
  {
    name: 'screen',
    summary: 'columns ranked by mutual information with an outcome, also where a line misses the link',
    load: () => import('./analyze-entropy-screen.js'),
  },
  {
    name: 'regress',
    summary: 'sparse regression: lasso, SCAD or MCP along a path, with cross-validation',
    load: () => import('./analyze-entropy-regress.js'),
  },
  {
    name: 'mixed-effects',
    summary: 'mixed effects with heavy-tailed (q-Gaussian) clusters: outlying ones count for little',
    load: () => import('./analyze-entropy-mixed-effects.js'),
  },
  {
    name: 'koopman',
    summary: 'information, entropy and modes of a linear latent model of trajectories',
    load: () => import('./analyze-entropy-koopman.js'),
  },
  {
    name: 'probes',
    summary: 'linear probes of several representations, alone and side by side, with ranks and redundancy',
    load: () => import('./analyze-entropy-probes.js'),
  },
  {
    name: 'pretraining',
    summary: 'what unlabelled rows are worth: a latent-variable model and a small head against supervised learning',
    load: () => import('./analyze-entropy-pretraining.js'),
  },
];

/** Declares `surprisal analyze-entropy` and its views. */
export function configure(command: Command, argv: readonly string[]): Promise<void> {
  return declareActions(command, argv, VIEWS);
}
