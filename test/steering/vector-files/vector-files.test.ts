import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import type { GgufEntry } from '../../../src/formats/ggml-types.js';
import { encodeGguf } from '../../../src/formats/gguf-writer.js';
import { encodeSafetensors } from '../../../src/formats/safetensors-writer.js';
import type { SteeringVectors, VectorOrigin } from '../../../src/steering/types.js';
import { controlVectorBuffer } from '../../../src/steering/vector-files/gguf.js';
import {
  checkVectorsFit,
  encodeSteeringVectors,
  type FittedModel,
  readSteeringVectors,
  writeSteeringVectors,
} from '../../../src/steering/vector-files/vector-files.js';

const ROOT = path.join(import.meta.dirname, '../../../fixtures/steering');
const fixture = (name: string): string => path.join(ROOT, name);
const expected = JSON.parse(fs.readFileSync(fixture('expected.json'), 'utf8')) as Record<string, number[]>;
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'vector-files-'));
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));
const temporary = (name: string, bytes?: Uint8Array | string): string => {
  const file = path.join(folder, name);
  if (bytes !== undefined) fs.writeFileSync(file, bytes);
  return file;
};

const origin: VectorOrigin = {
  modelType: 'llama',
  layers: 6,
  modelSha256: 'ab'.repeat(32),
  method: 'east',
  scale: 'raw',
  positions: 'last',
  operator: 'add',
};
const vectorsOf = (directions: Iterable<readonly [number, Float32Array]>, about = origin): SteeringVectors => {
  const map = new Map(directions);
  return { hiddenSize: [...map.values()][0].length, directions: map, origin: about, assumptions: [] };
};
const bitsOf = (vectors: SteeringVectors): unknown =>
  [...vectors.directions].map(([block, data]) => [block, [...new Uint32Array(data.slice().buffer)]]);

describe('round trips', () => {
  const float = fc.float({ noNaN: true, noDefaultInfinity: true });
  it.each(['gguf', 'safetensors', 'json', 'svec'] as const)('%s keeps every bit and block', (format) => {
    const blocks = fc.uniqueArray(fc.integer({ min: format === 'gguf' ? 1 : 0, max: 4 }), { minLength: 1 });
    fc.assert(
      fc.property(blocks, fc.array(float, { minLength: 1, maxLength: 9 }), (chosen, values) => {
        const given = vectorsOf(
          chosen.sort().map((block) => [block, Float32Array.from(values, (x) => x / (block + 1))]),
        );
        const file = temporary(`round.${format}`);
        fs.rmSync(file, { force: true });
        writeSteeringVectors(file, given);
        const read = readSteeringVectors(file);
        expect(bitsOf(read)).toEqual(bitsOf(given));
        if (format !== 'svec') expect(read.origin).toEqual(origin);
      }),
      { numRuns: 30 },
    );
  });

  it('npy holds blocks that follow one another', () => {
    const rows = Float32Array.of(1, -0, 3);
    const file = temporary('rows.npy');
    writeSteeringVectors(
      file,
      vectorsOf([
        [2, rows],
        [3, rows.map((x) => 2 * x)],
      ]),
    );
    expect(bitsOf(readSteeringVectors(file, { layer: 2 }))).toEqual(
      bitsOf(
        vectorsOf([
          [2, rows],
          [3, rows.map((x) => 2 * x)],
        ]),
      ),
    );
    expect(() => readSteeringVectors(file)).toThrow(/--layer/);
    expect(() =>
      encodeSteeringVectors(
        'x.npy',
        vectorsOf([
          [2, rows],
          [4, rows],
        ]),
      ),
    ).toThrow(/3 is missing/);
  });

  it('keeps the embeddings (block -1) where the format can', () => {
    const given = vectorsOf([[-1, Float32Array.of(1, 2)]]);
    for (const name of ['e.safetensors', 'e.json', 'e.svec']) {
      const file = temporary(name);
      writeSteeringVectors(file, given);
      expect(bitsOf(readSteeringVectors(file))).toEqual(bitsOf(given));
    }
    expect(() => encodeSteeringVectors('e.gguf', given)).toThrow(/embeddings/);
  });

  it('does not replace a file without force', () => {
    const file = temporary('there.json', '{}');
    expect(() => writeSteeringVectors(file, vectorsOf([[1, Float32Array.of(1)]]))).toThrow(/--force/);
    writeSteeringVectors(file, vectorsOf([[1, Float32Array.of(1)]]), { force: true });
    expect(readSteeringVectors(file).directions.size).toBe(1);
  });
});

describe('control vectors of llama.cpp', () => {
  const golden = JSON.parse(
    fs.readFileSync(path.join(ROOT, '../golden/control-vector/gguf_three_layers.json'), 'utf8'),
  ) as { inputs: { gguf_base64: string } };
  const bytes = Buffer.from(golden.inputs.gguf_base64, 'base64');

  it('reads and writes the golden bytes', () => {
    const vectors = readSteeringVectors(temporary('golden.gguf', bytes));
    expect([...vectors.directions.keys()]).toEqual([1, 2, 4]);
    expect(Buffer.from(encodeSteeringVectors('again.gguf', vectors).bytes).equals(bytes)).toBe(true);
    const buffer = controlVectorBuffer(vectors, 4, 2);
    expect(buffer.length).toBe(3 * 8);
    expect(buffer[8]).toBe(2 * (vectors.directions.get(2)?.[0] ?? Number.NaN));
    expect(buffer.subarray(16).every((value) => value === 0)).toBe(true);
  });

  const kv = new Map<string, GgufEntry>([['general.architecture', { type: 'STRING', value: 'controlvector' }]]);
  const f32 = (name: string, values: readonly number[], shape = [values.length]) => ({
    name,
    dtype: 'F32' as const,
    shape,
    data: Float32Array.from(values),
  });
  it.each([
    ['direction.0', [f32('direction.0', [1, 2])]],
    ['direction.-1', [f32('direction.-1', [1, 2])]],
    ['direction.2', [{ name: 'direction.2', dtype: 'F16' as const, shape: [2], data: Uint16Array.of(1, 2) }]],
    ['direction.3', [f32('direction.3', [1, 2, 3, 4], [2, 2])]],
    ['direction.4', [f32('direction.1', [1, 2]), f32('direction.4', [1, 2, 3])]],
    ['blk.0.weight', [f32('direction.1', [1, 2]), f32('blk.0.weight', [1, 2])]],
    ['direction.01', [f32('direction.01', [1, 2])]],
  ])('refuses %s and names it', (name, tensors) => {
    const file = temporary('refused.gguf', encodeGguf(kv, tensors));
    expect(() => readSteeringVectors(file)).toThrow(`"${name}"`);
  });

  it('refuses a file without directions, one of a model, and NaN', () => {
    expect(() => readSteeringVectors(temporary('none.gguf', encodeGguf(kv, [])))).toThrow(/holds no vector/);
    const llama = new Map<string, GgufEntry>([['general.architecture', { type: 'STRING', value: 'llama' }]]);
    const other = temporary('llama.gguf', encodeGguf(llama, [f32('direction.1', [1])]));
    expect(() => readSteeringVectors(other)).toThrow(/"llama"/);
    const nan = temporary('nan.gguf', encodeGguf(kv, [f32('direction.1', [1, Number.NaN])]));
    expect(() => readSteeringVectors(nan)).toThrow(/block 1 is NaN at 1/);
  });

  it('adds up directions of one name', () => {
    const file = encodeGguf(kv, [f32('direction.1', [1, 2]), f32('direction.2', [10, 20])]);
    file[Buffer.from(file).indexOf('direction.2') + 10] = 0x31;
    const vectors = readSteeringVectors(temporary('twice.gguf', file));
    expect([...vectors.directions]).toEqual([[1, Float32Array.of(11, 22)]]);
  });

  it('knows who wrote the file by the type of its count, and shifts', () => {
    const generator = readSteeringVectors(fixture('generator.gguf'));
    expect([...generator.directions.keys()]).toEqual([1, 3]);
    expect(generator.origin).toEqual({ modelType: 'llama' });
    expect(generator.assumptions.join()).toMatch(/cvector-generator/);
    expect([...readSteeringVectors(fixture('generator.gguf'), { point: 'learnt' }).directions.keys()]).toEqual([0, 2]);
    expect([...readSteeringVectors(fixture('generator.gguf'), { shift: -1 }).directions.keys()]).toEqual([0, 2]);
    const repeng = readSteeringVectors(fixture('repeng.gguf'), { point: 'learnt' });
    expect([...repeng.directions]).toEqual([
      [1, Float32Array.from(expected.vector)],
      [3, Float32Array.from(expected.next)],
    ]);
    expect(() => readSteeringVectors(fixture('repeng.gguf'), { shift: -3 })).toThrow(/-1, the embeddings/);
  });

  it("reads a file that llama.cpp's own generator wrote", () => {
    const { directions, origin: about, hiddenSize } = readSteeringVectors(fixture('cvector-generator.gguf'));
    expect([[...directions.keys()], about, hiddenSize]).toEqual([[1, 2, 3], { modelType: 'llama' }, 128]);
    const learnt = readSteeringVectors(fixture('cvector-generator.gguf'), { point: 'learnt' });
    expect([...learnt.directions.keys()]).toEqual([0, 1, 2]);
  });

  it('cannot say block 0, nor anything but add', () => {
    const zero = vectorsOf([[0, Float32Array.of(1, 2)]]);
    expect(() => encodeSteeringVectors('z.gguf', zero)).toThrow(/begins at block 1/);
    const moved = encodeSteeringVectors('z.gguf', zero, { moveBlockZero: true });
    expect(moved.notes.join()).toMatch(/one block later.*positions "last"/);
    expect([...readSteeringVectors(temporary('z.gguf', moved.bytes)).directions.keys()]).toEqual([1]);
    const both = vectorsOf([
      [0, Float32Array.of(1)],
      [1, Float32Array.of(1)],
    ]);
    expect(() => encodeSteeringVectors('z.gguf', both, { moveBlockZero: true })).toThrow(/of its own/);
    const ablate = vectorsOf([[1, Float32Array.of(1)]], { operator: 'ablate' });
    for (const name of ['a.gguf', 'a.svec', 'a.npy'])
      expect(() => encodeSteeringVectors(name, ablate)).toThrow(/ablate/);
  });
});

describe('files of other libraries', () => {
  it('reads tensors that torch saved', () => {
    const first = readSteeringVectors(fixture('vec_layer_3_tiny-llama.pt'));
    expect([...first.directions]).toEqual([[3, Float32Array.from(expected.vector)]]);
    expect(first.assumptions.join()).toMatch(/made for tiny-llama/);
    const both = readSteeringVectors(ROOT);
    expect([...both.directions]).toEqual([
      [3, Float32Array.from(expected.vector)],
      [5, Float32Array.from(expected.next)],
    ]);
    const values: Record<string, string> = { parameter: 'vector', protocol4: 'vector', half: 'half' };
    for (const [name, key] of Object.entries({ ...values, bfloat16: 'bfloat16', strided: 'strided' })) {
      const read = readSteeringVectors(fixture(`${name}.pt`), { layer: 2 });
      expect([...read.directions]).toEqual([[2, Float32Array.from(expected[key])]]);
    }
    expect(() => readSteeringVectors(fixture('half.pt'))).toThrow(/--layer/);
  });

  it.each([
    ['dictionary.pt', /dictionary/],
    ['integers.pt', /LongStorage/],
    ['legacy.pt', /before 1.6/],
  ])('refuses %s', (name, why) => {
    expect(() => readSteeringVectors(fixture(name), { layer: 1 })).toThrow(why);
  });

  it('never runs what a pickle asks for, and survives damage', () => {
    const good = fs.readFileSync(fixture('vec_layer_3_tiny-llama.pt'));
    const start = good.indexOf('ctorch._utils');
    const evil = Buffer.from(good);
    evil.write('cposix\nsystem\n', start);
    expect(() => readSteeringVectors(temporary('evil.pt', evil), { layer: 1 })).toThrow(/"posix.system"/);
    for (let at = start; at < start + 150; at++) {
      const damaged = Buffer.from(good);
      damaged[at] ^= 0x15;
      try {
        readSteeringVectors(temporary('damaged.pt', damaged), { layer: 1 });
      } catch (error) {
        expect((error as Error).name).toBe('InputError');
      }
    }
  });

  it('reads an .svec where its library applies it, or where it was learnt', () => {
    const applied = readSteeringVectors(fixture('tiny.svec'));
    expect([...applied.directions]).toEqual([
      [0, Float32Array.from(expected.vector)],
      [2, Float32Array.from(expected.next)],
    ]);
    expect(applied.assumptions.join()).toMatch(/input of block l/);
    expect([...readSteeringVectors(fixture('tiny.svec'), { point: 'learnt' }).directions.keys()]).toEqual([1, 3]);
    const copy = temporary('copy.json', fs.readFileSync(fixture('tiny.svec')));
    expect(bitsOf(readSteeringVectors(copy))).toEqual(bitsOf(applied));
    expect(() => encodeSteeringVectors('x.svec', vectorsOf([[5, Float32Array.of(1)]]))).toThrow(/none after block 5/);
  });

  it('converts a layer base of 1 and says what it assumed', () => {
    const tensors = [{ name: 'steer.4', dtype: 'F32' as const, shape: [1], data: Float32Array.of(7) }];
    const one = temporary('one.safetensors', encodeSafetensors(tensors, { layer_base: '1' }));
    expect([...readSteeringVectors(one).directions.keys()]).toEqual([3]);
    const bare = readSteeringVectors(temporary('bare.safetensors', encodeSafetensors(tensors)));
    expect([...bare.directions.keys()]).toEqual([4]);
    expect(bare.assumptions.join()).toMatch(/0-based/);
    const foreign = encodeSafetensors([{ ...tensors[0], name: 'lora' }]);
    expect(() => readSteeringVectors(temporary('foreign.safetensors', foreign))).toThrow(/"lora"/);
  });

  it.each([
    ['{"format":"other"}', /"format"/],
    ['{"model_type":"llama","directions":{"x":[1]}}', /"x"/],
    ['{"model_type":"llama","directions":{"1":[1,"2"]}}', /entry 1 is "2"/],
    ['{"model_type":"llama","directions":{"1":[1e39]}}', /entry 0/],
    ['{"model_type":"llama","directions":{"1":[1],"2":[1,2]}}', /2 numbers, those before it 1/],
    ['{"model_type":"llama","directions":{"1":[]}}', /empty/],
    ['{"model_type":"llama","directions":{"1":[1],"1":[2]}}', /twice/],
    ['[1]', /expected a JSON object/],
    ['{', /not valid JSON/],
  ])('refuses the JSON %s', (text, why) => {
    expect(() => readSteeringVectors(temporary('bad.json', text))).toThrow(why);
  });

  it('refuses names that say no format, options that a format has no use for, and formats only read', () => {
    expect(() => readSteeringVectors(temporary('v.bin', 'x'))).toThrow(/\.gguf .*\.npy/);
    expect(() => readSteeringVectors(fixture('repeng.gguf'), { layer: 1 })).toThrow(/names its blocks/);
    expect(() => readSteeringVectors(temporary('missing.gguf'))).toThrow(/no such file/);
    expect(() => encodeSteeringVectors('v.pt', vectorsOf([[1, Float32Array.of(1)]]))).toThrow(/read, not written/);
  });
});

describe('the model that vectors belong to', () => {
  const vectors = vectorsOf([[2, Float32Array.of(1, 2)]]);
  const model: FittedModel = { path: 'm', modelType: 'llama', layers: 6, hiddenSize: 2, sha256: 'ab'.repeat(32) };
  it("is accepted when everything agrees, under llama.cpp's names too", () => {
    checkVectorsFit(vectors, model);
    checkVectorsFit(vectors, { path: 'm.onnx', modelType: null, layers: null, hiddenSize: null });
    checkVectorsFit({ ...vectors, origin: { modelType: 'mistral' } }, model);
  });
  it.each([
    [{ hiddenSize: 3 }, /hidden size is 3/],
    [{ layers: 2 }, /blocks 0 to 1/],
    [{ layers: 7 }, /of 6/],
    [{ modelType: 'qwen2' }, /made for llama/],
    [{ sha256: 'cd'.repeat(32) }, /cdcdcdcdcdcd/],
  ])('is refused with %j', (change, why) => {
    expect(() => checkVectorsFit(vectors, { ...model, ...change })).toThrow(why);
  });
});
