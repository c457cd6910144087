import { afterEach, describe, expect, it } from 'vitest';
import { type CachedAttention, cachedAttention } from '../../src/kernels/cached-attention.js';
import { configureKernels, nativeKernels } from '../../src/kernels/native.js';
import { createRandom } from '../../src/random.js';

interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly window?: number;
  readonly softcap?: number;
}

const SHAPES: readonly Shape[] = [
  { heads: 9, kvHeads: 3, headDim: 64 },
  { heads: 2, kvHeads: 1, headDim: 128, softcap: 3 },
  { heads: 4, kvHeads: 4, headDim: 8, window: 3 },
  { heads: 7, kvHeads: 1, headDim: 40 },
];
const CAPACITY = 37;

/** Sequences [row][position] of queries, keys and values. */
function sequences(shape: Shape, rows: number, length: number) {
  const random = createRandom(rows + length);
  const normals = (heads: number): Float32Array[] =>
    Array.from({ length: rows }, () =>
      Float32Array.from({ length: length * heads * shape.headDim }, () => 1.5 * random.normal()),
    );
  return { queries: normals(shape.heads), keys: normals(shape.kvHeads), values: normals(shape.kvHeads) };
}

/** Positions from..to of the given rows, [rows, to - from, width]. */
function cut(
  data: readonly Float32Array[],
  rows: readonly number[],
  starts: ArrayLike<number>,
  count: number,
  width: number,
) {
  const out = new Float32Array(rows.length * count * width);
  rows.forEach((row, r) => {
    out.set(data[row].subarray(starts[r] * width, (starts[r] + count) * width), r * count * width);
  });
  return out;
}

function step(
  shape: Shape,
  data: ReturnType<typeof sequences>,
  rows: readonly number[],
  starts: readonly number[],
  count: number,
  caches: Pick<CachedAttention, 'keyCache' | 'valueCache'>,
  threads = 2,
): Float32Array {
  const kvWidth = shape.kvHeads * shape.headDim;
  const width = shape.heads * shape.headDim;
  const out = new Float32Array(rows.length * count * width);
  cachedAttention(
    {
      ...shape,
      ...caches,
      queries: cut(data.queries, rows, starts, count, width),
      keys: cut(data.keys, rows, starts, count, kvWidth),
      values: cut(data.values, rows, starts, count, kvWidth),
      out,
      starts: Int32Array.from(starts),
      count,
      capacity: CAPACITY,
      scale: 1 / Math.sqrt(shape.headDim),
    },
    threads,
  );
  return out;
}

const emptyCaches = (shape: Shape, rows: number) => {
  const size = rows * shape.kvHeads * CAPACITY * shape.headDim;
  return { keyCache: new Float32Array(size).fill(7), valueCache: new Float32Array(size).fill(-9) };
};

/** Bitwise, and quicker than a comparison of elements. */
const same = (a: Float32Array, b: Float32Array): boolean =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength));

afterEach(() => configureKernels({ native: true }));

describe.each(SHAPES)('attention over kept keys, %o', (shape) => {
  const length = 33;
  const rows = 3;
  const data = sequences(shape, rows, length);
  const width = shape.heads * shape.headDim;
  const all = (): Float32Array => step(shape, data, [0, 1, 2], [0, 0, 0], length, emptyCaches(shape, rows));

  it('is the softmax of the scores, by the kernel and by its reference', () => {
    const native = all();
    configureKernels({ native: false });
    const reference = all();
    const group = shape.heads / shape.kvHeads;
    const { headDim, window = length, softcap } = shape;
    for (let row = 0; row < rows; row++) {
      for (const position of [0, 1, 7, 8, 32]) {
        for (let head = 0; head < shape.heads; head++) {
          const from = Math.max(0, position + 1 - window);
          const weights: number[] = [];
          const at = (t: number): number => (t * shape.kvHeads + Math.floor(head / group)) * headDim;
          for (let t = from; t <= position; t++) {
            let score = 0;
            for (let d = 0; d < headDim; d++) {
              score += data.queries[row][(position * shape.heads + head) * headDim + d] * data.keys[row][at(t) + d];
            }
            score /= Math.sqrt(headDim);
            weights.push(Math.exp(softcap === undefined ? score : softcap * Math.tanh(score / softcap)));
          }
          const sum = weights.reduce((a, b) => a + b, 0);
          for (let d = 0; d < headDim; d += 5) {
            const wanted = weights.reduce((total, w, i) => total + (w / sum) * data.values[row][at(from + i) + d], 0);
            const place = ((row * length + position) * shape.heads + head) * headDim + d;
            expect(Math.abs(reference[place] - wanted)).toBeLessThan(1e-6 * (1 + Math.abs(wanted)));
            expect(Math.abs(native[place] - wanted)).toBeLessThan(4e-6 * (1 + Math.abs(wanted)));
          }
        }
      }
    }
  });

  it('gives the same bits however sequences are cut, batched and served', () => {
    const whole = all();
    const row = (r: number, from: number, count: number): Float32Array =>
      whole.slice((r * length + from) * width, (r * length + from + count) * width);
    for (const threads of [1, 3]) {
      expect(same(step(shape, data, [0, 1, 2], [0, 0, 0], length, emptyCaches(shape, rows), threads), whole)).toBe(
        true,
      );
    }
    // Rows of different lengths side by side: each continues where it is.
    const caches = emptyCaches(shape, 2);
    const perRow = shape.kvHeads * CAPACITY * shape.headDim;
    const one = (b: number) => ({
      keyCache: caches.keyCache.subarray(b * perRow, (b + 1) * perRow),
      valueCache: caches.valueCache.subarray(b * perRow, (b + 1) * perRow),
    });
    expect(same(step(shape, data, [2], [0], 9, one(0)), row(2, 0, 9))).toBe(true);
    expect(same(step(shape, data, [1], [0], 20, one(1)), row(1, 0, 20))).toBe(true);
    for (let i = 0; i < 6; i++) {
      const count = i % 3 === 0 ? 2 : 1;
      const done = [0, 2, 3, 4, 6, 7][i];
      const made = step(shape, data, [2, 1], [9 + done, 20 + done], count, caches);
      expect(same(made.slice(0, count * width), row(2, 9 + done, count))).toBe(true);
      expect(same(made.slice(count * width), row(1, 20 + done, count))).toBe(true);
    }
  });

  it('gives the same bits with every instruction set', () => {
    const native = nativeKernels();
    if (!native) return;
    const whole = all();
    for (const level of [0, 1]) {
      native.limitSimd(level);
      try {
        expect(same(all(), whole)).toBe(true);
      } finally {
        native.limitSimd(2);
      }
    }
  });

  it('refuses positions that do not fit', () => {
    expect(() => step(shape, data, [0], [CAPACITY - 1], 2, emptyCaches(shape, 1))).toThrow(RangeError);
    expect(() => step({ ...shape, kvHeads: shape.heads + 1 }, data, [0], [0], 2, emptyCaches(shape, 1))).toThrow(
      RangeError,
    );
  });
});
