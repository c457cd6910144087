import type { Command } from 'commander';
import type { CommandModule } from './main.js';

interface Action {
  readonly name: string;
  readonly summary: string;
  readonly load: () => Promise<CommandModule>;
}

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
    name: 'compare',
    summary: 'methods at equal size side by side on unseen text, all in one run',
    load: () => import('./merge-moe-compare.js'),
  },
];

/** Declares the actions. Only the module of the one that is asked for is loaded; without one it is `run`. */
export async function configure(command: Command, argv: readonly string[]): Promise<void> {
  const words = argv.slice(argv.indexOf('merge-moe') + 1);
  const asksHelp = words[0] === '--help' || words[0] === '-h';
  const named = ACTIONS.find((action) => action.name === words[0]);
  const wanted = named ?? (asksHelp ? undefined : ACTIONS[0]);
  for (const action of ACTIONS) {
    const sub = command.command(action.name, { isDefault: action === ACTIONS[0] }).description(action.summary);
    if (action === wanted) await (await action.load()).configure(sub, argv);
  }
}
