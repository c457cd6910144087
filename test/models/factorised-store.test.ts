import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { encodeSafetensors } from '../../src/formats/safetensors-writer.js';
import type { DType, TensorInfo, TensorStore } from '../../src/formats/tensor.js';
import { narrowFromF32, widenToF32 } from '../../src/kernels/dtypes.js';
import { configureKernels } from '../../src/kernels/native.js';
import { isFactorisedStore } from '../../src/models/factorised-store.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { openWeights } from '../../src/models/pvq-store.js';
import { createRandom } from '../../src/random.js';
import { logitsOf } from '../quantization/model-logits.js';
import { type Checkpoint, readCheckpoint, readConfig } from './rewritten-checkpoint.js';

const folder = mkdtempSync(join(tmpdir(), 'surprisal-factorised-'));
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => configureKernels({}));

const random = createRandom(5n);
const VERSION = { surprisal_factorised: '{"version":1}' };

type Tensor = { name: string; dtype: DType; shape: number[]; data: Float32Array | Int32Array | Uint8Array };

function floats(name: string, shape: number[]): Tensor {
  const data = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => random.normal());
  return { name, dtype: 'F32', shape, data };
}

function narrowed(tensor: Tensor, dtype: 'F16' | 'BF16'): Tensor {
  const data = new Uint8Array(2 * tensor.data.length);
  narrowFromF32(tensor.data as Float32Array, dtype, data);
  return { ...tensor, dtype, data };
}

const integers = (name: string, values: number[]): Tensor => ({
  name,
  dtype: 'I32',
  shape: [values.length],
  data: Int32Array.from(values),
});

function factors(name: string, rows: number, columns: number, rank: number, sparse: number[]): Tensor[] {
  return [
    floats(`${name}.low_rank_left`, [rows, rank]),
    floats(`${name}.low_rank_right`, [rank, columns]),
    integers(`${name}.sparse_rows`, sparse),
    floats(`${name}.sparse_values`, [sparse.length, columns]),
  ];
}

let made = 0;
function write(tensors: Tensor[], metadata: Record<string, string> = VERSION): string {
  const path = join(folder, `${made++}.safetensors`);
  writeFileSync(path, encodeSafetensors(tensors, metadata));
  return path;
}

function bytesOf(store: TensorStore, info: TensorInfo, start: number, length: number, shift = 0): Uint8Array {
  const buffer = new Uint8Array(length + shift);
  store.readInto(info, start, length, buffer.subarray(shift));
  return buffer.slice(shift);
}

function infoOf(store: TensorStore, name: string): TensorInfo {
  const info = store.tensors.get(name);
  if (!info) throw new Error(name);
  return info;
}

function asFloats({ dtype, data }: Tensor): Float32Array {
  if (data instanceof Float32Array) return data;
  const wide = new Float32Array(data.byteLength / 2);
  widenToF32(data as Uint8Array, dtype, wide);
  return wide;
}

/** L R + S in double. */
function expected([left, right, rows, values]: Tensor[]): Float64Array {
  const [out, rank] = left.shape;
  const columns = right.shape[1];
  const [l, r, s] = [left, right, values].map(asFloats);
  const product = new Float64Array(out * columns);
  for (let i = 0; i < out; i++) {
    for (let k = 0; k < rank; k++) {
      for (let j = 0; j < columns; j++) product[i * columns + j] += l[i * rank + k] * r[k * columns + j];
    }
  }
  (rows.data as Int32Array).forEach((row, at) => {
    for (let j = 0; j < columns; j++) product[row * columns + j] += s[at * columns + j];
  });
  return product;
}

const SHAPES: [rows: number, columns: number, rank: number, sparse: number[]][] = [
  [9, 7, 3, [0, 4, 8]],
  [130, 65, 4, [1, 2, 3, 77, 129]],
  [5, 300, 1, []],
  [3, 4, 0, [1]],
  [40, 20, 300, [39]],
];

describe('a factorised matrix', () => {
  it.each(SHAPES)(
    '[%i, %i] of rank %i with sparse rows %j is the product and those rows',
    (rows, columns, rank, sparse) => {
      const tensors = factors('layer.w', rows, columns, rank, sparse);
      const plain = floats('plain', [3, 2]);
      const store = openWeights(write([...tensors, plain]));
      expect([...store.tensors.keys()].sort()).toEqual(['layer.w', 'plain']);
      const info = infoOf(store, 'layer.w');
      expect(info).toMatchObject({ dtype: 'F32', shape: [rows, columns], byteLength: 4 * rows * columns });
      const whole = bytesOf(store, info, 0, info.byteLength);
      const wanted = expected(tensors);
      new Float32Array(whole.buffer).forEach((value, i) => {
        expect(Math.abs(value - wanted[i])).toBeLessThan(2e-6 * (1 + Math.sqrt(rank)) * (1 + Math.abs(wanted[i])));
      });
      for (const step of [4, 28, 100, 4096]) {
        for (let start = 0; start < info.byteLength; start += step) {
          const length = Math.min(step, info.byteLength - start);
          expect(bytesOf(store, info, start, length)).toEqual(whole.slice(start, start + length));
        }
      }
      for (let i = 0; i < 40; i++) {
        const start = random.integer(info.byteLength);
        const length = random.integer(info.byteLength - start + 1);
        expect(bytesOf(store, info, start, length, i % 4)).toEqual(whole.slice(start, start + length));
      }
      for (const threads of [1, 2, 3]) {
        const other = openWeights(store.path, threads);
        expect(bytesOf(other, infoOf(other, 'layer.w'), 0, info.byteLength)).toEqual(whole);
        other.close();
      }
      expect(() => bytesOf(store, info, 1, info.byteLength)).toThrow(RangeError);
      expect(new Float32Array(bytesOf(store, infoOf(store, 'plain'), 0, 24).buffer)).toEqual(plain.data);
      store.close();
    },
  );

  it.each(['F16', 'BF16'] as const)('may have factors of %s, and none that are sparse', (dtype) => {
    const [left, right] = factors('w', 6, 5, 2, []).map((t) => (t.dtype === 'F32' ? narrowed(t, dtype) : t));
    const store = openWeights(write([left, right]));
    if (!isFactorisedStore(store)) throw new Error('nothing is factorised');
    expect([...store.factorised]).toEqual(['w']);
    expect([...store.parts.tensors.keys()]).toEqual(['w.low_rank_left', 'w.low_rank_right']);
    const info = infoOf(store, 'w');
    const values = new Float32Array(bytesOf(store, info, 0, info.byteLength).buffer);
    const wanted = expected([left, right, integers('', []), floats('', [0, 5])]);
    values.forEach((value, i) => {
      expect(value).toBeCloseTo(wanted[i], 5);
    });
    store.close();
  });

  it('is close to itself without the addon', () => {
    const path = write(factors('w', 20, 30, 5, [3, 9]));
    const read = (): Float32Array => {
      const store = openWeights(path);
      const info = infoOf(store, 'w');
      const bytes = bytesOf(store, info, 0, info.byteLength);
      store.close();
      return new Float32Array(bytes.buffer);
    };
    const native = read();
    configureKernels({ native: false });
    read().forEach((value, i) => {
      expect(value).toBeCloseTo(native[i], 5);
    });
  });
});

describe('a damaged factorised file is refused', () => {
  const parts = (): Map<string, Tensor> => new Map(factors('a.w', 6, 5, 2, [1, 4]).map((t) => [t.name, t]));
  const cases: [string, (tensors: Map<string, Tensor>) => void, RegExp][] = [
    ['without a factor', (t) => t.delete('a.w.low_rank_right'), /"a\.w\.low_rank_right" is missing/],
    ['without the values', (t) => t.delete('a.w.sparse_values'), /"a\.w\.sparse_values" is missing/],
    ['without the rows', (t) => t.delete('a.w.sparse_rows'), /"a\.w\.sparse_rows" is missing/],
    [
      'of two ranks',
      (t) => t.set('a.w.low_rank_right', floats('a.w.low_rank_right', [3, 5])),
      /low_rank_right" has shape \[3,5\].*rank 2/,
    ],
    [
      'with a vector',
      (t) => t.set('a.w.low_rank_left', floats('a.w.low_rank_left', [12])),
      /low_rank_left" has shape \[12\]; expected a matrix/,
    ],
    [
      'with integers',
      (t) => t.set('a.w.low_rank_left', integers('a.w.low_rank_left', [1])),
      /low_rank_left" is of I32/,
    ],
    [
      'with rows of floats',
      (t) => t.set('a.w.sparse_rows', floats('a.w.sparse_rows', [2])),
      /sparse_rows" is F32 \[2\]/,
    ],
    [
      'with too few values',
      (t) => t.set('a.w.sparse_values', floats('a.w.sparse_values', [1, 5])),
      /sparse_values" has shape \[1,5\]; expected \[2,5\]/,
    ],
    ['beside the matrix', (t) => t.set('a.w', floats('a.w', [6, 5])), /"a\.w" is stored as it is and as factors/],
  ];
  it.each(cases)('%s', (_, change, message) => {
    const tensors = parts();
    change(tensors);
    const path = write([...tensors.values()]);
    expect(() => openWeights(path)).toThrow(InputError);
    expect(() => openWeights(path)).toThrow(message);
  });

  it.each([
    ['descending', [4, 1]],
    ['twice the same', [2, 2]],
    ['beyond the last', [1, 6]],
    ['negative', [-1, 2]],
  ])('rows that are %s', (_, rows) => {
    const tensors = parts();
    tensors.set('a.w.sparse_rows', integers('a.w.sparse_rows', rows));
    const store = openWeights(write([...tensors.values()]));
    expect(() => bytesOf(store, infoOf(store, 'a.w'), 0, 4)).toThrow(
      /sparse_rows": entry \d is -?\d; expected rows from 0 to 5/,
    );
    store.close();
  });

  it.each([
    ['does not say so', {}, /metadata has no "surprisal_factorised"/],
    [
      'is of a later version',
      { surprisal_factorised: '{"version":2}' },
      /of version 2; this surprisal reads version 1/,
    ],
    ['says it in no JSON', { surprisal_factorised: '1,' }, /not valid JSON/],
  ])('that %s', (_, metadata: Record<string, string>, message) => {
    const path = write([...parts().values()], metadata);
    expect(() => openWeights(path)).toThrow(InputError);
    expect(() => openWeights(path)).toThrow(message);
  });
});

describe('a model with factorised experts', () => {
  const source = 'fixtures/architectures/mixtral';
  const make = (): { factorised: string; dense: string } => {
    const tensors: Checkpoint = readCheckpoint(source);
    const all: Tensor[] = [];
    const multiplied: Tensor[] = [];
    for (const [name, { dtype, shape, bytes }] of tensors) {
      const tensor: Tensor = { name, dtype, shape: [...shape], data: bytes };
      if (!/experts\.\d\.w[123]/.test(name)) {
        all.push(tensor);
        multiplied.push(tensor);
        continue;
      }
      const own = factors(name, shape[0], shape[1], 4, [0, 7, 11]);
      all.push(...own);
      const store = openWeights(write(own));
      const info = infoOf(store, name);
      const data = bytesOf(store, info, 0, info.byteLength);
      store.close();
      multiplied.push({ name, dtype: 'F32', shape: [...shape], data });
    }
    const directory = (path: string, stored: Tensor[], metadata: Record<string, string>): string => {
      mkdirSync(path);
      writeFileSync(join(path, 'config.json'), JSON.stringify(readConfig(source)));
      writeFileSync(join(path, 'model.safetensors'), encodeSafetensors(stored, metadata));
      return path;
    };
    return {
      factorised: directory(join(folder, 'factorised'), all, VERSION),
      dense: directory(join(folder, 'dense'), multiplied, {}),
    };
  };

  it('gives the bits of the matrices multiplied out', async () => {
    const { factorised, dense } = make();
    for (const precision of ['f32', 'f64'] as const) {
      expect(await logitsOf(openModelFiles(factorised), precision)).toEqual(
        await logitsOf(openModelFiles(dense), precision),
      );
    }
  });
});
