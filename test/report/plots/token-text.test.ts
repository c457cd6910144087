import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { oneLine, visiblePieces } from '../../../src/report/plots/token-text.js';

const shown = (token: string | Uint8Array): string =>
  visiblePieces(token)
    .map(({ text }) => text)
    .join('');
const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

describe('visiblePieces', () => {
  it.each([
    [' the', ' the'],
    ['a b', 'a b'],
    ['  x', '\u00b7\u00b7x'],
    ['if  x', 'if\u00b7\u00b7x'],
    [' ', '\u00b7'],
    ['x  ', 'x\u00b7\u00b7'],
    ['\n\n', '\u21b5\u21b5'],
    ['\t', '\u21e5'],
    ['\r\n', '\\x0d\u21b5'],
    ['\u0000\u001b[31m', '\\x00\\x1b[31m'],
    ['\u202eevil', 'U+202Eevil'],
    ['\u200b', 'U+200B'],
    ['\u00a0', 'U+00A0'],
    ['\ud800', 'U+D800'],
    ['\u0301', '\u25cc\u0301'],
    ['e\u0301', 'e\u0301'],
    ['\u{1f468}\u200d\u{1f469}', '\u{1f468}\u200d\u{1f469}'],
    ['\u200da', 'U+200Da'],
    ['', '\u2205'],
  ])('shows %j as %j', (token, text) => {
    expect(shown(token)).toBe(text);
  });

  it.each([
    [bytes(0xe2, 0x82), '\\xe2\\x82'],
    [bytes(0xac, 0x41, 0xff), '\\xacA\\xff'],
    [bytes(0xf0, 0x9f, 0x98, 0x80), '\u{1f600}'],
    [bytes(0xc0, 0xaf), '\\xc0\\xaf'],
    [bytes(0xed, 0xa0, 0x80), '\\xed\\xa0\\x80'],
    [bytes(0xf4, 0x90, 0x80, 0x80), '\\xf4\\x90\\x80\\x80'],
    [bytes(0xe0, 0x80, 0x80), '\\xe0\\x80\\x80'],
  ])('shows bytes that are no character as numbers', (token, text) => {
    expect(shown(token)).toBe(text);
  });

  it('reads well-formed UTF-8 as its string', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        expect(visiblePieces(new TextEncoder().encode(text))).toEqual(visiblePieces(text));
      }),
    );
  });

  it('finds the same broken bytes as the platform decoder', () => {
    const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 8 }), (token) => {
        let wellFormed = true;
        try {
          decoder.decode(token);
        } catch {
          wellFormed = false;
        }
        const broken = visiblePieces(token).some(({ text, sign }) => sign && /^\\x[89a-f]/.test(text));
        expect(broken).toBe(!wellFormed);
      }),
      { numRuns: 500 },
    );
  });

  it('shows no control and no direction mark', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(shown(text)).not.toMatch(/[\p{Cc}\u202a-\u202e\u2066-\u2069\u2028\u2029]/u);
      }),
    );
  });

  it('ends the line at a line feed', () => {
    expect(visiblePieces('a\nb')).toEqual([
      { text: 'a', sign: false },
      { text: '\u21b5', sign: true, lineBreak: true },
      { text: 'b', sign: false },
    ]);
  });
});

describe('oneLine', () => {
  it('cuts to the cells that there are', () => {
    expect(oneLine('x'.repeat(50), 10)).toBe(`${'x'.repeat(9)}\u2026`);
    expect(oneLine('\u4e2d'.repeat(10), 10)).toBe(`${'\u4e2d'.repeat(4)}\u2026`);
    expect(oneLine('short', 10)).toBe('short');
  });
});
