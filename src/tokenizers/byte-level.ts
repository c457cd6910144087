/**
 * The printable stand-ins for bytes of GPT-2's byte-level vocabularies (Radford et al. 2019, `bytes_to_unicode`):
 * printable Latin-1 stands for itself, every other byte for U+0100 and up, in order.
 */
const BYTE_TO_CHAR: readonly string[] = (() => {
  const chars: string[] = [];
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    chars.push(String.fromCharCode(printable ? byte : next++));
  }
  return chars;
})();

const CODE_TO_BYTE = (() => {
  const table = new Int16Array(0x144).fill(-1);
  for (let byte = 0; byte < 256; byte++) table[BYTE_TO_CHAR[byte].charCodeAt(0)] = byte;
  return table;
})();

const encoder = new TextEncoder();

/** The UTF-8 bytes of `text`, each as its stand-in. */
export function toByteLevel(text: string): string {
  let mapped = '';
  let ascii = true;
  for (let i = 0; i < text.length && ascii; i++) ascii = text.charCodeAt(i) < 0x80;
  if (ascii) {
    for (let i = 0; i < text.length; i++) mapped += BYTE_TO_CHAR[text.charCodeAt(i)];
    return mapped;
  }
  for (const byte of encoder.encode(text)) mapped += BYTE_TO_CHAR[byte];
  return mapped;
}

/** The bytes that a byte-level token stands for, or undefined where a character is no stand-in. */
export function fromByteLevel(token: string): Uint8Array | undefined {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const code = token.charCodeAt(i);
    const byte = code < CODE_TO_BYTE.length ? CODE_TO_BYTE[code] : -1;
    if (byte < 0) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}

/** The byte that a byte-fallback token `<0xNN>` stands for, or -1. */
export function fallbackByte(token: string): number {
  return /^<0x[0-9A-Fa-f]{2}>$/.test(token) ? Number.parseInt(token.slice(3, 5), 16) : -1;
}

/** The byte-fallback tokens in the order of their bytes. */
export const FALLBACK_TOKENS: readonly string[] = Array.from(
  { length: 256 },
  (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
);
