import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../../src/errors.js';
import { openLanguageModel } from '../../../src/models/language-model.js';
import type { Floats } from '../../../src/models/layer-runner.js';
import { openModelFiles } from '../../../src/models/model-files.js';
import { startCheck, wholeRows } from '../../../src/quantization/exports/carriers.js';
import { type EncodedTensors, exportModel } from '../../../src/quantization/exports/export-model.js';
import { packNbits, runNbitsCheck, unpacked } from '../../../src/quantization/exports/nbits.js';
import { fuseModel } from '../../../src/quantization/fused-store.js';
import { planFusion } from '../../../src/quantization/rotation-fusion.js';
import { logitsOf, relative, windowOf } from '../model-logits.js';
import { decode, decodedModel, encodeModel, encodePlain } from './coded-rows.js';

const folder = mkdtempSync(join(tmpdir(), 'surprisal-onnx-'));
afterAll(() => rmSync(folder, { recursive: true }));
let made = 0;
const fresh = (): string => join(folder, `model-${made++}`);

const NOTHING: EncodedTensors = {
  has: () => false,
  get: (name) => {
    throw new Error(name);
  },
};

/** Logits of the fixed window from an exported graph. */
async function onnxLogits(directory: string): Promise<Floats> {
  const options = { threads: 2, maxMemoryBytes: 2 ** 32, device: 'cpu', precision: 'f32', context: 64 } as const;
  const model = await openLanguageModel(join(directory, 'model.onnx'), options);
  const window = windowOf(model.info.vocabularySize);
  const logits = await model.logits([window], [[0, window.length]]);
  await model.close();
  return logits;
}

async function refusal(act: () => Promise<unknown>): Promise<string> {
  try {
    await act();
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return (error as Error).message;
  }
  throw new Error('it was accepted');
}

describe('MatMulNBits', () => {
  it.each([
    [16, 96],
    [32, 80],
    [64, 128],
    [128, 128],
  ])('holds groups of %i in rows of %i exactly, and ONNX Runtime reads them', async (D, columns) => {
    const rows = 5;
    const weights = Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i * i) * 0.05);
    const coded = encodePlain(weights, rows, columns, 'onnx-nbits', D);
    const blocks = Math.ceil(columns / D);
    const packed = {
      outputs: rows,
      columns,
      block: D,
      blocks,
      codes: new Uint8Array((rows * blocks * D) / 2),
      scales: new Float32Array(rows * blocks),
    };
    const check = startCheck();
    packNbits('w', wholeRows(coded, 0, rows), packed, (row) => row, check);
    const meant = decode(coded);
    meant.forEach((value, i) => {
      expect(unpacked(packed, Math.floor(i / columns), i % columns)).toBeCloseTo(value, 12);
    });
    expect(check).toMatchObject({ weights: rows * columns, largestRelativeError: 0, squaredError: 0 });
    await runNbitsCheck('w', packed, 1);
  });
});

describe('a decoder as an ONNX graph', () => {
  it.each([
    'models/llama-sotu',
    'models/qwen2-moby',
    'models/mixtral-sotu-moby',
    'architectures/gpt-neox-parallel',
    'architectures/gpt2',
    'architectures/phi3',
    'architectures/qwen3',
    'architectures/qwen2-moe-shared',
    'architectures/gemma3-pattern',
    'architectures/llama-llama3',
  ])('%s, nothing coded', async (name) => {
    const source = openModelFiles(join('fixtures', name));
    const target = fresh();
    await exportModel('onnx-nbits', source, NOTHING, target);
    expect(relative(await onnxLogits(target), await logitsOf(source, 'f32'))).toBeLessThan(1e-5);
  });

  it.each([
    ['fixtures/models/llama-sotu', 32],
    ['fixtures/models/qwen2-moby', 64],
    ['fixtures/models/mixtral-sotu-moby', 32],
    ['fixtures/architectures/gpt2', 16],
    ['fixtures/gguf/llama-llama3.f16.gguf', 32],
    ['fixtures/gguf/qwen2-moe.f32.gguf', 16],
  ])('%s with groups of %i', async (path, D) => {
    const source = openModelFiles(path);
    const encoded = encodeModel(source, 'onnx-nbits', D);
    const target = fresh();
    const report = await exportModel('onnx-nbits', source, encoded, target);
    const expected = await logitsOf(decodedModel(source, encoded.coded, decode), 'f32');
    expect(relative(await onnxLogits(target), expected)).toBeLessThan(1e-5);
    for (const { check } of report.tensors) expect(check.largestRelativeError).toBe(0);
    const coded = report.tensors.reduce((sum, { bytes }) => sum + bytes, 0);
    const weights = report.tensors.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
    expect((8 * coded) / weights).toBeLessThan(4 + 32 / D + 2);
  });

  it('of a fused model, with the files beside it', async () => {
    const original = openModelFiles('fixtures/models/llama-sotu');
    const source = fuseModel(original, planFusion(original, { seed: 2n }));
    const encoded = encodeModel(source, 'onnx-nbits', 32);
    const target = fresh();
    await exportModel('onnx-nbits', source, encoded, target);
    expect(readdirSync(target)).toEqual(
      expect.arrayContaining(['config.json', 'model.onnx', 'model.onnx.data', 'tokenizer.json']),
    );
    const expected = await logitsOf(decodedModel(source, encoded.coded, decode), 'f32');
    expect(relative(await onnxLogits(target), expected)).toBeLessThan(1e-5);
  });

  it('is refused where it cannot be', async () => {
    const refused = (name: string): Promise<string> => {
      const source = openModelFiles(join('fixtures/architectures', name));
      return refusal(() => exportModel('onnx-nbits', source, NOTHING, fresh()));
    };
    expect(await refused('gemma2')).toMatch(/heads of 12 values are no multiple of 8/);
    expect(await refused('phi3-longrope')).toMatch(/\(longrope\) depends on the length of the text/);
    const source = openModelFiles('fixtures/models/llama-sotu');
    const { embedding } = source.weights;
    const coded: EncodedTensors = { ...NOTHING, has: (name) => name === embedding.tensor.name };
    expect(await refusal(() => exportModel('onnx-nbits', source, coded, fresh()))).toMatch(/is looked up row by row/);
    const eights = encodeModel(source, 'gguf-q8_0', 32, (name) => name.includes('layers.0.self_attn.q_proj'));
    expect(await refusal(() => exportModel('onnx-nbits', source, eights, fresh()))).toMatch(
      /cannot be stored exactly as onnx-nbits: \d+ pulses do not fit 32 weights|pulses are outside of the -8 to 7/,
    );
  });
});
