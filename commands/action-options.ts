import type { Command } from 'commander';
import { parseSamplingPlan } from '../src/decoding/sampler-text.js';
import { InputError } from '../src/errors.js';
import {
  type ActionPattern,
  checkActions,
  createActionReader,
  patternOfActions,
} from '../src/steering/action-pattern.js';
import { encodeForcedChoice, type ForcedChoice } from '../src/steering/forced-choice.js';
import type { ActionSampling } from '../src/steering/sampled-choice.js';
import type { Tokenizer } from '../src/tokenizers/tokenizer.js';
import { flagOf, parseInteger, unescaped } from './edge-values.js';

/** Own options of a command that measures the entropy of an action. */
export interface ActionOptions {
  actions?: string[];
  thought?: string;
  actionPattern?: string;
  samples?: string;
  sampler?: string;
  maxNewTokens?: string;
}

/** Tokens of a sampled reply when `--max-new-tokens` is not given. */
const DEFAULT_NEW_TOKENS = 100;

/** Declares the options of {@link encodeActions} and {@link readSampling}. */
export function addActionOptions(command: Command): Command {
  return command
    .option(
      '--actions <texts...>',
      'the actions as the model writes them after the thought, such as " Button 1." (default: those of the log)',
    )
    .option(
      '--thought <text>',
      'fixed text between prompt and action for the exact entropy; \\n is a new line (default: that of the log, else none)',
    )
    .option('--samples <n>', 'replies of a prompt that are sampled and parsed (default 0: exact entropy alone)')
    .option('--action-pattern <regex>', 'how a sampled reply is read: one group, the action (default: the first named)')
    .option(
      '--sampler <steps>',
      'how replies are sampled, such as temperature=0.8,top-p=0.9 (default: as the model says)',
    )
    .option('--max-new-tokens <n>', `tokens of a sampled reply at most (default ${DEFAULT_NEW_TOKENS})`);
}

/** What the model may say, and what stands before it. */
export interface NamedChoice {
  readonly thought: string;
  readonly actions: readonly string[];
}

/**
 * `--actions` and `--thought`; without them the reply that a log of `steer bandit` holds, with each action in its place.
 * @throws InputError for fewer than two actions, and where neither the options nor the first row says which
 */
export function namedChoice(own: ActionOptions, first: Readonly<Record<string, unknown>>): NamedChoice {
  if (own.actions !== undefined) {
    const actions = own.actions.map(unescaped);
    checkActions(actions);
    return { actions, thought: unescaped(own.thought ?? '') };
  }
  const { reply, action } = first;
  const names = Array.isArray(first.actions) ? first.actions.map(String) : [];
  const name = names[Number(action)];
  const place = typeof reply === 'string' && name !== undefined ? reply.lastIndexOf(name) : -1;
  if (typeof reply !== 'string' || name === undefined || place < 0) {
    throw new InputError('--actions is missing; name the texts that the model chooses between');
  }
  const before = reply.slice(0, place);
  const thought = own.thought === undefined ? before.trimEnd() : unescaped(own.thought);
  const space = before.slice(before.trimEnd().length);
  const after = reply.slice(place + name.length);
  checkActions(names);
  return { thought, actions: names.map((other) => `${space}${other}${after}`) };
}

/** Names of the actions as replies are read: without the punctuation that ends them. */
const nameOf = (text: string): string => text.trim().replace(/[.:;,!]+$/, '');

/** The exact choice: thought and actions as tokens. */
export function encodeActions({ thought, actions }: NamedChoice, tokenizer: Tokenizer): ForcedChoice {
  return encodeForcedChoice(tokenizer, thought, actions);
}

/** How replies are read. @throws InputError for a pattern that cannot be used */
export function actionPattern(
  own: ActionOptions,
  texts: readonly string[] = (own.actions ?? []).map(unescaped),
): ActionPattern {
  const actions = texts.map(nameOf);
  const pattern = { source: own.actionPattern ?? patternOfActions(actions, ''), actions };
  createActionReader(pattern);
  return pattern;
}

/** How replies are sampled; undefined when none are. */
export function readSampling(
  own: ActionOptions,
  choice: NamedChoice,
  seed: number,
): Omit<ActionSampling, 'steering' | 'firstStream'> | undefined {
  const samples = own.samples === undefined ? 0 : parseInteger('--samples', own.samples);
  if (samples === 0) {
    const stray = (['actionPattern', 'sampler', 'maxNewTokens'] as const).find((name) => own[name] !== undefined);
    if (stray) {
      const flag = flagOf(stray);
      throw new InputError(`${flag} has no meaning without --samples`);
    }
    return undefined;
  }
  return {
    samples,
    pattern: actionPattern(own, choice.actions),
    plan: own.sampler === undefined ? { steps: [] } : parseSamplingPlan(own.sampler),
    maxNewTokens:
      own.maxNewTokens === undefined ? DEFAULT_NEW_TOKENS : parseInteger('--max-new-tokens', own.maxNewTokens, 1),
    seed,
  };
}
