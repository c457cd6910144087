import * as library from '@huggingface/tokenizers';
import { InputError } from '../errors.js';
import { isSettings } from './settings.js';

/**
 * The part of the library that is used: its translation of Oniguruma syntax. Its type declarations import without file
 * extensions, which Node's module resolution does not follow.
 */
const { SplitPreTokenizer } = library as unknown as {
  readonly SplitPreTokenizer: new (config: unknown) => { readonly pattern: RegExp | null };
};

/** `text` as a pattern that matches itself. */
function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&');
}

/**
 * The regular expression of a `{ "Regex": ... }` or `{ "String": ... }` pattern of tokenizer.json. The Oniguruma syntax
 * is translated by `@huggingface/tokenizers`. Throws InputError where it cannot be.
 */
export function compilePattern(pattern: unknown, what: string): RegExp {
  if (typeof pattern === 'string') return new RegExp(escapeRegExp(pattern), 'gu');
  if (isSettings(pattern) && typeof pattern.String === 'string') return new RegExp(escapeRegExp(pattern.String), 'gu');
  if (!isSettings(pattern) || typeof pattern.Regex !== 'string') {
    throw new InputError(`${what}: a pattern must be {"Regex": ...} or {"String": ...}`);
  }
  try {
    const split = new SplitPreTokenizer({
      type: 'Split',
      pattern: { Regex: pattern.Regex },
      behavior: 'Isolated',
      invert: false,
    });
    if (split.pattern !== null) return split.pattern;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new InputError(`${what}: the regular expression ${pattern.Regex} cannot be read: ${reason}`);
  }
  throw new InputError(`${what}: the regular expression ${pattern.Regex} cannot be read`);
}

/** What becomes of the text that a pattern matches, as Hugging Face `tokenizers` names it. */
export type SplitBehavior = 'Removed' | 'Isolated' | 'MergedWithPrevious' | 'MergedWithNext' | 'Contiguous';

const BEHAVIORS: readonly SplitBehavior[] = [
  'Removed',
  'Isolated',
  'MergedWithPrevious',
  'MergedWithNext',
  'Contiguous',
];

/** The behaviour by name; throws InputError for another. */
export function splitBehavior(value: unknown, what: string): SplitBehavior {
  const found = BEHAVIORS.find((name) => name === value);
  if (found === undefined) throw new InputError(`${what}: unknown behavior ${JSON.stringify(value)}`);
  return found;
}

/**
 * Appends the pieces of `text` cut at the matches of `pattern` (global, unicode). With `invert`, what lies between the
 * matches is what is matched. Pieces are never empty.
 */
export function splitAt(
  text: string,
  pattern: RegExp,
  behavior: SplitBehavior,
  invert: boolean,
  pieces: string[],
): void {
  if (behavior === 'Isolated') {
    isolate(text, pattern, pieces);
    return;
  }
  // Spans as [end, matched]: they follow one another, so an end is also the next one's start.
  const ends: number[] = [];
  const matched: boolean[] = [];
  let last = 0;
  pattern.lastIndex = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > last) {
      ends.push(match.index);
      matched.push(invert);
    }
    last = match.index + match[0].length;
    ends.push(last);
    matched.push(!invert);
  }
  if (last < text.length) {
    ends.push(text.length);
    matched.push(invert);
  }
  const cut = (start: number, end: number): void => {
    if (end > start) pieces.push(text.slice(start, end));
  };
  let start = 0;
  for (let i = 0; i < ends.length; i++) {
    const next = i + 1 < ends.length ? matched[i + 1] : undefined;
    let endsHere = true;
    if (behavior === 'Removed') {
      if (matched[i]) {
        start = ends[i];
        continue;
      }
    } else if (behavior === 'MergedWithPrevious') endsHere = !(next === true && !matched[i]);
    else if (behavior === 'MergedWithNext') endsHere = !(matched[i] && next === false);
    else endsHere = next !== matched[i];
    if (endsHere) {
      cut(start, ends[i]);
      start = ends[i];
    }
  }
}

function isolate(text: string, pattern: RegExp, pieces: string[]): void {
  // Patterns of language models match everything: then the matches alone are the pieces, at half the cost.
  const matches = text.match(pattern) ?? [];
  let covered = 0;
  for (const match of matches) covered += match.length;
  if (covered === text.length) {
    for (const match of matches) if (match.length > 0) pieces.push(match);
    return;
  }
  let last = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > last) pieces.push(text.slice(last, match.index));
    if (match[0].length > 0) pieces.push(match[0]);
    last = match.index + match[0].length;
  }
  if (last < text.length) pieces.push(text.slice(last));
}
