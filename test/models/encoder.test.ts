import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { openEncoder, relativeBucket } from '../../src/models/encoder.js';

const NAMES = ['bert', 'roberta', 'xlm-roberta', 'mpnet', 'distilbert'];
const ROOT = 'fixtures/encoders';

function golden(name: string, key: string): Uint8Array {
  const store = openSafetensors(join(ROOT, name, 'golden.safetensors'));
  const tensor = store.tensors.get(key);
  if (!tensor) throw new Error(`golden file lacks ${key}`);
  const bytes = new Uint8Array(tensor.byteLength);
  store.readInto(tensor, 0, bytes.length, bytes);
  store.close();
  return bytes;
}

async function layersOf(
  name: string,
  precision: 'f32' | 'f64',
  ids: Int32Array,
  texts: number,
  threads = 2,
): Promise<ArrayLike<number>[]> {
  const encoder = openEncoder(join(ROOT, name), { threads, precision });
  const layers: ArrayLike<number>[] = [];
  await encoder.forward(ids, texts, ids.length / texts, (_, rows) => layers.push(rows.slice()));
  await encoder.close();
  return layers;
}

describe.each(NAMES)('%s', (name) => {
  it.each([
    ['f64', 1e-11],
    ['f32', 1e-5],
  ] as const)('gives the hidden states of transformers in %s', async (precision, tolerance) => {
    for (const n of [0, 1]) {
      const ids = new Int32Array(golden(name, `ids_${n}`).buffer);
      const states = new Float64Array(golden(name, `states_${n}`).buffer);
      const layers = await layersOf(name, precision, ids, 1);
      expect(layers).toHaveLength(3);
      const size = states.length / 3;
      layers.forEach((rows, layer) => {
        const expected = states.subarray(layer * size, (layer + 1) * size);
        const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        for (let i = 0; i < size; i++) expect(Math.abs(rows[i] - expected[i])).toBeLessThan(tolerance * largest);
      });
    }
  });

  it('gives a text the same bits alone, in a batch and on any threads', async () => {
    const ids = new Int32Array(golden(name, 'ids_0').buffer);
    const others = ids.map((id) => (id % 50) + 3);
    const alone = await layersOf(name, 'f32', ids, 1, 1);
    const batch = await layersOf(name, 'f32', Int32Array.from([...others, ...ids, ...others]), 3, 4);
    for (const [layer, rows] of alone.entries()) {
      const own = Array.from(batch[layer]).slice(rows.length, 2 * rows.length);
      expect(own).toEqual(Array.from(rows));
    }
  });
});

describe('relative buckets', () => {
  it('are exact near by and logarithmic far away', () => {
    expect([0, 1, -1, 7, -7].map((distance) => relativeBucket(distance, 32))).toEqual([0, 17, 1, 23, 7]);
    expect([8, 16, 32, 64, 127, 128, 500].map((distance) => relativeBucket(-distance, 32))).toEqual([
      8, 10, 12, 14, 15, 15, 15,
    ]);
  });
});

describe('bad encoders', () => {
  const folder = mkdtempSync(join(tmpdir(), 'encoder-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const changed = (name: string, change: (config: Record<string, unknown>) => void): string => {
    const path = join(folder, name);
    cpSync(join(ROOT, 'bert'), path, { recursive: true });
    const config = JSON.parse(readFileSync(join(path, 'config.json'), 'utf8')) as Record<string, unknown>;
    change(config);
    writeFileSync(join(path, 'config.json'), JSON.stringify(config));
    return path;
  };
  const open = (path: string): unknown => openEncoder(path, { threads: 1, precision: 'f32' });

  it('are refused with what to do', async () => {
    expect(() => open(changed('type', (config) => (config.model_type = 'modernbert')))).toThrow(/ONNX export/);
    expect(() => open(changed('heads', (config) => (config.num_attention_heads = 5)))).toThrow(/do not divide into 5/);
    expect(() => open(changed('layers', (config) => (config.num_hidden_layers = 3)))).toThrow(
      /tensor "encoder.layer.2.attention.self.query.weight" is missing/,
    );
    expect(() => open(changed('width', (config) => (config.intermediate_size = 41)))).toThrow(
      /has shape \[40,24\] but the config asks for \[41,24\]/,
    );
    const encoder = openEncoder(join(ROOT, 'bert'), { threads: 1, precision: 'f32' });
    await expect(encoder.forward(Int32Array.of(61), 1, 1, () => undefined)).rejects.toThrow(/vocabulary of 61/);
    await expect(encoder.forward(new Int32Array(49), 1, 49, () => undefined)).rejects.toThrow(/48 positions/);
    await encoder.close();
  });
});
