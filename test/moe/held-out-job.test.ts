import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openLanguageModel } from '../../src/models/language-model.js';
import { engineOf } from '../../src/models/layer-streams.js';
import { openExpertModel } from '../../src/moe/expert-layout.js';
import type { ExpertModel } from '../../src/moe/expert-model.js';
import { readExpert } from '../../src/moe/expert-reader.js';
import { type HeldOutArguments, type HeldOutLayer, heldOutErrors } from '../../src/moe/held-out-job.js';
import { readMergedLabels } from '../../src/moe/merged-labels.js';
import { createMergedModel, type MergedForm } from '../../src/moe/merged-writer.js';
import { outputErrors } from '../../src/moe/output-error.js';

const directory = mkdtempSync(join(tmpdir(), 'held-out-'));
afterAll(() => rmSync(directory, { recursive: true }));

const MODELS = ['olmoe', 'qwen2-moe-shared', 'mixtral'].map((name) => `fixtures/architectures/${name}`);
const ENGINE = { maxMemoryBytes: 2 ** 31, device: 'cpu', context: 64, precision: 'f64' } as const;
const WINDOWS = [20, 20, 13, 1].map((length, w) => Int32Array.from({ length }, (_, i) => (i * i + 7 * w + 1) % 60));

/** Neighbours become one, as plain means: experts 0 and 1, 2 and 3, ... */
function merge(source: ExpertModel, form: MergedForm, target: string): void {
  const layers = source.layers.map(({ layer, experts }) => {
    const map = Int32Array.from({ length: experts }, (_, expert) => expert >> 1);
    const stored = form === 'expanded' ? experts : experts >> 1;
    return {
      layer,
      experts: stored,
      routerRows: form === 'reduced' ? stored : experts,
      ...(form === 'remap' && { map }),
    };
  });
  const head = { tool: { name: 'surprisal', version: '0.0.0' }, command: 'test', parameters: {}, inputs: [] };
  const writer = createMergedModel(source, target, { form, layers }, { head });
  source.layers.forEach(({ layer, experts }, index) => {
    for (let place = 0; place < layers[index].experts; place++) {
      const first = form === 'expanded' ? place & ~1 : 2 * place;
      const [a, b] = [readExpert(source, index, first), readExpert(source, index, first + 1)];
      const mean = (x: Float32Array, y: Float32Array) => x.map((value, i) => (value + y[i]) / 2);
      writer.writeExpert(layer, place, {
        gate: mean(a.gate as Float32Array, b.gate as Float32Array),
        up: mean(a.up, b.up),
        down: mean(a.down, b.down),
      });
    }
    const rows = Int32Array.from({ length: experts >> 1 }, (_, g) => 2 * g);
    if (form === 'reduced') writer.writeRouter(layer, { rows });
    const members = (g: number) => [{ expert: 2 * g }, { expert: 2 * g + 1 }];
    const groups = Array.from(rows, (_, group) => ({ group, members: members(group) }));
    writer.finishLayer(layer, { groups });
  });
  writer.commit();
}

type Own = Partial<HeldOutArguments> & { rowsPerRun?: number; threads?: number };

async function measure(original: string, merged: readonly string[], own: Own = {}): Promise<HeldOutLayer[]> {
  const { rowsPerRun = 512, threads = 2, ...args } = own;
  const model = await openLanguageModel(original, { ...ENGINE, threads, plan: { rowsPerRun } });
  try {
    const subjects = merged.map((path) => ({ path, labels: readMergedLabels(path) }));
    const streams = { streamBytes: 2 ** 28, scratchDirectory: directory, cacheBytes: 2 ** 28 };
    return await heldOutErrors(model, { windows: WINDOWS, original, subjects, ...streams, ...args }, () => undefined);
  } finally {
    await model.close();
  }
}

/** Residual streams after the first layer, and the squared norm of what its routed experts gave. */
async function firstLayer(path: string): Promise<{ streams: Float64Array; routedSquares: number }> {
  const model = await openLanguageModel(path, { ...ENGINE, threads: 1 });
  try {
    const engine = engineOf(model);
    const hidden = engine.model.hiddenSize;
    const streams = new Float64Array(WINDOWS.reduce((sum, window) => sum + window.length, 0) * hidden);
    let routedSquares = 0;
    await engine.forward({
      windows: WINDOWS,
      streams,
      layers: [0, 1],
      taps: ['expert_output'],
      onTap({ taps, experts, count, group }) {
        const outputs = taps.get('expert_output');
        if (!outputs || !experts) throw new Error('no experts');
        const routed = new Float64Array(group.windows.length * count * hidden);
        experts.rows.forEach((row, i) => {
          for (let d = 0; d < hidden; d++) routed[row * hidden + d] += experts.weights[i] * outputs[i * hidden + d];
        });
        routedSquares += routed.reduce((sum, value) => sum + value * value, 0);
      },
    });
    return { streams, routedSquares };
  } finally {
    await model.close();
  }
}

const directoryOf = (model: string, form: MergedForm) => join(directory, `${model.split('/').at(-1)}-${form}`);

describe.each(MODELS)('errors on held-out text of %s', (path) => {
  beforeAll(() => {
    const source = openExpertModel(path);
    for (const form of ['remap', 'reduced', 'expanded'] as const) merge(source, form, directoryOf(path, form));
    source.close();
  });
  const merged = ['remap', 'reduced', 'expanded'].map((form) => directoryOf(path, form as MergedForm));

  it('are those of the outputs of the first layer in the engine', async () => {
    const [first] = await measure(path, merged);
    const original = await firstLayer(path);
    for (const [s, subject] of merged.entries()) {
      const { streams } = await firstLayer(subject);
      const error = streams.reduce((sum, value, i) => sum + (value - original.streams[i]) ** 2, 0);
      const { sums, split } = first.subjects[s];
      expect(split).toBe(true);
      expect(sums.tokens).toBe(54);
      expect(sums.outputSquares / original.routedSquares).toBeCloseTo(1, 9);
      expect(sums.total.sum / error).toBeCloseTo(1, 9);
    }
  });

  it('put all of the error to the experts where the router was kept', async () => {
    const layers = await measure(path, merged);
    for (const { subjects } of layers) {
      const [remap, reduced, expanded] = subjects.map(({ sums }) => outputErrors(sums));
      expect(remap.routing.value).toBe(0);
      expect(remap.total.value).toBe(remap.experts.value);
      expect(remap.divergenceNats.value).toBe(0);
      expect(expanded.total.value).toBeCloseTo(remap.total.value, 12);
      expect(reduced.experts.value).toBeCloseTo(remap.total.value, 12);
      expect(reduced.routing.value).toBeGreaterThan(0);
      expect(reduced.changedShare.value).toBeGreaterThan(0);
    }
  });

  it('are the same bits with any memory, batch and number of threads', async () => {
    const whole = await measure(path, merged);
    expect(await measure(path, merged, { cacheBytes: 0, streamBytes: 0, rowsPerRun: 16, threads: 1 })).toEqual(whole);
  });

  it('are not split where nothing says which experts became one', async () => {
    const subjects = [{ path: directoryOf(path, 'reduced'), labels: [] }];
    const [
      {
        subjects: [found],
      },
    ] = await measure(path, [], { subjects });
    expect(found.split).toBe(false);
    expect(found.sums.experts).toEqual(found.sums.total);
  });
});

describe('errors on held-out text', () => {
  it('take the groups from the manifest of a merged model, and know none of another directory', () => {
    const [first] = readMergedLabels(directoryOf(MODELS[0], 'reduced'));
    expect(first).toEqual({ layer: 0, labels: Int32Array.of(0, 0, 1, 1, 2, 2, 3, 3) });
    expect(readMergedLabels(MODELS[0])).toEqual([]);
  });

  it('refuse models that do not belong together, and an empty text', async () => {
    const [olmoe, qwen] = MODELS;
    await expect(measure(olmoe, [qwen])).rejects.toThrow('cannot come from');
    await expect(measure(olmoe, [], { windows: [] })).rejects.toThrow('no token');
    const labels = [{ layer: 0, labels: Int32Array.of(0, 1) }];
    await expect(measure(olmoe, [], { subjects: [{ path: olmoe, labels }] })).rejects.toThrow('do not fit');
  });
});
