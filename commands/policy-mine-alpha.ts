import type { Command } from 'commander';
import { RunError } from '../src/errors.js';

/** Declares `surprisal analyze-policy mine-alpha`. */
export function configure(command: Command): void {
  command.action(() => {
    throw new RunError('analyze-policy mine-alpha is being built');
  });
}
