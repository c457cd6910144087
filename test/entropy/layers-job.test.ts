import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type LayersArguments, type LayersBatch, measureLayers } from '../../src/entropy/layers-job.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { elementCount } from '../../src/formats/tensor.js';
import { gatherRows } from '../../src/models/gather-rows.js';
import { type LanguageModel, openLanguageModel } from '../../src/models/language-model.js';

const OPTIONS = { threads: 2, maxMemoryBytes: 2 ** 32, device: 'cpu', precision: 'f32', context: 64 } as const;

function golden(name: string, key: string): Float32Array {
  const store = openSafetensors(join('fixtures/architectures', name, 'golden.safetensors'));
  const tensor = store.tensors.get(key);
  if (!tensor) throw new Error(`golden file lacks ${key}`);
  const values = new Float32Array(elementCount(tensor.shape));
  store.readInto(tensor, 0, tensor.byteLength, new Uint8Array(values.buffer));
  store.close();
  return values;
}

/** log softmax of one row. */
function logProbabilities(logits: ArrayLike<number>, row: number, size: number): Float64Array {
  const own = Float64Array.from({ length: size }, (_, i) => logits[row * size + i]);
  const most = Math.max(...own);
  const sum = own.reduce((total, logit) => total + Math.exp(logit - most), 0);
  return own.map((logit) => logit - most - Math.log(sum));
}

const sum = (length: number, value: (i: number) => number): number => {
  let total = 0;
  for (let i = 0; i < length; i++) total += value(i);
  return total;
};

// gemma2 has norms that add one, scaled embeddings and a soft cap on its logits; gpt2 has LayerNorm with a bias.
describe.each(['llama-biases', 'gemma2', 'gpt2'])('%s', (name) => {
  const ids = new Int32Array(golden(name, 'input_ids').buffer);
  const targets = Int32Array.from(ids, (_, i) => ids[(i + 1) % ids.length]);
  const states = golden(name, 'hidden_states');
  const n = ids.length;
  let model: LanguageModel;
  let args: LayersArguments;
  let batch: LayersBatch;
  beforeAll(async () => {
    model = await openLanguageModel(join('fixtures/architectures', name), OPTIONS);
    args = { windows: [ids], wanted: [[0, n]], targets, documents: ['d'], moments: true };
    batch = await measureLayers(model, args);
  });
  afterAll(() => model.close());

  it('measures norms and cosines of the hidden states that transformers gives', () => {
    const width = model.engine?.model.hiddenSize ?? 0;
    const at = (layer: number, row: number, i: number): number => states[(layer * n + row) * width + i];
    // The last of transformers' hidden states is normed already; the layers before it are compared.
    for (let layer = 0; layer < batch.rows.length - 1; layer++) {
      for (let row = 0; row < n; row++) {
        const norm = Math.sqrt(sum(width, (i) => at(layer, row, i) ** 2));
        expect(batch.rows[layer].residualNorm[row] / norm).toBeCloseTo(1, 5);
        if (layer === 0) {
          expect(batch.rows[0].cosineToPrevious[row]).toBeNaN();
          continue;
        }
        const before = Math.sqrt(sum(width, (i) => at(layer - 1, row, i) ** 2));
        const product = sum(width, (i) => at(layer, row, i) * at(layer - 1, row, i));
        expect(batch.rows[layer].cosineToPrevious[row]).toBeCloseTo(product / norm / before, 5);
      }
    }
    expect(batch.moments.map((moments) => moments.rows)).toEqual(batch.rows.map(() => n));
  });

  it('looks through the lens as whole rows of logits do', async () => {
    const engine = model.engine;
    if (!engine) throw new Error('no engine');
    const size = engine.model.vocabularySize;
    const streams: Float32Array[] = [];
    await engine.forward({
      windows: [ids],
      onResidual: (_, groups) => {
        streams.push(Float32Array.from(gatherRows(groups, engine.model.hiddenSize, [[0, n]])));
      },
    });
    const logits: ArrayLike<number>[] = [];
    for (const rows of streams) {
      await engine.normalize(rows);
      logits.push(await engine.logits(rows));
    }
    const last = logits.length - 1;
    logits.forEach((own, layer) => {
      const rows = batch.rows[layer];
      for (let row = 0; row < n; row++) {
        const p = logProbabilities(logits[last], row, size);
        const q = logProbabilities(own, row, size);
        expect(rows.lensEntropyNats[row]).toBeCloseTo(
          sum(size, (i) => -Math.exp(q[i]) * q[i]),
          6,
        );
        expect(rows.lensKlNats[row]).toBeCloseTo(
          sum(size, (i) => Math.exp(p[i]) * (p[i] - q[i])),
          6,
        );
        expect(rows.lensSurprisalNats[row]).toBeCloseTo(-q[targets[row]], 6);
        expect(rows.lensAgreement[row]).toBe(p.indexOf(Math.max(...p)) === q.indexOf(Math.max(...q)) ? 1 : 0);
      }
    });
    expect(Math.max(...batch.rows[last].lensKlNats)).toBe(0);
  });

  it('gives the same in blocks of the vocabulary and short runs, and for a part of the positions', async () => {
    const blocks = await openLanguageModel(join('fixtures/architectures', name), {
      ...OPTIONS,
      plan: { headBlock: 16, rowsPerRun: 8, headResident: false },
    });
    const parts = await measureLayers(blocks, {
      ...args,
      windows: [ids.slice(0, 1), ids],
      wanted: [
        [0, 1],
        [25, n],
      ],
      targets: Int32Array.of(targets[0], ...targets.subarray(25)),
      documents: ['c', 'd'],
    });
    await blocks.close();
    parts.rows.forEach((rows, layer) => {
      for (const key of ['residualNorm', 'lensEntropyNats', 'lensKlNats', 'lensSurprisalNats'] as const) {
        const whole = batch.rows[layer][key];
        const expected = [whole[0], ...whole.subarray(25)];
        expect(rows[key]).toHaveLength(expected.length);
        expected.forEach((value, i) => {
          expect(Math.abs(rows[key][i] - value)).toBeLessThan(2e-5 * Math.max(1, value));
        });
      }
    });
  });
});
