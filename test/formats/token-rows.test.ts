import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readDocuments } from '../../src/formats/documents.js';
import { createNpyWriter } from '../../src/formats/npy.js';
import type { DType } from '../../src/formats/tensor.js';
import { collect, temporaryFolder } from './collect.js';

const folder = temporaryFolder();

function save(name: string, dtype: DType, shape: number[], values: ArrayBufferView): string {
  const path = join(folder, name);
  const writer = createNpyWriter(path, { dtype, shape });
  writer.write(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  writer.commit();
  return path;
}

describe('token rows of an .npy array', () => {
  it.each([
    ['I64', BigInt64Array.from([1n, 2n, 3n, 2147483647n, 0n, 5n])],
    ['U32', Uint32Array.from([1, 2, 3, 2147483647, 0, 5])],
    ['I32', Int32Array.from([1, 2, 3, 2147483647, 0, 5])],
  ] as const)('are documents, of %s', async (dtype, values) => {
    const path = save(`${dtype}.npy`, dtype, [2, 3], values);
    const documents = await collect(readDocuments([path]));
    expect(documents.map((document) => Array.from(document.inputIds ?? []))).toEqual([
      [1, 2, 3],
      [2147483647, 0, 5],
    ]);
    expect(documents.map(({ id, index, text }) => [id, index, text])).toEqual([
      ['0', 0, undefined],
      ['1', 1, undefined],
    ]);
    const second = await collect(readDocuments([path, path], { shard: { index: 1, count: 2 }, limit: 3 }));
    expect(second.map((document) => document.index)).toEqual([1]);
  });

  it('must be integers in two dimensions, none negative', async () => {
    const floats = save('f.npy', 'F32', [2, 2], new Float32Array(4));
    await expect(collect(readDocuments([floats]))).rejects.toThrow(/holds F32 \[2, 2\]; token ids are integers/);
    const flat = save('flat.npy', 'I32', [4], new Int32Array(4));
    await expect(collect(readDocuments([flat]))).rejects.toThrow(/shape \[rows, length\]/);
    const negative = save('neg.npy', 'I16', [2, 2], Int16Array.from([0, 1, -1, 2]));
    await expect(collect(readDocuments([negative]))).rejects.toThrow(/row 1, column 0: -1 is not a token id/);
  });
});
