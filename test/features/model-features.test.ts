import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type ExtractedFeatures,
  type FeatureDocument,
  featuresOfDocuments,
} from '../../src/features/model-features.js';
import type { Pooling } from '../../src/features/pooling.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { elementCount } from '../../src/formats/tensor.js';
import type { EngineHost } from '../../src/models/engine-host.js';
import { openInThread } from '../../src/models/engine-in-thread.js';

const OPTIONS = { threads: 2, maxMemoryBytes: 2 ** 32, device: 'cpu', precision: 'f32', context: 64 } as const;
const NAME = 'gemma2';

function golden(key: string): Float32Array {
  const store = openSafetensors(join('fixtures/architectures', NAME, 'golden.safetensors'));
  const tensor = store.tensors.get(key);
  if (!tensor) throw new Error(`golden file lacks ${key}`);
  const values = new Float32Array(elementCount(tensor.shape));
  store.readInto(tensor, 0, tensor.byteLength, new Uint8Array(values.buffer));
  store.close();
  return values;
}

async function* documentsOf(...tokens: Int32Array[]): AsyncGenerator<FeatureDocument> {
  for (const [i, ids] of tokens.entries()) yield { id: `d${i}`, tokens: ids };
}

describe('features of a text', () => {
  const ids = new Int32Array(golden('input_ids').buffer);
  const states = golden('hidden_states');
  let host: EngineHost;
  let width = 0;
  let depth = 0;
  beforeAll(async () => {
    host = await openInThread(join('fixtures/architectures', NAME), OPTIONS);
    width = host.info.hiddenSize ?? 0;
    depth = host.info.layers ?? 0;
  });
  afterAll(() => host.close());

  const extract = (
    pool: Pooling,
    context: number,
    prefixToken?: number,
    ...texts: Int32Array[]
  ): Promise<ExtractedFeatures> =>
    featuresOfDocuments(documentsOf(...texts), host, {
      layers: [0, 1, 'final', depth],
      pool,
      context,
      prefixToken,
      hiddenSize: width,
      maxBytes: 2 ** 30,
    });
  const near = (a: ArrayLike<number>, b: ArrayLike<number>): void => {
    const largest = Array.from(b).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    for (let i = 0; i < b.length; i++) expect(Math.abs(a[i] - b[i])).toBeLessThan(1e-5 * largest);
  };
  const state = (layer: number): Float32Array =>
    states.subarray(layer * ids.length * width, (layer + 1) * ids.length * width);

  it('are the hidden states that transformers gives', async () => {
    const { layers, documentOfRow } = await extract('tokens', 64, undefined, ids);
    expect(layers.map(({ rows }) => rows)).toEqual([ids.length, ids.length, ids.length, ids.length]);
    near(layers[0].data, state(0));
    near(layers[1].data, state(1));
    near(layers[3].data, state(depth));
    expect([...new Set(documentOfRow)]).toEqual([0]);
  });

  it('are normed at the final layer: every row over its root mean square, times one weight a column', async () => {
    const { layers } = await extract('tokens', 64, undefined, ids);
    const [normed, raw] = [layers[2].data, layers[3].data];
    const weight = (row: number, i: number): number => {
      const own = raw.subarray(row * width, (row + 1) * width);
      const size = Math.sqrt(own.reduce((sum, value) => sum + value * value, 0) / width);
      return (normed[row * width + i] / own[i]) * size;
    };
    for (let i = 0; i < width; i++) expect(weight(3, i)).toBeCloseTo(weight(0, i), 4);
  });

  it('pools the last token and the mean over windows', async () => {
    const single = await extract('tokens', 64, undefined, ids);
    const last = await extract('last', 64, undefined, ids, ids);
    expect(last.layers[2].rows).toBe(2);
    near(last.layers[2].data.subarray(width), single.layers[2].data.subarray(-width));
    // Windows of 5 tokens: the mean is over all of them.
    const cut = await extract('tokens', 5, undefined, ids);
    const mean = await extract('mean', 5, undefined, ids);
    const expected = Float64Array.from({ length: width }, (_, i) => {
      let sum = 0;
      for (let row = 0; row < ids.length; row++) sum += cut.layers[1].data[row * width + i];
      return sum / ids.length;
    });
    near(mean.layers[1].data, expected);
  });

  it('does not count the prefix token', async () => {
    const rest = ids.subarray(1);
    const { layers } = await extract('tokens', 64, ids[0], rest);
    near(layers[1].data, state(1).subarray(width));
  });

  it('refuses an empty document and more than memory holds', async () => {
    await expect(extract('mean', 64, undefined, new Int32Array(0))).rejects.toThrow(/document d0: has no token/);
    await expect(
      featuresOfDocuments(documentsOf(ids), host, {
        layers: [0],
        pool: 'tokens',
        context: 64,
        prefixToken: undefined,
        hiddenSize: width,
        maxBytes: 100,
      }),
    ).rejects.toThrow(/--max-memory/);
  });
});
