import type { Command } from 'commander';
import { type Action, declareActions } from './actions.js';

const ACTIONS: readonly Action[] = [];

/** Declares `surprisal steer` and what it does. */
export function configure(command: Command, argv: readonly string[]): Promise<void> {
  return declareActions(command, argv, ACTIONS);
}
