import type { TextScorer } from './text-records.js';
import type { RolloutRequest } from './types.js';

/** Texts of tokens: those of the dump, each kept once, or those of a tokenizer. */
export interface TokenTexts {
  /** Numbers of the texts of a record. */
  intern(texts: readonly string[]): Int32Array;
  /** Text of a token id, where a tokenizer is at hand. */
  readonly ofToken: ((id: number) => string) | undefined;
  /** What `Rollouts.textOf` is, given whether the dump has texts and ids. */
  textOf(hasTexts: boolean, hasTokens: boolean): ((id: number) => string) | undefined;
}

/** Stored tokens mark a space by U+0120 (byte-level) or U+2581 (SentencePiece), a new line by U+010A. */
const shown = (text: string): string =>
  text.replaceAll('\u0120', ' ').replaceAll('\u2581', ' ').replaceAll('\u010a', '\n');

/** Texts of a dump; the tokenizer is that of the model, where one is given. */
export async function createTokenTexts(request: RolloutRequest, scorer?: TextScorer): Promise<TokenTexts> {
  const numbers = new Map<string, number>();
  const texts: string[] = [];
  let ofToken = scorer && ((id: number): string => scorer.textOf(id));
  if (ofToken === undefined && request.model !== undefined) {
    const { openModelTokenizer } = await import('../../models/model-tokenizer.js');
    const tokenizer = openModelTokenizer(request.locations?.[request.model] ?? request.model);
    const decoder = new TextDecoder();
    ofToken = (id) => (id < tokenizer.vocabularySize ? decoder.decode(tokenizer.tokenBytes(id)) : '');
  }
  return {
    intern(list) {
      const ids = new Int32Array(list.length);
      for (let t = 0; t < list.length; t++) {
        const text = list[t] ?? '';
        let id = numbers.get(text);
        if (id === undefined) {
          id = texts.length;
          numbers.set(text, id);
          texts.push(shown(text));
        }
        ids[t] = id;
      }
      return ids;
    },
    ofToken,
    textOf(hasTexts, hasTokens) {
      if (hasTexts) return (id) => texts[id] ?? '';
      return hasTokens ? ofToken : undefined;
    },
  };
}
