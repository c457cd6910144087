import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { InputError, RunError } from '../../src/errors.js';
import { openGguf } from '../../src/formats/gguf.js';
import { npyStore, openNpy } from '../../src/formats/npy.js';
import { openNpz } from '../../src/formats/npz.js';
import { encodeOnnxModel, onnxInputs, onnxOutputs, readOnnxModel } from '../../src/formats/onnx.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { elementCount, type TensorStore } from '../../src/formats/tensor.js';
import { createRandom, type Random } from '../../src/random.js';
import { fixture, temporaryDirectory } from './written-elsewhere.js';

const directory = temporaryDirectory();
const ROUNDS = 800;
/** A window of the size of the file, a string, a copy of a tensor and zlib's state; nothing that a header claims. */
const ALLOWED_BYTES = 16 * 2 ** 20;
const SLOWEST_MS = 250;

/** Numbers at which parsers break. */
const EDGES = [
  0n,
  1n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0xffffn,
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  2n ** 53n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 1n,
];
const PIECES = [
  '{',
  '}',
  '[',
  ']',
  '"',
  ',',
  ':',
  '-1',
  '1e99',
  '1e400',
  '9007199254740993',
  'null',
  '\\u0000',
  '"F64"',
  '(',
  ')',
  "'",
  'True',
  '<',
  '>',
  '|O',
];

/** One to four changes within the first `headerBytes`: bits, bytes, integers, text, cuts, doublings and insertions. */
function mutate(original: Buffer, headerBytes: number, random: Random): Buffer {
  let bytes = Buffer.from(original);
  for (let change = random.integer(4); change >= 0; change--) {
    const at = random.integer(Math.max(1, Math.min(headerBytes, bytes.length)));
    const span = 1 + random.integer(24);
    switch (random.integer(8)) {
      case 0:
        if (bytes.length > 0) bytes[at] ^= 1 << random.integer(8);
        break;
      case 1:
        if (bytes.length > 0) bytes[at] = random.integer(256);
        break;
      case 2: {
        const value = Buffer.alloc(8);
        value.writeBigUInt64LE(EDGES[random.integer(EDGES.length)]);
        value.copy(bytes, at, 0, [1, 2, 4, 8][random.integer(4)]);
        break;
      }
      case 3:
        bytes.write(PIECES[random.integer(PIECES.length)], at);
        break;
      case 4:
        bytes = bytes.subarray(0, random.integer(bytes.length + 1));
        break;
      case 5:
        bytes = Buffer.concat([bytes.subarray(0, at + span), bytes.subarray(at)]);
        break;
      case 6:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + span)]);
        break;
      case 7:
        bytes = Buffer.concat([
          bytes.subarray(0, at),
          Buffer.from(PIECES[random.integer(PIECES.length)]),
          bytes.subarray(at),
        ]);
        break;
    }
  }
  return bytes;
}

/** What an accepted store must keep: tensors of the stated size, all of whose bytes can be read. */
function checkStore(store: TensorStore): void {
  try {
    for (const info of store.tensors.values()) {
      expect(Number.isSafeInteger(info.byteLength) && info.byteLength >= 0).toBe(true);
      expect(info.shape.every((extent) => Number.isSafeInteger(extent) && extent >= 0)).toBe(true);
      expect(info.byteLength === 0).toBe(elementCount(info.shape) === 0);
      const bytes = new Uint8Array(info.byteLength);
      store.readInto(info, 0, info.byteLength, bytes);
    }
  } finally {
    store.close();
  }
}

interface Target {
  readonly files: readonly string[];
  /** How much of the file is header; the end of it for archives. */
  readonly headerBytes?: number;
  readonly place?: string;
  readonly open: (file: string) => void;
}

const targets: Record<string, Target> = {
  safetensors: {
    files: ['dtypes.safetensors', 'uniform.safetensors'],
    open: (file) => checkStore(openSafetensors(file)),
  },
  'safetensors index': {
    files: ['sharded/model.safetensors.index.json'],
    place: 'sharded/model.safetensors.index.json',
    open: (file) => checkStore(openSafetensors(file)),
  },
  gguf: {
    files: ['types.gguf', 'unread.gguf'],
    headerBytes: 1600,
    open: (file) => checkStore(openGguf(file)),
  },
  'gguf split': {
    files: ['split/model-00001-of-00003.gguf'],
    place: 'split/model-00001-of-00003.gguf',
    open: (file) => checkStore(openGguf(file)),
  },
  npy: {
    files: ['f4.npy', 'f2_v2.npy', 'f8_v3.npy', 'f8_big.npy', 'i2_big_fortran3.npy', 'object.npy', 'record.npy'],
    headerBytes: 128,
    open: (file) => checkStore(npyStore(openNpy(file, { voidAsBf16: true }))),
  },
  npz: {
    files: ['stored.npz', 'deflated.npz', 'zip64.npz'],
    open: (file) => checkStore(openNpz(file)),
  },
  onnx: {
    files: ['gemm.onnx'],
    open: (file) => {
      const model = readOnnxModel(file);
      onnxInputs(model);
      onnxOutputs(model);
      encodeOnnxModel(model);
    },
  },
};

describe('mutated headers give an error or a sound store', () => {
  it.each(Object.entries(targets))('%s', (name, target) => {
    fs.cpSync(fixture('sharded'), path.join(directory, 'sharded'), { recursive: true });
    fs.cpSync(fixture('split'), path.join(directory, 'split'), { recursive: true });
    const random = createRandom(20260);
    const originals = target.files.map((file) => fs.readFileSync(fixture(file)));
    const file = path.join(directory, target.place ?? `fuzz.${name}`);
    const outcomes = { accepted: 0, refused: 0 };
    let slowest = 0;
    let largest = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const original = originals[round % originals.length];
      const mutated = mutate(original, target.headerBytes ?? original.length, random.fork(round));
      fs.writeFileSync(file, mutated);
      const before = process.memoryUsage().arrayBuffers;
      const began = performance.now();
      try {
        target.open(file);
        outcomes.accepted++;
      } catch (error) {
        if (!(error instanceof InputError || error instanceof RunError))
          throw new Error(`${name}, round ${round}: ${mutated.toString('base64')}`, { cause: error });
        expect(error.message).not.toContain('\n');
        outcomes.refused++;
      }
      slowest = Math.max(slowest, performance.now() - began);
      largest = Math.max(largest, process.memoryUsage().arrayBuffers - before);
    }
    expect(outcomes.refused).toBeGreaterThan(ROUNDS / 4);
    expect(largest).toBeLessThan(ALLOWED_BYTES);
    expect(slowest).toBeLessThan(SLOWEST_MS);
  });

  it('archives whose directory at the end is mutated', () => {
    const random = createRandom(20261);
    const file = path.join(directory, 'fuzz-directory.npz');
    let refused = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const original = fs.readFileSync(fixture(['stored.npz', 'deflated.npz', 'zip64.npz'][round % 3]));
      const start = original.indexOf(Buffer.from('PK\x01\x02'));
      const tail = mutate(original.subarray(start), original.length - start, random.fork(round));
      fs.writeFileSync(file, Buffer.concat([original.subarray(0, start), tail]));
      try {
        checkStore(openNpz(file));
      } catch (error) {
        if (!(error instanceof InputError)) throw new Error(`round ${round}`, { cause: error });
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(ROUNDS / 4);
  });
});
