import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../../src/errors.js';
import { openGguf } from '../../../src/formats/gguf.js';
import { elementCount } from '../../../src/formats/tensor.js';
import { openModelFiles } from '../../../src/models/model-files.js';
import { openModelTokenizer } from '../../../src/models/model-tokenizer.js';
import { createWeightReader } from '../../../src/models/weights.js';
import type { ExportFormat } from '../../../src/quantization/exports/export-format.js';
import { type EncodedTensors, exportModel } from '../../../src/quantization/exports/export-model.js';
import { fuseModel } from '../../../src/quantization/fused-store.js';
import { planFusion } from '../../../src/quantization/rotation-fusion.js';
import { logitsOf, relative } from '../model-logits.js';
import { decode, decodedModel, decodeRounded, encodeModel } from './coded-rows.js';

const folder = mkdtempSync(join(tmpdir(), 'surprisal-export-'));
afterAll(() => rmSync(folder, { recursive: true }));
let files = 0;
const fresh = (): string => join(folder, `${files++}.gguf`);

const NOTHING: EncodedTensors = {
  has: () => false,
  get: (name) => {
    throw new Error(name);
  },
};

async function refusal(act: () => Promise<unknown>): Promise<string> {
  try {
    await act();
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return (error as Error).message;
  }
  throw new Error('it was accepted');
}

const MODELS = 'fixtures/models';
const SMALL = 'fixtures/architectures';

describe('a Hugging Face model without coded tensors as GGUF', () => {
  it.each([
    `${MODELS}/llama-sotu`,
    `${MODELS}/qwen2-moby`,
    `${MODELS}/mixtral-sotu-moby`,
    ...['llama-biases', 'llama-llama3', 'llama-tied-linear', 'llama-yarn', 'mistral-window'].map(
      (n) => `${SMALL}/${n}`,
    ),
    ...['mixtral', 'qwen2', 'qwen3', 'qwen3-moe', 'qwen2-moe'].map((n) => `${SMALL}/${n}`),
  ])('%s computes the same', async (path) => {
    const source = openModelFiles(path);
    const target = fresh();
    const { notes } = await exportModel('gguf-q8_0', source, NOTHING, target);
    const exported = openModelFiles(target);
    const window = source.description.layers.some(({ attention }) => attention.window !== undefined);
    expect(notes.some((note) => note.includes('sliding window'))).toBe(window);
    if (window) return;
    expect(relative(await logitsOf(exported, 'f32'), await logitsOf(source, 'f32'))).toBeLessThan(1e-6);
    exported.store.close();
  });

  it.each(['llama-sotu', 'qwen2-moby'])('%s cuts text the same', async (name) => {
    const target = fresh();
    await exportModel('gguf-q8_0', openModelFiles(join(MODELS, name)), NOTHING, target);
    const expected = openModelTokenizer(join(MODELS, name));
    const actual = openModelTokenizer(target);
    for (const text of [
      'The state of the Union, 2023: it\'s "strong".\n\n  And\tmore…',
      'Call me Ishmael <|endoftext|>',
    ]) {
      expect(actual.encode(text, { parseSpecialTokens: true })).toEqual(expected.encode(text));
    }
    expect(actual.eosId).toBe(expected.eosId);
  });

  it.each([
    ['gpt2', /model type gpt2 is not one of llama, .*; it cannot be written to GGUF/],
    ['llama-dynamic', /its rotary embedding is of type dynamic/],
    ['olmoe-clip', /clamped \(clip_qkv\)/],
    ['olmoe', /fewer key\/value heads than heads/],
    ['qwen3-moe-unnormalised', /router weights are not normalised, llama\.cpp's qwen3moe differs/],
    ['qwen2-moe-normalised', /its layers are not all of one kind/],
    ['phi3', /model type phi3 is not one of/],
  ])('%s is refused', async (name, message) => {
    const source = openModelFiles(join(SMALL, name));
    expect(await refusal(() => exportModel('gguf-q8_0', source, NOTHING, fresh()))).toMatch(message);
  });
});

describe('coded tensors', () => {
  const wide = (_: string, columns: number): boolean => columns % 256 === 0;
  it.each<[ExportFormat, string, number, (name: string, columns: number) => boolean]>([
    ['gguf-q8_0', 'llama-sotu', 32, () => true],
    ['gguf-q8_0', 'mixtral-sotu-moby', 64, (name) => /layers\.1\.block/.test(name)],
    ['gguf-q4_0', 'qwen2-moby', 32, () => true],
    ['gguf-q6_k', 'qwen2-moby', 16, wide],
    ['gguf-q3_k', 'qwen2-moby', 32, wide],
    ['gguf-q2_k', 'qwen2-moby', 16, wide],
  ])('%s of %s gives the logits of the decoded weights', async (format, name, D, wanted) => {
    const source = openModelFiles(join(MODELS, name));
    const encoded = encodeModel(source, format, D, wanted);
    const target = fresh();
    const report = await exportModel(format, source, encoded, target);
    expect(report.tensors.length).toBe(encoded.coded.size);
    const expected = await logitsOf(decodedModel(source, encoded.coded, decodeRounded), 'f32');
    const exported = openModelFiles(target);
    const error = relative(await logitsOf(exported, 'f32'), expected);
    expect(error).toBeLessThan(2e-6);
    // Steps are exact; elsewhere factors are rounded to 11 bits.
    const stepped = format.endsWith('_k');
    for (const { check, bytes, rows, columns, lossy } of report.tensors) {
      expect(lossy).toBe(false);
      expect(check.weights).toBe(rows * columns);
      expect(check.largestRelativeError).toBeLessThanOrEqual(stepped ? 0 : 2 ** -11);
      expect(bytes).toBeLessThan(rows * columns * 1.1);
    }
    expect(report.tensorBytes).toBe([...exported.store.tensors.values()].reduce((sum, t) => sum + t.byteLength, 0));
    exported.store.close();
  });

  it.each(['gguf-q5_0', 'gguf-iq4_nl', 'gguf-q4_k'] as const)(
    '%s is a second quantisation, and said to be',
    async (format) => {
      const source = openModelFiles(join(MODELS, 'qwen2-moby'));
      const encoded = encodeModel(source, 'gguf-q8_0', 32, (name) => name.includes('layers.0.mlp.down_proj'));
      const target = fresh();
      const { tensors } = await exportModel(format, source, encoded, target);
      expect(tensors.map(({ lossy }) => lossy)).toEqual([true]);
      const [{ check, storedName, name }] = tensors;
      const decibels = 10 * Math.log10(check.squaredWeights / check.squaredError);
      expect(decibels).toBeGreaterThan(15);
      expect(decibels).toBeLessThan(40);
      // The error that is reported is that of what is in the file.
      const store = openGguf(target);
      const tensor = store.tensors.get(storedName);
      if (!tensor) throw new Error(storedName);
      const read = new Float32Array(elementCount(tensor.shape));
      const weight = { store, tensor, start: 0, byteLength: tensor.byteLength, shape: tensor.shape };
      createWeightReader(1).read(weight, read);
      const meant = decode(encoded.get(name));
      const added = read.reduce((sum, value, i) => sum + (value - meant[i]) ** 2, 0);
      expect(check.squaredError / added).toBeCloseTo(1, 5);
      store.close();
    },
  );

  it('of a fused model', async () => {
    const original = openModelFiles(join(MODELS, 'llama-sotu'));
    const source = fuseModel(original, planFusion(original, { seed: 2n }));
    const encoded = encodeModel(source, 'gguf-q8_0', 32);
    const target = fresh();
    await exportModel('gguf-q8_0', source, encoded, target);
    const exported = openModelFiles(target);
    expect(exported.description.tiedHead).toBe(false);
    expect(
      relative(
        await logitsOf(exported, 'f32'),
        await logitsOf(decodedModel(source, encoded.coded, decodeRounded), 'f32'),
      ),
    ).toBeLessThan(2e-6);
    expect(relative(await logitsOf(exported, 'f32'), await logitsOf(original, 'f32'))).toBeLessThan(0.1);
    exported.store.close();
  });

  it('of a fused GGUF source', async () => {
    const original = openModelFiles('fixtures/gguf/llama-llama3.f16.gguf');
    const source = fuseModel(original, planFusion(original, { seed: 2n }));
    const target = fresh();
    await exportModel(
      'gguf-q8_0',
      source,
      encodeModel(source, 'gguf-q8_0', 32, (name) => name.includes('blk.0.attn_q.')),
      target,
    );
    const exported = openModelFiles(target);
    expect(relative(await logitsOf(exported, 'f32'), await logitsOf(original, 'f32'))).toBeLessThan(0.1);
    await exportModel('gguf-q8_0', source, NOTHING, target, { force: true });
    const plain = openModelFiles(target);
    expect(relative(await logitsOf(plain, 'f32'), await logitsOf(original, 'f32'))).toBeLessThan(1e-5);
    for (const files of [exported, plain]) files.store.close();
  });

  it('of a GGUF source, which keeps its metadata', async () => {
    const path = 'fixtures/gguf/qwen2-moe.f32.gguf';
    const source = openModelFiles(path);
    const encoded = encodeModel(source, 'gguf-q8_0', 32, (_, columns) => columns % 32 === 0);
    expect(encoded.coded.size).toBeGreaterThan(5);
    const target = fresh();
    await exportModel('gguf-q8_0', source, encoded, target);
    const [before, after] = [openGguf(path), openGguf(target)];
    for (const [key, value] of before.kv) {
      if (!/file_type|quantization_version/.test(key)) expect(after.kv.get(key)).toEqual(value);
    }
    expect(after.kv.get('general.file_type')).toBe(7);
    const exported = openModelFiles(target);
    expect(
      relative(
        await logitsOf(exported, 'f32'),
        await logitsOf(decodedModel(source, encoded.coded, decodeRounded), 'f32'),
      ),
    ).toBeLessThan(2e-6);
    for (const store of [before, after, exported.store]) store.close();
  });

  it('are refused where a format does not hold them', async () => {
    const source = openModelFiles(join(MODELS, 'mixtral-sotu-moby'));
    const some = encodeModel(source, 'gguf-q8_0', 32, (name) => /layers\.0\..*experts\.[01]\./.test(name));
    expect(await refusal(() => exportModel('gguf-q8_0', source, some, fresh()))).toMatch(
      /experts\.2\.\w+\.weight" is not quantised, other experts of "blk\.0\.ffn_\w+_exps\.weight" are/,
    );
    const all = encodeModel(source, 'gguf-q8_0', 32, (name) => /layers\.0.*q_proj/.test(name));
    expect(await refusal(() => exportModel('gguf-q6_k', source, all, fresh()))).toMatch(
      /tensor ".*" cannot be stored exactly as gguf-q6_k: rows of 128 weights are not a whole number of blocks of 256/,
    );
    const target = fresh();
    await exportModel('gguf-q8_0', source, NOTHING, target);
    expect(await refusal(() => exportModel('gguf-q8_0', source, NOTHING, target))).toContain('already exists');
  });
});
