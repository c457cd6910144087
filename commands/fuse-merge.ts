import type { Command } from 'commander';

/** Declares `surprisal fuse merge`. */
export function configure(command: Command): void {
  command.argument('[config]', 'mergekit YAML').argument('[out]', 'directory to write');
}
