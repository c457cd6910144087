import type { Command } from 'commander';
import { type Action, declareActions } from './actions.js';

const ACTIONS: readonly Action[] = [];

/** Declares `surprisal distill-pld`. */
export async function configure(command: Command, argv: readonly string[]): Promise<void> {
  await declareActions(command, argv, ACTIONS);
}
