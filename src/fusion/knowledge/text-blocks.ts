import { InputError } from '../../errors.js';
import type { Tokenizer } from '../../tokenizers/tokenizer.js';

/** Tokens that a block stays below its size, since a piece of a text may take more tokens than the text did. */
const SLACK = 48;

/** Special tokens are neither added nor read out of a text. */
export const PLAIN = { addSpecialTokens: false, parseSpecialTokens: false } as const;

/** Ends of pieces of `size` tokens in the UTF-8 of a text; undefined where the tokens' bytes are not the text's. */
function pieceEnds(tokenizer: Tokenizer, ids: Int32Array, bytes: Uint8Array, size: number): number[] | undefined {
  const ends: number[] = [];
  let at = 0;
  for (let i = 0; i < ids.length; i++) {
    at += tokenizer.tokenBytes(ids[i]).length;
    if ((i + 1) % size === 0) ends.push(at);
  }
  if (at !== bytes.length) return undefined;
  // A character whose bytes are several tokens is not cut.
  const whole = ends.map((end) => {
    let before = end;
    while (before > 0 && (bytes[before] & 0xc0) === 0x80) before--;
    return before;
  });
  return [...whole.filter((end) => end < at), at];
}

/**
 * Cuts a long text as FuseLLM does: by the tokenizer that takes most tokens, into pieces of `size - 48` tokens. Where that
 * tokenizer's tokens do not spell the text (it normalises), pieces are what it decodes.
 */
export function cutText(text: string, tokenizers: readonly Tokenizer[], size: number): string[] {
  const step = size - SLACK;
  if (step < 1) throw new RangeError(`blocks of ${size} tokens`);
  const encoded = tokenizers.map((tokenizer) => tokenizer.encode(text, PLAIN));
  const most = encoded.reduce((best, ids, i) => (ids.length > encoded[best].length ? i : best), 0);
  const ids = encoded[most];
  if (ids.length <= step) return [text];
  const tokenizer = tokenizers[most];
  const bytes = new TextEncoder().encode(text);
  const ends = pieceEnds(tokenizer, ids, bytes, step);
  if (ends !== undefined) {
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    return ends.map((end, i) => decoder.decode(bytes.subarray(i === 0 ? 0 : ends[i - 1], end))).filter((own) => own);
  }
  const pieces: string[] = [];
  for (let at = 0; at < ids.length; at += step) pieces.push(tokenizer.decode(ids.subarray(at, at + step)));
  return pieces.filter((own) => own !== '');
}

/** Text of ids without special tokens and without spaces, in pieces: an unknown token may be any text. */
function textPieces(tokenizer: Tokenizer, ids: Int32Array): string[] {
  const pieces: number[][] = [[]];
  for (const id of ids) {
    if (id === tokenizer.unkId) pieces.push([]);
    else if (!tokenizer.isSpecial(id))
      for (const byte of tokenizer.tokenBytes(id)) pieces[pieces.length - 1].push(byte);
  }
  return pieces.map((piece) => Buffer.from(piece.filter((byte) => byte !== 0x20)).toString('latin1'));
}

/** Whether `text` is the pieces in their order, with anything between them. */
function matches(text: string, pieces: readonly string[]): boolean {
  if (pieces.length === 1) return text === pieces[0];
  const tail = pieces[pieces.length - 1];
  if (!text.startsWith(pieces[0]) || !text.endsWith(tail)) return false;
  let at = pieces[0].length;
  for (const piece of pieces.slice(1, -1)) {
    const found = text.indexOf(piece, at);
    if (found < 0) return false;
    at = found + piece.length;
  }
  return at + tail.length <= text.length;
}

/** The first place at which two texts part, with what follows there in both; undefined where they are the same text. */
export interface TextDifference {
  /** Byte of the text without its spaces. */
  readonly at: number;
  readonly source: string;
  readonly pivot: string;
}

const EXCERPT = 24;

/** Whether two encodings spell one text: concatenated tokens without spaces, but for special and unknown tokens. */
export function textDifference(
  source: { readonly tokenizer: Tokenizer; readonly ids: Int32Array },
  pivot: { readonly tokenizer: Tokenizer; readonly ids: Int32Array },
): TextDifference | undefined {
  const a = textPieces(source.tokenizer, source.ids);
  const b = textPieces(pivot.tokenizer, pivot.ids);
  // With unknown tokens on both sides there is nothing to hold against each other.
  if (a.length > 1 && b.length > 1) return undefined;
  if (b.length === 1 ? matches(b[0], a) : matches(a[0], b)) return undefined;
  let at = 0;
  while (at < a[0].length && a[0][at] === b[0][at]) at++;
  const excerpt = (piece: string): string => Buffer.from(piece.slice(at, at + EXCERPT), 'latin1').toString('utf8');
  return { at, source: excerpt(a[0]), pivot: excerpt(b[0]) };
}

/** @throws InputError naming the document and where the texts part */
export function refuseDifference(place: string, found: TextDifference, source: string, pivot: string): never {
  throw new InputError(
    `${place}: ${source} and ${pivot} do not give the same text: from byte ${found.at} on (spaces left out) ` +
      `${JSON.stringify(found.source)} against ${JSON.stringify(found.pivot)}; such texts have no common positions: ` +
      'leave them out with --drop-different',
  );
}
