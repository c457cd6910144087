import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { elementCount, type TensorInfo, type TensorStore } from '../../src/formats/tensor.js';
import { locateHuggingFace, type ModelFiles, openModelFiles } from '../../src/models/model-files.js';
import { createWeightReader } from '../../src/models/weights.js';
import { writeFusedModel } from '../../src/quantization/fused-model-writer.js';
import { fuseModel, workingTypes } from '../../src/quantization/fused-store.js';
import { type FusionOptions, planFusion } from '../../src/quantization/rotation-fusion.js';
import { logitsOf, relative } from './model-logits.js';

const ARCHITECTURES = readdirSync('fixtures/architectures', { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => join('fixtures/architectures', entry.name));
const GGUF = readdirSync('fixtures/gguf')
  .filter((name) => name.endsWith('.gguf'))
  .map((name) => join('fixtures/gguf', name));
const MODELS = ['llama-sotu', 'qwen2-moby', 'mixtral-sotu-moby'].map((name) => join('fixtures/models', name));
const isVision = (path: string): boolean => path.includes('-vl-');
const isGemma = (path: string): boolean => path.includes('gemma');
const SEED = { seed: 7n };

async function fusedError(path: string, precision: 'f32' | 'f64', options: FusionOptions): Promise<number> {
  const files = openModelFiles(path);
  const expected = await logitsOf(files, precision);
  const plan = planFusion(files, options);
  const fused = fuseModel(files, plan, { dtype: precision === 'f32' ? 'F32' : 'F64' });
  const error = relative(await logitsOf(fused, precision), expected);
  fused.store.close();
  return error;
}

/** The model with some of its tensors replaced by F32 values of one number. */
function withConstants(files: ModelFiles, names: RegExp, value: number): ModelFiles {
  const { store } = files;
  const tensors = new Map<string, TensorInfo>(store.tensors);
  for (const info of store.tensors.values()) {
    if (names.test(info.name)) {
      tensors.set(info.name, { ...info, dtype: 'F32', byteLength: 4 * elementCount(info.shape) });
    }
  }
  const changed: TensorStore = {
    ...store,
    tensors,
    readInto(tensor, start, length, target) {
      if (!names.test(tensor.name)) store.readInto(tensor, start, length, target);
      else target.set(new Uint8Array(new Float32Array(length / 4).fill(value).buffer));
    },
  };
  return locateHuggingFace(files.path, files.description, changed);
}

function valuesOf(store: TensorStore, name: string): Float32Array {
  const tensor = store.tensors.get(name);
  if (!tensor) throw new Error(`no tensor ${name}`);
  const values = new Float32Array(elementCount(tensor.shape));
  createWeightReader(1).read({ store, tensor, start: 0, byteLength: tensor.byteLength, shape: tensor.shape }, values);
  return values;
}

function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return (error as Error).message;
  }
  throw new Error('it was accepted');
}

describe('a fused model computes the same function', () => {
  const accepted = [...MODELS, ...ARCHITECTURES, ...GGUF].filter((path) => !isGemma(path) && !isVision(path));

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

  it('Gemma with R1, where its norms after the branches are all of one weight', async () => {
    const files = withConstants(openModelFiles('fixtures/architectures/gemma3'), /post_(attention|feedforward)/, 0.5);
    const expected = await logitsOf(files, 'f64');
    const fused = fuseModel(files, planFusion(files, SEED), { dtype: 'F64' });
    expect(relative(await logitsOf(fused, 'f64'), expected)).toBeLessThan(1e-10);
  });
});

describe('what fusion does to the tensors', () => {
  const files = openModelFiles('fixtures/models/qwen2-moby');
  const plan = planFusion(files, SEED);
  const fused = fuseModel(files, plan);

  it('leaves every norm at one and keeps the length of embeddings', () => {
    for (const name of fused.store.tensors.keys()) {
      if (/norm\.weight$/.test(name)) expect(valuesOf(fused.store, name).every((value) => value === 1)).toBe(true);
    }
    const name = files.weights.embedding.tensor.name;
    const before = valuesOf(files.store, name);
    const after = valuesOf(fused.store, name);
    expect(relative(after, before)).toBeGreaterThan(0.1);
    const length = (values: Float32Array): number => Math.hypot(...values.subarray(0, files.description.hiddenSize));
    expect(length(after)).toBeCloseTo(length(before), 5);
  });

  it('turns every matrix at the residual stream, and keeps all others byte for byte', () => {
    const rotated = [...plan.tensors.values()].filter(({ parts }) =>
      parts.some(({ steps }) => steps.some((step) => step.kind === 'rotate-columns' || step.kind === 'rotate-rows')),
    );
    // Per layer q, k, v, o, gate, up, down; embedding and head.
    expect(rotated.length).toBe(7 * files.description.layers.length + 2);
    for (const [name, tensor] of files.store.tensors) {
      if (plan.tensors.has(name)) continue;
      expect(fused.store.tensors.get(name)).toEqual(tensor);
      expect(valuesOf(fused.store, name)).toEqual(valuesOf(files.store, name));
    }
  });

  it('gives the same bytes whatever range is read', () => {
    for (const role of ['k', 'v', 'o', 'up']) {
      const weight = fused.weights.layers[1].get(role);
      if (!weight) throw new Error(`no ${role}`);
      const whole = new Uint8Array(weight.byteLength);
      fused.store.readInto(weight.tensor, 0, whole.length, whole);
      for (const [start, length] of [
        [0, 1],
        [383, 1000],
        [whole.length - 5, 5],
      ]) {
        const part = new Uint8Array(length);
        fused.store.readInto(weight.tensor, start, length, part);
        expect(part).toEqual(whole.subarray(start, start + length));
      }
    }
  });

  it('depends on the seed alone', () => {
    const name = files.weights.embedding.tensor.name;
    const again = fuseModel(files, planFusion(files, SEED), { threads: 2 });
    expect(valuesOf(again.store, name)).toEqual(valuesOf(fused.store, name));
    const other = fuseModel(files, planFusion(files, { seed: 8n }));
    expect(valuesOf(other.store, name)).not.toEqual(valuesOf(fused.store, name));
  });

  it('says what it leaves out', () => {
    const clipped = openModelFiles('fixtures/architectures/olmoe-clip');
    const { notes, rotations } = planFusion(clipped, SEED);
    expect(notes).toEqual(['values are clamped before they are mixed: no rotation of the heads']);
    expect([...rotations.keys()]).toEqual(['residual']);
  });
});

describe('a fused model as a directory', () => {
  const folder = mkdtempSync(join(tmpdir(), 'surprisal-fusion-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('has an untied head, the files of the source, and the same logits', async () => {
    const path = 'fixtures/models/llama-sotu';
    const files = openModelFiles(path);
    expect(files.description.tiedHead).toBe(true);
    const plan = planFusion(files, SEED);
    const target = join(folder, 'llama');
    writeFusedModel(fuseModel(files, plan), plan, target, { maxShardBytes: 1 << 20 });
    const names = readdirSync(target);
    expect(names).toContain('model.safetensors.index.json');
    for (const name of readdirSync(path)) if (!/safetensors/.test(name)) expect(names).toContain(name);
    const config = JSON.parse(readFileSync(join(target, 'config.json'), 'utf8'));
    expect(config).toMatchObject({ tie_word_embeddings: false, torch_dtype: 'float32' });
    const read = openModelFiles(target);
    expect(read.weights.head.tensor.name).toBe('lm_head.weight');
    expect(relative(await logitsOf(read, 'f32'), await logitsOf(files, 'f32'))).toBeLessThan(1e-5);
  });

  it('keeps the type of the source where asked', () => {
    const files = openModelFiles('fixtures/models/llama-sotu');
    const plan = planFusion(files, SEED);
    const fused = fuseModel(files, plan, { dtype: 'source' });
    const dtypes = new Set([...fused.store.tensors.values()].map(({ dtype }) => dtype));
    expect([...dtypes]).toEqual(['BF16']);
    // Rounded once: half a unit of the last of 8 bits at most.
    const name = 'model.layers.0.mlp.up_proj.weight';
    const exact = valuesOf(fuseModel(files, plan).store, name);
    valuesOf(fused.store, name).forEach((value, i) => {
      expect(Math.abs(value - exact[i])).toBeLessThanOrEqual(Math.abs(exact[i]) * 2 ** -8);
    });
  });

  it('keeps what will not be quantised in the type of the source', () => {
    const files = openModelFiles('fixtures/models/mixtral-sotu-moby');
    const fused = fuseModel(files, planFusion(files, SEED), { dtype: workingTypes(files) });
    for (const { name, dtype } of fused.store.tensors.values()) {
      expect(dtype, name).toBe(/_proj|experts/.test(name) ? 'F32' : 'BF16');
    }
  });

  it('refuses what a GGUF file cannot give', () => {
    const files = openModelFiles(GGUF[1]);
    const plan = planFusion(files, SEED);
    const fused = fuseModel(files, plan);
    expect(refusal(() => writeFusedModel(fused, plan, join(folder, 'x')))).toMatch(/a GGUF file has no config\.json/);
  });
});

describe('what cannot be fused is refused by name', () => {
  it.each([...ARCHITECTURES, ...GGUF].filter(isGemma))('%s', (path) => {
    const message = refusal(() => planFusion(openModelFiles(path), SEED));
    expect(message).toMatch(
      /rotation plan unknown for architecture gemma\w+: the norm after the branch \(".*", layer 0\) has weights that differ/,
    );
    expect(message).toMatch(/use --rotation stored$/);
  });

  it('an architecture that nobody has compared', () => {
    const files = openModelFiles('fixtures/models/llama-sotu');
    const other = { ...files, description: { ...files.description, modelType: 'newllama' } };
    expect(refusal(() => planFusion(other, SEED))).toContain('rotation plan unknown for architecture newllama');
  });

  it('a head that must stay tied', () => {
    const files = openModelFiles('fixtures/models/llama-sotu');
    expect(refusal(() => planFusion(files, { ...SEED, keepTied: true }))).toContain('shares the embedding matrix');
  });

  it('a norm that is zero where its bias is not, before a head without bias', () => {
    const files = withConstants(openModelFiles('fixtures/architectures/gpt2'), /ln_f\.weight/, 0);
    expect(refusal(() => planFusion(files, SEED))).toMatch(/"transformer.ln_f.weight" is zero at coordinate 0/);
  });

  it('a vision tower, which writes to the residual stream', () => {
    const files = openModelFiles('fixtures/models/llama-sotu');
    const tower: TensorInfo = { ...files.weights.finalNorm.tensor, name: 'vision_tower.patch.weight' };
    const tensors = new Map([...files.store.tensors, [tower.name, tower]]);
    const other = { ...files, store: { ...files.store, tensors } };
    expect(refusal(() => planFusion(other, SEED))).toContain('"vision_tower.patch.weight" belongs to a part');
  });
});
