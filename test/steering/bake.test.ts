import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openSafetensors } from '../../src/formats/safetensors.js';
import type { TensorInfo } from '../../src/formats/tensor.js';
import type { Config } from '../../src/models/config-reader.js';
import { openInThread } from '../../src/models/engine-in-thread.js';
import { createRandom } from '../../src/random.js';
import { type BakeProof, bakeModel, checkProof, openBakeSource } from '../../src/steering/bake.js';
import { planBake } from '../../src/steering/bake-plan.js';
import { compareLogits, PROOF_JOB, type ProofLogits } from '../../src/steering/bake-proof.js';

const FIXTURES = path.join(import.meta.dirname, '../../fixtures');
const architecture = (name: string): string => path.join(FIXTURES, 'architectures', name);
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'bake-'));
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));
let made = 0;
const fresh = (): string => path.join(folder, `out-${made++}`);

const head = { tool: { name: 'surprisal', version: '0' }, command: 'steer bake', parameters: {}, inputs: [] } as const;
const tokens = Int32Array.from({ length: 12 }, (_, i) => (7 * i + 3) % 67);

function shiftsOf(blocks: readonly number[], width = 32): Map<number, Float32Array> {
  return new Map(
    blocks.map((block) => {
      const random = createRandom(6).fork(block + 1);
      return [block, Float32Array.from({ length: width }, () => 0.3 * random.normal())];
    }),
  );
}

/** One pass a set of vectors. */
async function passesOf(model: string, sets: readonly ReadonlyMap<number, Float32Array>[]) {
  const host = await openInThread(model, {
    threads: 1,
    maxMemoryBytes: 2 ** 32,
    device: 'cpu',
    precision: 'f64',
    context: 64,
  });
  try {
    const passes: ProofLogits[] = [];
    for (const shifts of sets) passes.push(await host.run(PROOF_JOB, { tokens, shifts: [...shifts] }));
    return { passes, vocabulary: host.info.vocabularySize };
  } finally {
    await host.close();
  }
}

/** Bakes, and proves in f64. */
async function bake(model: string, shifts: ReadonlyMap<number, Float32Array>, untie = false) {
  const out = fresh();
  const {
    passes: [plain, steered],
    vocabulary,
  } = await passesOf(model, [new Map(), shifts]);
  const proofs: BakeProof[] = [];
  const manifest = await bakeModel({
    model,
    out,
    shifts,
    assumptions: [],
    head,
    ...(untie && { untie }),
    prove: async (directory) => {
      const [baked] = (await passesOf(directory, [new Map()])).passes;
      const proof: BakeProof = {
        precision: 'f64',
        tokens: tokens.length,
        tolerance: 1e-6,
        bakedToInjected: compareLogits(steered.logits, baked.logits, vocabulary),
        originalToInjected: compareLogits(steered.logits, plain.logits, vocabulary),
        streamNorms: plain.streamNorms,
      };
      proofs.push(proof);
      return proof;
    },
  });
  return { out, manifest, proof: proofs[0] };
}

/** A copy of a model directory with another configuration. */
function reconfigured(name: string, changes: Record<string, unknown>): string {
  const target = fresh();
  fs.cpSync(architecture(name), target, { recursive: true });
  const file = path.join(target, 'config.json');
  fs.writeFileSync(file, JSON.stringify({ ...JSON.parse(fs.readFileSync(file, 'utf8')), ...changes }));
  return target;
}

describe('baking', () => {
  it.each([
    ['llama-yarn', 'added biases'],
    ['llama-tied-linear', 'added biases'],
    ['llama-biases', 'stored bias'],
    ['smollm3', 'added biases'],
    ['gpt2', 'stored bias'],
    ['gpt-neox-parallel', 'stored bias'],
    ['gpt-neox-sequential', 'stored bias'],
  ])('%s computes what injection does', async (name, mechanism) => {
    const { manifest, proof, out } = await bake(architecture(name), shiftsOf([0, 1]));
    expect(manifest.mechanisms).toEqual([mechanism]);
    expect(proof.bakedToInjected.maxAbsDifference).toBeLessThan(1e-6);
    expect(proof.originalToInjected.maxAbsDifference).toBeGreaterThan(1e-2);
    expect(fs.existsSync(path.join(out, 'manifest.json'))).toBe(true);
    const stored = JSON.parse(fs.readFileSync(path.join(out, 'manifest.json'), 'utf8')) as { blocks: unknown };
    expect(stored.blocks).toEqual(manifest.blocks);
  });

  it('declares a Mistral without window a Llama', async () => {
    const model = reconfigured('mistral-window', { sliding_window: null });
    const { proof, out } = await bake(model, shiftsOf([1]));
    expect(proof.bakedToInjected.maxAbsDifference).toBeLessThan(1e-6);
    const config = JSON.parse(fs.readFileSync(path.join(out, 'config.json'), 'utf8')) as Config;
    expect(config).toMatchObject({ model_type: 'llama', architectures: ['LlamaForCausalLM'], mlp_bias: true });
    expect('sliding_window' in config).toBe(false);
  });

  it('changes the embeddings of any architecture that does not share or scale them', async () => {
    const { proof, manifest } = await bake(architecture('mixtral'), shiftsOf([-1]));
    expect(manifest.mechanisms).toEqual(['embeddings']);
    expect(proof.bakedToInjected.maxAbsDifference).toBeLessThan(1e-5);
    const both = await bake(architecture('llama-tied-linear'), shiftsOf([-1, 0]), true);
    expect(both.manifest.mechanisms).toEqual(['added biases', 'embeddings']);
    expect(both.proof.bakedToInjected.maxAbsDifference).toBeLessThan(1e-5);
    expect(both.proof.originalToInjected.maxAbsDifference).toBeGreaterThan(1e-2);
  });

  it('copies everything else byte for byte', async () => {
    const model = path.join(FIXTURES, 'models/llama-sotu');
    const out = fresh();
    const shifts = shiftsOf([2], 128);
    await bakeModel({ model, out, shifts, assumptions: [], head, unproved: 'not here' });
    const [before, after] = [openSafetensors(model), openSafetensors(out)];
    const bytesOf = (store: typeof before, info: TensorInfo): Buffer => {
      const bytes = Buffer.alloc(info.byteLength);
      store.readInto(info, 0, bytes.length, bytes);
      return bytes;
    };
    for (const info of before.tensors.values()) {
      const copy = after.tensors.get(info.name);
      expect(copy?.dtype).toBe(info.dtype);
      if (copy) expect(bytesOf(after, copy).equals(bytesOf(before, info))).toBe(true);
    }
    const added = [...after.tensors.values()].filter(({ name }) => !before.tensors.has(name));
    expect(added.length).toBe(12);
    for (const info of added) {
      const expected = info.name.includes('layers.2.mlp.down_proj')
        ? Buffer.from((shifts.get(2) ?? new Float32Array()).slice().buffer)
        : Buffer.alloc(info.byteLength);
      expect(bytesOf(after, info).equals(expected)).toBe(true);
    }
    before.close();
    after.close();
    expect(
      fs.readFileSync(path.join(out, 'tokenizer.json')).equals(fs.readFileSync(path.join(model, 'tokenizer.json'))),
    ).toBe(true);
    await expect(bakeModel({ model, out, shifts, assumptions: [], head })).rejects.toThrow(/--force/);
  });
});

describe('what cannot be baked', () => {
  const planned = (model: string, blocks: readonly number[], untie = false): unknown => {
    const { config, store } = openBakeSource(model);
    store.close();
    return planBake(model, config, store.tensors, shiftsOf(blocks), { untie });
  };
  it.each([
    ['mistral-window', /sliding window of 7/],
    ['qwen2', /no bias, and its configuration no key/],
    ['qwen3', /no bias, and its configuration no key/],
    ['phi3', /no bias, and its configuration no key/],
    ['gemma2', /a norm stands between/],
    ['gemma3', /a norm stands between/],
    ['mixtral', /mixture of experts/],
    ['olmoe', /mixture of experts/],
  ])('%s is refused with its reason', (name, why) => {
    expect(() => planned(architecture(name), [0])).toThrow(why);
  });

  it('embeddings that are shared or scaled', () => {
    expect(() => planned(architecture('gpt2'), [-1])).toThrow(/--untie/);
    expect(() => planned(architecture('gemma2'), [-1], true)).toThrow(/multiplies its embeddings/);
    expect(() => planned(architecture('gpt2'), [0], true)).toThrow(/--untie has no meaning/);
  });

  it('types that are not known, post-norm OPT, models without the tensor, files that are no checkpoint', () => {
    const tensor = (name: string): [string, TensorInfo] => [
      name,
      { name, dtype: 'F32', shape: [4], file: 'f', offset: 0, byteLength: 16 },
    ];
    const sizes = { hidden_size: 4, num_hidden_layers: 1 };
    const shifts = shiftsOf([0], 4);
    const named = new Map([tensor('model.decoder.layers.0.fc2.weight')]);
    const plan = (config: Config): unknown => planBake('m', config, named, shifts);
    expect(() => plan({ model_type: 'mamba', ...sizes })).toThrow(/place of its bias is not known; known are gpt2/);
    expect(() => plan({ model_type: 'mamba' })).toThrow(/no hidden_size/);
    expect(() => plan({ model_type: 'opt', do_layer_norm_before: false, ...sizes })).toThrow(/norms after/);
    expect(() => plan({ model_type: 'opt', ...sizes })).toThrow(/fc2\.bias" is missing/);
    expect(() => plan({ model_type: 'gptj', ...sizes })).toThrow(/fc_out\.weight" is missing/);
    expect(() => openBakeSource('model.gguf')).toThrow(/steer export/);
  });

  it('a proof that fails', () => {
    const same = { maxAbsDifference: 0.02, maxAbsLogit: 10, meanKlNats: 0, top1Agreement: 1 };
    const proof = { precision: 'f32', tokens: 2, streamNorms: new Float64Array(), originalToInjected: same } as const;
    checkProof({ ...proof, tolerance: 0.01, bakedToInjected: same });
    expect(() => checkProof({ ...proof, tolerance: 1e-3, bakedToInjected: same })).toThrow(/nothing was written/);
    const lost = { ...same, maxAbsDifference: Number.NaN };
    expect(() => checkProof({ ...proof, tolerance: 1, bakedToInjected: lost })).toThrow(/NaN/);
  });

  it('compares logits row by row', () => {
    const a = Float64Array.of(0, Math.log(3), 1, 0);
    const b = Float64Array.of(0, 0, 0, 1);
    const { maxAbsDifference, maxAbsLogit, meanKlNats, top1Agreement } = compareLogits(a, b, 2);
    const p = Math.E / (1 + Math.E);
    const second = p * 1 + (1 - p) * -1;
    expect(maxAbsDifference).toBeCloseTo(Math.log(3), 12);
    expect(maxAbsLogit).toBeCloseTo(Math.log(3), 12);
    expect(meanKlNats).toBeCloseTo((0.25 * Math.log(0.5) + 0.75 * Math.log(1.5) + second) / 2, 12);
    expect(top1Agreement).toBe(0);
    expect(
      compareLogits(Float64Array.of(1, Number.NaN, 1, 9), Float64Array.of(1, 2, 3, 4), 2).maxAbsDifference,
    ).toBeNaN();
  });
});
