import { InputError } from '../../errors.js';
import type { Tokenizer } from '../../tokenizers/tokenizer.js';
import { separateTexts, type TokenText, type TokenWindows } from '../../training/language/token-data.js';

/** A model as a reader of texts. */
export interface SequenceReader {
  readonly name: string;
  readonly tokenizer: Tokenizer;
  /** Tokens put before and behind every text. */
  readonly prefix?: number;
  readonly end?: number;
}

/** The sequences of one model: sequence s of every model is the same text. */
export interface ModelSequences {
  /** All tokens of each, with those around it. */
  readonly tokens: readonly Int32Array[];
  /** A window each. */
  readonly windows: TokenWindows;
  /** Whether a token stands before the text. */
  readonly prefixed: boolean;
}

/** Places of a window that stay free, so that a piece that is read alone need not be measured again. */
const MARGIN = 1 / 48;
/** A piece ends at white space where there is some in its last part of this size. */
const SEARCHED = 1 / 4;

const encode = (reader: SequenceReader, text: string): Int32Array =>
  reader.tokenizer.encode(text, { addSpecialTokens: false });

/** A place at or before `at` to cut a text, behind no half of a character and before white space where one is near. */
function placeBefore(text: string, at: number): number {
  if (at >= text.length) return text.length;
  const least = Math.max(1, Math.floor(at * (1 - SEARCHED)));
  for (let place = at; place >= least; place--) if (/\s/.test(text[place])) return place;
  const half = /[\uDC00-\uDFFF]/.test(text[at]) && at > 1;
  return half ? at - 1 : at;
}

/**
 * Cuts a text into pieces that fit the windows of all readers: each as long as the tokenizer that needs the most tokens
 * allows (FuseLLM cuts by that one too). Pieces put together are the text.
 * @param length positions of a window; a sequence has one token more
 */
export function cutText(text: string, readers: readonly SequenceReader[], length: number): string[] {
  const needed = (piece: string): number =>
    readers.reduce((most, reader) => {
      const around = (reader.prefix === undefined ? 0 : 1) + (reader.end === undefined ? 0 : 1);
      return Math.max(most, encode(reader, piece).length + around);
    }, 0);
  const room = length + 1;
  const pieces: string[] = [];
  let rest = text;
  let density = needed(text) / Math.max(1, text.length);
  while (rest.length > 0) {
    let place = placeBefore(rest, Math.max(1, Math.floor((room * (1 - MARGIN)) / density)));
    let count = needed(rest.slice(0, place));
    while (count > room) {
      const shorter = Math.floor(place * Math.min(0.95, room / count));
      if (shorter < 1)
        throw new InputError(`--context ${length} holds not even one character with the tokens around it`);
      place = placeBefore(rest, shorter);
      count = needed(rest.slice(0, place));
    }
    density = count / place;
    pieces.push(rest.slice(0, place));
    rest = rest.slice(place);
  }
  return pieces;
}

/**
 * One window a text.
 * @param texts without the tokens around them
 * @throws InputError for texts of which nothing is asked
 */
export function modelSequences(
  texts: readonly TokenText[],
  { prefix, end }: Pick<SequenceReader, 'prefix' | 'end'>,
  length: number,
): ModelSequences {
  const around = { ...(prefix !== undefined && { prefix }), ...(end !== undefined && { end }) };
  const tokens = texts.map((text) =>
    Int32Array.of(
      ...(prefix === undefined ? [] : [prefix]),
      ...text.tokens,
      ...(end === undefined ? [] : [end]),
    ).subarray(0, length + 1),
  );
  return { tokens, windows: separateTexts(texts, { length, ...around }), prefixed: prefix !== undefined };
}

/** Bytes of tokens, white space and special tokens left out. */
function bareBytes(tokens: Int32Array, tokenizer: Tokenizer): Buffer {
  const parts: Uint8Array[] = [];
  for (const id of tokens) if (!tokenizer.isSpecial(id)) parts.push(tokenizer.tokenBytes(id));
  return Buffer.concat(parts).filter((byte) => byte > 0x20) as Buffer;
}

/** Bytes shown of texts that differ. */
const SHOWN = 24;

/**
 * Whether two models read the same text.
 * @throws InputError with both texts from where they differ
 */
export function checkCommonText(
  a: SequenceReader,
  b: SequenceReader,
  [ofA, ofB]: readonly [Int32Array, Int32Array],
  place: string,
): void {
  const first = bareBytes(ofA, a.tokenizer);
  const second = bareBytes(ofB, b.tokenizer);
  if (Buffer.compare(first, second) === 0) return;
  let at = 0;
  while (at < first.length && first[at] === second[at]) at++;
  const shown = (bytes: Buffer): string =>
    JSON.stringify(Buffer.from(bytes.subarray(Math.max(0, at - 8), at + SHOWN)).toString('utf8'));
  throw new InputError(
    `${place}: ${a.name} and ${b.name} do not read the same text: ${shown(first)} and ${shown(second)}; their tokenizers ` +
      'must not change it (lower case, normalisation), and captures must be of the same data',
  );
}
