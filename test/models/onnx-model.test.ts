import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import type { RowStatistics } from '../../src/kernels/row-statistics.js';
import { type LanguageModel, openLanguageModel, type PositionRange } from '../../src/models/language-model.js';

const ROOT = 'fixtures/onnx';
const OPTIONS = { threads: 2, maxMemoryBytes: 2 ** 32, device: 'cpu', precision: 'f32', context: 64 } as const;
const REQUEST = { topK: 3, renyiOrders: [0.5, 2] };
const VOCABULARY = 67;
const ids = (length: number, step: number): Int32Array =>
  Int32Array.from({ length }, (_, i) => (step * i * i + 3 * i + 5) % VOCABULARY);
const WINDOWS = [ids(31, 7), ids(1, 2), ids(12, 11), ids(31, 5)];
const WANTED: readonly PositionRange[] = [
  [0, 31],
  [0, 1],
  [4, 9],
  [30, 31],
];
const TARGETS = ids(
  WANTED.reduce((sum, [from, to]) => sum + to - from, 0),
  13,
);

/** Largest difference at most `tolerance` of the largest expected magnitude. */
function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  expect(actual.length).toBe(expected.length);
  let difference = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(actual[i] - expected[i]));
    scale = Math.max(scale, Math.abs(expected[i]));
  }
  expect(difference / scale).toBeLessThan(tolerance);
}

describe('ONNX exports', () => {
  let directory: LanguageModel;
  let expected: RowStatistics;
  beforeAll(async () => {
    directory = await openLanguageModel('fixtures/architectures/llama-tied-linear', OPTIONS);
    expected = await directory.statistics(WINDOWS, WANTED, TARGETS, REQUEST);
  });
  afterAll(() => directory.close());

  it.each([
    ['optimum.onnx', 1e-5],
    ['optimum-past.onnx', 1e-5],
    ['genai.onnx', 1e-5],
    // Half precision: products rounded to 11 bits through two layers; varentropy feels it most.
    ['genai-f16.onnx', 1e-2],
  ])('%s gives the statistics of the directory', async (name, tolerance) => {
    const model = await openLanguageModel(join(ROOT, name), OPTIONS);
    expect(model.info).toMatchObject({ format: 'onnx', modelType: 'llama', vocabularySize: 67, maxPositions: 64 });
    const actual = await model.statistics(WINDOWS, WANTED, TARGETS, REQUEST);
    expectClose(actual.surprisalNats, expected.surprisalNats, tolerance);
    expectClose(actual.entropyNats, expected.entropyNats, tolerance);
    expectClose(actual.varentropyNats2, expected.varentropyNats2, tolerance);
    expectClose(actual.topLogProbs, expected.topLogProbs, tolerance);
    if (tolerance < 1e-4) {
      expect(actual.rank).toEqual(expected.rank);
      expect(actual.topColumns).toEqual(expected.topColumns);
    }
    const logits = await model.logits(WINDOWS, WANTED);
    expectClose(logits, await directory.logits(WINDOWS, WANTED), tolerance);
    await model.close();
  });

  it('refuses a token outside the vocabulary, and double precision', async () => {
    const model = await openLanguageModel(join(ROOT, 'optimum.onnx'), OPTIONS);
    const run = model.statistics([Int32Array.of(3, 67)], [[0, 2]], Int32Array.of(0, 0), REQUEST);
    await expect(run).rejects.toThrow(/token id 67 is outside the vocabulary of 67/);
    await model.close();
    const double = openLanguageModel(join(ROOT, 'optimum.onnx'), { ...OPTIONS, precision: 'f64' });
    await expect(double).rejects.toThrow(/arithmetic/);
  });
});

describe('graphs that are no such model', () => {
  const folder = mkdtempSync(join(tmpdir(), 'surprisal-onnx-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  const refusal = async (path: string): Promise<string> => {
    try {
      const model = await openLanguageModel(path, OPTIONS);
      await model.statistics([ids(5, 7)], [[0, 5]], ids(5, 1), REQUEST).finally(() => model.close());
    } catch (error) {
      expect(error).toBeInstanceOf(InputError);
      expect((error as Error).message).toContain(path);
      expect((error as Error).message).not.toContain('\n');
      return (error as Error).message;
    }
    throw new Error(`${path} was accepted`);
  };

  it('names what the graph has instead of logits', async () => {
    expect(await refusal(join(ROOT, 'no-logits.onnx'))).toMatch(/inputs input_ids, .* outputs scores/);
  });
  it('names an input it cannot feed', async () => {
    expect(await refusal(join(ROOT, 'unknown-input.onnx'))).toMatch(/an input "temperature"/);
  });
  it('wants logits of all positions', async () => {
    expect(await refusal(join(ROOT, 'last-row.onnx'))).toMatch(/shape \[1,1,67\] for a window of 5 tokens/);
  });
  it('wants a vocabulary size', async () => {
    const path = join(folder, 'genai-f16.onnx');
    copyFileSync(join(ROOT, 'genai-f16.onnx'), path);
    expect(await refusal(path)).toMatch(/config\.json/);
    writeFileSync(join(folder, 'config.json'), '{"vocab_size": 66}');
    expect(await refusal(path)).toMatch(/shape \[1,5,67\].* vocabulary of 66/);
    writeFileSync(join(folder, 'config.json'), '{"vocab_size":');
    await expect(openLanguageModel(path, OPTIONS)).rejects.toThrow(/config\.json: not valid JSON/);
  });
  it('says that a file is missing or no graph', async () => {
    expect(await refusal(join(folder, 'none.onnx'))).toContain('no such file');
    const path = join(folder, 'text.onnx');
    writeFileSync(path, 'not a graph');
    expect(await refusal(path)).toContain('cannot load');
  });
});
