import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type ActivationHeader,
  type ActivationRow,
  openActivationWriter,
  readActivations,
  writeActivations,
} from '../../src/steering/activation-file.js';
import { fileStore, memoryStore, requireFinite } from '../../src/steering/activation-store.js';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'activations-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

const HEADER: ActivationHeader = {
  kind: 'steps',
  modelType: 'llama',
  modelLayers: 4,
  modelSha256: 'f'.repeat(64),
  read: '-1',
  precision: 'f32',
  entropy: 'counts',
};

const valuesOf = (index: number): Float32Array =>
  Float32Array.of(index, index + 0.5, -index, 2 * index, 7, 1 / (index + 1));

function write(name: string, indices: readonly number[], header = HEADER, layers = [1, 3]): string {
  const path = join(directory, name);
  const store = memoryStore(layers, 3, indices.length);
  indices.forEach((index, row) => {
    store.write(row, valuesOf(index));
  });
  const rows = indices.map((index): ActivationRow => ({ index, run: String(index % 2), step: '0', entropyNats: 0.5 }));
  const writer = openActivationWriter(path, store, header, rows, true);
  writeActivations(writer, store);
  writer.commit();
  return path;
}

describe('files of activations', () => {
  it('unite in the order of the data, whatever the order of the parts', () => {
    const parts = [write('odd.safetensors', [1, 3]), write('even.safetensors', [0, 2, 4])];
    for (const paths of [parts, [...parts].reverse()]) {
      const { rows, store, header } = readActivations(paths);
      expect(header).toEqual(HEADER);
      expect(rows.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4]);
      expect(store.layers).toEqual([1, 3]);
      expect([...store.read(1, [4, 1])]).toEqual([...valuesOf(4).subarray(3), ...valuesOf(1).subarray(3)]);
      store.close();
    }
  });

  it('refuse what does not belong together', () => {
    const first = write('first.safetensors', [0, 1]);
    expect(() => readActivations([first, write('again.safetensors', [1])])).toThrow('row 1 of the data is also in');
    const other = write('other.safetensors', [5], { ...HEADER, read: 'mean' });
    expect(() => readActivations([first, other])).toThrow('read is mean');
    expect(() => readActivations([first, write('layers.safetensors', [6], HEADER, [0, 3])])).toThrow(
      'holds layers 0, 3',
    );
    const model = 'fixtures/models/llama-sotu/model.safetensors';
    expect(() => readActivations([model])).toThrow('is no file of activations');
  });
});

describe('stores', () => {
  it('give the same rows from memory and from a file', () => {
    const path = join(directory, 'working');
    const stores = [memoryStore([0, 1], 3, 4), fileStore(path, [0, 1], 3, 4)];
    for (const row of [2, 0, 3, 1]) for (const store of stores) store.write(row, valuesOf(row));
    const [memory, file] = stores.map((store) => [...store.read(0, [3, 0, 2]), ...store.read(1, [1])]);
    expect(file).toEqual(memory);
    for (const store of stores) store.close();
    expect(() => readActivations([path])).toThrow();
  });

  it('name the layer and the row of a value that is not finite', () => {
    const values = valuesOf(1);
    values[4] = Number.NaN;
    expect(() => requireFinite(values, 3, [1, 8], 'run 2, step 5')).toThrow(
      'layer 8, run 2, step 5: the residual stream is NaN at entry 1',
    );
  });
});
