import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openImatrix, writeImatrix } from '../../src/formats/imatrix.js';
import { openInThread } from '../../src/models/engine-in-thread.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { hashModel } from '../../src/models/model-hash.js';
import { calibrate } from '../../src/quantization/calibration.js';
import { openHessians } from '../../src/quantization/hessian-file.js';
import { exportImportance, openImportance } from '../../src/quantization/importance.js';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'importance-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

const WINDOWS = [Int32Array.from({ length: 40 }, (_, i) => (i * 17 + 3) % 60)];

describe.each([
  ['fixtures/models/mixtral-sotu-moby', 'model.layers.1.block_sparse_moe.experts.3.w2.weight', 8],
  ['fixtures/architectures/gpt2', 'transformer.h.1.mlp.c_proj.weight', 1],
  ['fixtures/gguf/qwen2-moe.f32.gguf', 'blk.1.ffn_down_exps.weight#3', 4],
])('importance of %s', (path, weight, experts) => {
  it.each(['gguf', 'dat'])('goes from Hessians through a %s file back to the weights', async (format) => {
    const files = openModelFiles(path);
    const host = await openInThread(path, {
      threads: 1,
      maxMemoryBytes: 2 ** 31,
      device: 'cpu',
      precision: 'f32',
      context: 64,
    });
    const file = join(directory, `${path.replaceAll('/', '-')}-${format}.safetensors`);
    const modelSha256 = await hashModel(path);
    await calibrate(host, files, { windows: WINDOWS, path: file, modelSha256, memoryBytes: 2 ** 28, precision: 'f32' });
    await host.close();
    const hessians = openHessians(file);
    const target = `${file}.${format}`;
    exportImportance(target, hessians, ['text.jsonl']);

    const importance = openImportance(target, files.description, files.weights);
    expect(importance.missing).toEqual([]);
    const input = hessians.inputOf(weight) ?? '';
    const { tokens, sumSquares, columns } = hessians.moments(input);
    const found = importance.of(weight);
    expect(found?.meanSquares.length).toBe(columns);
    found?.meanSquares.forEach((value, i) => {
      expect(value).toBeCloseTo(tokens === 0 ? 1 : sumSquares[i] / tokens, 5);
    });
    if (experts > 1) {
      const entry = openImatrix(target).entries.get('blk.1.ffn_down_exps.weight');
      expect(entry?.meanSquares.length).toBe(experts * columns);
      if (format === 'gguf') expect(found?.count).toBe(tokens);
    }
  });
});

describe('an importance matrix of another model', () => {
  const { description } = openModelFiles('fixtures/models/llama-sotu');
  const source = { chunks: 1, chunkTokens: 1, datasets: [] };
  it('is refused by the tensor whose width differs', () => {
    const path = join(directory, 'wide.gguf');
    writeImatrix(path, [{ name: 'blk.0.attn_q.weight', sumSquares: new Float32Array(96), counts: [1] }], source);
    expect(() => openImportance(path, description)).toThrow(/"blk.0.attn_q.weight" has 96 values .* 128 inputs/);
  });
  it('is refused when it shares no tensor', () => {
    const path = join(directory, 'strange.gguf');
    writeImatrix(path, [{ name: 'blk.90.attn_q.weight', sumSquares: [1], counts: [1] }], source);
    expect(() => openImportance(path, description)).toThrow(/none of its 1 tensors/);
  });
  it('names what is missing', () => {
    const path = join(directory, 'partial.gguf');
    writeImatrix(path, [{ name: 'blk.0.attn_q.weight', sumSquares: new Float32Array(128), counts: [1] }], source);
    const importance = openImportance(path, description);
    expect(importance.of('model.layers.0.self_attn.k_proj.weight')?.entry).toBe('blk.0.attn_q.weight');
    expect(importance.missing).toContain('layers.1.mlp_hidden');
  });
});
