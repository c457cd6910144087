import { cellCount } from './text-layout.js';

/**
 * One piece of a token as it is shown. A `sign` stands for something that has no glyph of its own: a space that would
 * be overlooked, a line break, a control character, a byte that is no text. `lineBreak` ends the line after the piece.
 */
export interface TextPiece {
  readonly text: string;
  readonly sign: boolean;
  readonly lineBreak?: boolean;
}

function hexByte(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, '0')}`;
}

/** Length of the well-formed UTF-8 sequence (Unicode 15, table 3-7) at `at`, or 0 when there is none. */
function sequenceLength(bytes: Uint8Array, at: number): number {
  const lead = bytes[at];
  if (lead < 0x80) return 1;
  const length =
    lead >= 0xc2 && lead <= 0xdf ? 2 : lead >= 0xe0 && lead <= 0xef ? 3 : lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
  if (length === 0 || at + length > bytes.length) return 0;
  const lowest = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  const highest = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
  if (bytes[at + 1] < lowest || bytes[at + 1] > highest) return 0;
  for (let i = 2; i < length; i++) if ((bytes[at + i] & 0xc0) !== 0x80) return 0;
  return length;
}

/** Characters, and bytes that belong to none as their number. */
function* characters(token: string | Uint8Array): Generator<string | number> {
  if (typeof token === 'string') {
    yield* token;
    return;
  }
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  for (let at = 0; at < token.length; ) {
    const length = sequenceLength(token, at);
    if (length === 0) {
      yield token[at];
      at += 1;
    } else {
      yield decoder.decode(token.subarray(at, at + length));
      at += length;
    }
  }
}

/** Controls, formats (direction marks, joiners), lone surrogates, unassigned and private characters, odd spaces. */
const INVISIBLE = /^[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]$/u;

/** Joiners, which shape emoji and the letters of several scripts, and mean nothing at the ends of a token. */
const JOINER = /^[\u200c\u200d]$/;

/**
 * A token as pieces that can be seen: a single space before a character stays a space (the box of the token shows it),
 * other spaces become `·`, a line feed `↵`, a tab `⇥`, other invisible characters `\xNN` or their code point, bytes that
 * are part of no character `\xNN`. A combining mark at the start gets a dotted circle, or it would join the token before.
 */
export function visiblePieces(token: string | Uint8Array): TextPiece[] {
  const pieces: TextPiece[] = [];
  let run = '';
  const flush = (): void => {
    if (run !== '') pieces.push({ text: run, sign: false });
    run = '';
  };
  const sign = (text: string, lineBreak?: boolean): void => {
    flush();
    pieces.push(lineBreak === true ? { text, sign: true, lineBreak } : { text, sign: true });
  };
  const all = [...characters(token)];
  const isText = (character: string | number | undefined): boolean =>
    typeof character === 'string' && character !== ' ' && !INVISIBLE.test(character);
  for (let i = 0; i < all.length; i++) {
    const character = all[i];
    if (typeof character === 'number') sign(hexByte(character));
    else if (character === ' ') {
      if (isText(all[i + 1]) && all[i - 1] !== ' ') run += ' ';
      else sign('\u00b7');
    } else if (character === '\n') sign('\u21b5', true);
    else if (character === '\t') sign('\u21e5');
    else if (JOINER.test(character) && isText(all[i - 1]) && isText(all[i + 1])) run += character;
    else if (INVISIBLE.test(character)) {
      const code = character.codePointAt(0)!;
      sign(code < 0x20 || code === 0x7f ? hexByte(code) : `U+${code.toString(16).toUpperCase().padStart(4, '0')}`);
    } else if (i === 0 && /^\p{M}$/u.test(character)) run += `\u25cc${character}`;
    else run += character;
  }
  flush();
  if (pieces.length === 0) pieces.push({ text: '\u2205', sign: true });
  return pieces;
}

/** A token on one line, cut to `most` monospaced cells: for hover texts and tables. */
export function oneLine(token: string | Uint8Array, most = 40): string {
  const text = visiblePieces(token)
    .map((piece) => piece.text)
    .join('');
  if (cellCount(text) <= most) return text;
  let kept = '';
  let cells = 0;
  for (const character of text) {
    cells += cellCount(character);
    if (cells >= most) break;
    kept += character;
  }
  return `${kept}\u2026`;
}
