import type { Command } from 'commander';
import { type Action, declareActions } from './actions.js';

const ACTIONS: readonly Action[] = [
  {
    name: 'run',
    summary: 'quantise the weights of a model (default)',
    load: () => import('./quantize-pvq-run.js'),
  },
  {
    name: 'verify',
    summary: 'decode a quantised model and prove that what is stored is what its report claims',
    load: () => import('./quantize-pvq-verify.js'),
  },
  {
    name: 'dequantize',
    summary: 'write a quantised model as plain safetensors for any runtime',
    load: () => import('./quantize-pvq-dequantize.js'),
  },
  {
    name: 'sweep',
    summary: 'perplexity and KL of quantisers against bits per weight, all in one run',
    load: () => import('./quantize-pvq-sweep.js'),
  },
];

/** Declares `surprisal quantize-pvq` and what it does. */
export function configure(command: Command, argv: readonly string[]): Promise<void> {
  return declareActions(command, argv, ACTIONS);
}
