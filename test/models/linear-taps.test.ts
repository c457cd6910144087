import { afterAll, describe, expect, it } from 'vitest';
import { createEngine, type Engine } from '../../src/models/engine.js';
import { gatherRows } from '../../src/models/gather-rows.js';
import type { LayerTap } from '../../src/models/layer-parts.js';
import type { Floats, TapEvent } from '../../src/models/layer-runner.js';
import { type ModelFiles, openModelFiles } from '../../src/models/model-files.js';
import { createWeightReader } from '../../src/models/weights.js';

const INPUTS: readonly LayerTap[] = [
  'attention_input',
  'attention_mixed',
  'attention_output',
  'mlp_input',
  'mlp_hidden',
  'shared_hidden',
  'expert_input',
  'expert_hidden',
  'expert_output',
];

const engines: Engine[] = [];
afterAll(async () => {
  for (const engine of engines) await engine.close();
});

async function engineOf(files: ModelFiles, precision: 'f32' | 'f64', rowsPerRun = 64, threads = 2): Promise<Engine> {
  const options = { threads, maxMemoryBytes: 2 ** 31, device: 'cpu', context: 64, plan: { rowsPerRun } } as const;
  const engine = await createEngine(files, { ...options, precision });
  engines.push(engine);
  return engine;
}

const window = (length: number, salt: number): Int32Array =>
  Int32Array.from({ length }, (_, i) => (i * 37 + salt * 11 + 5) % 60);

/** The weight of a role in f64, [out, in] whatever its stored layout, and its bias. */
function linearOf(files: ModelFiles, layer: number, role: string) {
  const stored = files.weights.layers[layer];
  const read = (name: string): Float64Array | undefined => {
    const weight = stored.get(name);
    if (!weight) return undefined;
    const data = new Float64Array(weight.shape.reduce((a, b) => a * b, 1));
    createWeightReader(1).read(weight, data);
    return data;
  };
  const weight = read(role);
  const shape = stored.get(role)?.shape;
  if (!weight || !shape) throw new Error(`no ${role}`);
  const bias = read(`${role}_bias`);
  const flipped = files.description.linearLayout === 'in-out';
  const [outs, ins] = flipped ? [shape[1], shape[0]] : shape;
  return (rows: Floats): Float64Array => {
    const n = rows.length / ins;
    const out = new Float64Array(n * outs);
    for (let r = 0; r < n; r++) {
      for (let o = 0; o < outs; o++) {
        let sum = bias?.[o] ?? 0;
        for (let i = 0; i < ins; i++) sum += rows[r * ins + i] * weight[flipped ? i * outs + o : o * ins + i];
        out[r * outs + o] = sum;
      }
    }
    return out;
  };
}

function expectClose(found: Floats, expected: Floats, tolerance: number): void {
  expect(found.length).toBe(expected.length);
  let scale = 0;
  let difference = 0;
  for (let i = 0; i < found.length; i++) {
    scale = Math.max(scale, Math.abs(expected[i]));
    difference = Math.max(difference, Math.abs(found[i] - expected[i]));
  }
  expect(difference).toBeLessThanOrEqual(tolerance * scale);
}

function tapOf(event: TapEvent, tap: LayerTap): Floats {
  const data = event.taps.get(tap);
  if (!data) throw new Error(`no ${tap}`);
  return data;
}

const MODELS = [
  'fixtures/models/llama-sotu',
  'fixtures/models/mixtral-sotu-moby',
  'fixtures/architectures/gpt2',
  'fixtures/architectures/gemma2',
  'fixtures/architectures/gpt-neox-parallel',
  'fixtures/architectures/phi3',
  'fixtures/architectures/qwen2-moe-shared',
];

describe.each(MODELS)('%s: taps of the inputs of linears', (path) => {
  const files = openModelFiles(path);
  const hidden = files.description.hiddenSize;

  it.each(['f32', 'f64'] as const)('do not change a bit of the forward pass, %s', async (precision) => {
    for (const threads of [1, 2]) {
      const engine = await engineOf(files, precision, 16, threads);
      for (const windows of [[window(1, 0)], [window(7, 1), window(7, 2)], [window(40, 3)]]) {
        const wanted = windows.map((ids) => [0, ids.length] as const);
        const plain = gatherRows(await engine.forward({ windows }), hidden, wanted).slice();
        const tapped = await engine.forward({ windows, taps: INPUTS, onTap: () => undefined });
        expect(gatherRows(tapped, hidden, wanted)).toEqual(plain);
      }
    }
  });

  it.each([1, 9])('are what the linears read, in f64 and in windows of %i tokens', async (length) => {
    const engine = await engineOf(files, 'f64');
    const windows = [window(length, 0)];
    const streams: Floats[] = [];
    const events: TapEvent[] = [];
    await engine.forward({
      windows,
      taps: INPUTS,
      onTap: (event) => events.push(event),
      onResidual: (_, groups) => {
        streams.push(groups[0].stream.slice());
      },
    });
    expect(events.map((event) => event.layer)).toEqual(files.description.layers.map((_, layer) => layer));
    for (const event of events) {
      const { layer } = event;
      const mlp = files.description.layers[layer].mlp;
      const branch = mlp.kind === 'dense' ? dense(event) : mixture(event, mlp.experts, mlp.expertsPerToken);
      expectClose(
        tapOf(event, 'attention_output'),
        linearOf(files, layer, 'o')(tapOf(event, 'attention_mixed')),
        1e-13,
      );
      // With norms on the branches the output of the MLP is not in the stream as it is.
      if (files.description.layers[layer].branchNorms) continue;
      const attended = tapOf(event, 'attention_output');
      const found = streams[layer + 1].map((value, i) => value - streams[layer][i] - attended[i]);
      expectClose(found, branch, 1e-12);
    }

    function dense(event: TapEvent): Float64Array {
      return linearOf(files, event.layer, 'down')(tapOf(event, 'mlp_hidden'));
    }

    function mixture(event: TapEvent, experts: number, expertsPerToken: number): Float64Array {
      const found = event.experts;
      if (!found) throw new Error('no expert rows');
      expect(found.counts.length).toBe(experts);
      expect(found.rows.length).toBe(length * expertsPerToken);
      expect(found.counts.reduce((a, b) => a + b, 0)).toBe(found.rows.length);
      const input = tapOf(event, 'expert_input');
      const inside = tapOf(event, 'expert_hidden');
      const output = tapOf(event, 'expert_output');
      const read = tapOf(event, 'mlp_input');
      const width = inside.length / found.rows.length;
      const sum = new Float64Array(length * hidden);
      let at = 0;
      found.counts.forEach((count, expert) => {
        const part = (data: Floats, columns: number) => data.subarray(at * columns, (at + count) * columns);
        const role = `expert.${expert}.`;
        const rows = part(input, hidden);
        const gate = linearOf(files, event.layer, `${role}gate`)(rows);
        const up = linearOf(files, event.layer, `${role}up`)(rows);
        expectClose(
          part(inside, width),
          gate.map((value, i) => (value / (1 + Math.exp(-value))) * up[i]),
          1e-12,
        );
        expectClose(part(output, hidden), linearOf(files, event.layer, `${role}down`)(part(inside, width)), 1e-12);
        for (let r = at; r < at + count; r++) {
          const row = found.rows[r];
          expect(input.subarray(r * hidden, (r + 1) * hidden)).toEqual(read.subarray(row * hidden, (row + 1) * hidden));
          for (let j = 0; j < hidden; j++) sum[row * hidden + j] += found.weights[r] * output[r * hidden + j];
        }
        at += count;
      });
      const shared = event.taps.get('shared_hidden');
      if (!shared) return sum;
      const score = linearOf(files, event.layer, 'shared.router')(read);
      const added = linearOf(files, event.layer, 'shared.down')(shared);
      return sum.map((value, i) => value + added[i] / (1 + Math.exp(-score[Math.floor(i / hidden)])));
    }
  });
});

describe('a pass that continues', () => {
  it('gives the bits of one pass, layer after layer', async () => {
    const files = openModelFiles('fixtures/models/llama-sotu');
    const hidden = files.description.hiddenSize;
    const engine = await engineOf(files, 'f32');
    const windows = [window(30, 0), window(30, 4), window(30, 9)];
    const wanted = windows.map((ids) => [0, ids.length] as const);
    const whole = gatherRows(await engine.forward({ windows }), hidden, wanted).slice();
    const streams = new Float32Array(90 * hidden);
    for (let layer = 0; layer < files.description.layers.length; layer++) {
      await engine.forward({ windows, streams, layers: [layer, layer + 1], continues: layer > 0 });
    }
    expect(streams).toEqual(whole);
  });
});
