import { describe, expect, it } from 'vitest';
import { nativeKernels } from '../../src/kernels/native.js';
import {
  type SelfAttention,
  type SelfAttentionGradients,
  selfAttentionBackward,
  selfAttentionForward,
} from '../../src/kernels/self-attention.js';
import {
  selfAttentionBackwardReference,
  selfAttentionForwardReference,
} from '../../src/kernels/self-attention-reference.js';
import { createRandom } from '../../src/random.js';

interface Shape {
  readonly length: number;
  readonly headDim: number;
  readonly rope?: number;
  readonly window?: number;
  readonly softcap?: number;
}

function request({ length, headDim, rope, window, softcap }: Shape): SelfAttention & { gradient: Float32Array } {
  const random = createRandom(length);
  const [batch, heads, kvHeads] = [2, 4, 2];
  const normal = (count: number): Float32Array => Float32Array.from({ length: count }, () => random.normal());
  const rows = batch * length;
  const tables = (length * (rope ?? 0)) / 2;
  const angles = Float32Array.from({ length: tables }, () => 6 * random.uniform());
  return {
    queries: normal(rows * heads * headDim),
    keys: normal(rows * kvHeads * headDim),
    values: normal(rows * kvHeads * headDim),
    mixed: new Float32Array(rows * heads * headDim),
    sums: new Float32Array(rows * heads),
    gradient: normal(rows * heads * headDim),
    batch,
    length,
    heads,
    kvHeads,
    headDim,
    scale: 0.4,
    ...(rope !== undefined && {
      rotation: { dims: rope, cosines: angles.map(Math.cos), sines: angles.map(Math.sin) },
    }),
    ...(window !== undefined && { window }),
    ...(softcap !== undefined && { softcap }),
  };
}

const gradientsOf = (r: SelfAttention, mixed: Float32Array): SelfAttentionGradients => ({
  mixed,
  queries: new Float32Array(r.queries.length),
  keys: new Float32Array(r.keys.length),
  values: new Float32Array(r.values.length),
});

function expectClose(actual: Float32Array, expected: Float32Array, tolerance: number): void {
  let worst = 0;
  for (let i = 0; i < actual.length; i++) worst = Math.max(worst, Math.abs(actual[i] - expected[i]));
  expect(worst / (1 + Math.max(...expected.map(Math.abs)))).toBeLessThan(tolerance);
}

const SHAPES: Shape[] = [
  { length: 1, headDim: 8 },
  { length: 5, headDim: 12, rope: 12 },
  { length: 49, headDim: 16, rope: 8, window: 7 },
  { length: 130, headDim: 32, rope: 32, softcap: 3 },
  { length: 101, headDim: 20, window: 50, softcap: 5 },
];

describe.skipIf(nativeKernels() === undefined)('self-attention', () => {
  it.each(SHAPES)('agrees with its reference on %o', (shape) => {
    const native = request(shape);
    const plain = { ...native, mixed: native.mixed.slice(), sums: native.sums.slice() };
    selfAttentionForward(native, 2);
    selfAttentionForwardReference(plain);
    expectClose(native.mixed, plain.mixed, 1e-5);
    expectClose(native.sums, plain.sums, 1e-6);
    const own = gradientsOf(native, native.gradient);
    const expected = gradientsOf(plain, native.gradient);
    selfAttentionBackward(native, own, 2);
    selfAttentionBackwardReference(plain, expected);
    expectClose(own.queries, expected.queries, 1e-5);
    expectClose(own.keys, expected.keys, 1e-5);
    expectClose(own.values, expected.values, 1e-5);
    const alone = gradientsOf(native, native.gradient);
    selfAttentionBackward(native, alone, 1);
    expect(alone.keys).toEqual(own.keys);
  });

  it('refuses arrays that do not fit', () => {
    const r = request(SHAPES[1]);
    expect(() => selfAttentionForward({ ...r, length: 9 })).toThrow(RangeError);
  });
});
