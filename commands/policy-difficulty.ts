import type { Command } from 'commander';
import { RunError } from '../src/errors.js';

/** Declares `surprisal analyze-policy difficulty`. */
export function configure(command: Command): void {
  command.action(() => {
    throw new RunError('analyze-policy difficulty is being built');
  });
}
