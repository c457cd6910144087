import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { InputError, RunError } from '../../src/errors.js';
import { byteLengthOf, GGML_BLOCKS } from '../../src/formats/ggml-blocks.js';
import { type GgufEntry, openGguf } from '../../src/formats/gguf.js';
import { createGgufWriter, encodeGguf } from '../../src/formats/gguf-writer.js';
import type { DType } from '../../src/formats/tensor.js';
import { contents, expected, fixture, temporaryDirectory } from './written-elsewhere.js';

const directory = temporaryDirectory();

/** The header of the fixture after its magic, built by hand: lengths can then be made to lie. */
function header(tensors: bigint, keys: bigint, ...rest: (Buffer | string)[]): Buffer {
  const counts = Buffer.alloc(24);
  counts.write('GGUF');
  counts.writeUInt32LE(3, 4);
  counts.writeBigUInt64LE(tensors, 8);
  counts.writeBigUInt64LE(keys, 16);
  return Buffer.concat([counts, ...rest.map((part) => (typeof part === 'string' ? text(part) : part))]);
}

function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function text(value: string): Buffer {
  return Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);
}

function write(name: string, bytes: Uint8Array): string {
  const file = path.join(directory, name);
  fs.writeFileSync(file, bytes);
  return file;
}

describe('encodeGguf', () => {
  const kv = new Map<string, GgufEntry>([['general.architecture', { type: 'STRING', value: 'test' }]]);
  const tensors = ['a.1', 'a.2'].map((name, i) => ({
    name,
    dtype: 'F32' as const,
    shape: [3],
    data: Float32Array.of(i, -0, 2.5),
  }));

  it('gives the bytes of the writer', () => {
    const file = path.join(directory, 'streamed.gguf');
    const writer = createGgufWriter(file, { kv, plan: tensors });
    for (const { name, data } of tensors) writer.write(name, new Uint8Array(data.buffer));
    writer.commit();
    expect(Buffer.from(encodeGguf(kv, tensors)).equals(fs.readFileSync(file))).toBe(true);
    expect(() => encodeGguf(kv, [{ ...tensors[0], shape: [4] }])).toThrow(/12 bytes do not fill 16/);
  });

  it('may hold a name twice, which is refused unless asked for', () => {
    const bytes = Buffer.from(encodeGguf(kv, tensors));
    bytes[bytes.indexOf('a.2') + 2] = 0x31;
    const file = write('twice.gguf', bytes);
    expect(() => openGguf(file)).toThrow(/"a.1" stands twice/);
    const store = openGguf(file, { repeatedNames: 'keep' });
    expect([store.tensors.size, store.repeated.map(({ name }) => name)]).toEqual([1, ['a.1']]);
    store.close();
  });
});

describe('openGguf', () => {
  it('reads every key type and tensor type that gguf-py wrote', () => {
    const store = openGguf(fixture('types.gguf'));
    expect(contents(store)).toEqual(expected['types.gguf']);
    expect(Object.fromEntries(store.kv)).toEqual({
      'general.architecture': 'llama',
      u8: 255,
      i8: -128,
      u16: 65535,
      i16: -32768,
      u32: 4294967295,
      i32: -2147483648,
      f32: Math.fround(0.1),
      yes: true,
      text: 'naïve 文字 🙂',
      u64: 2n ** 63n + 1n,
      i64: -(2n ** 63n),
      f64: 0.1,
      strings: ['a', '', 'ü'],
      ints: Int32Array.of(1, -2, 3),
      floats: Float32Array.of(0.5, -0.25),
      bools: [true, false],
    });
    expect(store.version).toBe(3);
    expect(store.metadata['general.architecture']).toBe('llama');
    store.close();
  });

  it('reads a split set from its first file only', () => {
    const store = openGguf(fixture('split/model-00001-of-00003.gguf'));
    expect(contents(store)).toEqual(expected.split);
    expect(store.kv.get('text')).toBe('naïve 文字 🙂');
    store.close();
    expect(() => openGguf(fixture('split/model-00002-of-00003.gguf'))).toThrow(/not the first of 3 files/);
    const part = path.join(directory, 'model-00001-of-00003.gguf');
    fs.copyFileSync(fixture('split/model-00001-of-00003.gguf'), part);
    expect(() => openGguf(part)).toThrow(/model-00002-of-00003.gguf: cannot open: no such file/);
    fs.renameSync(part, path.join(directory, 'renamed.gguf'));
    expect(() => openGguf(path.join(directory, 'renamed.gguf'))).toThrow(/its name must end in -00001-of-00003.gguf/);
  });

  it('names the tensor and the type that it does not read', () => {
    expect(() => openGguf(fixture('unread.gguf'))).toThrow(InputError);
    expect(() => openGguf(fixture('unread.gguf'))).toThrow(/"blk.0.ffn_up.weight": type IQ4_XS is not read/);
  });

  it('reads version 2, refuses 1, 4 and big-endian', () => {
    const bytes = fs.readFileSync(fixture('types.gguf'));
    bytes.writeUInt32LE(2, 4);
    const store = openGguf(write('v2.gguf', bytes));
    expect(contents(store)).toEqual(expected['types.gguf']);
    store.close();
    for (const version of [1, 4]) {
      bytes.writeUInt32LE(version, 4);
      expect(() => openGguf(write('v.gguf', bytes))).toThrow(`version ${version} is not read`);
    }
    expect(() => openGguf(fixture('bigendian.gguf'))).toThrow(/big-endian/);
  });

  it('reads a vocabulary of 262,144 tokens, their types and merges within a second', () => {
    const count = 262_144;
    const tokens = Array.from({ length: count }, (_, i) => (i % 3 === 0 ? `▁wörd${i}` : `tok${i}`));
    const kv = new Map<string, GgufEntry>([
      ['tokenizer.ggml.tokens', { type: { array: 'STRING' }, value: tokens }],
      ['tokenizer.ggml.merges', { type: { array: 'STRING' }, value: tokens.map((token) => `${token} x`) }],
      ['tokenizer.ggml.scores', { type: { array: 'FLOAT32' }, value: Float32Array.from(tokens, (_, i) => -i) }],
      ['tokenizer.ggml.token_type', { type: { array: 'INT32' }, value: new Int32Array(count).fill(1) }],
    ]);
    const file = path.join(directory, 'vocabulary.gguf');
    createGgufWriter(file, { kv, plan: [] }).commit();
    const began = performance.now();
    const store = openGguf(file);
    const elapsed = performance.now() - began;
    store.close();
    const read = store.kv.get('tokenizer.ggml.tokens') as string[];
    expect(read.length).toBe(count);
    expect(read.findIndex((token, i) => token !== tokens[i])).toBe(-1);
    const scores = store.kv.get('tokenizer.ggml.scores') as Float32Array;
    expect(scores.findIndex((score, i) => score !== -i)).toBe(-1);
    expect(elapsed).toBeLessThan(1000);
  });
});

describe('GGUF files that are refused', () => {
  const huge = 2n ** 64n - 1n;
  const tensor = (name: string, shape: (number | bigint)[], type: number, offset: number): Buffer =>
    Buffer.concat([text(name), u32(shape.length), ...shape.map(u64), u32(type), u64(offset)]);
  const padded = (head: Buffer, dataBytes: number): Buffer =>
    Buffer.concat([head, Buffer.alloc((32 - (head.length % 32)) % 32), Buffer.alloc(dataBytes)]);
  const cases: [string, Buffer, RegExp][] = [
    ['an empty file', Buffer.alloc(0), /the file is empty/],
    ['another format', Buffer.from('PK\x03\x04 and more'), /does not begin with "GGUF"/],
    ['absurd counts', header(huge, 0n), /number of tensors is 18446744073709551615/],
    ['counts beyond the file', header(1000n, 0n), /do not fit into 24 bytes/],
    ['a string beyond the file', header(0n, 1n, u64(2 ** 40), Buffer.alloc(40)), /truncated at byte 32 in key 0/],
    ['a string beyond 2^53', header(0n, 1n, u64(huge), Buffer.alloc(40)), /length of key 0/],
    [
      'an array beyond the file',
      header(0n, 1n, 'a', u32(9), u32(8), u64(2 ** 50), Buffer.alloc(9)),
      /key "a": 1125899906842624 elements/,
    ],
    ['nested arrays beyond the file', header(0n, 1n, 'a', u32(9), u32(9), u64(2 ** 40), Buffer.alloc(9)), /do not fit/],
    [
      'nesting without end',
      header(0n, 1n, 'a', u32(9), ...Array.from({ length: 99 }, () => Buffer.concat([u32(9), u64(1)]))),
      /nested more than 4 deep/,
    ],
    ['an unknown value type', header(0n, 1n, 'a', u32(13), Buffer.alloc(9)), /key "a": unknown value type 13/],
    [
      'a key that stands twice',
      header(0n, 2n, 'a', u32(0), Buffer.alloc(1), 'a', u32(0), Buffer.alloc(9)),
      /"a" stands twice/,
    ],
    ['a boolean of 2', header(0n, 1n, 'a', u32(7), Buffer.from([2, 0, 0, 0])), /boolean with the value 2/],
    ['a key of invalid UTF-8', header(0n, 1n, u64(1), Buffer.from([0xff]), u32(0), Buffer.alloc(9)), /not valid UTF-8/],
    ['an alignment of 24', header(0n, 1n, 'general.alignment', u32(4), u32(24)), /not a power of two/],
    ['five dimensions', padded(header(1n, 0n, tensor('t', [1, 1, 1, 1, 1], 0, 0)), 4), /"t": 5 dimensions/],
    [
      'a shape that overflows',
      padded(header(1n, 0n, tensor('t', [2 ** 40, 2 ** 40], 0, 0)), 4),
      /larger than any file/,
    ],
    ['a row of half a block', padded(header(1n, 0n, tensor('t', [48], 8, 0)), 99), /"t": a row of 48 elements.*Q8_0/],
    [
      'data beyond the file',
      padded(header(1n, 0n, tensor('t', [64], 0, 0)), 40),
      /"t": ends at byte 320, the file at 104/,
    ],
    ['a crooked offset', padded(header(1n, 0n, tensor('t', [1], 0, 4)), 40), /not a multiple of the alignment 32/],
    [
      'tensors that overlap',
      padded(header(2n, 0n, tensor('a', [16], 0, 0), tensor('b', [1], 0, 32)), 64),
      /"a" and "b" overlap/,
    ],
    [
      'a tensor that stands twice',
      padded(header(2n, 0n, tensor('a', [1], 0, 0), tensor('a', [1], 0, 32)), 64),
      /"a" stands twice/,
    ],
  ];
  it.each(cases)('%s', (name, bytes, message) => {
    const file = write(`${name.replaceAll(/\W/g, '-')}.gguf`, bytes);
    expect(() => openGguf(file)).toThrow(InputError);
    expect(() => openGguf(file)).toThrow(message);
  });

  it('every truncation', () => {
    const whole = fs.readFileSync(fixture('types.gguf'));
    for (let length = 1; length < whole.length - 32; length += 13)
      expect(() => openGguf(write('cut.gguf', whole.subarray(0, length)))).toThrow(InputError);
  });
});

describe('createGgufWriter', () => {
  it('gives the bytes of gguf-py for the same keys and tensors', () => {
    const store = openGguf(fixture('types.gguf'));
    const kv = new Map([...store.kv].map(([key, value]) => [key, { type: store.kvTypes.get(key)!, value }]));
    const plan = [...store.tensors.values()];
    const file = path.join(directory, 'copy.gguf');
    const writer = createGgufWriter(file, { kv, plan });
    for (const { name } of [...plan].reverse())
      writer.write(name, Buffer.from(expected['types.gguf'][name].hex, 'hex'));
    writer.commit();
    store.close();
    expect(fs.readFileSync(file)).toEqual(fs.readFileSync(fixture('types.gguf')));
  });

  it('gives the bytes of the golden control vector', () => {
    const golden = JSON.parse(fs.readFileSync(fixture('control-vector.json'), 'utf8')) as {
      inputs: { gguf_base64: string };
      expected: {
        architecture: string;
        model_hint: string;
        layer_count: number;
        directions: Record<string, { shape: number[]; data: number[] }>;
      };
    };
    const { architecture, model_hint, layer_count, directions } = golden.expected;
    const plan = Object.entries(directions).map(([layer, { shape }]) => {
      return { name: `direction.${layer}`, dtype: 'F32' as const, shape };
    });
    const kv = new Map<string, GgufEntry>([
      ['general.architecture', { type: 'STRING', value: architecture }],
      ['controlvector.model_hint', { type: 'STRING', value: model_hint }],
      ['controlvector.layer_count', { type: 'UINT32', value: layer_count }],
    ]);
    const file = path.join(directory, 'control-vector.gguf');
    const writer = createGgufWriter(file, { kv, plan });
    for (const [layer, { data }] of Object.entries(directions))
      writer.write(`direction.${layer}`, new Uint8Array(Float32Array.from(data).buffer));
    writer.commit();
    expect(fs.readFileSync(file)).toEqual(Buffer.from(golden.inputs.gguf_base64, 'base64'));
  });

  it('refuses values that do not fit their type', () => {
    const file = path.join(directory, 'never.gguf');
    const attempt = (entry: GgufEntry) => (): unknown =>
      createGgufWriter(file, { kv: new Map([['k', entry]]), plan: [] });
    expect(attempt({ type: 'UINT8', value: 256 })).toThrow(/key "k": number "256" cannot be written as UINT8/);
    expect(attempt({ type: 'INT64', value: 2n ** 63n })).toThrow(InputError);
    expect(attempt({ type: 'UINT32', value: -1 })).toThrow(InputError);
    expect(attempt({ type: 'INT32', value: 0.5 })).toThrow(InputError);
    expect(attempt({ type: 'STRING', value: 3 })).toThrow(InputError);
    expect(attempt({ type: { array: 'STRING' }, value: 'abc' })).toThrow(InputError);
    expect(fs.existsSync(file)).toBe(false);
  });

  it('refuses tensors that GGUF cannot hold, and incomplete ones', () => {
    const file = path.join(directory, 'refused.gguf');
    const attempt = (dtype: DType, shape: number[]) => (): unknown =>
      createGgufWriter(file, { kv: new Map(), plan: [{ name: 't', dtype, shape }] });
    expect(attempt('F8_E4M3', [1])).toThrow(/GGUF has no type F8_E4M3/);
    expect(attempt('F32', [1, 1, 1, 1, 1])).toThrow(/at most 4 dimensions/);
    const writer = createGgufWriter(file, { kv: new Map(), plan: [{ name: 't', dtype: 'F32', shape: [2] }] });
    writer.write('t', new Uint8Array(4));
    expect(() => writer.commit()).toThrow(RunError);
    writer.abort();
    expect(fs.existsSync(file)).toBe(false);
  });

  it('round-trips nested arrays and all 64-bit integers', () => {
    const kv = new Map<string, GgufEntry>([
      ['nested', { type: { array: { array: 'INT16' } }, value: [Int16Array.of(1, -1), Int16Array.of()] }],
      ['u64s', { type: { array: 'UINT64' }, value: BigUint64Array.of(0n, 2n ** 64n - 1n) }],
      ['i64s', { type: { array: 'INT64' }, value: BigInt64Array.of(-(2n ** 63n), 2n ** 63n - 1n) }],
      ['f64s', { type: { array: 'FLOAT64' }, value: Float64Array.of(0.1, Number.NaN, Number.POSITIVE_INFINITY) }],
      ['exact', { type: 'UINT64', value: 2 ** 53 - 1 }],
    ]);
    const file = path.join(directory, 'nested.gguf');
    createGgufWriter(file, { kv, plan: [] }).commit();
    const store = openGguf(file);
    for (const [key, { type, value }] of kv) {
      expect(store.kv.get(key)).toEqual(value);
      expect(store.kvTypes.get(key)).toEqual(type);
    }
    store.close();
  });
});

describe('byteLengthOf', () => {
  it('counts whole blocks a row', () => {
    for (const [dtype, { blockElements, blockBytes }] of Object.entries(GGML_BLOCKS))
      expect(byteLengthOf(dtype as keyof typeof GGML_BLOCKS, [3, 2 * blockElements])).toBe(6 * blockBytes);
    expect(byteLengthOf('BF16', [])).toBe(2);
    expect(() => byteLengthOf('Q8_0', [])).toThrow(InputError);
    expect(() => byteLengthOf('Q8_0', [32, 16])).toThrow(InputError);
  });
});
