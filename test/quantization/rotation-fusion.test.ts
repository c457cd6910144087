import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import type { TensorStore } from '../../src/formats/tensor.js';
import { createEngine, gatherRows } from '../../src/models/engine.js';
import type { Floats } from '../../src/models/layer-runner.js';
import { type ModelFiles, openModelFiles } from '../../src/models/model-files.js';
import { fuseModel } from '../../src/quantization/fused-store.js';
import { type FusionOptions, planFusion } from '../../src/quantization/rotation-fusion.js';

const ARCHITECTURES = readdirSync('fixtures/architectures', { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => join('fixtures/architectures', entry.name));
const GGUF = readdirSync('fixtures/gguf')
  .filter((name) => name.endsWith('.gguf'))
  .map((name) => join('fixtures/gguf', name));
const MODELS = ['llama-sotu', 'qwen2-moby', 'mixtral-sotu-moby'].map((name) => join('fixtures/models', name));
const isGemma = (path: string): boolean => path.includes('gemma');
const SEED = { seed: 7n };

/** Logits [tokens, vocabulary] of a fixed text. */
export async function logitsOf(files: ModelFiles, precision: 'f32' | 'f64'): Promise<Floats> {
  const options = { threads: 2, maxMemoryBytes: 2 ** 32, device: 'cpu', precision, context: 64 } as const;
  const engine = await createEngine(files, options);
  const ids = Int32Array.from({ length: 40 }, (_, i) => (7 * i * i + 3 * i + 5) % engine.model.vocabularySize);
  const groups = await engine.forward({ windows: [ids] });
  const rows = gatherRows(groups, engine.model.hiddenSize, [[0, ids.length]]);
  await engine.normalize(rows);
  const logits = await engine.logits(rows);
  await engine.close();
  return logits;
}

/** Largest difference over the largest magnitude. */
export function relative(actual: Floats, expected: Floats): number {
  expect(actual.length).toBe(expected.length);
  let difference = 0;
  let scale = 0;
  expected.forEach((value, i) => {
    difference = Math.max(difference, Math.abs(actual[i] - value));
    scale = Math.max(scale, Math.abs(value));
  });
  return difference / scale;
}

async function fusedError(path: string, precision: 'f32' | 'f64', options: FusionOptions): Promise<number> {
  const files = openModelFiles(path);
  const expected = await logitsOf(files, precision);
  const plan = planFusion(files, options);
  const fused = fuseModel(files, plan, { dtype: precision === 'f32' ? 'F32' : 'F64' });
  const error = relative(await logitsOf(fused, precision), expected);
  fused.store.close();
  return error;
}

describe('a fused model computes the same function', () => {
  const accepted = [...MODELS, ...ARCHITECTURES, ...GGUF].filter((path) => !isGemma(path));

  it.each(accepted)('%s', async (path) => {
    expect(await fusedError(path, 'f64', SEED)).toBeLessThan(1e-10);
    expect(await fusedError(path, 'f32', SEED)).toBeLessThan(1e-5);
  });

  it.each([...ARCHITECTURES, ...GGUF].filter(isGemma))('%s without R1', async (path) => {
    expect(await fusedError(path, 'f64', { ...SEED, residual: false })).toBeLessThan(1e-10);
  });

  it.each(['gpt2', 'gpt-neox-parallel', 'qwen2-moe-shared'])('%s with parts of the plan', async (name) => {
    const path = join('fixtures/architectures', name);
    expect(await fusedError(path, 'f64', { ...SEED, residual: false, foldNorms: false })).toBeLessThan(1e-10);
    expect(await fusedError(path, 'f64', { ...SEED, values: false })).toBeLessThan(1e-10);
  });
});
