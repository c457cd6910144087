import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { type ModelFiles, openModelFiles } from '../../src/models/model-files.js';
import { createWeightReader, type StoredWeight } from '../../src/models/weights.js';
import { createRandom } from '../../src/random.js';
import { openDecoderStudent } from '../../src/training/decoder-student.js';
import { createAdapters, readPeftAdapter, writePeftAdapter } from '../../src/training/lora.js';
import { writeModelDirectory } from '../../src/training/model-writer.js';
import { everyLayer, existingStudent, layerStudent, randomStudent } from '../../src/training/student-config.js';

const fixtures = fileURLToPath(new URL('../../fixtures/', import.meta.url));
const architecture = (name: string): string => join(fixtures, 'architectures', name);
const folder = mkdtempSync(join(tmpdir(), 'students-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function emptyFolder(name: string): string {
  const path = join(folder, name);
  mkdirSync(path);
  return path;
}

function valuesOf(weight: StoredWeight): Float32Array {
  const values = new Float32Array(weight.shape.reduce((product, extent) => product * extent, 1));
  createWeightReader(1).read(weight, values);
  return values;
}

/** Digest of the values of every weight by its place. */
function digestsOf(files: ModelFiles): Record<string, string> {
  const digest = (values: Float32Array): string =>
    createHash('sha256').update(new Uint8Array(values.buffer)).digest('hex');
  return Object.fromEntries([...weightsOf(files)].map(([name, values]) => [name, digest(values)]));
}

/** Values of every weight by its place. */
function weightsOf({ weights }: ModelFiles): Map<string, Float32Array> {
  const found = new Map([
    ['embedding', valuesOf(weights.embedding)],
    ['norm', valuesOf(weights.finalNorm)],
  ]);
  weights.layers.forEach((layer, l) => {
    for (const [role, weight] of layer) found.set(`${l}.${role}`, valuesOf(weight));
  });
  return found;
}

describe('layers of a teacher', () => {
  it.each([
    ['gemma2', [1]],
    ['gemma3-pattern', [0, 5]],
    ['smollm3', [3]],
    ['qwen2-window', [1]],
    ['qwen2-moe', [1]],
    ['gpt2', [1]],
    ['gpt-neox-parallel', [1]],
  ])('%s: layers %s move with what the configuration says of them', (name, wanted) => {
    const teacher = openModelFiles(architecture(name));
    const layers = wanted.filter((layer) => layer < teacher.description.layers.length);
    const student = layerStudent(teacher, layers);
    expect(student.files.description.layers).toEqual(layers.map((layer) => teacher.description.layers[layer]));
    const [own, all] = [digestsOf(student.files), digestsOf(teacher)];
    layers.forEach((layer, place) => {
      for (const role of student.files.weights.layers[place].keys()) {
        expect(own[`${place}.${role}`]).toBe(all[`${layer}.${role}`]);
      }
    });
  });

  it('are written so that they open again, with the tokenizer', () => {
    const student = layerStudent(openModelFiles(join(fixtures, 'models/llama-sotu')), [0, 2]);
    const path = emptyFolder('layers');
    const written = writeModelDirectory(path, student, student.files.store, { dtype: 'F32' });
    expect(written.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['config.json', 'tokenizer.json', 'model.safetensors']),
    );
    expect(digestsOf(openModelFiles(path))).toEqual(digestsOf(student.files));
    expect(JSON.parse(readFileSync(join(path, 'config.json'), 'utf8'))).toMatchObject({
      num_hidden_layers: 2,
      torch_dtype: 'float32',
    });
  });

  it('that are not there are refused', () => {
    const teacher = openModelFiles(architecture('gpt2'));
    expect(() => layerStudent(teacher, [0, 7])).toThrow('has layers 0 to');
    expect(() => layerStudent(teacher, [1, 1])).toThrow('chosen twice');
    expect(() => everyLayer(4, 5)).toThrow('from 1 to 4');
    expect(everyLayer(5, 2)).toEqual([0, 2, 4]);
  });
});

describe('random starts', () => {
  it('have the deviations of their family', () => {
    const gpt2 = randomStudent(architecture('gpt2'), createRandom(1)).files;
    const deviation = (values: Float32Array): number =>
      Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
    const weights = weightsOf(gpt2);
    const layers = gpt2.description.layers.length;
    expect(deviation(weights.get('0.up') ?? new Float32Array(1))).toBeCloseTo(0.02, 3);
    expect(deviation(weights.get('0.down') ?? new Float32Array(1))).toBeCloseTo(0.02 / Math.sqrt(2 * layers), 3);
    expect(weights.get('0.up_bias')?.every((value) => value === 0)).toBe(true);
    expect(weights.get('0.attn_norm')?.every((value) => value === 1)).toBe(true);
  });

  it('of Gemma have norms that stand for one, and the same seed gives the same numbers', () => {
    const start = (seed: number) => weightsOf(randomStudent(architecture('gemma2'), createRandom(seed)).files);
    expect(
      start(1)
        .get('0.attn_norm')
        ?.every((value) => value === 0),
    ).toBe(true);
    expect(start(1)).toEqual(start(1));
    expect(start(2)).not.toEqual(start(1));
  });

  it('need the configuration of a language model alone', () => {
    expect(() => randomStudent(architecture('qwen3-vl-moe'), createRandom(1))).toThrow('more than a decoder');
    expect(() => randomStudent(architecture('olmoe-merged-reduced'), createRandom(1))).toThrow('merged experts');
    expect(() => randomStudent(join(folder, 'none.json'), createRandom(1))).toThrow('no such configuration');
  });
});

describe('written students', () => {
  it('keep stacks of experts as they were stored', () => {
    const student = existingStudent(architecture('qwen3-moe-fused-columns'));
    const path = emptyFolder('stacks');
    writeModelDirectory(path, student, student.files.store);
    const stored = openSafetensors(join(path, 'model.safetensors'));
    const given = openSafetensors(join(architecture('qwen3-moe-fused-columns'), 'model.safetensors'));
    for (const [name, { shape, dtype }] of given.tensors) {
      expect(stored.tensors.get(name)).toMatchObject({ shape, dtype });
    }
    expect(digestsOf(openModelFiles(path))).toEqual(digestsOf(student.files));
    stored.close();
    given.close();
  });

  it('carry what is no weight of the decoder', () => {
    const student = existingStudent(architecture('qwen3-vl-moe'));
    const path = emptyFolder('vision');
    writeModelDirectory(path, student, student.files.store, { dtype: 'BF16' });
    const stored = openSafetensors(join(path, 'model.safetensors'));
    expect(student.carried.length).toBeGreaterThan(0);
    for (const { name, dtype } of student.carried) expect(stored.tensors.get(name)?.dtype).toBe(dtype);
    stored.close();
  });
});

describe('low-rank adapters', () => {
  const files = openModelFiles(architecture('llama-biases'));
  const options = { rank: 2, alpha: 8, precision: 'f32' } as const;

  it('are read back as they were written, and change the merged model as W + (alpha / r) B A', async () => {
    const adapters = createAdapters(files, { ...options, targets: ['q_proj', 'mlp.down_proj'] }, createRandom(4));
    const student = await openDecoderStudent(files, { precision: 'f32', threads: 1, batch: 1, length: 4, adapters });
    const random = createRandom(5);
    for (let i = 0; i < student.parameters.values.length; i++) student.parameters.values[i] = random.normal();
    const path = emptyFolder('adapter');
    writePeftAdapter(path, files, adapters, student.parameters, { rank: 2, alpha: 8, base: 'base' });
    const again = readPeftAdapter(path, files, 'f32');
    expect(again.map(({ tensor, scale }) => [tensor, scale])).toEqual(adapters.map(({ tensor }) => [tensor, 4]));
    const config = JSON.parse(readFileSync(join(path, 'adapter_config.json'), 'utf8'));
    expect(config.target_modules).toEqual(['down_proj', 'q_proj']);

    const [{ a, b, scale }] = again;
    const before = valuesOf(files.weights.layers[0].get('q') ?? files.weights.embedding);
    const q = student.currentModel().weights.layers[0].get('q');
    const after = valuesOf(q ?? files.weights.embedding);
    const width = a.values.length / 2;
    const change = scale * (b.values[2] * a.values[1] + b.values[3] * a.values[width + 1]);
    expect(after[width + 1] - before[width + 1]).toBeCloseTo(change, 4);
    await student.close();
  });

  it('start without an effect, at every linear', () => {
    const adapters = createAdapters(files, options, createRandom(4));
    expect(adapters).toHaveLength(7 * files.description.layers.length);
    for (const { a, b } of adapters) {
      const bound = 1 / Math.sqrt(a.values.length / 2);
      expect(b.values.every((value) => value === 0)).toBe(true);
      expect(Math.max(...a.values.map(Math.abs))).toBeLessThanOrEqual(Math.fround(bound));
    }
  });

  it('refuse targets, ranks and files that do not fit', () => {
    const create = (changes: object) => () => createAdapters(files, { ...options, ...changes }, createRandom(1));
    expect(create({ targets: ['q_prj'] })).toThrow('q_proj');
    expect(create({ rank: 1000 })).toThrow('choose a rank up to');
    const path = emptyFolder('other');
    writeFileSync(join(path, 'adapter_config.json'), '{"peft_type": "IA3"}');
    expect(() => readPeftAdapter(path, files, 'f32')).toThrow('only LORA');
  });
});
