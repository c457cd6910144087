import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  type AttentionRows,
  attentionEntropiesFromQueryKeys,
  attentionRowEntropies,
  visibleKeys,
} from '../../src/entropy/attention.js';
import { type AttentionBatch, MEASURE_ATTENTION } from '../../src/entropy/attention-job.js';
import { headByPosition, headFigures } from '../../src/entropy/attention-statistics.js';
import { attentionReserveBytes, plainRowsPerRun, SCORE_BYTES, visitQueries } from '../../src/entropy/attention-tap.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { elementCount } from '../../src/formats/tensor.js';
import type { ModelDescription } from '../../src/models/description.js';
import { createEngine } from '../../src/models/engine.js';
import { openInThread } from '../../src/models/engine-in-thread.js';
import type { MemoryPlan } from '../../src/models/memory-plan.js';
import { openModelFiles } from '../../src/models/model-files.js';

const ROOT = 'fixtures/architectures';
const ARCHITECTURES = readdirSync(ROOT).filter((name) => existsSync(join(ROOT, name, 'golden.safetensors')));
/** Plain attention, grouped keys with biases, a sliding window, and windows on every other layer with a soft cap. */
const CASES = [
  ['gpt2', [undefined, undefined]],
  ['llama-biases', [undefined, undefined]],
  ['mistral-window', [7, 7]],
  ['gemma2', [6, undefined]],
] as const;

/** Input ids, and attention probabilities [layers, heads, T, T] as transformers gives them. */
function goldenOf(name: string) {
  const store = openSafetensors(join(ROOT, name, 'golden.safetensors'));
  const read = (key: string): { values: Float32Array; shape: readonly number[] } => {
    const tensor = store.tensors.get(key);
    if (!tensor) throw new Error(`golden file lacks ${key}`);
    const values = new Float32Array(elementCount(tensor.shape));
    store.readInto(tensor, 0, tensor.byteLength, new Uint8Array(values.buffer));
    return { values, shape: tensor.shape };
  };
  const attentions = read('attentions');
  const ids = new Int32Array(read('input_ids').values.buffer);
  store.close();
  const [layers, heads, queries, keys] = attentions.shape;
  return { ids, layers, heads, queries, keys, probabilities: attentions.values };
}

async function measure(
  name: string,
  windows: readonly Int32Array[],
  wanted: readonly (readonly [number, number])[],
  context: number,
  precision: 'f32' | 'f64' = 'f32',
): Promise<AttentionBatch> {
  const host = await openInThread(join(ROOT, name), {
    threads: 2,
    maxMemoryBytes: 2 ** 32,
    device: 'cpu',
    precision,
    context: 64,
  });
  try {
    return await host.run(MEASURE_ATTENTION, { windows, wanted, context });
  } finally {
    await host.close();
  }
}

describe.each(CASES)('%s', (name, slidingWindows) => {
  const golden = goldenOf(name);
  const { ids, layers, heads, queries, keys } = golden;
  const shape = { batch: layers, heads, queries, keys };
  const expected = attentionRowEntropies(golden.probabilities, shape);

  /** Mean over queries first.. of what `value` gives for a row. */
  const meanOver = (head: number, first: number, value: (row: number, query: number) => number): number => {
    let sum = 0;
    for (let q = first; q < queries; q++) sum += value(head * queries + q, q);
    return sum / (queries - first);
  };

  it.each([
    ['whole', 64, 'f32', 0],
    ['whole in f64', 64, 'f64', 0],
    ['in runs of four queries', 2 ** 21, 'f32', 0],
    ['from query 13 on', 64, 'f32', 13],
    ['from query 13 on, in runs of four', 2 ** 21, 'f32', 13],
    ['from query 13 on, in f64', 64, 'f64', 13],
  ] as const)(
    '%s: the entropies of the probabilities that transformers gives',
    async (_, context, precision, first) => {
      const batch = await measure(name, [ids], [[first, queries]], context, precision);
      const figures = headFigures(batch.statistics, 64);
      expect(figures).toHaveLength(layers * heads);
      figures.forEach((head, i) => {
        const { entropyNats, firstKeyMass, withoutFirstKeyNats } = expected;
        expect(head.rows).toBe(queries - first);
        expect(head.entropy_nats).toBeCloseTo(
          meanOver(i, first, (row) => entropyNats[row]),
          5,
        );
        expect(head.first_key_mass).toBeCloseTo(
          meanOver(i, first, (row) => firstKeyMass[row]),
          6,
        );
        const start = Math.max(first, 1);
        const window = slidingWindows[head.layer];
        const share = (row: number, q: number): number => entropyNats[row] / Math.log(visibleKeys(q, window));
        expect(head.normalized_entropy).toBeCloseTo(meanOver(i, start, share), 5);
        expect(head.entropy_without_first_key_nats).toBeCloseTo(
          meanOver(i, start, (row) => withoutFirstKeyNats[row]),
          4,
        );
        const sum = batch.entropySums[i];
        expect(sum / batch.rowCounts[i]).toBeCloseTo(head.entropy_nats, 12);
      });
    },
  );
});

describe.each(ARCHITECTURES)('every architecture: %s', (name) => {
  const path = join(ROOT, name);
  const { ids } = goldenOf(name);
  const options = { threads: 2, maxMemoryBytes: 2 ** 32, device: 'cpu', context: 64 } as const;

  /** Largest difference of row entropies from queries and keys and from tapped probabilities. */
  const differenceIn = async (precision: 'f32' | 'f64', plan: Partial<MemoryPlan>): Promise<number> => {
    const engine = await createEngine(openModelFiles(path), { ...options, precision, plan });
    const direct = new Map<number, AttentionRows>();
    await engine.forward({
      windows: [ids],
      taps: ['attention_probabilities'],
      onTap: ({ layer, count, taps }) => {
        const { heads } = engine.model.layers[layer].attention;
        const shape = { batch: 1, heads, queries: count, keys: count };
        const probabilities = taps.get('attention_probabilities') ?? new Float32Array(0);
        direct.set(layer, attentionRowEntropies(probabilities, shape));
      },
    });
    let worst = 0;
    await visitQueries(engine, [ids], [[0, ids.length]], 64, ({ layer, block }) => {
      const rows = attentionEntropiesFromQueryKeys(block);
      rows.entropyNats.forEach((entropy, row) => {
        const expected = direct.get(layer)?.entropyNats[row] ?? Number.NaN;
        worst = Math.max(worst, Math.abs(entropy - expected));
        expect(entropy).not.toBeNaN();
      });
    });
    await engine.close();
    return worst;
  };

  it('entropies from queries and keys are those from probabilities', async () => {
    expect(await differenceIn('f64', {})).toBeLessThan(1e-9);
    expect(await differenceIn('f32', {})).toBeLessThan(2e-5);
    expect(await differenceIn('f32', { layersResident: false, headResident: false })).toBeLessThan(2e-5);
  });
});

describe('a batch', () => {
  it('gives the sum of what its windows give alone, each by the position in its window', async () => {
    const { ids } = goldenOf('mistral-window');
    const windows = [ids.slice(0, 9), ids.slice(3, 33), ids.slice(20, 29)];
    const wanted = [
      [0, 9],
      [11, 30],
      [8, 9],
    ] as const;
    const together = await measure('mistral-window', windows, wanted, 64);
    const alone = await Promise.all(windows.map((window, i) => measure('mistral-window', [window], [wanted[i]], 64)));
    const perWindow = together.rowCounts.length / windows.length;
    alone.forEach((batch, i) => {
      expect(together.entropySums.slice(i * perWindow, (i + 1) * perWindow)).toEqual(batch.entropySums);
      expect(together.normalisedSums[i]).toBe(batch.normalisedSums[0]);
    });
    const positions = headByPosition(together.statistics, 0, 0);
    expect(positions.map(({ first, rows }) => [first, rows])).toEqual(
      Array.from({ length: 30 }, (_, p) => [p, (p < 9 ? 1 : 0) + (p === 8 ? 1 : 0) + (p >= 11 ? 1 : 0)]).filter(
        ([, rows]) => rows > 0,
      ),
    );
  });
});

describe('plainRowsPerRun', () => {
  const modelOf = (heads: number, headDim: number): ModelDescription => {
    const { description } = openModelFiles(join(ROOT, 'gpt2'));
    const [layer] = description.layers;
    const attention = { ...layer.attention, heads, kvHeads: heads, headDim };
    return { ...description, layers: [{ ...layer, attention }] };
  };

  it('keeps the scores of a run of plain attention within their share of memory', () => {
    for (const [heads, context] of [
      [32, 4096],
      [32, 32_768],
      [128, 131_072],
    ]) {
      const rows = plainRowsPerRun(modelOf(heads, 64), context, 'f64');
      expect(rows === 4 || heads * Number(rows) * context * 8 <= SCORE_BYTES).toBe(true);
      expect(heads * (Number(rows) + 1) * context * 8).toBeGreaterThan(SCORE_BYTES);
    }
    expect(plainRowsPerRun(modelOf(32, 65), 32_768, 'f32')).toBe(16);
    expect(plainRowsPerRun(modelOf(4, 65), 256, 'f32')).toBe(1024);
  });

  it('leaves f32 to the plan of the engine, and reserves no square of the context', () => {
    expect(plainRowsPerRun(modelOf(32, 128), 131_072, 'f32')).toBeUndefined();
    const [short, long] = [32_768, 131_072].map((context) => attentionReserveBytes(modelOf(32, 128), context, 'f32'));
    expect(long / short).toBeLessThan(4);
    expect(attentionReserveBytes(modelOf(4, 16), 256, 'f32')).toBeLessThan(8 << 20);
  });
});
