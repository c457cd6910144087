import { InputError } from '../errors.js';

/** How the action of a completion is found. Structured-cloneable. */
export interface ActionPattern {
  /** A regular expression with one group: the action. Letters match whatever their case. */
  readonly source: string;
  /** Names of the actions, in the order of counts. */
  readonly actions: readonly string[];
}

/** Finds the action of completions. */
export interface ActionReader {
  /** Index of the action of the first match; null where nothing matches or the match names no action. */
  read(completion: string): number | null;
  /**
   * Whether more text cannot change what `read` says: an action was found and text follows it, so that `Button 1` is not
   * the beginning of `Button 12`.
   */
  settled(partial: string): boolean;
}

const plain = (text: string): string => text.trim().replace(/\s+/g, ' ').toLowerCase();

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/\s+/g, '\\s+');

/** The pattern that a task of this repository uses: `lead` (such as `I choose`) and then the name of an action. */
export function patternOfActions(actions: readonly string[], lead: string): string {
  // Longer names first: an alternative that begins another one must not win over it.
  const names = [...actions].sort((a, b) => b.length - a.length).map(escaped);
  return `${lead === '' ? '' : `${escaped(lead)}\\s+`}(${names.join('|')})(?![\\p{L}\\p{N}])`;
}

/**
 * @throws InputError for a pattern that is no regular expression or has not exactly one group, for fewer than two actions
 *   and for actions of one name
 */
export function createActionReader(pattern: ActionPattern): ActionReader {
  checkActions(pattern.actions);
  let expression: RegExp;
  try {
    expression = new RegExp(pattern.source, 'iu');
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new InputError(`--action-pattern ${pattern.source}: ${reason}`);
  }
  // With an empty alternative added the expression always matches, and the match tells how many groups there are.
  const groups = (new RegExp(`${pattern.source}|`, 'iu').exec('')?.length ?? 1) - 1;
  if (groups !== 1) {
    throw new InputError(
      `--action-pattern ${pattern.source}: has ${groups} groups; put the action, and nothing else, into one (...), ` +
        'and write (?:...) for other brackets',
    );
  }
  const indices = new Map(pattern.actions.map((action, index) => [plain(action), index]));
  const find = (text: string): { index: number; end: number } | undefined => {
    const match = expression.exec(text);
    const index = match === null ? undefined : indices.get(plain(match[1] ?? ''));
    return match === null || index === undefined ? undefined : { index, end: match.index + match[0].length };
  };
  return {
    read: (completion) => find(completion)?.index ?? null,
    settled(partial) {
      const found = find(partial);
      return found !== undefined && found.end < partial.length;
    },
  };
}

/** Throws InputError for fewer than two actions or two of the same name. */
export function checkActions(actions: readonly string[]): void {
  if (actions.length < 2) {
    throw new InputError(
      `${actions.length === 1 ? `${JSON.stringify(actions[0])} is the only action` : 'there is no action'}: ` +
        'its entropy is zero whatever the model does; name two actions or more',
    );
  }
  const seen = new Set<string>();
  for (const action of actions) {
    if (plain(action) === '') throw new InputError('an action without text; name every action');
    if (seen.has(plain(action))) throw new InputError(`two actions are called ${JSON.stringify(action)}; rename one`);
    seen.add(plain(action));
  }
}

/** Prompts that an error message names at most. */
const MOST_NAMED = 8;

/**
 * @param unparsed names of the prompts none of whose completions parsed
 * @param prompts how many prompts there are
 * @throws InputError when that is all of them
 */
export function checkParsed(pattern: ActionPattern, unparsed: readonly string[], prompts: number): void {
  if (prompts === 0 || unparsed.length < prompts) return;
  const named = unparsed.slice(0, MOST_NAMED).join('; ');
  const more = unparsed.length > MOST_NAMED ? `; and ${unparsed.length - MOST_NAMED} more` : '';
  throw new InputError(
    `the action pattern ${pattern.source} matches no completion of ${named}${more}; ` +
      `it must find one of ${pattern.actions.map((action) => JSON.stringify(action)).join(', ')}`,
  );
}
