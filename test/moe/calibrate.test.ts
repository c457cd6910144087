import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEngine } from '../../src/models/engine.js';
import type { EngineHost } from '../../src/models/engine-host.js';
import { openInThread } from '../../src/models/engine-in-thread.js';
import type { Floats, TapEvent } from '../../src/models/layer-runner.js';
import { openModelFiles } from '../../src/models/model-files.js';
import {
  calibrateToFolder,
  collectStatistics,
  type StatisticsOptions,
  statisticsBytes,
} from '../../src/moe/calibrate.js';
import { runExpert } from '../../src/moe/expert-function.js';
import { createRoutingSums } from '../../src/moe/routing-statistics.js';
import { addStatistics, type MoeStatistics, missingShards, readStatistics } from '../../src/moe/statistics-file.js';
import type { LayerStatistics } from '../../src/moe/types.js';
import {
  type Checkpoint,
  type RawTensor,
  readCheckpoint,
  readConfig,
  writeCheckpoint,
} from '../models/rewritten-checkpoint.js';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'moe-calibrate-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

const MIXTRAL = 'fixtures/models/mixtral-sotu-moby';
const SHARED = 'fixtures/architectures/qwen2-moe-shared';
const OLMOE = 'fixtures/architectures/olmoe';
const ENGINE = { maxMemoryBytes: 2 ** 31, device: 'cpu', context: 64 } as const;
const WINDOWS = [48, 48, 48, 31, 1].map((length, w) =>
  Int32Array.from({ length }, (_, i) => (i * i + 11 * w + 3 * i * w) % 60),
);

interface RunSettings {
  readonly precision?: 'f32' | 'f64';
  readonly threads?: number;
  readonly rowsPerRun?: number;
}

async function withHost<T>(path: string, own: RunSettings, body: (host: EngineHost) => Promise<T>): Promise<T> {
  const { precision = 'f32', threads = 2, rowsPerRun = 512 } = own;
  const host = await openInThread(path, { ...ENGINE, threads, precision, plan: { rowsPerRun } });
  try {
    return await body(host);
  } finally {
    await host.close();
  }
}

function optionsOf(own: Partial<StatisticsOptions> = {}): StatisticsOptions {
  return {
    windows: WINDOWS,
    modelSha256: 'abc',
    outputs: 'routed',
    precision: 'f32',
    memoryBytes: 2 ** 28,
    scratchDirectory: directory,
    ...own,
  };
}

function collect(path: string, own: Partial<StatisticsOptions> & RunSettings = {}): Promise<MoeStatistics> {
  const { description } = openModelFiles(path);
  return withHost(path, own, (host) => collectStatistics(host, description, optionsOf(own)));
}

let folders = 0;
const newFolder = (): string => join(directory, `stats-${folders++}`);

async function intoFolder(path: string, own: Partial<StatisticsOptions> = {}, folder = newFolder()): Promise<string> {
  const { description } = openModelFiles(path);
  await withHost(path, {}, (host) =>
    calibrateToFolder(host, description, { ...optionsOf(own), folder, write: { resume: true } }),
  );
  return folder;
}

/** Numbers of a layer, flat. */
function* numbersOf(layer: LayerStatistics): Generator<[string, number]> {
  const { everywhere, ...outputs } = layer.outputs ?? {};
  for (const [part, record] of Object.entries({ routing: layer.routing, outputs, everywhere: everywhere ?? {} })) {
    for (const [key, value] of Object.entries(record)) {
      const values: Iterable<[number, unknown]> = ArrayBuffer.isView(value)
        ? (value as Float64Array).entries()
        : [[0, value]];
      for (const [i, entry] of values) if (typeof entry === 'number') yield [`${part}.${key}[${i}]`, entry];
    }
  }
}

function expectClose(found: MoeStatistics, expected: readonly LayerStatistics[], tolerance: number): void {
  expect(found.layers.length).toBe(expected.length);
  expected.forEach((layer, l) => {
    const own = new Map(numbersOf(found.layers[l]));
    for (const [key, value] of numbersOf(layer)) {
      const other = own.get(key) ?? Number.NaN;
      if (other === value) continue;
      expect(Math.abs(other - value) / Math.max(1, Math.abs(value)), `${l} ${key}: ${other}, ${value}`).toBeLessThan(
        tolerance,
      );
    }
  });
}

/** The statistics of a forward pass over all layers at once, one number after the other. */
async function plainStatistics(path: string): Promise<LayerStatistics[]> {
  const { description } = openModelFiles(path);
  const engine = await createEngine(openModelFiles(path), { ...ENGINE, threads: 2, precision: 'f64' });
  const weights = new Map<string, Floats>();
  const events: TapEvent[] = [];
  await engine.forward({
    windows: WINDOWS,
    taps: ['router_logits', 'mlp_input', 'expert_hidden', 'expert_output', 'expert_input'],
    onTap: (event) => events.push(event),
    adjustWeights(layer, role, data) {
      weights.set(`${layer}.${role}`, data.slice());
      return data;
    },
  });
  await engine.close();
  const { hiddenSize: H } = description;
  return description.layers.flatMap(({ mlp }, layer) => {
    if (mlp.kind !== 'moe') return [];
    const { experts: E, width: I, expertsPerToken: topK } = mlp;
    const routing = createRoutingSums(layer, E, { score: 'softmax', topK, normalizeTopK: true });
    const zeros = (length: number): Float64Array => new Float64Array(length);
    const sums = {
      layer,
      ...{ inputSum: zeros(E * H), inputAbsoluteSum: zeros(E * H), inputSquareSum: zeros(E * H) },
      ...{ hiddenSquareSum: zeros(E * I), outputNormSum: zeros(E), weightedNormSum: zeros(E) },
      ...{ renormalizedNormSum: zeros(E), weightSum: zeros(E), allInputSquareSum: zeros(H) },
      ...{ largestOutput: zeros(E).fill(-Infinity), largestMagnitude: zeros(E) },
      everywhere: { tokens: 0, outputSum: zeros(E * H), outputGram: zeros(E * E) },
    };
    for (const { taps, experts, layer: of } of events) {
      const tap = (name: 'router_logits' | 'mlp_input' | 'expert_hidden' | 'expert_output' | 'expert_input'): Floats =>
        taps.get(name) as Floats;
      if (of !== layer || !experts) continue;
      const logits = tap('router_logits');
      const rows = logits.length / E;
      routing.add(logits, rows);
      const x = tap('mlp_input');
      for (let i = 0; i < x.length; i++) sums.allInputSquareSum[i % H] += x[i] ** 2;
      const partition = (row: number): number =>
        Array.from(logits.subarray(row * E, (row + 1) * E), Math.exp).reduce((a, b) => a + b, 0);
      const p = (row: number, e: number): number => Math.exp(logits[row * E + e]) / partition(row);
      const chosenSum = Float64Array.from({ length: rows }, () => 0);
      let at = 0;
      experts.counts.forEach((count, e) => {
        for (let i = at; i < at + count; i++) chosenSum[experts.rows[i]] += p(experts.rows[i], e);
        at += count;
      });
      at = 0;
      experts.counts.forEach((count, e) => {
        for (const end = at + count; at < end; at++) {
          for (let j = 0; j < H; j++) {
            const value = tap('expert_input')[at * H + j];
            sums.inputSum[e * H + j] += value;
            sums.inputAbsoluteSum[e * H + j] += Math.abs(value);
            sums.inputSquareSum[e * H + j] += value ** 2;
          }
          for (let j = 0; j < I; j++) sums.hiddenSquareSum[e * I + j] += tap('expert_hidden')[at * I + j] ** 2;
          const output = tap('expert_output').subarray(at * H, (at + 1) * H);
          const norm = Math.hypot(...output);
          const weight = p(experts.rows[at], e);
          sums.outputNormSum[e] += norm;
          sums.weightSum[e] += weight;
          sums.weightedNormSum[e] += weight * norm;
          sums.renormalizedNormSum[e] += (weight / chosenSum[experts.rows[at]]) * norm;
          sums.largestOutput[e] = Math.max(sums.largestOutput[e], ...output);
          sums.largestMagnitude[e] = Math.max(sums.largestMagnitude[e], ...output.map(Math.abs));
        }
      });
      const shape = { hidden: H, width: I, gated: true, activation: mlp.activation };
      const outputs = Array.from({ length: E }, (_, e) => {
        const matrix = (name: string): Floats => weights.get(`${layer}.expert.${e}.${name}`) as Floats;
        return runExpert({ gate: matrix('gate'), up: matrix('up'), down: matrix('down') }, shape, x, rows);
      });
      sums.everywhere.tokens += rows;
      outputs.forEach((output, e) => {
        for (let i = 0; i < output.length; i++) sums.everywhere.outputSum[e * H + (i % H)] += output[i];
        outputs.forEach((other, f) => {
          for (let i = 0; i < output.length; i++) sums.everywhere.outputGram[e * E + f] += output[i] * other[i];
        });
      });
    }
    return [{ routing: routing.finish(), outputs: sums }];
  });
}

/** A copy of a checkpoint whose experts lie in `gate_up_proj` [E, 2I, H] and `down_proj` [E, H, I]. */
function fusedCopy(path: string): string {
  const tensors: Checkpoint = new Map();
  const stacks = new Map<string, RawTensor[]>();
  for (const [name, tensor] of readCheckpoint(path)) {
    const place = /^(.*\.experts)\.(\d+)\.(gate|up|down)_proj/.exec(name);
    if (!place) {
      tensors.set(name, tensor);
      continue;
    }
    const down = place[3] === 'down';
    const stack = `${place[1]}.${down ? 'down' : 'gate_up'}_proj`;
    const slot = down ? Number(place[2]) : 2 * Number(place[2]) + (place[3] === 'up' ? 1 : 0);
    const parts = stacks.get(stack) ?? [];
    parts[slot] = tensor;
    stacks.set(stack, parts);
  }
  for (const [name, parts] of stacks) {
    const [{ dtype, shape }] = parts;
    const together = name.endsWith('gate_up_proj') ? 2 : 1;
    tensors.set(name, {
      dtype,
      shape: [parts.length / together, together * shape[0], shape[1]],
      bytes: Buffer.concat(parts.map(({ bytes }) => bytes)),
    });
  }
  return writeCheckpoint(join(directory, 'fused'), readConfig(path), tensors);
}

describe('calibration of experts', () => {
  it.each([MIXTRAL, SHARED, 'fixtures/gguf/qwen2-moe.f32.gguf'])(
    'gives the sums of a whole forward pass: %s',
    async (path) => {
      const expected = await plainStatistics(path);
      const all = await collect(path, { precision: 'f64', outputs: 'all' });
      expectClose(all, expected, 1e-10);
      const routed = expected.map(({ routing, outputs }) => ({
        routing,
        outputs: { ...outputs, everywhere: undefined },
      }));
      expectClose(await collect(path, { precision: 'f64' }), routed as unknown as LayerStatistics[], 1e-10);
      const none = await collect(path, { precision: 'f64', outputs: 'none' });
      expectClose(
        none,
        expected.map(({ routing }) => ({ routing })),
        1e-10,
      );
      expect(none.layers.every(({ outputs }) => outputs === undefined)).toBe(true);
      // Single precision is near it.
      expectClose(await collect(path, { outputs: 'all' }), expected, 2e-3);
    },
  );

  it.each([MIXTRAL, OLMOE])('gives the same bits for any number of threads, rows and memory: %s', async (path) => {
    for (const outputs of ['routed', 'all'] as const) {
      const reference = await collect(path, { outputs });
      expect(await collect(path, { outputs, threads: 1 })).toEqual(reference);
      expect(await collect(path, { outputs, rowsPerRun: 16 })).toEqual(reference);
      expect(await collect(path, { outputs, memoryBytes: 1 })).toEqual(reference);
    }
  });

  it('reads fused experts as it reads separate ones', async () => {
    expect(await collect(fusedCopy(SHARED), { outputs: 'all' })).toEqual(await collect(SHARED, { outputs: 'all' }));
  });

  it('watches the router of a merged model, and no more', async () => {
    const path = 'fixtures/architectures/qwen2-moe-merged-remap';
    const { layers } = await collect(path, { outputs: 'none' });
    const { description } = openModelFiles(path);
    const merged = description.layers.flatMap(({ mlp }) => (mlp.kind === 'moe' ? [mlp.routerOutputs] : []));
    expect(layers.map(({ routing }) => routing.experts)).toEqual(merged);
    await expect(collect(path)).rejects.toThrow(/merged already.*--outputs none/);
  });

  it('refuses a dense model and a shard without windows', async () => {
    await expect(collect('fixtures/models/llama-sotu')).rejects.toThrow(/a dense model \(llama\): none of its/);
    await expect(collect(OLMOE, { shard: { index: 5, count: 6 } })).rejects.toThrow(/--shard 5\/6: .*only 5 windows/);
  });
});

describe('folders of statistics', () => {
  it('are read as they were collected', async () => {
    for (const outputs of ['none', 'routed', 'all'] as const) {
      const folder = await intoFolder(SHARED, { outputs });
      const collected = await collect(SHARED, { outputs });
      expect(readStatistics([folder], 'abc')).toEqual(collected);
      expect(readdirSync(folder).sort()).toEqual(['manifest.json', 'statistics.safetensors']);
      const bytes = readFileSync(join(folder, 'statistics.safetensors')).length;
      const foreseen = statisticsBytes(openModelFiles(SHARED).description, outputs);
      expect(Math.abs(bytes - foreseen)).toBeLessThan(30_000);
    }
  });

  it('of shards add up to the whole, in any order', async () => {
    const whole = await collect(MIXTRAL, { outputs: 'all' });
    const shards = await Promise.all(
      [0, 1, 2].map((index) => intoFolder(MIXTRAL, { outputs: 'all', shard: { index, count: 3 } })),
    );
    const united = readStatistics([shards[2], shards[0], shards[1]]);
    expectClose(united, whole.layers, 1e-6);
    expect(united.header).toMatchObject({ tokens: 176, modelType: 'mixtral', outputs: 'all' });
    expect(united.layers.map(({ routing }) => routing.counts)).toEqual(
      whole.layers.map(({ routing }) => routing.counts),
    );
    expect(missingShards(united.header)).toEqual([]);
    expect(missingShards(readStatistics([shards[1]]).header)).toEqual(['0/3', '2/3']);
    expect(() => readStatistics([shards[0], shards[1], shards[0]])).toThrow(/shards 0\/3 and 0\/3 of one text overlap/);
    const halves = await intoFolder(MIXTRAL, { outputs: 'all', shard: { index: 1, count: 2 } });
    expect(() => readStatistics([shards[0], halves])).toThrow(/stats-\d+: .*shards 0\/3 and 1\/2 of one text overlap/);
  });

  it('of two texts add up', async () => {
    const other = WINDOWS.map((window) => window.map((id) => id ^ 1));
    const [a, b] = [await collect(OLMOE), await collect(OLMOE, { windows: other })];
    const sum = addStatistics(a, b);
    expect(sum.header.parts.length).toBe(2);
    expect(sum.layers[0].routing.tokens).toBe(352);
    expect(() => addStatistics(a, { ...b, header: { ...b.header, precision: 'f64' } })).toThrow(/precision is f32/);
  });

  it('of other models, unfinished, cut or changed ones are refused', async () => {
    const folder = await intoFolder(SHARED);
    expect(() => readStatistics([folder], 'def')).toThrow(
      /stats-\d+: statistics of another model \(qwen2_moe, sha256 abc/,
    );
    expect(() => readStatistics([])).toThrow(/no folder/);
    expect(() => readStatistics([join(directory, 'nowhere')])).toThrow(/nowhere: no manifest.json/);
    const file = join(folder, 'statistics.safetensors');
    const bytes = readFileSync(file);
    truncateSync(file, bytes.length - 8);
    expect(() => readStatistics([folder])).toThrow(/statistics.safetensors: truncated or changed/);
    bytes[bytes.length - 3] ^= 1;
    writeFileSync(file, bytes);
    expect(() => readStatistics([folder])).toThrow(/truncated or changed/);
    writeFileSync(join(folder, 'manifest.json'), '{"schema":"other"}');
    expect(() => readStatistics([folder])).toThrow(/not the manifest of routing statistics/);
  });

  it('are taken up again where a run was interrupted', async () => {
    const folder = newFolder();
    const { description } = openModelFiles(MIXTRAL);
    let calls = 0;
    const layers = description.layers.length;
    await withHost(MIXTRAL, {}, async (host) => {
      const failing: EngineHost = {
        ...host,
        run(reference, args, progress) {
          if (reference.job.name === 'statisticsPass' && ++calls === layers) throw new Error('killed');
          return host.run(reference, args, progress);
        },
      };
      const options = { ...optionsOf(), folder };
      await expect(calibrateToFolder(failing, description, options)).rejects.toThrow('killed');
    });
    const watched: unknown[] = [];
    await withHost(MIXTRAL, {}, async (host) => {
      const seen: EngineHost = {
        ...host,
        run(reference, args, progress) {
          if (reference.job.name === 'statisticsPass') watched.push(args);
          return host.run(reference, args, progress);
        },
      };
      const other = { ...optionsOf({ outputs: 'none' }), folder, write: { resume: true } };
      await expect(calibrateToFolder(seen, description, other)).rejects.toThrow(/another model, text or other options/);
      await calibrateToFolder(seen, description, { ...optionsOf(), folder, write: { resume: true } });
    });
    expect(watched).toEqual(
      Array.from({ length: layers }, (_, layer) => (layer === layers - 1 ? { layer, outputs: 'routed' } : { layer })),
    );
    expect(readStatistics([folder])).toEqual(await collect(MIXTRAL));
  });
});
