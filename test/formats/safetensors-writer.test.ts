import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { RunError } from '../../src/errors.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { createSafetensorsWriter, type PlannedTensor, planShards } from '../../src/formats/safetensors-writer.js';
import type { DType } from '../../src/formats/tensor.js';
import { contents, expected, fixture, temporaryDirectory } from './written-elsewhere.js';

const directory = temporaryDirectory();

const planOf = (file: string): PlannedTensor[] =>
  Object.entries(expected[file]).map(([name, { dtype, shape }]) => ({ name, dtype: dtype as DType, shape }));

const bytesOf = (file: string, name: string): Uint8Array => Buffer.from(expected[file][name].hex, 'hex');

describe('createSafetensorsWriter', () => {
  it('gives the bytes of the safetensors library', () => {
    const target = path.join(directory, 'uniform.safetensors');
    const writer = createSafetensorsWriter(target, { plan: planOf('uniform.safetensors') });
    for (const { name } of planOf('uniform.safetensors')) {
      const bytes = bytesOf('uniform.safetensors', name);
      writer.write(name, bytes.subarray(0, 50));
      writer.write(name, bytes.subarray(50));
    }
    expect(fs.existsSync(target)).toBe(false);
    writer.commit();
    expect(fs.readFileSync(target)).toEqual(fs.readFileSync(fixture('uniform.safetensors')));
    expect(fs.readdirSync(directory)).toEqual(['uniform.safetensors']);
  });

  it('aligns tensors of mixed dtypes to their elements, served in any order', () => {
    const target = path.join(directory, 'mixed.safetensors');
    const plan = planOf('dtypes.safetensors');
    const writer = createSafetensorsWriter(target, { plan, metadata: { a: 'b' } });
    for (const { name } of [...plan].reverse()) writer.write(name, bytesOf('dtypes.safetensors', name));
    writer.commit();
    const store = openSafetensors(target);
    expect(contents(store)).toEqual(expected['dtypes.safetensors']);
    expect(store.metadata).toEqual({ a: 'b' });
    for (const info of store.tensors.values()) {
      const width = { F64: 8, I64: 8, U64: 8, F32: 4, I32: 4, U32: 4, F16: 2, BF16: 2, I16: 2, U16: 2 }[
        info.dtype as string
      ];
      expect(info.offset % (width ?? 1)).toBe(0);
    }
    store.close();
  });

  it('writes shards and the index that huggingface_hub writes', () => {
    const target = path.join(directory, 'sharded');
    fs.mkdirSync(target);
    const writer = createSafetensorsWriter(target, { plan: planOf('sharded'), maxShardBytes: 300 });
    for (const { name } of planOf('sharded')) writer.write(name, bytesOf('sharded', name));
    expect(fs.readdirSync(target).filter((name) => !name.startsWith('.'))).toEqual([]);
    writer.commit();
    expect(fs.readdirSync(target)).toEqual(fs.readdirSync(fixture('sharded')));
    for (const name of fs.readdirSync(target).filter((file) => file.endsWith('.safetensors')))
      expect(fs.readFileSync(path.join(target, name))).toEqual(fs.readFileSync(fixture(`sharded/${name}`)));
    const index = fs.readFileSync(path.join(target, 'model.safetensors.index.json'), 'utf8');
    expect(index.trim()).toBe(fs.readFileSync(fixture('sharded/model.safetensors.index.json'), 'utf8').trim());

    expect(() => createSafetensorsWriter(target, { plan: planOf('sharded'), maxShardBytes: 300 })).toThrow(/--force/);
    const single = createSafetensorsWriter(target, { plan: planOf('sharded'), force: true });
    for (const { name } of planOf('sharded')) single.write(name, bytesOf('sharded', name));
    single.commit();
    expect(fs.readdirSync(target)).toEqual(['model.safetensors']);
  });

  it('refuses to commit what is incomplete, and leaves nothing behind', () => {
    const target = path.join(directory, 'incomplete');
    fs.mkdirSync(target);
    const writer = createSafetensorsWriter(target, { plan: [{ name: 'a', dtype: 'F32', shape: [2] }] });
    writer.write('a', new Uint8Array(4));
    expect(() => writer.write('b', new Uint8Array(1))).toThrow(/not in the plan/);
    expect(() => writer.write('a', new Uint8Array(5))).toThrow(/more than the planned 8/);
    expect(() => writer.commit()).toThrow(RunError);
    expect(() => writer.commit()).toThrow(/"a" is incomplete: 4 of 8 bytes/);
    writer.abort();
    expect(fs.readdirSync(target)).toEqual([]);
  });

  it('refuses plans that the format cannot hold', () => {
    const target = path.join(directory, 'never.safetensors');
    const a: PlannedTensor = { name: 'a', dtype: 'F32', shape: [2] };
    expect(() => createSafetensorsWriter(target, { plan: [a, a] })).toThrow(/"a" is planned twice/);
    expect(() => createSafetensorsWriter(target, { plan: [{ ...a, name: '__metadata__' }] })).toThrow(/rename it/);
    expect(() => createSafetensorsWriter(target, { plan: [{ ...a, shape: [0.5] }] })).toThrow(/whole numbers/);
  });
});

describe('planShards', () => {
  const tensor = (name: string, bytes: number): PlannedTensor => ({ name, dtype: 'U8', shape: [bytes] });

  it('fills shards in order and gives an oversized tensor its own', () => {
    const shards = planShards([tensor('a', 5), tensor('b', 20), tensor('c', 5), tensor('d', 1)], 10);
    expect(shards.map(({ tensors }) => tensors.map(({ name }) => name))).toEqual([['b'], ['a', 'c'], ['d']]);
    expect(shards[0].fileName).toBe('model-00001-of-00003.safetensors');
  });

  it('names a single shard plainly, also one without tensors', () => {
    expect(planShards([tensor('a', 5)]).map(({ fileName }) => fileName)).toEqual(['model.safetensors']);
    expect(planShards([]).map(({ fileName }) => fileName)).toEqual(['model.safetensors']);
  });
});
