import { InputError } from '../errors.js';

export { openTokenizer, type TokenizerFiles } from './huggingface.js';

/** What `encode` does beside the model. */
export interface EncodeOptions {
  /** Whether to add the tokens that the tokenizer puts around a text (BOS, EOS). Default true. */
  readonly addSpecialTokens?: boolean;
  /**
   * Whether the text of a special token (`<|endoftext|>`) becomes that token; else it is text like any other. Default:
   * as the file's own program does, true for tokenizer.json (transformers), false for GGUF (llama.cpp).
   */
  readonly parseSpecialTokens?: boolean;
}

/** Text to token ids and back. Immutable; safe to use for many documents. */
export interface Tokenizer {
  /** Highest id + 1, added tokens included. */
  readonly vocabularySize: number;
  /** Token ids of `text`. Linear in its length up to a logarithm. */
  encode(text: string, options?: EncodeOptions): Int32Array;
  /**
   * The bytes that a token stands for: byte-level characters and `<0xNN>` as bytes, the space mark as a space, special
   * tokens as their text, nothing for an id without a token. Throws RangeError outside the vocabulary.
   */
  tokenBytes(id: number): Uint8Array;
  /** The token as the vocabulary stores it, for display; empty for an id without a token. */
  tokenText(id: number): string;
  /** Text of the ids; bytes that are no UTF-8 become U+FFFD. */
  decode(ids: ArrayLike<number>, options?: { readonly skipSpecialTokens?: boolean }): string;
  readonly bosId?: number;
  readonly eosId?: number;
  readonly unkId?: number;
  readonly padId?: number;
  /** Whether `encode` with special tokens begins with the BOS token. */
  readonly addBosDefault: boolean;
  isSpecial(id: number): boolean;
  /** The Jinja template of a conversation. */
  readonly chatTemplate?: string;
  /** Named special tokens (`bos_token`, `eos_token`, ...) by their text, as chat templates see them. */
  readonly specialTokens: Readonly<Record<string, string>>;
  /** What a user should know of how this tokenizer was read. */
  readonly warnings: readonly string[];
}

/**
 * Throws InputError where the tokenizer holds a token of text for which the model has no embedding row. Special tokens
 * beyond the rows (padding that fine-tuning added) are no fault unless they occur.
 *
 * @param modelVocabulary rows of the model's embedding
 * @param source the tokenizer, as the message names it
 */
export function checkVocabulary(tokenizer: Tokenizer, modelVocabulary: number, source = 'the tokenizer'): void {
  for (let id = modelVocabulary; id < tokenizer.vocabularySize; id++) {
    if (tokenizer.tokenText(id) === '' || tokenizer.isSpecial(id)) continue;
    throw new InputError(
      `${source} has the token ${id} (${JSON.stringify(tokenizer.tokenText(id))}) but the model has only ` +
        `${modelVocabulary} embedding rows; use the tokenizer that belongs to the model`,
    );
  }
}
