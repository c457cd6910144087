import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { hashWhileReading, sha256File, sha256Files } from '../../src/formats/hash.js';
import { temporaryDirectory } from './written-elsewhere.js';

const directory = temporaryDirectory();
const bytes = Buffer.alloc(3_000_001, 'entropy');
const file = path.join(directory, 'model.safetensors');
fs.writeFileSync(file, bytes);
const whole = createHash('sha256').update(bytes).digest('hex');

describe('sha256File', () => {
  it('agrees with FIPS 180-4 and with the whole', async () => {
    const abc = path.join(directory, 'abc');
    fs.writeFileSync(abc, 'abc');
    expect(await sha256File(abc)).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
    expect(await sha256File(file)).toBe(whole);
    await expect(sha256File(path.join(directory, 'absent'))).rejects.toThrow(InputError);
  });
});

describe('hashWhileReading', () => {
  it('is right for reads in order, overlapping, out of order, partial and none', async () => {
    const orders: [number, number][][] = [
      [
        [0, 1_000_000],
        [1_000_000, 2_000_000],
        [2_000_000, bytes.length],
      ],
      [
        [0, 1_000_000],
        [500_000, 1_500_000],
        [0, 10],
      ],
      [
        [2_000_000, 3_000_000],
        [0, 100],
        [200, 300],
      ],
      [],
    ];
    for (const order of orders) {
      const hash = hashWhileReading(file);
      for (const [start, end] of order) hash.observe(start, bytes.subarray(start, end));
      expect(await hash.hex()).toBe(whole);
    }
  });
});

describe('sha256Files', () => {
  it('lists the model files of a directory by name', async () => {
    fs.writeFileSync(path.join(directory, 'config.json'), '{}');
    fs.writeFileSync(path.join(directory, 'README.md'), '');
    fs.mkdirSync(path.join(directory, 'sub.json'));
    const hashed = await sha256Files(directory);
    expect(hashed.map(({ name, bytes: size }) => [name, size])).toEqual([
      ['config.json', 2],
      ['model.safetensors', bytes.length],
    ]);
    expect(hashed[1].sha256).toBe(whole);
    expect(await sha256Files(file)).toEqual([{ name: 'model.safetensors', bytes: bytes.length, sha256: whole }]);
  });
});
