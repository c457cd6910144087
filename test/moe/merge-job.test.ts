import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type MergeOptions, parseMergeSettings } from '../../commands/merge-moe-options.js';
import type { EngineHost } from '../../src/models/engine-host.js';
import { openInThread } from '../../src/models/engine-in-thread.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { collectStatistics } from '../../src/moe/calibrate.js';
import { openExpertModel } from '../../src/moe/expert-layout.js';
import { readExpert } from '../../src/moe/expert-reader.js';
import { heldOutErrors } from '../../src/moe/held-out-job.js';
import { type MergeResult, mergeFromStatistics, mergeWithText } from '../../src/moe/merge-job.js';
import { readMergedLabels } from '../../src/moe/merged-labels.js';
import { METHOD_NAMES } from '../../src/moe/methods/registry.js';
import { outputErrors } from '../../src/moe/output-error.js';
import { readCheckpoint, readConfig, writeCheckpoint } from '../models/rewritten-checkpoint.js';

const directory = mkdtempSync(join(tmpdir(), 'merge-job-'));
afterAll(() => rmSync(directory, { recursive: true }));

const architecture = (name: string): string => `fixtures/architectures/${name}`;
const OLMOE = architecture('olmoe');
const SHARED = architecture('qwen2-moe-shared');
const FUSED = architecture('qwen3-moe-fused-columns');
const WINDOWS = [48, 48, 31, 7].map((length, w) =>
  Int32Array.from({ length }, (_, i) => (i * i + 11 * w + 3 * i * w) % 60),
);
const HEAD = { tool: { name: 'surprisal', version: '0.0.0' }, command: 'test', parameters: {}, inputs: [] };

async function withHost<T>(path: string, body: (host: EngineHost) => Promise<T>, threads = 2): Promise<T> {
  const options = { maxMemoryBytes: 2 ** 31, device: 'cpu', context: 64, precision: 'f32', threads } as const;
  const host = await openInThread(path, options);
  try {
    return await body(host);
  } finally {
    await host.close();
  }
}

let made = 0;

interface Run {
  readonly method?: string;
  readonly experts?: number;
  readonly options?: MergeOptions;
  readonly threads?: number;
  readonly memoryBytes?: number;
  readonly gradients?: readonly string[];
}

/** Merges a fixture on the windows; gives the directory and what the job says. */
async function merge(source: string, run: Run = {}): Promise<{ path: string; result: MergeResult }> {
  const { method = 'm-smoe', threads = 2, memoryBytes = 2 ** 28 } = run;
  const model = openExpertModel(source);
  const experts = String(run.experts ?? model.layers[0].experts / 2);
  const settings = parseMergeSettings({ experts, ...run.options }, model, { method, variant: undefined, seed: 3 });
  model.close();
  const path = join(directory, `merged-${made++}`);
  const result = await withHost(
    source,
    async (host) => {
      const files = openModelFiles(source);
      files.store.close();
      const { layers } = await collectStatistics(host, files.description, {
        ...{ windows: WINDOWS, modelSha256: 'none', outputs: 'all', precision: 'f32', scratchDirectory: directory },
        memoryBytes: 2 ** 28,
      });
      const text = { windows: WINDOWS, streamBytes: 2 ** 24, scratchDirectory: directory };
      const args = {
        source,
        out: path,
        settings,
        statistics: layers,
        text,
        memoryBytes,
        head: HEAD,
        ...(run.gradients && { gradients: run.gradients }),
        write: {},
        threads,
      };
      return host.run({ module: 'merge-job.js', job: mergeWithText }, args);
    },
    threads,
  );
  return { path, result };
}

const filesOf = (path: string): Record<string, string> =>
  Object.fromEntries(readdirSync(path).map((name) => [name, readFileSync(join(path, name), 'latin1')]));

/** Relative error of every layer on the windows, all of it and that of the experts. */
async function errorsOf(source: string, path: string): Promise<{ total: number; experts: number }[]> {
  const layers = await withHost(source, (host) =>
    host.run(
      { module: 'held-out-job.js', job: heldOutErrors },
      {
        windows: WINDOWS,
        original: source,
        subjects: [{ path, labels: readMergedLabels(path) }],
        ...{ streamBytes: 2 ** 24, scratchDirectory: directory, cacheBytes: 2 ** 26 },
      },
    ),
  );
  return layers.map(({ subjects: [{ sums }] }) => {
    const { total, experts } = outputErrors(sums);
    return { total: total.value, experts: experts.value };
  });
}

describe('merging the experts of a model', () => {
  const cases = [
    ...METHOD_NAMES.map((method) => [method, OLMOE] as const),
    ...['m-smoe', 'reap'].flatMap((method) => [SHARED, FUSED].map((source) => [method, source] as const)),
  ];

  it.each(cases)('%s halves the experts of %s, and the result runs', async (method, source) => {
    const { path, result } = await merge(source, { method });
    const before = openExpertModel(source);
    const after = openExpertModel(path);
    expect(after.layers.map(({ experts }) => 2 * experts)).toEqual(before.layers.map(({ experts }) => experts));
    for (const [index, layer] of result.layers.entries()) {
      const kept = layer.groups.flatMap(({ members }) => members.map(({ expert }) => expert));
      const all = [...kept, ...layer.dropped.map(({ expert }) => expert)];
      expect(all.sort((a, b) => a - b)).toEqual([...Array(before.layers[index].experts).keys()]);
      for (const { group, unchanged, members } of layer.groups) {
        if (unchanged) {
          expect(readExpert(after, index, group)).toEqual(readExpert(before, index, members[0].expert));
        }
      }
    }
    before.close();
    after.close();
    expect((await errorsOf(source, path)).every(({ total }) => total > 0 && total < 3)).toBe(true);
  });

  it('copies the files byte for byte when every expert is kept', async () => {
    const { path } = await merge(OLMOE, { experts: 8 });
    const [before, after] = [filesOf(OLMOE), filesOf(path)];
    for (const name of ['model.safetensors', 'config.json']) expect(after[name]).toBe(before[name]);
  });

  it('gives the same bytes for any number of threads and any memory', async () => {
    const options = { refit: 'group', refitLambda: '0.01', align: 'activations', routerRows: 'mean' };
    const wanted = filesOf((await merge(SHARED, { options })).path);
    expect(filesOf((await merge(SHARED, { options, threads: 1 })).path)).toEqual(wanted);
    expect(filesOf((await merge(SHARED, { options, threads: 3, memoryBytes: 40_000 })).path)).toEqual(wanted);
  });

  it('computes the same by a map as by copies: experts err alike, and routing does not', async () => {
    const [remap, expanded] = await Promise.all(
      ['remap', 'expanded'].map(async (router) => errorsOf(OLMOE, (await merge(OLMOE, { options: { router } })).path)),
    );
    remap.forEach(({ total, experts }, layer) => {
      expect(total).toBeCloseTo(expanded[layer].total, 6);
      expect(experts).toBeCloseTo(total, 6);
    });
  });

  it('leaves a model of equal experts what it was, and finds neurons that were only put elsewhere', async () => {
    const rewritten = (name: string, permute: boolean): string => {
      const tensors = readCheckpoint(OLMOE);
      for (const [key, tensor] of tensors) {
        const [prefix, expert, role] = /^(.*experts\.)(\d+)\.(\w+)\.weight$/.exec(key)?.slice(1) ?? [];
        if (expert === undefined || expert === '0') continue;
        const first = tensors.get(`${prefix}0.${role}.weight`);
        if (!first) throw new Error(key);
        const [rows, columns] = first.shape;
        const width = first.bytes.length / rows / columns;
        const bytes = first.bytes.slice();
        const inner = role === 'down_proj' ? columns : rows;
        const from = (i: number): number => (permute ? (i + 3 * Number(expert)) % inner : i);
        for (let r = 0; r < rows; r++) {
          for (let c = 0; c < columns; c++) {
            const source = role === 'down_proj' ? r * columns + from(c) : from(r) * columns + c;
            bytes.set(first.bytes.subarray(source * width, (source + 1) * width), (r * columns + c) * width);
          }
        }
        tensors.set(key, { ...tensor, bytes });
      }
      const path = join(directory, name);
      writeCheckpoint(path, readConfig(OLMOE), tensors);
      return path;
    };
    for (const source of [rewritten('equal', false), rewritten('permuted', true)]) {
      const { path, result } = await merge(source, { experts: 2, options: { router: 'remap' } });
      const [before, after] = [openExpertModel(source), openExpertModel(path, { merged: 'read' })];
      const [{ dominant }] = result.layers[0].groups;
      expect(readExpert(after, 0, 0)).toEqual(readExpert(before, 0, dominant));
      before.close();
      after.close();
      for (const { total } of await errorsOf(source, path)) expect(total).toBeLessThan(1e-6);
    }
  });

  it('lowers the error of experts by a refit on the text', async () => {
    const plain = await errorsOf(OLMOE, (await merge(OLMOE, { options: { router: 'remap' } })).path);
    const options = { router: 'remap', refit: 'group', refitLambda: '1e-6' };
    const fitted = await errorsOf(OLMOE, (await merge(OLMOE, { options })).path);
    fitted.forEach(({ experts }, layer) => {
      expect(experts).toBeLessThan(plain[layer].experts);
    });
  });

  it('weighs entries by gradients: equal ones give the plain mean', async () => {
    const tensors = readCheckpoint(OLMOE);
    for (const [name, tensor] of tensors) {
      const ones = new Float32Array(tensor.shape.reduce((product, extent) => product * extent, 1)).fill(2);
      tensors.set(name, { ...tensor, dtype: 'F32', bytes: new Uint8Array(ones.buffer) });
    }
    writeCheckpoint(join(directory, 'gradients'), readConfig(OLMOE), tensors);
    const gradients = [join(directory, 'gradients', 'model.safetensors')];
    const align = 'weights';
    const fisher = await merge(OLMOE, { options: { combine: 'fisher', align }, gradients });
    const mean = await merge(OLMOE, { options: { weights: 'mean', align } });
    expect(filesOf(fisher.path)['model.safetensors']).toBe(filesOf(mean.path)['model.safetensors']);
  });

  it('keeps the layers it is told to keep, and shares a global budget out', async () => {
    const { path, result } = await merge(OLMOE, { experts: 4, options: { keepLayers: '0', router: 'remap' } });
    expect(result.layers[0].experts_after).toBe(8);
    const kept = openExpertModel(path, { merged: 'read' });
    expect(kept.layers.map(({ experts }) => experts).slice(0, 2)).toEqual([8, 4]);
    kept.close();
    const { result: exact } = await merge(OLMOE, { experts: 3, options: { budget: 'exact' } });
    expect(exact.config_form).toBe('surprisal_moe');
    expect(exact.budget).toMatchObject({ wanted: 3 * exact.layers.length, kept: 3 * exact.layers.length });
  });

  it('names the weight that is no number', async () => {
    const tensors = readCheckpoint(OLMOE);
    const name = 'model.layers.1.mlp.experts.2.up_proj.weight';
    const tensor = tensors.get(name);
    if (!tensor) throw new Error(name);
    const bytes = tensor.bytes.slice();
    // A bit pattern of all ones is a NaN in every floating type.
    bytes.fill(255, (bytes.length / tensor.shape[0]) * 3, (bytes.length / tensor.shape[0]) * 3 + 4);
    writeCheckpoint(join(directory, 'nan'), readConfig(OLMOE), tensors.set(name, { ...tensor, bytes }));
    const source = join(directory, 'nan');
    const model = openExpertModel(source);
    const settings = parseMergeSettings({ experts: '1', topK: '1' }, model, {
      ...{ method: 'random', variant: undefined, seed: 1 },
    });
    model.close();
    const out = join(directory, 'never');
    const args = { source, out, settings, memoryBytes: 2 ** 26, head: HEAD, write: {}, threads: 1 };
    await expect(mergeFromStatistics(args, () => undefined)).rejects.toThrow(
      `tensor "${name}": expert 2, up: row 3, column 0 is NaN`,
    );
    expect(readdirSync(directory).filter((entry) => entry.includes('never'))).toEqual([]);
  });

  it('needs no engine for what weights and statistics decide', async () => {
    const model = openExpertModel(OLMOE);
    const settings = parseMergeSettings({ experts: '4' }, model, { method: 'random', variant: undefined, seed: 1 });
    model.close();
    const out = join(directory, 'without');
    const args = { source: OLMOE, out, settings, memoryBytes: 2 ** 26, head: HEAD, write: {}, threads: 1 };
    const seen: unknown[] = [];
    const result = await mergeFromStatistics(args, (value) => seen.push(value));
    expect(result.layers[0].usage_entropy_before_nats).toBeNull();
    expect(seen.length).toBe(result.layers.length);
  });
});
