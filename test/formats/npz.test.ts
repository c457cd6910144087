import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { openNpz } from '../../src/formats/npz.js';
import { contents, expected, fixture, temporaryDirectory } from './written-elsewhere.js';

const directory = temporaryDirectory();

function write(name: string, bytes: Uint8Array): string {
  const file = path.join(directory, name);
  fs.writeFileSync(file, bytes);
  return file;
}

describe('openNpz', () => {
  it('reads stored arrays and tells which it does not read', () => {
    const store = openNpz(fixture('stored.npz'));
    expect(contents(store)).toEqual(expected['stored.npz']);
    expect([...store.refused.keys()]).toEqual(['labels']);
    expect(store.refused.get('labels')).toMatch(/array "labels": dtype "<U1" \(text\) is not read/);
    store.close();
  });

  it('reads deflated arrays in order and by steps back', () => {
    const store = openNpz(fixture('deflated.npz'));
    const { zeros, ...rest } = contents(store);
    expect(rest).toEqual(expected['deflated.npz']);
    expect(zeros.hex).toBe('0'.repeat(2 * 4 * 300_000));
    const info = store.tensors.get('logits')!;
    const part = Buffer.alloc(40);
    for (const start of [2000, 40, 44, 0, 2360]) {
      store.readInto(info, start, 40, part);
      expect(part.toString('hex')).toBe(expected['deflated.npz'].logits.hex.slice(2 * start, 2 * start + 80));
    }
    store.close();
  });

  it('reads zip64 fields', () => {
    const store = openNpz(fixture('zip64.npz'));
    expect(contents(store)).toEqual(expected['zip64.npz']);
    store.close();
  });

  it('reads an archive with a comment', () => {
    const whole = Buffer.from(fs.readFileSync(fixture('stored.npz')));
    whole.writeUInt16LE(5, whole.length - 2);
    const store = openNpz(write('comment.npz', Buffer.concat([whole, Buffer.from('PK\x05\x06!')])));
    expect(contents(store)).toEqual(expected['stored.npz']);
    store.close();
  });
});

describe('NPZ archives that are refused', () => {
  it('empty, truncated and foreign files', () => {
    expect(() => openNpz(write('empty.npz', new Uint8Array(0)))).toThrow(/the file is empty/);
    expect(() => openNpz(fixture('types.gguf'))).toThrow(/no ZIP directory at its end/);
    const whole = fs.readFileSync(fixture('deflated.npz'));
    for (let length = 1; length < whole.length; length += 31)
      expect(() => openNpz(write('cut.npz', whole.subarray(0, length)))).toThrow(InputError);
  });

  it('damaged data and a wrong checksum', () => {
    const whole = fs.readFileSync(fixture('deflated.npz'));
    const store = openNpz(fixture('deflated.npz'));
    const { offset } = store.tensors.get('logits')!;
    store.close();
    const readAll = (bytes: Uint8Array) => (): void => {
      const damaged = openNpz(write('damaged.npz', bytes));
      try {
        contents(damaged);
      } finally {
        damaged.close();
      }
    };
    const data = Buffer.from(whole);
    data[offset + 1500] ^= 0x10;
    expect(readAll(data)).toThrow(/entry "logits.npy".*damaged, write it again/);
    const checksum = Buffer.from(whole);
    checksum[whole.indexOf(Buffer.from('PK\x01\x02')) + 16] ^= 1;
    expect(readAll(checksum)).toThrow(/its checksum is wrong/);
  });

  it('sizes that deflate cannot reach, encryption, other methods', () => {
    const whole = fs.readFileSync(fixture('deflated.npz'));
    const central = whole.indexOf(Buffer.from('PK\x01\x02'));
    const change = (at: number, value: number, width: 2 | 4): string => {
      const bytes = Buffer.from(whole);
      bytes.writeUIntLE(value, central + at, width);
      return write('changed.npz', bytes);
    };
    expect(() => openNpz(change(24, 0xf0000000, 4))).toThrow(/cannot come out of/);
    expect(() => openNpz(change(8, 1, 2))).toThrow(/is encrypted/);
    expect(() => openNpz(change(10, 14, 2))).toThrow(/compression method 14 is not read/);
    expect(() => openNpz(change(42, 0x7fffffff, 4))).toThrow(/truncated archive/);
    expect(() => openNpz(change(20, 0x7fffffff, 4))).toThrow(InputError);
  });

  it('an archive with no array that can be read', () => {
    const eocd = Buffer.alloc(22);
    eocd.write('PK\x05\x06');
    expect(() => openNpz(write('none.npz', eocd))).toThrow(/holds no .npy arrays/);
  });
});
