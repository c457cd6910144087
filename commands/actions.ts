import type { Command } from 'commander';
import type { CommandModule } from './main.js';

/** One of the things that a command does, with options of its own. */
export interface Action {
  readonly name: string;
  readonly summary: string;
  readonly load: () => Promise<CommandModule>;
}

/** Declares the actions. Only the module of the one that is asked for is loaded; without one it is the first. */
export async function declareActions(
  command: Command,
  argv: readonly string[],
  actions: readonly Action[],
): Promise<void> {
  const words = argv.slice(argv.indexOf(command.name()) + 1);
  const asksHelp = words[0] === '--help' || words[0] === '-h';
  const named = actions.find((action) => action.name === words[0]);
  const wanted = named ?? (asksHelp ? undefined : actions[0]);
  for (const action of actions) {
    const sub = command.command(action.name, { isDefault: action === actions[0] }).description(action.summary);
    if (action === wanted) await (await action.load()).configure(sub, argv);
  }
}
