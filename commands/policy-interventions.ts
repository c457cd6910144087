import type { Command } from 'commander';
import { RunError } from '../src/errors.js';

/** Declares `surprisal analyze-policy interventions`. */
export function configure(command: Command): void {
  command.action(() => {
    throw new RunError('analyze-policy interventions is being built');
  });
}
