import { describe, expect, it } from 'vitest';
import { createEngine, type Engine } from '../../src/models/engine.js';
import { openInThread } from '../../src/models/engine-in-thread.js';
import type { Floats } from '../../src/models/layer-runner.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { MEASURE_GROUPS, type NoisyWeight } from '../../src/quantization/divergence-job.js';
import {
  measureDivergence,
  sensitivityWindows,
  separableTable,
} from '../../src/quantization/divergence-sensitivity.js';
import { selectTensors } from '../../src/quantization/tensor-selection.js';
import { addWeightNoise } from '../../src/quantization/weight-noise.js';
import { createRandom } from '../../src/random.js';

const LLAMA = 'fixtures/models/llama-sotu';
const ENGINE = { threads: 2, maxMemoryBytes: 2 ** 31, device: 'cpu', context: 64, precision: 'f32' } as const;
const WINDOWS = [40, 40, 17].map((length, w) => Int32Array.from({ length }, (_, i) => (i * i + 7 * w + 3) % 61));

const energyOf = (values: Iterable<number>): number => [...values].reduce((sum, value) => sum + value * value, 0);

describe('noise on weights', () => {
  it('has the energy that is asked for in every row, whichever way the matrix lies', () => {
    const [rows, columns] = [6, 4000];
    const random = createRandom(5);
    const weights = Float64Array.from(
      { length: rows * columns },
      (_, i) => 10 ** Math.floor(i / columns) * random.normal(),
    );
    const turned = new Float64Array(weights.length);
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) turned[c * rows + r] = weights[r * columns + c];
    const noisy = new Float64Array(weights.length);
    const noisyTurned = new Float64Array(weights.length);
    addWeightNoise(weights, { rows, columns, transposed: false }, 0.05, createRandom(1), noisy);
    addWeightNoise(turned, { rows, columns, transposed: true }, 0.05, createRandom(1), noisyTurned);
    for (let r = 0; r < rows; r++) {
      const row = weights.subarray(r * columns, (r + 1) * columns);
      const errors = row.map((value, c) => noisy[r * columns + c] - value);
      // The sum of 4,000 squares has a relative standard error of 2.2 %.
      expect(energyOf(errors) / energyOf(row) / 0.05).toBeGreaterThan(0.9);
      expect(energyOf(errors) / energyOf(row) / 0.05).toBeLessThan(1.1);
      const difference = row.map((_, c) => noisyTurned[c * rows + r] - noisy[r * columns + c]);
      expect(energyOf(difference) / energyOf(row)).toBeLessThan(1e-24);
    }
  });

  it('leaves rows of zeros as they are', () => {
    const target = new Float32Array(6).fill(7);
    addWeightNoise(new Float32Array(6), { rows: 2, columns: 3, transposed: false }, 1, createRandom(1), target);
    expect([...target]).toEqual([0, 0, 0, 0, 0, 0]);
  });
});

describe('the separable table', () => {
  const cellsOf = (layers: number, roles: readonly string[]) =>
    Array.from({ length: layers }, (_, layer) => roles.map((role) => ({ layer, role }))).flat();
  const marginsOf = (cells: readonly { layer: number; role: string }[], values: ArrayLike<number>) => {
    const [roles, layers] = [new Map<string, number>(), new Map<number, number>()];
    cells.forEach(({ layer, role }, i) => {
      roles.set(role, (roles.get(role) ?? 0) + values[i]);
      layers.set(layer, (layers.get(layer) ?? 0) + values[i]);
    });
    return { roles, layers };
  };

  it('recovers what is a product from its sums', () => {
    const cells = cellsOf(4, ['q', 'k', 'down']);
    const planted = cells.map(({ layer, role }) => (1 + layer * layer) * { q: 0.1, k: 3, down: 7 }[role as 'q']);
    const { roles, layers } = marginsOf(cells, planted);
    const found = separableTable(cells, roles, layers);
    planted.forEach((value, i) => {
      expect(found[i]).toBeCloseTo(value, 10);
    });
  });

  it('recovers it with cells missing too', () => {
    const cells = cellsOf(3, ['q', 'up', 'expert.up']).filter(({ layer, role }) =>
      role === 'up' ? layer === 0 : role === 'q' || layer > 0,
    );
    const planted = cells.map(({ layer, role }) => (layer + 1) * { q: 0.5, up: 2, 'expert.up': 5 }[role as 'q']);
    const { roles, layers } = marginsOf(cells, planted);
    const found = separableTable(cells, roles, layers);
    planted.forEach((value, i) => {
      expect(found[i]).toBeCloseTo(value, 6);
    });
  });

  it('takes the mean of the totals where noise on all roles and on all layers adds up differently', () => {
    const cells = cellsOf(2, ['a', 'b']);
    const found = separableTable(
      cells,
      new Map([
        ['a', 1],
        ['b', 2],
      ]),
      new Map([
        [0, 4],
        [1, 1],
      ]),
    );
    expect([...found].map((value) => Number(value.toFixed(9)))).toEqual(
      [(4 * 0.8) / 3, (8 * 0.8) / 3, (4 * 0.2) / 3, (8 * 0.2) / 3].map((value) => Number(value.toFixed(9))),
    );
    expect([
      ...separableTable(
        cells,
        new Map([
          ['a', 0],
          ['b', 0],
        ]),
        new Map([
          [0, 0],
          [1, 0],
        ]),
      ),
    ]).toEqual([0, 0, 0, 0]);
  });
});

it('windows are spread over the text, and the last is cut', () => {
  const windows = Array.from({ length: 10 }, (_, w) => Int32Array.from({ length: 8 }, () => w));
  const chosen = sensitivityWindows(windows, 30);
  expect(chosen.map((window) => [window[0], window.length])).toEqual([
    [0, 8],
    [2, 8],
    [5, 8],
    [7, 6],
  ]);
  expect(sensitivityWindows(windows, 1000)).toEqual(windows);
});

async function finalStreams(engine: Engine, adjustWeights?: (layer: number, role: string, data: Floats) => Floats) {
  const groups = await engine.forward({ windows: WINDOWS, ...(adjustWeights && { adjustWeights }) });
  return groups.map(({ stream }) => stream.slice());
}

describe.each([true, false])('adjusted weights, layers resident: %s', (layersResident) => {
  it('leave no trace, and change no bit when they are what they were', async () => {
    const engine = await createEngine(openModelFiles(LLAMA), { ...ENGINE, plan: { layersResident } });
    try {
      const plain = await finalStreams(engine);
      expect(await finalStreams(engine, (_, __, data) => data)).toEqual(plain);
      expect(await finalStreams(engine, (_, __, data) => data.slice())).toEqual(plain);
      const halved = await finalStreams(engine, (_, role, data) =>
        role === 'up' ? data.map((value) => value / 2) : data,
      );
      expect(halved).not.toEqual(plain);
      expect(await finalStreams(engine)).toEqual(plain);
    } finally {
      await engine.close();
    }
  });
});

describe('the divergence of a model', () => {
  it('is that of the whole softmax, whatever group comes first', async () => {
    const path = 'fixtures/architectures/gpt2';
    const files = openModelFiles(path);
    const engine = await createEngine(files, { ...ENGINE, precision: 'f64' });
    const host = await openInThread(path, { ...ENGINE, precision: 'f64' });
    try {
      const layer = engine.model.layers.length - 1;
      const found = [...files.weights.layers[layer]].find(([role]) => role === 'down');
      const [columns, rows] = found?.[1].shape ?? [];
      const weight: NoisyWeight = { layer, role: 'down', stream: 3, rows, columns };
      const first: NoisyWeight = { ...weight, layer: 0 };
      const args = { windows: WINDOWS, relativeEnergy: 0.1, seed: '11' };
      const { meanKlNats } = await host.run(MEASURE_GROUPS, { ...args, groups: [[weight], [first], [first, weight]] });

      const logits = async (noisy: boolean): Promise<Floats> => {
        const streams = await finalStreams(engine, (at, role, data) => {
          if (!noisy || at !== layer || role !== 'down') return data;
          const target = new Float64Array(data.length);
          const random = createRandom(11).fork(3);
          addWeightNoise(data, { rows, columns, transposed: true }, 0.1, random, target);
          return target;
        });
        const rowsOf = Float64Array.from(streams.flatMap((stream) => [...stream]));
        await engine.normalize(rowsOf);
        return engine.logits(rowsOf);
      };
      const [p, q] = [await logits(false), await logits(true)];
      const vocabulary = engine.model.vocabularySize;
      const tokens = p.length / vocabulary;
      let total = 0;
      for (let t = 0; t < tokens; t++) {
        const [l, z] = [p, q].map((all) => {
          const row = Array.from(all.subarray(t * vocabulary, (t + 1) * vocabulary));
          const most = row.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
          const sum = row.reduce((a, b) => a + Math.exp(b - most), 0);
          return row.map((value) => value - most - Math.log(sum));
        });
        l.forEach((value, i) => {
          total += Math.exp(value) * (value - z[i]);
        });
      }
      expect(meanKlNats[0]).toBeGreaterThan(0);
      expect(Math.abs(meanKlNats[0] / (total / tokens) - 1)).toBeLessThan(1e-9);
      expect(new Set(meanKlNats).size).toBe(3);
    } finally {
      await engine.close();
      await host.close();
    }
  });

  it('gives every tensor its part, the same for 1 and 4 threads and with layers streamed', async () => {
    const path = 'fixtures/models/mixtral-sotu-moby';
    const files = openModelFiles(path);
    const { selected } = selectTensors(files, { tensors: ['*proj*', '*experts*', '*embed*'] });
    const measured = [];
    for (const own of [{ threads: 1 }, { threads: 4, plan: { layersResident: false } }]) {
      const host = await openInThread(path, { ...ENGINE, ...own });
      const request = { windows: WINDOWS, tokens: 60, relativeEnergy: 0.05, seed: '3' };
      measured.push(await measureDivergence(host, files, selected, request));
      await host.close();
    }
    expect(measured[1]).toEqual(measured[0]);
    const [{ tensors, tokens }] = measured;
    expect(tokens).toBe(60);
    for (const { name, layer, role } of selected) {
      if (layer < 0) expect(tensors[name]).toBeUndefined();
      else expect(tensors[name], role).toBeGreaterThan(0);
    }
  });
});
