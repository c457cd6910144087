import { InputError } from '../../errors.js';
import type { Tokenizer } from '../../tokenizers/tokenizer.js';
import type { TokenTexts } from './types.js';

/** `▁` of SentencePiece, `Ġ` of byte-level vocabularies. */
const MARKERS = ['▁', 'Ġ'] as const;

/** First code unit of the lone surrogates that stand for bytes 0x80 .. 0xFF without a character (as in Python's `surrogateescape`). */
const ESCAPED_BYTES = 0xdc00;

export type TokenTextMode = 'vocab' | 'decoded';

/** The mark of a space: the one that more tokens begin with. Undefined where no token begins with either. */
export function spaceMarker(texts: Iterable<string>): string | undefined {
  const counts = MARKERS.map(() => 0);
  for (const text of texts) {
    const index = MARKERS.findIndex((marker) => text.startsWith(marker));
    if (index >= 0) counts[index]++;
  }
  const most = Math.max(...counts);
  return most === 0 ? undefined : MARKERS[counts.indexOf(most)];
}

/** Bytes as text: what is no UTF-8 becomes one lone surrogate a byte, so that no two byte sequences look alike. */
export function escapedText(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    let text = '';
    for (let at = 0; at < bytes.length; ) {
      const length = bytes[at] < 0x80 ? 1 : bytes[at] < 0xe0 ? 2 : bytes[at] < 0xf0 ? 3 : 4;
      const piece = new TextDecoder('utf-8').decode(bytes.subarray(at, at + length));
      if (length > 1 && piece.includes('\uFFFD') && !isReplacement(bytes, at)) {
        text += String.fromCharCode(ESCAPED_BYTES + bytes[at]);
        at++;
      } else {
        text += piece;
        at += length;
      }
    }
    return text;
  }
}

/** Whether the character at `at` is U+FFFD itself. */
function isReplacement(bytes: Uint8Array, at: number): boolean {
  return bytes[at] === 0xef && bytes[at + 1] === 0xbf && bytes[at + 2] === 0xbd;
}

/**
 * The strings by which a tokenizer's tokens are compared.
 *
 * `vocab`: as the vocabulary stores them, with its space marker, as FuseLLM does. `decoded`: the text of each token's
 * bytes, a space for the marker, so that byte-level tokens of other alphabets can be compared with SentencePiece's.
 *
 * @param source the tokenizer, as messages name it
 * @throws InputError where no token carries a known space marker
 */
export function tokenTexts(tokenizer: Tokenizer, mode: TokenTextMode, source: string): TokenTexts {
  const ids = Array.from({ length: tokenizer.vocabularySize }, (_, id) => id);
  const { bosId, eosId, unkId } = tokenizer;
  const special = { bosId, eosId, unkId };
  if (mode === 'decoded') {
    const texts = ids.map((id) => (tokenizer.tokenText(id) === '' ? '' : escapedText(tokenizer.tokenBytes(id))));
    if (!texts.some((text) => text.startsWith(' '))) throw withoutMarker(source);
    return { texts, marker: ' ', ...special };
  }
  const texts = ids.map((id) => tokenizer.tokenText(id));
  const marker = spaceMarker(texts);
  if (marker === undefined) throw withoutMarker(source);
  return { texts, marker, ...special };
}

function withoutMarker(source: string): InputError {
  return new InputError(
    `${source}: no token of the vocabulary begins with a space marker (${MARKERS.join(' or ')}), so its tokens cannot be ` +
      'matched with those of another tokenizer; word-level and WordPiece vocabularies cannot be fused this way',
  );
}
