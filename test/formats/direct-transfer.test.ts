import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { blocksAround, blocksWithin, DIRECT_BLOCK, LEAST_DIRECT_BYTES } from '../../src/formats/direct-transfer.js';
import { openRangeBeside } from '../../src/formats/files-beside.js';
import { layOutShards, openShards } from '../../src/formats/safetensors-shards.js';
import { createBufferPool } from '../../src/fusion/merge/buffer-pool.js';
import { addressModulo } from '../../src/kernels/buffer-address.js';
import { createRandom } from '../../src/random.js';
import { temporaryFolder } from './collect.js';

const directory = temporaryFolder();
const random = createRandom(5);
const noise = (length: number): Uint8Array => Uint8Array.from({ length }, () => Math.floor(256 * random.uniform()));

describe('transfers past the page cache', () => {
  it('give buffers whose addresses fit, with room for whole blocks', () => {
    const pool = createBufferPool();
    for (const phase of [0, 1, 8, 2048, 4095]) {
      const target = pool.take(LEAST_DIRECT_BYTES + 3, phase);
      expect(target.length).toBe(LEAST_DIRECT_BYTES + 3);
      if (addressModulo(target, DIRECT_BLOCK) === undefined) continue;
      expect(addressModulo(target, DIRECT_BLOCK)).toBe(phase);
      const around = blocksAround(7 * DIRECT_BLOCK + phase, target, addressModulo);
      expect(around).toMatchObject({ position: 7 * DIRECT_BLOCK, before: phase });
      expect((around?.bytes.length ?? 1) % DIRECT_BLOCK).toBe(0);
      const within = blocksWithin(7 * DIRECT_BLOCK + phase, target, addressModulo);
      expect((within?.position ?? 1) % DIRECT_BLOCK).toBe(0);
      expect((within?.bytes.length ?? 1) % DIRECT_BLOCK).toBe(0);
      // Another phase, or a short range, takes the common way.
      expect(blocksAround(phase + 1, target, addressModulo)).toBeUndefined();
      expect(blocksAround(phase, target.subarray(0, 100), addressModulo)).toBeUndefined();
      pool.give(target);
    }
  });

  it('read and write the bytes that common transfers do', async () => {
    const bytes = noise(2 * LEAST_DIRECT_BYTES + 777);
    const file = join(directory, 'noise');
    writeFileSync(file, bytes);
    const pool = createBufferPool();
    const range = openRangeBeside(file, addressModulo);
    for (const [from, to] of [
      [0, bytes.length],
      [12_345, bytes.length],
      [4096, 4096 + LEAST_DIRECT_BYTES],
      [5, 9],
    ]) {
      const target = pool.take(to - from, from % DIRECT_BLOCK);
      await range.read(from, target, 'noise');
      expect(Buffer.compare(target, bytes.subarray(from, to))).toBe(0);
    }
    await expect(range.read(bytes.length - 4, pool.take(8), 'the end')).rejects.toThrow(/shrank.*the end/);
    range.close();
    const tensors = [
      { name: 'a', dtype: 'U8' as const, shape: [LEAST_DIRECT_BYTES + 5001] },
      { name: 'b', dtype: 'U8' as const, shape: [LEAST_DIRECT_BYTES - 4224] },
    ];
    const layout = layOutShards(tensors, 1e9, { format: 'pt' }, DIRECT_BLOCK);
    expect(layout.files[0].header.length % DIRECT_BLOCK).toBe(0);
    const files = openShards(directory, layout, addressModulo);
    let at = 0;
    for (const { name, shape } of tensors) {
      const source = pool.take(shape[0], files.phase(name, 0));
      source.set(bytes.subarray(at, at + shape[0]));
      at += shape[0];
      await files.writeBeside(name, 0, source);
    }
    files.close();
    const written = readFileSync(join(directory, layout.files[0].fileName));
    expect(Buffer.compare(written.subarray(layout.files[0].header.length), bytes.subarray(0, at))).toBe(0);
  });
});
