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
  {
    name: 'words',
    summary: 'words that steered thoughts use more, and less',
    load: () => import('./steer-words.js'),
  },
  {
    name: 'export',
    summary: 'write vectors as a control vector of llama.cpp, safetensors, JSON, .svec or .npy',
    load: () => import('./steer-export.js'),
  },
  {
    name: 'import',
    summary: 'read vectors of other tools, and say what had to be assumed',
    load: () => import('./steer-import.js'),
  },
  {
    name: 'combine',
    summary: 'add, orthogonalise, merge and compare vectors',
    load: () => import('./steer-combine.js'),
  },
  {
    name: 'bake',
    summary: 'fold vectors into the weights of a model, with a proof run',
    load: () => import('./steer-bake.js'),
  },
  {
    name: 'patch',
    summary: "steering inputs and residual outputs for other people's ONNX exports",
    load: () => import('./steer-patch.js'),
  },
  {
    name: 'compute',
    summary: 'steering vectors from logged runs or contrast pairs',
    load: () => import('./steer-compute.js'),
  },
  {
    name: 'decode',
    summary: 'samplers compared on the same prompts or on stored logits; nucleus of whole paths',
    load: () => import('./steer-decode.js'),
  },
  {
    name: 'zeta',
    summary: 'cross-entropy search and rare events: zeros of zeta, or any score',
    load: () => import('./steer-zeta.js'),
  },
];

/** Declares `surprisal steer` and what it does. */
export function configure(command: Command, argv: readonly string[]): Promise<void> {
  return declareActions(command, argv, ACTIONS);
}
