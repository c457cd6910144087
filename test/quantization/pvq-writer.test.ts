import fs, { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { RunError } from '../../src/errors.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { createSafetensorsWriter } from '../../src/formats/safetensors-writer.js';
import type { DType } from '../../src/formats/tensor.js';
import { dequantizeRows, packCodes, packPulses } from '../../src/kernels/pyramid-index.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { isPvqStore } from '../../src/models/pvq-store.js';
import { changedFiles } from '../../src/quantization/pvq-manifest.js';
import { CODE, choose, openRun, quantise, readTensor } from './pvq-cases.js';

const LLAMA = 'fixtures/models/llama-sotu';
const folder = mkdtempSync(join(tmpdir(), 'pvq-writer-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string): string => join(folder, name);

function filesOf(directory: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(directory).map((name) => [name, readFileSync(join(directory, name), 'latin1')]),
  );
}

/** Bytes of a file that its copied tensors take, with their header entries, and the frame of the header. */
function otherBytes(file: string, quantised: (name: string) => boolean): number {
  const bytes = readFileSync(file);
  const length = Number(bytes.readBigUInt64LE(0));
  const text = bytes.toString('utf8', 8, 8 + length);
  const trimmed = text.trimEnd();
  const { __metadata__: metadata, ...entries } = JSON.parse(text) as Record<string, Record<string, unknown>>;
  const { pvq: _, ...others } = metadata;
  let total = 8 + (text.length - trimmed.length) + `{"__metadata__":${JSON.stringify(others)}}`.length;
  for (const [name, entry] of Object.entries(entries)) {
    if (quantised(name)) continue;
    const [begin, end] = entry.data_offsets as [number, number];
    // Entries are copied from the text, for offsets are padded.
    const from = trimmed.indexOf(`${JSON.stringify(name)}:{"dtype"`);
    total += end - begin + (trimmed.indexOf(']}', from) + 2 - from) + 1;
  }
  return total;
}

describe('the example of docs/pvq-format.md', () => {
  it('has these bytes', () => {
    const code = { groupLength: 4, pulses: 2, superGroup: 1, gainBits: 1 };
    const index = new Uint8Array(2);
    packPulses(Int16Array.of(1, 0, -1, 0, 0, 2, 0, 0), 1, 2, code, index);
    const gain = new Uint8Array(1);
    packCodes(Uint8Array.of(1, 0), 1, 2, 1, gain);
    expect([...index, ...gain]).toEqual([0xe5, 0, 1]);
    const target = new Float32Array(8);
    const scales = Float32Array.of(0.5);
    dequantizeRows({ rows: 1, columns: 8, code, index, gain, scales, levels: Float32Array.of(0.5, 1) }, target);
    const side = Math.fround(Math.SQRT1_2 / 2);
    expect([...target]).toEqual([side, 0, -side, 0, 0, 0.25, 0, 0]);
  });
});

describe('createPvqWriter', () => {
  const choices = choose(LLAMA, /layers\.0.*proj/);

  it('writes exactly the bytes that the layout foretells', () => {
    const manifest = quantise(LLAMA, at('bytes'), choices);
    const file = join(at('bytes'), 'model.safetensors');
    const rest = otherBytes(file, (name) => name.includes('.pvq_'));
    expect(manifest.bytes).toBe(statSync(file).size - rest);
    const run = openRun(LLAMA, at('unused'), choices);
    const bits = run.layout.bitsPerWeight(new Map([...choices.keys()].map((name) => [name, CODE])));
    expect(manifest.bits_per_weight).toBe(bits);
    run.writer.abort(true);
    run.close();
    expect(readdirSync(folder)).not.toContain('unused');
  });

  it('copies all other tensors byte for byte, and the files beside them', () => {
    quantise(LLAMA, at('copies'), choices);
    const [before, after] = [openSafetensors(LLAMA), openSafetensors(at('copies'))];
    for (const info of before.tensors.values()) {
      if (choices.has(info.name)) continue;
      const stored = after.tensors.get(info.name);
      expect(stored).toMatchObject({ dtype: info.dtype, shape: info.shape });
      const [a, b] = [new Uint8Array(info.byteLength), new Uint8Array(info.byteLength)];
      before.readInto(info, 0, a.length, a);
      if (stored) after.readInto(stored, 0, b.length, b);
      expect(Buffer.compare(a, b)).toBe(0);
    }
    before.close();
    after.close();
    expect(readFileSync(join(at('copies'), 'tokenizer.json'))).toEqual(readFileSync(join(LLAMA, 'tokenizer.json')));
    const config = JSON.parse(readFileSync(join(at('copies'), 'config.json'), 'utf8'));
    expect(config.quantization_config).toEqual({ format: 'pvq-1', reader: 'surprisal' });
  });

  it('gives the same bytes in another order, and after a kill at any tensor', () => {
    quantise(LLAMA, at('whole'), choices);
    const wanted = filesOf(at('whole'));
    const names = [...choices.keys()];
    for (const stop of [0, 5, names.length]) {
      const out = at(`killed-${stop}`);
      const first = openRun(LLAMA, out, choices);
      for (const name of names.toReversed().slice(0, stop)) first.writer.writeTensor(name, first.encode(name));
      // What a killed process leaves: the directory under its temporary name.
      first.writer.abort();
      first.close();
      expect(readdirSync(folder)).not.toContain(`killed-${stop}`);
      const second = openRun(LLAMA, out, choices, { resume: true });
      expect(names.filter((name) => second.writer.hasTensor(name))).toHaveLength(stop);
      for (const name of names)
        if (!second.writer.hasTensor(name)) second.writer.writeTensor(name, second.encode(name));
      second.writer.commit();
      second.close();
      expect(filesOf(out)).toEqual(wanted);
    }
  });

  it('does not take over what was damaged in between, nor a run with other parameters', () => {
    const names = [...choices.keys()];
    const out = at('damaged');
    const first = openRun(LLAMA, out, choices);
    for (const name of names.slice(0, 4)) first.writer.writeTensor(name, first.encode(name));
    first.writer.abort();
    first.close();
    const left = readdirSync(folder).find((name) => name.startsWith('.damaged.'));
    const blob = join(folder, left ?? '', '.pvq', '2.bin');
    const bytes = readFileSync(blob);
    bytes[100] ^= 1;
    writeFileSync(blob, bytes);
    const head = { tool: { name: 'surprisal', version: '0.0.0' }, command: 'test', inputs: [] };
    expect(() => openRun(LLAMA, out, choices, { resume: true, head: { ...head, parameters: { seed: 8 } } })).toThrow(
      /had another "parameters.seed"/,
    );
    const second = openRun(LLAMA, out, choices, { resume: true });
    expect(names.filter((name) => second.writer.hasTensor(name))).toEqual([names[0], names[1], names[3]]);
    second.writer.abort(true);
    second.close();
  });

  it('keeps what is finished when the disk is full', () => {
    quantise(LLAMA, at('roomy'), choices);
    const out = at('full');
    const names = [...choices.keys()];
    const first = openRun(LLAMA, out, choices);
    for (const name of names.slice(0, 3)) first.writer.writeTensor(name, first.encode(name));
    const write = vi.spyOn(fs, 'writeSync').mockImplementation(() => {
      throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    });
    try {
      expect(() => first.writer.writeTensor(names[3], first.encode(names[3]))).toThrow(RunError);
      expect(() => first.writer.commit()).toThrow(RunError);
    } finally {
      write.mockRestore();
    }
    first.writer.abort();
    first.close();
    expect(fs.existsSync(out)).toBe(false);
    const second = openRun(LLAMA, out, choices, { resume: true });
    expect(names.filter((name) => second.writer.hasTensor(name))).toEqual(names.slice(0, 3));
    for (const name of names.slice(3)) second.writer.writeTensor(name, second.encode(name));
    second.writer.commit();
    second.close();
    expect(filesOf(out)).toEqual(filesOf(at('roomy')));
  });

  it('knows a complete output, and refuses an existing one', async () => {
    const manifest = quantise(LLAMA, at('again'), choices);
    expect(() => openRun(LLAMA, at('again'), choices)).toThrow(/already exists/);
    const run = openRun(LLAMA, at('again'), choices, { resume: true });
    expect(run.writer.complete).toBe(true);
    expect(run.writer.commit()).toEqual(JSON.parse(JSON.stringify(manifest)));
    run.close();
    expect(await changedFiles(at('again'), manifest)).toEqual([]);
    writeFileSync(join(at('again'), 'tokenizer.json'), '{}');
    expect(await changedFiles(at('again'), manifest)).toEqual(['tokenizer.json']);
  });

  it('keeps the shards of the source, each with the metadata of its own tensors', () => {
    const source = at('sharded');
    shard(LLAMA, source);
    const sharded = quantise(source, at('sharded-out'), choices);
    expect((sharded.files as { name: string }[]).map(({ name }) => name)).toEqual(
      expect.arrayContaining(['model-00001-of-00003.safetensors', 'model.safetensors.index.json']),
    );
    const index = JSON.parse(readFileSync(join(at('sharded-out'), 'model.safetensors.index.json'), 'utf8'));
    const single = quantise(LLAMA, at('single-out'), choices);
    const [a, b] = [openModelFiles(at('sharded-out')), openModelFiles(at('single-out'))];
    if (!isPvqStore(a.store) || !isPvqStore(b.store)) throw new Error('not quantised');
    expect(Object.keys(index.weight_map)).toHaveLength(a.store.stored.tensors.size);
    for (const info of b.store.tensors.values()) {
      const other = a.store.tensors.get(info.name);
      if (!other) throw new Error(info.name);
      expect(Buffer.from(readTensor(a, other).buffer).equals(Buffer.from(readTensor(b, info).buffer))).toBe(true);
    }
    expect(sharded.weights).toBe(single.weights);
    a.store.close();
    b.store.close();
  });
});

/** Cuts a checkpoint into three files. */
function shard(source: string, target: string): void {
  cpSync(source, target, { recursive: true, filter: (name) => !name.endsWith('.safetensors') });
  const store = openSafetensors(source);
  const infos = [...store.tensors.values()];
  const total = infos.reduce((sum, info) => sum + info.byteLength, 0);
  const plan = infos.map(({ name, dtype, shape }) => ({ name, dtype: dtype as DType, shape }));
  const writer = createSafetensorsWriter(target, { plan, maxShardBytes: Math.ceil(total / 2.5) });
  for (const info of infos) {
    const bytes = new Uint8Array(info.byteLength);
    store.readInto(info, 0, bytes.length, bytes);
    writer.write(info.name, bytes);
  }
  writer.commit();
  store.close();
}
