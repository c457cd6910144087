import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { attentionEntropy } from '../../src/kernels/attention-entropy.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

describe.each(kernelModes())('attention entropy, $name', (mode) => {
  beforeAll(mode.use);
  afterAll(useBestKernels);

  it('gives log(i + 1) for uniform causal rows', () => {
    const keys = 12;
    const data = new Float32Array(keys * keys).fill(Number.NaN);
    for (let i = 0; i < keys; i++) data.fill(1 / (i + 1), i * keys, i * keys + i + 1);
    const ends = Int32Array.from({ length: keys }, (_, i) => i + 1);
    const { entropyNats, mass } = attentionEntropy({ data, rows: keys, keys }, { ends });
    for (let i = 0; i < keys; i++) {
      expect(entropyNats[i]).toBeCloseTo(Math.log(i + 1), 6);
      expect(mass[i]).toBeCloseTo(1, 6);
    }
  });

  it('takes 0 log 0 as 0 and an invisible row as nothing', () => {
    const data = Float32Array.of(0, 1, 0, 0.5, 0, 0.5, Number.NaN, Number.NaN, Number.NaN);
    const out = attentionEntropy({ data, rows: 3, keys: 3 }, { ends: Int32Array.of(3, 3, 0) });
    expect([...out.entropyNats]).toEqual([0, Math.log(2), 0]);
    expect([...out.mass]).toEqual([1, 1, 0]);
  });

  it('reads a sliding window out of strided rows, the same on any number of threads', () => {
    const random = createRandom(1);
    const [rows, keys, rowStride] = [300, 257, 260];
    const data = Float32Array.from({ length: rows * rowStride }, () => random.uniform() / 100);
    const starts = Int32Array.from({ length: rows }, (_, r) => Math.max(0, (r % 200) - 64));
    const ends = Int32Array.from({ length: rows }, (_, r) => (r % 200) + 1);
    const one = attentionEntropy({ data, rows, keys, rowStride }, { starts, ends, threads: 1 });
    expect(attentionEntropy({ data, rows, keys, rowStride }, { starts, ends, threads: 4 })).toEqual(one);
    for (const r of [0, 63, 199, 299]) {
      let entropy = 0;
      for (let j = starts[r]; j < ends[r]; j++) entropy -= data[r * rowStride + j] * Math.log(data[r * rowStride + j]);
      expect(Math.abs(one.entropyNats[r] / entropy - 1)).toBeLessThan(1e-13);
    }
  });

  it('names row and key of an entry that is no probability', () => {
    for (const bad of [-0.25, Number.NaN, Infinity]) {
      const data = new Float32Array(40).fill(0.1);
      data[27] = bad;
      expect(() => attentionEntropy({ data, rows: 4, keys: 10 })).toThrow(InputError);
      expect(() => attentionEntropy({ data, rows: 4, keys: 10 })).toThrow(`row 2, key 7 is ${bad}`);
      expect(attentionEntropy({ data, rows: 4, keys: 10 }, { ends: new Int32Array(4).fill(7) }).mass[2]).toBeCloseTo(
        0.7,
      );
    }
  });

  it('refuses shapes that do not fit', () => {
    const data = new Float32Array(6);
    expect(() => attentionEntropy({ data, rows: 2, keys: 4 })).toThrow(RangeError);
    expect(() => attentionEntropy({ data, rows: 2, keys: 3 }, { ends: Int32Array.of(1, 4) })).toThrow(RangeError);
    expect(() => attentionEntropy({ data, rows: 2, keys: 3 }, { ends: Int32Array.of(1) })).toThrow(RangeError);
  });
});
