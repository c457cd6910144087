import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encodeSafetensors } from '../../src/formats/safetensors-writer.js';
import { createEngine } from '../../src/models/engine.js';
import { openInThread } from '../../src/models/engine-in-thread.js';
import type { Floats } from '../../src/models/layer-runner.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { collectStatistics } from '../../src/moe/calibrate.js';
import { runExpert } from '../../src/moe/expert-function.js';
import { openExpertModel } from '../../src/moe/expert-layout.js';
import { readExpert, readRouter } from '../../src/moe/expert-reader.js';
import { readStatistics } from '../../src/moe/statistics-file.js';
import { calibrateStored, type StoredCalibrationArguments } from '../../src/moe/stored-calibration.js';
import { createRandom } from '../../src/random.js';
import { writeCheckpoint } from '../models/rewritten-checkpoint.js';
import { deepseekV3, switchTransformer } from './expert-checkpoint.js';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'stored-calibration-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

const WINDOWS = [40, 40, 23].map((length, w) => Int32Array.from({ length }, (_, i) => (i * i + 11 * w) % 60));
const ENGINE = { maxMemoryBytes: 2 ** 31, device: 'cpu', context: 64, threads: 2, precision: 'f32' } as const;

let counter = 0;
function run(model: string, hiddenStates: string, own: Partial<StoredCalibrationArguments> = {}) {
  const folder = join(directory, `stats-${counter++}`);
  const fixed = { modelSha256: 'abc', countPadding: false, force: false, resume: false, threads: 2 };
  const args = { model, hiddenStates, outputs: 'all' as const, folder, memoryBytes: 2 ** 26, ...fixed, ...own };
  return calibrateStored(args, () => undefined);
}

/** A file of hidden states [layers, rows, H], with a mask of its tokens where there is one. */
function store(name: string, layers: readonly Floats[], rows: number, mask?: readonly number[]): string {
  const file = join(directory, `${name}.safetensors`);
  const [{ length }] = layers;
  const data = new Float32Array(layers.length * length);
  layers.forEach((layer, l) => {
    data.set(layer, l * length);
  });
  const shape = [layers.length, rows, length / rows];
  const tensors = [{ name: 'hidden_states', dtype: 'F32' as const, shape, data }];
  const masks = mask
    ? [{ name: 'attention_mask', dtype: 'F32' as const, shape: [rows], data: Float32Array.from(mask) }]
    : [];
  writeFileSync(file, encodeSafetensors([...tensors, ...masks]));
  return file;
}

const TOTAL = WINDOWS.reduce((sum, { length }) => sum + length, 0);

/** What the experts of a model read, by layer, in the order of calibration. */
async function mlpInputs(path: string): Promise<Float32Array[]> {
  const engine = await createEngine(openModelFiles(path), ENGINE);
  const rows = engine.model.layers.map((): Floats[] => []);
  await engine.forward({
    windows: WINDOWS,
    taps: ['mlp_input'],
    onTap: ({ layer, taps }) => {
      rows[layer].push((taps.get('mlp_input') as Floats).slice());
    },
  });
  await engine.close();
  return engine.model.layers.flatMap(({ mlp }, layer) =>
    mlp.kind === 'moe' ? [Float32Array.from(rows[layer].flatMap((piece) => [...piece]))] : [],
  );
}

function expectClose(found: unknown, expected: unknown, tolerance: number, place = ''): void {
  if (ArrayBuffer.isView(expected)) {
    const [a, b] = [found as Float64Array, expected as Float64Array];
    expect(a.length, place).toBe(b.length);
    const largest = Math.max(1e-12, ...Array.from(b, (value) => (Number.isFinite(value) ? Math.abs(value) : 0)));
    for (const [i, value] of b.entries()) {
      if (a[i] !== value) expect(Math.abs(a[i] - value) / largest, `${place}[${i}]`).toBeLessThan(tolerance);
    }
  } else if (typeof expected === 'object' && expected !== null) {
    for (const [key, value] of Object.entries(expected)) {
      expectClose((found as Record<string, unknown>)[key], value, tolerance, `${place}.${key}`);
    }
  } else if (typeof expected === 'number') {
    expect(Math.abs((found as number) - expected) / Math.max(1, Math.abs(expected)), place).toBeLessThan(tolerance);
  } else expect(found, place).toBe(expected);
}

describe('calibration on stored inputs of experts', () => {
  it.each(['fixtures/models/mixtral-sotu-moby', 'fixtures/architectures/qwen2-moe-shared'])(
    'gives what the forward pass gives: %s',
    async (path) => {
      const file = store(`inputs-${counter++}`, await mlpInputs(path), TOTAL);
      const host = await openInThread(path, ENGINE);
      const { description } = openModelFiles(path);
      for (const outputs of ['none', 'routed', 'all'] as const) {
        const expected = await collectStatistics(host, description, {
          ...{ windows: WINDOWS, modelSha256: 'abc', outputs, precision: 'f32', memoryBytes: 2 ** 26 },
          scratchDirectory: directory,
        });
        const { statistics } = await run(path, file, { outputs });
        expectClose(statistics.layers, expected.layers, 1e-5);
        expect(statistics.header).toMatchObject({ modelSha256: 'abc', tokens: TOTAL, outputs });
      }
      await host.close();
    },
  );

  it('gives the same bits for any memory and number of threads, and reads back what it wrote', async () => {
    const path = 'fixtures/architectures/olmoe';
    const file = store('olmoe', await mlpInputs(path), TOTAL);
    for (const outputs of ['routed', 'all'] as const) {
      const folder = join(directory, `olmoe-${outputs}`);
      const { statistics } = await run(path, file, { outputs, folder });
      expect(readStatistics([folder], 'abc')).toEqual(statistics);
      const small = await run(path, file, { outputs, threads: 1, memoryBytes: 1000 });
      expect(small.statistics).toEqual(statistics);
    }
  });

  it('leaves padding out', async () => {
    const path = 'fixtures/architectures/olmoe';
    const layers = await mlpInputs(path);
    const mask = Array.from({ length: TOTAL }, (_, t) => (t % 3 === 1 ? 0 : 1));
    const kept = layers.map((layer) => {
      const width = layer.length / TOTAL;
      return layer.filter((_, i) => mask[Math.floor(i / width)] === 1);
    });
    const valid = mask.filter((value) => value === 1).length;
    const masked = await run(path, store('masked', layers, TOTAL, mask), { memoryBytes: 1000 });
    const cut = await run(path, store('cut', kept, valid));
    expect(masked.statistics.layers).toEqual(cut.statistics.layers);
    const counted = await run(path, join(directory, 'masked.safetensors'), { countPadding: true });
    expect(counted.statistics.header.tokens).toBe(TOTAL);
  });

  it.each([
    ['deepseek_v3', deepseekV3()],
    ['switch_transformers', switchTransformer()],
  ] as const)('serves models that do not run here: %s', async (family, made) => {
    const path = writeCheckpoint(join(directory, family), made.config, made.tensors);
    const model = openExpertModel(path);
    const random = createRandom(3);
    const states = model.layers.map(({ shape }) =>
      Float32Array.from({ length: 30 * shape.hidden }, () => random.normal()),
    );
    const { statistics } = await run(path, store(family, states, 30), { outputs: 'all' });
    expect(statistics.header.modelType).toBe(family);
    statistics.layers.forEach(({ routing, outputs }, place) => {
      const { layer, experts, shape, rule } = model.layers[place];
      const router = readRouter(model, place);
      expect(routing).toMatchObject({ layer, experts, score: rule.score, topK: rule.topK, tokens: 30 });
      expect(routing.counts.reduce((a, b) => a + b, 0)).toBe(30 * rule.topK);
      for (let e = 0; e < experts; e++) {
        const all = runExpert(readExpert(model, place, e), shape, states[place], 30);
        const sum = Float64Array.from({ length: shape.hidden }, (_, j) =>
          Array.from({ length: 30 }, (_, t) => all[t * shape.hidden + j]).reduce((a, b) => a + b, 0),
        );
        const found = outputs?.everywhere?.outputSum.subarray(e * shape.hidden, (e + 1) * shape.hidden);
        expectClose(found, sum, 1e-6);
      }
      const logits = Array.from({ length: 30 }, (_, t) =>
        Array.from({ length: shape.hidden }, (_, j) => router.rows[j] * states[place][t * shape.hidden + j]).reduce(
          (a, b) => a + b,
          router.bias?.[0] ?? 0,
        ),
      );
      expect(routing.logitSum[0]).toBeCloseTo(
        logits.reduce((a, b) => a + b, 0),
        9,
      );
    });
    model.close();
  });

  it('refuses inputs of another model', async () => {
    const path = 'fixtures/architectures/olmoe';
    const model = openExpertModel(path);
    const [{ shape }] = model.layers;
    const count = model.layers.length;
    model.close();
    const states = (layers: number, hidden: number): Float32Array[] =>
      Array.from({ length: layers }, () => new Float32Array(4 * hidden).fill(0.5));
    const few = store('few', states(count + 1, shape.hidden), 4);
    await expect(run(path, few)).rejects.toThrow(new RegExp(`hidden states of ${count + 1} layers`));
    const narrow = store('narrow', states(count, shape.hidden - 1), 4);
    await expect(run(path, narrow)).rejects.toThrow(/layer 0 has \d+ components a token, the model \d+/);
    const nothing = store('nothing', states(count, shape.hidden), 4, [0, 0, 0, 0]);
    await expect(run(path, nothing)).rejects.toThrow(/no token counts/);
    await expect(run('fixtures/models/llama-sotu', few)).rejects.toThrow(/dense/);
  });
});
