import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { escapeToken } from '../../src/report/escape.js';

/** The inverse, written from the rules alone. */
function unescapeToken(text: string): Buffer {
  const parts: Buffer[] = [];
  for (const [found] of text.matchAll(/\\x([0-9a-f]{2})|\\.|[^\\]+/gs)) {
    if (found.startsWith('\\x')) parts.push(Buffer.from([Number.parseInt(found.slice(2), 16)]));
    else if (found.startsWith('\\')) parts.push(Buffer.from({ n: '\n', t: '\t', r: '\r', '\\': '\\' }[found[1]] ?? ''));
    else parts.push(Buffer.from(found));
  }
  return Buffer.concat(parts);
}

describe('escapeToken', () => {
  it.each([
    [' the', ' the'],
    ['a\nb\tc\rd\\e', 'a\\nb\\tc\\rd\\\\e'],
    ['日本', '日本'],
    ['\u0000\u001b\u007f', '\\x00\\x1b\\x7f'],
    ['a\u2028b\u0085', 'a\\xe2\\x80\\xa8b\\xc2\\x85'],
  ])('writes %j as %s', (text, expected) => {
    expect(escapeToken(text)).toBe(expected);
  });

  it('writes pieces of characters byte by byte', () => {
    const bytes = Buffer.from('é日🙂');
    expect(escapeToken(bytes.subarray(1, 4))).toBe('\\xa9\\xe6\\x97');
    expect(escapeToken(bytes.subarray(5))).toBe('🙂');
    expect(escapeToken(Uint8Array.from([0xf0, 0x9f, 0x41]))).toBe('\\xf0\\x9fA');
    expect(escapeToken(Uint8Array.from([0xc0, 0x80, 0xed, 0xa0, 0x80]))).toBe('\\xc0\\x80\\xed\\xa0\\x80');
  });

  it('keeps every byte string apart, on one line', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 12 }),
      fc.string({ unit: 'binary' }).map((text) => new Uint8Array(Buffer.from(text))),
      fc.constantFrom('\\x41', '\\n', '\\\\', '\u2029').map((text) => new Uint8Array(Buffer.from(text))),
    );
    fc.assert(
      fc.property(bytes, (token) => {
        const text = escapeToken(token);
        expect(text).not.toMatch(/[\n\r\t\u0085\u2028\u2029\v\f]/);
        expect(Buffer.compare(unescapeToken(text), Buffer.from(token))).toBe(0);
      }),
      { numRuns: 1000 },
    );
  });
});
