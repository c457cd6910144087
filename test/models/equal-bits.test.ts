import { afterAll, describe, expect, it } from 'vitest';
import { createEngine, type Engine } from '../../src/models/engine.js';
import { gatherRows } from '../../src/models/gather-rows.js';
import { type MemoryTensor, memoryModel } from '../../src/models/memory-model.js';
import { type ModelFiles, openModelFiles } from '../../src/models/model-files.js';
import { equalBitThreads } from '../../src/models/product-threads.js';
import { createRandom } from '../../src/random.js';

/** Token ids that differ by `salt`, within every vocabulary here. */
const window = (length: number, salt: number): Int32Array =>
  Int32Array.from({ length }, (_, i) => (i * 37 + salt * 11 + 5) % 60);

const engines: Engine[] = [];
afterAll(async () => {
  for (const engine of engines) await engine.close();
});

async function engineOf(path: string, threads: number, precision: 'f32' | 'f64'): Promise<Engine> {
  const engine = await createEngine(openModelFiles(path), {
    threads,
    maxMemoryBytes: 2 ** 31,
    device: 'cpu',
    precision,
    context: 256,
  });
  engines.push(engine);
  return engine;
}

/** Entropy, surprisal and rank of the first window, whatever runs beside it. */
async function firstWindow(engine: Engine, windows: readonly Int32Array[]): Promise<number[]> {
  const groups = await engine.forward({ windows });
  const rows = gatherRows(
    groups,
    engine.model.hiddenSize,
    windows.map((ids) => [0, ids.length] as const),
  );
  await engine.normalize(rows);
  const targets = Int32Array.from({ length: rows.length / engine.model.hiddenSize }, (_, i) => i % 50);
  const found = await engine.statistics(rows, targets, { topK: 3, renyiOrders: [2] });
  const count = windows[0].length;
  return [found.entropyNats, found.surprisalNats, found.rank].flatMap((values) => [...values.slice(0, count)]);
}

const CASES = [
  ['fixtures/models/llama-sotu', [1, 2, 17, 64, 127, 128, 256]],
  ['fixtures/models/qwen2-moby', [1, 3, 65, 100]],
  ['fixtures/models/mixtral-sotu-moby', [1, 2, 40, 129, 256]],
  ['fixtures/architectures/qwen2-moe-shared', [1, 5, 33]],
  ['fixtures/architectures/gemma3', [1, 6, 50]],
  ['fixtures/architectures/gpt-neox-parallel', [1, 6, 50]],
] as const;

describe.each(CASES)('%s: the bits of a window', (path, lengths) => {
  it.each(['f32', 'f64'] as const)('do not depend on threads or on what runs beside it, in %s', async (precision) => {
    const reference = await engineOf(path, 1, precision);
    for (const threads of [2, 3, 4]) {
      const engine = await engineOf(path, threads, precision);
      for (const length of lengths) {
        const alone = await firstWindow(reference, [window(length, 0)]);
        expect(await firstWindow(engine, [window(length, 0)]), `length ${length}, ${threads} threads`).toEqual(alone);
        const beside = [window(length, 0), window(length, 1), window(9, 4), window(31, 2)];
        expect(await firstWindow(engine, beside), `length ${length}, ${threads} threads, in a batch`).toEqual(alone);
      }
    }
  });
});

/** Eight of sixteen experts a token: sums over the slots of a token, whose order must not depend on where they lie. */
function manyExperts(): ModelFiles {
  const random = createRandom(1n);
  const tensors = new Map<string, MemoryTensor>();
  const add = (name: string, shape: number[], scale: number): void => {
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => scale * random.normal());
    tensors.set(name, { shape, data });
  };
  const [hidden, width, experts] = [64, 32, 16];
  add('model.embed_tokens.weight', [67, hidden], 1);
  add('lm_head.weight', [67, hidden], 1);
  add('model.norm.weight', [hidden], 1);
  const p = 'model.layers.0.';
  for (const name of ['input_layernorm', 'post_attention_layernorm']) add(`${p}${name}.weight`, [hidden], 1);
  for (const name of ['q', 'k', 'v', 'o']) add(`${p}self_attn.${name}_proj.weight`, [hidden, hidden], 0.2);
  for (const name of ['q', 'k']) add(`${p}self_attn.${name}_norm.weight`, [16], 1);
  add(`${p}mlp.gate.weight`, [experts, hidden], 0.3);
  for (let e = 0; e < experts; e++) {
    for (const name of ['gate', 'up']) add(`${p}mlp.experts.${e}.${name}_proj.weight`, [width, hidden], 0.2);
    add(`${p}mlp.experts.${e}.down_proj.weight`, [hidden, width], 0.2);
  }
  const config = {
    model_type: 'qwen3_moe',
    hidden_size: hidden,
    intermediate_size: width,
    moe_intermediate_size: width,
    num_experts: experts,
    num_experts_per_tok: 8,
    norm_topk_prob: true,
    num_hidden_layers: 1,
    num_attention_heads: 4,
    num_key_value_heads: 4,
    head_dim: 16,
    vocab_size: 67,
    max_position_embeddings: 64,
  };
  return memoryModel('memory', config, tensors);
}

describe('eight experts a token', () => {
  it('give the same bits in every place, on any number of threads', async () => {
    const options = { maxMemoryBytes: 2 ** 31, device: 'cpu', precision: 'f32', context: 64 } as const;
    const files = manyExperts();
    const reference = await createEngine(files, { ...options, threads: 1 });
    engines.push(reference);
    const wanted = new Map<number, number[]>();
    for (const length of [1, 2, 3]) wanted.set(length, await firstWindow(reference, [window(length, 0)]));
    for (const threads of [2, 3, 3, 3, 4]) {
      const engine = await createEngine(files, { ...options, threads });
      engines.push(engine);
      for (const length of [1, 2, 3, 1, 2]) {
        expect(await firstWindow(engine, [window(length, 0)])).toEqual(wanted.get(length));
        expect(await firstWindow(engine, [window(length, 0), window(length, 1), window(9, 4)])).toEqual(
          wanted.get(length),
        );
      }
    }
  });
});

describe('equalBitThreads', () => {
  it('leaves every thread five panels where columns are split and the depth takes several pieces', () => {
    expect(equalBitThreads([{ columns: 4096, depth: 4096 }], 1024, 8)).toBe(8);
    expect(equalBitThreads([{ columns: 4096, depth: 4096 }], 1024, 128)).toBe(51);
    expect(equalBitThreads([{ columns: 128, depth: 384 }], 100, 8)).toBe(1);
    expect(equalBitThreads([{ columns: 128, depth: 384 }], 128, 8)).toBe(8);
    expect(equalBitThreads([{ columns: 128, depth: 128 }], 1, 8)).toBe(8);
  });
});
