import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openGguf } from '../../src/formats/gguf.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import type { TensorStore } from '../../src/formats/tensor.js';
import { narrowReference } from '../../src/kernels/dtypes-reference.js';
import { memoryStore } from '../../src/models/memory-model.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { type DequantizeOptions, dequantizeModel, planDequantization } from '../../src/quantization/dequantize.js';
import { planPvqLayout } from '../../src/quantization/pvq-layout.js';
import { createPvqWriter } from '../../src/quantization/pvq-writer.js';
import { CODE, choose, encodePlainly, quantise, readTensor } from './pvq-cases.js';

const folder = mkdtempSync(join(tmpdir(), 'pvq-dequantize-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string): string => join(folder, name);
const head = { tool: { name: 'surprisal', version: '0.0.0' }, command: 'test', parameters: {}, inputs: [] };
const run = (model: string, out: string, dtype: DequantizeOptions['dtype'], more: Partial<DequantizeOptions> = {}) =>
  dequantizeModel({ model, out, dtype, head, ...more });

function bytesOf(store: TensorStore, name: string): Buffer {
  const info = store.tensors.get(name);
  if (!info) throw new Error(name);
  const bytes = Buffer.alloc(info.byteLength);
  store.readInto(info, 0, bytes.length, bytes);
  return bytes;
}

describe('dequantizeModel', () => {
  const source = 'fixtures/architectures/gpt2';
  const choices = choose(source, /\.(c_attn|c_proj|c_fc)\.weight$/, { transposed: true });

  it.each(['f32', 'f16', 'bf16'] as const)('rounds what is decoded to %s, under the same names', async (dtype) => {
    quantise(source, at(`model-${dtype}`), choices);
    const manifest = await run(at(`model-${dtype}`), at(dtype), dtype);
    const [files, plain] = [openModelFiles(at(`model-${dtype}`)), openSafetensors(at(dtype))];
    expect([...plain.tensors.keys()].sort()).toEqual([...files.store.tensors.keys()].sort());
    for (const info of files.store.tensors.values()) {
      const values = readTensor(files, info);
      const stored = dtype.toUpperCase() as 'F32' | 'F16' | 'BF16';
      const expected = Buffer.alloc(values.length * (dtype === 'f32' ? 4 : 2));
      narrowReference(values, stored, expected);
      expect(plain.tensors.get(info.name)).toMatchObject({ dtype: stored, shape: info.shape });
      expect(bytesOf(plain, info.name).equals(expected)).toBe(true);
    }
    const config = JSON.parse(readFileSync(join(at(dtype), 'config.json'), 'utf8'));
    expect(config).not.toHaveProperty('quantization_config');
    expect(config.torch_dtype ?? config.dtype).toMatch(/float/);
    expect(manifest).toMatchObject({ dtype, clamped_values: 0, decoded_tensors: choices.size });
    const planned = planDequantization({ model: at(`model-${dtype}`), dtype });
    expect(planned.bytesWritten).toBe([...plain.tensors.values()].reduce((sum, info) => sum + info.byteLength, 0));
    files.store.close();
    plain.close();
    openModelFiles(at(dtype)).store.close();
  });

  it('gives a GGUF model its decoded tensors, and leaves all others as they were', async () => {
    const gguf = 'fixtures/gguf/llama-llama3.f16.gguf';
    const names = choose(gguf, /ffn_(up|down|gate)\.weight/);
    quantise(gguf, at('gguf'), names);
    await run(at('gguf'), at('gguf-f16'), 'f16');
    expect(readdirSync(at('gguf-f16')).sort()).toEqual(['manifest.json', 'model.gguf']);
    const [before, after] = [openGguf(gguf), openGguf(join(at('gguf-f16'), 'model.gguf'))];
    expect([...after.kv.keys()]).toEqual([...before.kv.keys()]);
    for (const info of before.tensors.values()) {
      if (names.has(info.name)) expect(after.tensors.get(info.name)).toMatchObject({ dtype: 'F16', shape: info.shape });
      else expect(bytesOf(after, info.name).equals(bytesOf(before, info.name))).toBe(true);
    }
    before.close();
    after.close();
    openModelFiles(join(at('gguf-f16'), 'model.gguf')).store.close();
  });

  it('counts what F16 cannot hold and writes nothing, unless it may clamp', async () => {
    const data = Float32Array.from({ length: 64 }, (_, i) => (i < 16 ? 3e5 * (i % 3) : 1));
    const plain = Float32Array.of(70000, -65519, -65520, Number.NaN, Number.POSITIVE_INFINITY);
    const store = memoryStore(
      at('m.safetensors'),
      new Map([
        ['w', { shape: [4, 16], data }],
        ['b', { shape: [5], data: plain }],
      ]),
    );
    const tensor = { name: 'w', transposed: false, gainPolicy: 'norm', levelPolicy: 'data', rotation: undefined };
    const layout = planPvqLayout(store, 'huggingface', [tensor], 0n);
    const writer = createPvqWriter({ out: at('large'), layout, store, sourcePath: folder, head });
    const encoded = encodePlainly(data, 4, 16, CODE);
    // The scale of the first row is beyond F16: all of the tensor's are stored as F32.
    writer.writeTensor('w', { ...encoded, scales: Float32Array.of(1e6, 4, 4, 4) });
    writer.commit();
    const stored = openSafetensors(at('large'));
    expect(stored.tensors.get('w.pvq_scale')?.dtype).toBe('F32');
    stored.close();
    await expect(run(at('large'), at('refused'), 'f16')).rejects.toThrow(
      /large: \d+ values of 2 tensors overflow f16, the largest \d+.* in "w": choose --dtype bf16, or pass --clamp/,
    );
    expect(readdirSync(folder)).not.toContain('refused');
    const manifest = await run(at('large'), at('clamped'), 'f16', { clamp: true });
    expect(manifest.clamped).toContainEqual({ tensor: 'b', values: 2, largest: 70000 });
    const clamped = openSafetensors(at('clamped'));
    expect(new Uint16Array(Uint8Array.from(bytesOf(clamped, 'b')).buffer)).toEqual(
      Uint16Array.of(0x7bff, 0xfbff, 0xfbff, 0x7e00, 0x7c00),
    );
    const info = clamped.tensors.get('w');
    const values = info && readTensor({ store: clamped }, info);
    expect([...(values ?? [])].some((value) => Math.abs(value) === 65504)).toBe(true);
    clamped.close();
  });

  it('refuses a model that is not quantised', async () => {
    await expect(run('fixtures/architectures/gpt2', at('none'), 'bf16')).rejects.toThrow(/there is nothing to decode/);
  });
});
