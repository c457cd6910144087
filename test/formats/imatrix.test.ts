import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openImatrix, writeImatrix } from '../../src/formats/imatrix.js';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'imatrix-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
};
const text = (value: string): Buffer => Buffer.concat([int32(value.length), Buffer.from(value)]);
const floats = (...values: number[]): Buffer => Buffer.from(Float32Array.from(values).buffer);

function file(name: string, ...parts: Buffer[]): string {
  const path = join(directory, name);
  writeFileSync(path, Buffer.concat(parts));
  return path;
}

describe('the old binary form', () => {
  const entry = Buffer.concat([text('blk.0.attn_q.weight'), int32(4), int32(3), floats(4, 8, 2)]);

  it('holds means of squares times calls', () => {
    const found = openImatrix(file('a.dat', int32(1), entry, int32(17), text('wiki.train.raw')));
    expect(found).toMatchObject({ format: 'dat', chunks: 17, datasets: ['wiki.train.raw'] });
    expect(found.entries.get('blk.0.attn_q.weight')?.meanSquares).toEqual(Float32Array.of(1, 2, 0.5));
  });

  it('may end after its entries, as it did at first', () => {
    const found = openImatrix(file('b.dat', int32(1), entry));
    expect(found.chunks).toBeUndefined();
    expect(found.datasets).toEqual([]);
  });

  it('is refused when it is damaged', () => {
    expect(() => openImatrix(file('c.dat', int32(1), entry.subarray(0, -2)))).toThrow(/truncated/);
    expect(() => openImatrix(file('d.dat', int32(2), entry))).toThrow(/truncated/);
    expect(() => openImatrix(file('e.dat', Buffer.from('[{"a": 1}]  ')))).toThrow(/not an importance matrix/);
    expect(() => openImatrix(file('f.dat'))).toThrow(/0 bytes/);
    const nan = Buffer.concat([text('x'), int32(1), int32(1), floats(Number.NaN)]);
    expect(() => openImatrix(file('g.dat', int32(1), nan))).toThrow(/importance NaN of "x", value 0/);
    expect(() => openImatrix(file('h.dat', int32(2), entry, entry))).toThrow(/stands twice/);
  });
});

const ENTRIES = [
  { name: 'blk.0.ffn_down_exps.weight', sumSquares: [2, 4, 0, 0, 9, 3], counts: [2, 0, 3] },
  { name: 'blk.0.attn_q.weight', sumSquares: [10, 20, 40], counts: [10] },
];
const SOURCE = { chunks: 3, chunkTokens: 2, datasets: ['a.txt', 'b.txt'] };

describe.each(['gguf', 'dat'] as const)('written as %s', (format) => {
  it('reads back, an expert without rows with importance 1', () => {
    const path = join(directory, `round.${format}`);
    writeImatrix(path, ENTRIES, SOURCE);
    const found = openImatrix(path);
    expect(found.format).toBe(format);
    expect(found.chunks).toBe(3);
    expect(found.datasets).toEqual(format === 'gguf' ? SOURCE.datasets : ['a.txt']);
    expect(found.entries.get('blk.0.attn_q.weight')?.meanSquares).toEqual(Float32Array.of(1, 2, 4));
    expect(found.entries.get('blk.0.ffn_down_exps.weight')?.meanSquares).toEqual(Float32Array.of(1, 2, 1, 1, 3, 1));
    expect(() => writeImatrix(path, ENTRIES, SOURCE)).toThrow(/exists/);
  });
});

describe('GGUF files that are not importance matrices', () => {
  it('are refused', () => {
    expect(() => openImatrix('fixtures/gguf/qwen2-moe.f32.gguf')).toThrow(/not an importance matrix/);
  });
});
