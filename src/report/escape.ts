import { isUtf8 } from 'node:buffer';

const NAMED: Readonly<Record<number, string>> = { 9: '\\t', 10: '\\n', 13: '\\r', 92: '\\\\' };

const hexByte = (byte: number): string => `\\x${byte.toString(16).padStart(2, '0')}`;

/** Length of the well-formed UTF-8 sequence at `start`, or 0. */
function sequenceLength(bytes: Uint8Array, start: number): number {
  const lead = bytes[start];
  const length =
    lead < 0x80
      ? 1
      : lead >= 0xc2 && lead <= 0xdf
        ? 2
        : lead >= 0xe0 && lead <= 0xef
          ? 3
          : lead >= 0xf0 && lead <= 0xf4
            ? 4
            : 0;
  return length > 0 && isUtf8(bytes.subarray(start, start + length)) && start + length <= bytes.length ? length : 0;
}

/** Characters that some reader takes for the end of a line: C1 next line, line and paragraph separator. */
function breaksLine(code: number): boolean {
  return code === 0x85 || code === 0x2028 || code === 0x2029;
}

/**
 * Token text for a table: one row stays one line. `\n \t \r \\` stand for newline, tab, carriage return and backslash;
 * bytes that are no complete UTF-8 character, other control characters and the Unicode line separators become `\xNN`,
 * one a byte. No two different byte strings give the same text.
 */
export function escapeToken(token: Uint8Array | string): string {
  const bytes = typeof token === 'string' ? Buffer.from(token, 'utf8') : token;
  let text = '';
  for (let i = 0; i < bytes.length; ) {
    const length = sequenceLength(bytes, i);
    if (length === 0) {
      text += hexByte(bytes[i++]);
      continue;
    }
    const byte = bytes[i];
    const sequence = bytes.subarray(i, i + length);
    i += length;
    if (NAMED[byte] !== undefined) text += NAMED[byte];
    else if (byte < 0x20 || byte === 0x7f) text += hexByte(byte);
    else {
      const character = Buffer.from(sequence).toString('utf8');
      text += breaksLine(character.codePointAt(0)!) ? Array.from(sequence, hexByte).join('') : character;
    }
  }
  return text;
}
