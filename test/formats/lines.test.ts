import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkedUtf8, firstInvalidUtf8, readLineBatches } from '../../src/formats/lines.js';
import { chunked, collect } from './collect.js';

const lines = async (text: string | Uint8Array, ...sizes: number[]): Promise<string[]> =>
  (await collect(readLineBatches(chunked(Buffer.from(text), ...sizes), 'f.txt'))).flatMap((batch) => batch.lines);

describe('firstInvalidUtf8', () => {
  it('agrees with the decoder of the platform on any bytes', () => {
    const decoder = new TextDecoder('utf-8', { fatal: true });
    const accepts = (bytes: Uint8Array): boolean => {
      try {
        decoder.decode(bytes);
        return true;
      } catch {
        return false;
      }
    };
    const mixed = fc.array(
      fc.oneof(
        fc.uint8Array({ maxLength: 3 }),
        fc.string({ unit: 'binary', maxLength: 3 }).map((text) => new Uint8Array(Buffer.from(text))),
        fc
          .constantFrom([0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xe0, 0x9f, 0xbf], [0xc1, 0xbf])
          .map((b) => Uint8Array.from(b)),
      ),
      { maxLength: 6 },
    );
    fc.assert(
      fc.property(mixed, (parts) => {
        const bytes = Buffer.concat(parts);
        const at = firstInvalidUtf8(bytes);
        expect(at === -1).toBe(accepts(bytes));
        if (at >= 0) expect(accepts(bytes.subarray(0, at))).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('readLineBatches', () => {
  it('gives the same lines whatever the chunks are', async () => {
    const unit = fc.constantFrom('a', '\n', '\r\n', '\r', 'é', '日', '🙂', ' ');
    await fc.assert(
      fc.asyncProperty(
        fc.array(unit),
        fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1 }),
        async (parts, sizes) => {
          const text = parts.join('');
          const expected = text.split('\n').map((line) => line.replace(/\r$/, ''));
          if (text === '' || text.endsWith('\n')) expected.pop();
          expect(await lines(text, ...sizes)).toEqual(expected);
        },
      ),
    );
  });

  it('numbers lines from 1 and drops a byte order mark', async () => {
    const batches = await collect(readLineBatches(chunked(Buffer.from('\ufeffa\nb\nc\nd'), 4), 'f.txt'));
    const numbered = batches.flatMap((batch) => batch.lines.map((line, i) => [batch.firstLine + i, line]));
    expect(numbered).toEqual([
      [1, 'a'],
      [2, 'b'],
      [3, 'c'],
      [4, 'd'],
    ]);
  });

  it('names the byte of invalid UTF-8 over all chunks', async () => {
    const bytes = Buffer.concat([Buffer.from('é\nab\n日'), Buffer.from([0xff]), Buffer.from('x\n')]);
    await expect(lines(bytes, 3)).rejects.toThrow('f.txt: invalid UTF-8 at byte 9');
    await expect(lines(Buffer.from('ab\né').subarray(0, 4), 100)).rejects.toThrow('invalid UTF-8 at byte 3');
    await expect(lines(Buffer.from('\ufeffa', 'utf16le'), 100)).rejects.toThrow('looks like UTF-16');
  });
});

describe('checkedUtf8', () => {
  it('passes the bytes on, cut between characters', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.string({ unit: 'binary', maxLength: 40 }),
        fc.integer({ min: 1, max: 5 }),
        async (text, size) => {
          const blocks = await collect(checkedUtf8(chunked(Buffer.from(text), size), 'f'));
          for (const block of blocks) expect(firstInvalidUtf8(block)).toBe(-1);
          expect(Buffer.concat(blocks).toString()).toBe(Buffer.from(text).toString());
        },
      ),
    );
  });

  it('refuses a character that the end cuts off, with its offset', async () => {
    const bytes = Buffer.from('abc日').subarray(0, 5);
    await expect(collect(checkedUtf8(chunked(bytes, 2), 'f.csv'))).rejects.toThrow('f.csv: invalid UTF-8 at byte 3');
  });
});
