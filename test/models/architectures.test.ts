import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { elementCount, type TensorStore } from '../../src/formats/tensor.js';
import { createEngine, type Engine } from '../../src/models/engine.js';
import { gatherRows } from '../../src/models/gather-rows.js';
import type { Floats } from '../../src/models/layer-runner.js';
import { openModelFiles } from '../../src/models/model-files.js';

const ROOT = 'fixtures/architectures';
const CASES = readdirSync(ROOT, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => entry.name);

/** Largest difference over the largest expected magnitude. */
function relative(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(actual.length).toBe(expected.length);
  let difference = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(actual[i] - expected[i]));
    scale = Math.max(scale, Math.abs(expected[i]));
  }
  return difference / scale;
}

function floats(store: TensorStore, name: string): Float32Array {
  const tensor = store.tensors.get(name);
  if (!tensor) throw new Error(`golden file lacks ${name}`);
  const values = new Float32Array(elementCount(tensor.shape));
  store.readInto(tensor, 0, tensor.byteLength, new Uint8Array(values.buffer));
  return values;
}

const OPTIONS = { threads: 2, maxMemoryBytes: 2 ** 32, device: 'cpu', precision: 'f32', context: 64 } as const;

describe.each(CASES)('%s agrees with transformers', (name) => {
  const path = join(ROOT, name);
  let golden: TensorStore;
  let engine: Engine;
  let ids: Int32Array;
  let hidden: number;
  beforeAll(async () => {
    golden = openSafetensors(join(path, 'golden.safetensors'));
    ids = new Int32Array(floats(golden, 'input_ids').buffer);
    engine = await createEngine(openModelFiles(path), OPTIONS);
    hidden = engine.model.hiddenSize;
  });
  afterAll(() => engine.close());

  const logitsOf = async (used: Engine, windows: Int32Array[]): Promise<Floats> => {
    const groups = await used.forward({ windows });
    const rows = gatherRows(
      groups,
      hidden,
      windows.map((window) => [0, window.length] as const),
    );
    await used.normalize(rows);
    return used.logits(rows);
  };

  it('logits and residual streams', async () => {
    const streams: Floats[] = [];
    const groups = await engine.forward({
      windows: [ids],
      onResidual: (_, all) => {
        streams.push(all[0].stream.slice());
      },
    });
    const expected = floats(golden, 'hidden_states');
    streams.forEach((stream, layer) => {
      const part = expected.subarray(layer * stream.length, (layer + 1) * stream.length);
      expect(relative(stream, part), `residual ${layer}`).toBeLessThan(1e-5);
    });
    const rows = gatherRows(groups, hidden, [[0, ids.length]]);
    await engine.normalize(rows);
    expect(relative(await engine.logits(rows), floats(golden, 'logits'))).toBeLessThan(1e-5);
  });

  it('attention probabilities and router logits', async () => {
    const attention: number[] = [];
    const routers: Floats[] = [];
    await engine.forward({
      windows: [ids],
      taps: ['attention_probabilities', 'router_logits'],
      onTap: ({ taps }) => {
        attention.push(...(taps.get('attention_probabilities') ?? []));
        const router = taps.get('router_logits');
        if (router) routers.push(router);
      },
    });
    expect(relative(attention, floats(golden, 'attentions'))).toBeLessThan(1e-5);
    routers.forEach((router, i) => {
      expect(relative(router, floats(golden, `router_logits.${i}`)), `router ${i}`).toBeLessThan(1e-5);
    });
  });

  it('in double precision', async () => {
    const double = await createEngine(openModelFiles(path), { ...OPTIONS, precision: 'f64' });
    expect(relative(await logitsOf(double, [ids]), floats(golden, 'logits'))).toBeLessThan(1e-5);
    await double.close();
  });

  it('layer by layer and in batches, to the last bit', async () => {
    const whole = await logitsOf(engine, [ids]);
    const plan = { layersResident: false, headResident: false, headBlock: 24 };
    const streamed = await createEngine(openModelFiles(path), { ...OPTIONS, plan });
    expect(await logitsOf(streamed, [ids])).toEqual(whole);
    await streamed.close();

    const batch = await logitsOf(engine, [ids, ids.slice(0, 17), ids]);
    const vocabulary = engine.model.vocabularySize;
    expect(batch.subarray(0, whole.length)).toEqual(whole);
    expect(batch.subarray((ids.length + 17) * vocabulary)).toEqual(whole);
  });

  it('in query chunks', async () => {
    const whole = await logitsOf(engine, [ids]);
    const chunked = await createEngine(openModelFiles(path), { ...OPTIONS, plan: { rowsPerRun: 16 } });
    expect(relative(await logitsOf(chunked, [ids]), whole)).toBeLessThan(1e-6);
    await chunked.close();
  });
});
