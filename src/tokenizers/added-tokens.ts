import { createTrie, type Trie } from './trie.js';

/** A token that is found in the text before any model sees it. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Must not touch a word character on either side. */
  readonly singleWord: boolean;
  /** Takes the white space before it, or after it. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  /** Looked for in the normalised text, else in the text as it is. */
  readonly normalized: boolean;
  readonly special: boolean;
}

/** Receives what lies between added tokens (`atStart`: nothing before it), and the tokens. */
export interface Sections {
  text(text: string, atStart: boolean): void;
  token(id: number): void;
}

const WORD_END = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u;
const WORD_START = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;
const SPACE = /\p{White_Space}/u;

/** A matcher of one group of added tokens: the leftmost match, the longest where several begin together. */
interface Matcher {
  readonly trie: Trie;
  readonly tokens: readonly AddedToken[];
}

function matcherOf(tokens: readonly AddedToken[], contents: readonly string[]): Matcher {
  const trie = createTrie(contents.reduce((sum, content) => sum + content.length, 16));
  contents.forEach((content, i) => {
    trie.add(content, i);
  });
  return { trie, tokens };
}

function splitSections(text: string, matcher: Matcher, parseSpecial: boolean, atStart: boolean, out: Sections): void {
  let done = 0;
  if (matcher.trie.size > 0) {
    for (let i = 0; i < text.length; ) {
      const length = matcher.trie.longestAt(text, i);
      if (length === 0) {
        i++;
        continue;
      }
      const token = matcher.tokens[matcher.trie.lastValue];
      let start = i;
      let stop = i + length;
      i = stop;
      if (token.special && !parseSpecial) continue;
      // Slices of a few units hold any code point that stands at their edge.
      if (token.singleWord) {
        if (WORD_END.test(text.slice(Math.max(0, start - 2), start))) continue;
        if (WORD_START.test(text.slice(stop, stop + 2))) continue;
      }
      if (token.lstrip) while (start > done && SPACE.test(text[start - 1])) start--;
      if (token.rstrip) while (stop < text.length && SPACE.test(text[stop])) stop++;
      if (start > done) out.text(text.slice(done, start), atStart && done === 0);
      out.token(token.id);
      // The search goes on right behind the match: white space that was taken can still hold tokens of white space.
      done = stop;
    }
  }
  if (done < text.length) out.text(text.slice(done), atStart && done === 0);
}

/**
 * Cuts text at its added tokens in two passes, as Hugging Face `tokenizers` does: those that are not normalised in the
 * text as it is, then, in what is left, normalised, the others.
 *
 * @returns a function of the text and of whether special tokens are found (else they are text like any other)
 */
export function createAddedTokenSplitter(
  tokens: readonly AddedToken[],
  normalize: (text: string) => string,
): (text: string, parseSpecial: boolean, out: Sections) => void {
  const raw = tokens.filter((token) => !token.normalized);
  const normalized = tokens.filter((token) => token.normalized);
  const rawMatcher = matcherOf(
    raw,
    raw.map((token) => token.content),
  );
  const normalizedMatcher = matcherOf(
    normalized,
    normalized.map((token) => normalize(token.content)),
  );
  return (text, parseSpecial, out) => {
    splitSections(text, rawMatcher, parseSpecial, true, {
      text: (part, atStart) => splitSections(normalize(part), normalizedMatcher, parseSpecial, atStart, out),
      token: out.token,
    });
  };
}
