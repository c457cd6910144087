import type { Command } from 'commander';
import type { CommandModule } from './main.js';

interface Action {
  readonly name: string;
  readonly summary: string;
  readonly load: () => Promise<CommandModule>;
}

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

/** Declares the actions. Only the module of the one that is asked for is loaded; without one it is `run`. */
export async function configure(command: Command, argv: readonly string[]): Promise<void> {
  const words = argv.slice(argv.indexOf('quantize-pvq') + 1);
  const asksHelp = words[0] === '--help' || words[0] === '-h';
  const named = ACTIONS.find((action) => action.name === words[0]);
  const wanted = named ?? (asksHelp ? undefined : ACTIONS[0]);
  for (const action of ACTIONS) {
    const sub = command.command(action.name, { isDefault: action === ACTIONS[0] }).description(action.summary);
    if (action === wanted) await (await action.load()).configure(sub, argv);
  }
}
