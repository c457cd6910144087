import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { type GgufStore, openGguf } from '../../src/formats/gguf.js';
import { resolveModelPath } from '../../src/formats/hub.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { elementCount, type TensorInfo, type TensorStore } from '../../src/formats/tensor.js';
import { rotateRows } from '../../src/kernels/hadamard.js';
import { configureKernels } from '../../src/kernels/native.js';
import { dequantizeRowsReference } from '../../src/kernels/pyramid-index-reference.js';
import { openEncoder } from '../../src/models/encoder.js';
import { createEngine } from '../../src/models/engine.js';
import { gatherRows } from '../../src/models/gather-rows.js';
import type { Floats } from '../../src/models/layer-runner.js';
import { memoryStore } from '../../src/models/memory-model.js';
import { type ModelFiles, openModelFiles } from '../../src/models/model-files.js';
import { isPvqStore, openWeights } from '../../src/models/pvq-store.js';
import { planPvqLayout } from '../../src/quantization/pvq-layout.js';
import { createPvqWriter } from '../../src/quantization/pvq-writer.js';
import { createRandom } from '../../src/random.js';
import {
  type Choice,
  CODE,
  choose,
  encodePlainly,
  openRun,
  quantise,
  readTensor,
  turned,
} from '../quantization/pvq-cases.js';

const folder = mkdtempSync(join(tmpdir(), 'pvq-store-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
afterEach(() => configureKernels({ native: true }));
const at = (name: string): string => join(folder, name);
const ROOT = 'fixtures/architectures';

function bytesOf(store: TensorStore, info: TensorInfo, start: number, length: number, offset = 0): Uint8Array {
  const held = new Uint8Array(new ArrayBuffer(length + offset), offset);
  store.readInto(info, start, length, held);
  return held;
}

/** What the stored tensor must decode to, by the reference, from the rows that were encoded. */
function expectedOf(source: string, name: string, choices: ReadonlyMap<string, Choice>): Float32Array {
  const run = openRun(source, at('never'), choices);
  const encoded = run.encode(name);
  const rows = new Float32Array(encoded.rows * encoded.columns);
  dequantizeRowsReference(encoded, rows, 0, encoded.rows);
  const rotation = run.layout.quantised.get(name)?.rotation;
  if (rotation) rotateRows(rows, encoded.rows, rotation, 'inverse');
  const shape = run.layout.describe(name, encoded.code).shape;
  run.writer.abort(true);
  run.close();
  if (!choices.get(name)?.transposed) return rows;
  const [inputs, outputs] = shape.slice(-2);
  return turned(rows, [...shape.slice(0, -2), outputs, inputs]);
}

async function logitsOf(files: ModelFiles): Promise<Floats> {
  const engine = await createEngine(files, {
    threads: 2,
    maxMemoryBytes: 2 ** 32,
    device: 'cpu',
    precision: 'f32',
    context: 64,
  });
  const ids = Int32Array.from({ length: 24 }, (_, i) => (7 * i * i + 3 * i + 5) % engine.model.vocabularySize);
  const groups = await engine.forward({ windows: [ids] });
  const rows = gatherRows(groups, engine.model.hiddenSize, [[0, ids.length]]);
  await engine.normalize(rows);
  const logits = await engine.logits(rows);
  await engine.close();
  return logits;
}

/** The same model with every quantised tensor replaced by its decoded values, held in memory. */
function decodedModel(path: string): Float32Array[] {
  const files = openModelFiles(path);
  const values = [...files.store.tensors.values()].map((info) => readTensor(files, info));
  files.store.close();
  return values;
}

describe('decodePvqStore', () => {
  const shapes = {
    wide: [6, 96],
    turned: [40, 24],
    stack: [3, 10, 32],
    odd: [5, 33],
    plain: [7],
    wideTurned: [2, 36, 8],
  };
  const choices = new Map<string, Choice>([
    ['wide', { code: { groupLength: 16, pulses: 9, superGroup: 4, gainBits: 2 } }],
    ['turned', { transposed: true, code: { groupLength: 8, pulses: 5, superGroup: 1, gainBits: 3 } }],
    ['stack', { code: { groupLength: 32, pulses: 20, superGroup: 1, gainBits: 0 } }],
    ['odd', { rotate: false, zeroGroups: true, code: { groupLength: 8, pulses: 6, superGroup: 3, gainBits: 1 } }],
    ['wideTurned', { transposed: true, rotate: false }],
  ]);
  const random = createRandom(3);
  const values = new Map(
    Object.entries(shapes).map(([name, shape]) => {
      const data = Float32Array.from({ length: elementCount(shape) }, () => random.normal());
      if (name === 'odd') data.fill(0, 8, 24);
      return [name, { shape, data }];
    }),
  );
  const source = memoryStore(at('memory.safetensors'), values);
  const write = (): TensorStore => {
    const out = at('pieces');
    rmSync(out, { recursive: true, force: true });
    const layout = planPvqLayout(
      source,
      'huggingface',
      [...choices].map(([name, choice]) => ({
        name,
        transposed: choice.transposed === true,
        gainPolicy: 'norm',
        levelPolicy: 'data',
        rotation: undefined,
      })),
      0n,
    );
    const head = { tool: { name: 'surprisal', version: '0' }, command: 'test', parameters: {}, inputs: [] };
    const writer = createPvqWriter({ out, layout, store: source, sourcePath: folder, head });
    for (const [name, { transposed, code = CODE, zeroGroups = false }] of choices) {
      const { shape, data } = values.get(name) ?? { shape: [], data: new Float32Array(0) };
      const columns = shape.at(transposed ? -2 : -1) ?? 0;
      const rows = transposed ? turned(data, shape) : data;
      writer.writeTensor(name, encodePlainly(rows, rows.length / columns, columns, code, zeroGroups));
    }
    writer.commit();
    return openWeights(out);
  };

  it('gives the same bytes however they are read', () => {
    const store = write();
    for (const name of choices.keys()) {
      const info = store.tensors.get(name);
      if (!info) throw new Error(name);
      expect(info).toMatchObject({ dtype: 'F32', shape: values.get(name)?.shape });
      const whole = bytesOf(store, info, 0, info.byteLength);
      for (const step of [4, 28, 100, 1000]) {
        for (let start = 0; start < info.byteLength; start += step) {
          const length = Math.min(step, info.byteLength - start);
          expect(bytesOf(store, info, start, length)).toEqual(whole.slice(start, start + length));
        }
      }
      for (let i = 0; i < 60; i++) {
        const start = random.integer(info.byteLength);
        const length = random.integer(info.byteLength - start + 1);
        expect(bytesOf(store, info, start, length, i % 4)).toEqual(whole.slice(start, start + length));
      }
      expect(() => bytesOf(store, info, 1, info.byteLength)).toThrow(RangeError);
    }
    const odd = store.tensors.get('odd');
    if (odd) expect([...new Float32Array(bytesOf(store, odd, 32, 64).buffer)]).toEqual(new Array(16).fill(0));
    const plain = store.tensors.get('plain');
    if (plain) expect(new Float32Array(bytesOf(store, plain, 0, 28).buffer)).toEqual(values.get('plain')?.data);
    store.close();
  });

  it('decodes the same bits without the addon', () => {
    const read = (): Uint8Array[] => {
      const store = openWeights(at('pieces'));
      const all = [...store.tensors.values()].map((info) => bytesOf(store, info, 0, info.byteLength));
      store.close();
      return all;
    };
    const native = read();
    configureKernels({ native: false });
    expect(read()).toEqual(native);
  });
});

describe('a quantised model directory', () => {
  const llama: ReadonlyMap<string, Choice> = new Map([
    ...choose(join(ROOT, 'llama-biases'), /proj\.weight$/),
    ...choose(join(ROOT, 'llama-biases'), /embed_tokens/, { rotate: true }),
  ]);
  const cases: [string, ReadonlyMap<string, Choice>][] = [
    ['llama-biases', llama],
    ['gpt2', choose(join(ROOT, 'gpt2'), /\.(c_attn|c_proj|c_fc)\.weight$/, { transposed: true })],
    ['olmoe', choose(join(ROOT, 'olmoe'), /experts|_proj/)],
    ['gemma2', choose(join(ROOT, 'gemma2'), /_proj/, { rotate: false })],
  ];

  it.each(cases)('%s gives the logits of its decoded weights', async (name, choices) => {
    const source = join(ROOT, name);
    const out = at(name);
    quantise(source, out, choices);
    const files = openModelFiles(out);
    if (!isPvqStore(files.store)) throw new Error('nothing is quantised');
    expect([...files.store.quantised.keys()].sort()).toEqual([...choices.keys()].sort());
    for (const tensor of [...choices.keys()].slice(0, 3)) {
      const info = files.store.tensors.get(tensor);
      expect(info && readTensor(files, info)).toEqual(expectedOf(source, tensor, choices));
    }
    const plain = openModelFiles(source);
    const names = [...files.store.tensors.keys()];
    const tensors = new Map(decodedModel(out).map((data, i) => [names[i], data] as const));
    const replaced: ModelFiles = { ...plain, weights: rewire(plain, tensors) };
    expect(await logitsOf(files)).toEqual(await logitsOf(replaced));
  });

  it('of GGUF keeps vocabulary and metadata beside what is quantised', async () => {
    for (const name of ['qwen2-moe', 'llama-llama3']) {
      const source = `fixtures/gguf/${readdirSync('fixtures/gguf').find((file) => file.startsWith(name) && file.endsWith('.gguf'))}`;
      const out = at(`gguf-${name}`);
      const choices = choose(source, /ffn_(up|down|gate)(_exps)?\.weight|attn_(q|k|output)\.weight/);
      quantise(source, out, choices);
      expect(readdirSync(out).sort()).toEqual(['manifest.json', 'model.gguf', 'model.safetensors']);
      const { kind, path } = resolveModelPath(out, {});
      expect(kind).toBe('gguf');
      const files = openModelFiles(path);
      const plain = openModelFiles(source);
      expect(files.format).toBe('gguf');
      const tensors = new Map([...files.store.tensors.values()].map((info) => [info.name, readTensor(files, info)]));
      expect(tensors.size).toBe(plain.store.tensors.size);
      expect(await logitsOf(openModelFiles(out))).toEqual(
        await logitsOf({ ...plain, weights: rewire(plain, tensors) }),
      );
      const { kv, close } = openGguf(path);
      close();
      const { kv: before } = plain.store as GgufStore;
      expect([...kv]).toEqual([...before, ['pvq.version', 'pvq-1']]);
      files.store.close();
      rmSync(join(out, 'model.safetensors'));
      expect(() => openModelFiles(path)).toThrow(
        /model.gguf: its quantised tensors lie in model.safetensors beside it/,
      );
    }
  });

  it('of an encoder is read too', async () => {
    const source = 'fixtures/encoders/bert';
    const out = at('bert');
    const store = openSafetensors(source);
    const names = [...store.tensors.values()]
      .filter(({ name, shape }) => /encoder.*weight$/.test(name) && shape.length === 2)
      .map(({ name }) => name);
    const layout = planPvqLayout(
      store,
      'huggingface',
      names.map((name) => ({ name, transposed: false, gainPolicy: 'norm', levelPolicy: 'data', rotation: undefined })),
      1n,
    );
    const head = { tool: { name: 'surprisal', version: '0' }, command: 'test', parameters: {}, inputs: [] };
    const writer = createPvqWriter({ out, layout, store, sourcePath: source, head });
    const fine = { groupLength: 8, pulses: 200, superGroup: 1, gainBits: 8 };
    for (const name of names) {
      const info = store.tensors.get(name);
      if (!info) continue;
      const data = readTensor({ store }, info);
      writer.writeTensor(name, encodePlainly(data, info.shape[0], info.shape[1], fine));
    }
    writer.commit();
    store.close();
    const run = async (path: string): Promise<Floats> => {
      const encoder = openEncoder(path, { threads: 1, precision: 'f32' });
      const states: Floats[] = [];
      await encoder.forward(Int32Array.of(3, 9, 4, 1, 5), 1, 5, (_, rows) => states.push(rows.slice()));
      await encoder.close();
      return states[states.length - 1];
    };
    const [plain, quantised] = [await run(source), await run(out)];
    expect(quantised).not.toEqual(plain);
    let difference = 0;
    for (const [i, value] of plain.entries()) difference = Math.max(difference, Math.abs(value - quantised[i]));
    expect(difference).toBeLessThan(0.3);
  });
});

/** The weights of a model, read from arrays under the same names. */
function rewire(files: ModelFiles, tensors: ReadonlyMap<string, Float32Array>): ModelFiles['weights'] {
  const shown = new Map(
    [...tensors].map(([name, data]) => [name, { shape: files.store.tensors.get(name)?.shape ?? [], data }]),
  );
  const store = memoryStore('memory', shown);
  const change = <T extends { readonly tensor: TensorInfo; readonly shape: readonly number[]; readonly start: number }>(
    weight: T,
  ): T => {
    const tensor = store.tensors.get(weight.tensor.name);
    if (!tensor) throw new Error(weight.tensor.name);
    const perByte = tensor.byteLength / weight.tensor.byteLength;
    return { ...weight, store, tensor, start: weight.start * perByte, byteLength: 4 * elementCount(weight.shape) };
  };
  const { embedding, head, finalNorm, finalNormBias, positions, layers } = files.weights;
  return {
    embedding: change(embedding),
    head: change(head),
    finalNorm: change(finalNorm),
    ...(finalNormBias && { finalNormBias: change(finalNormBias) }),
    ...(positions && { positions: change(positions) }),
    layers: layers.map((layer) => new Map([...layer].map(([role, weight]) => [role, change(weight)]))),
  };
}
