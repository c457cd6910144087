import { describe, expect, it } from 'vitest';
import {
  hadamardCore,
  isHadamard,
  planCore,
  planRotation,
  type Rotation,
  restoreRotation,
  rotationRecord,
  signBits,
  signsFromBits,
  tensorSeed,
} from '../../src/linalg/hadamard.js';
import { splitmix64 } from '../../src/random.js';

/** Core of the widths of real models. */
const CORES: readonly (readonly [core: number, widths: readonly number[]])[] = [
  [1, [64, 1024, 2048, 4096, 8192, 16384]],
  [12, [768, 1536, 3072, 6144, 12288]],
  [20, [2560, 5120, 10240, 20480]],
  [28, [896, 3584, 14336, 28672]],
  [36, [576, 1152, 2304, 9216]],
  [44, [5632]],
  [52, [6656]],
  [68, [17408]],
  [76, [4864, 9728]],
  [84, [21504]],
  [100, [25600]],
  [108, [6912, 13824, 27648]],
  [140, [8960, 17920]],
  [148, [18944]],
  [180, [2880]],
  [284, [4544]],
  [344, [11008, 5504]],
  [684, [10944]],
  [924, [29568]],
];

describe('cores of rotations', () => {
  it.each(CORES)('of order %i serve their widths, and are Hadamard matrices', (core, widths) => {
    for (const width of widths) {
      const rotation = planRotation(width, 1n);
      expect([width, rotation.core, rotation.core * rotation.segment]).toEqual([width, core, width]);
      expect(rotation.blocks).toBe(1);
    }
    const plan = planCore(widths[0]);
    if (plan === undefined) throw new Error(`no core for ${widths[0]}`);
    expect(isHadamard(hadamardCore(plan), core)).toBe(true);
    expect(hadamardCore(plan)).toBe(hadamardCore(plan));
  });

  it('exist at every order up to 100 but those that Paley leaves out', () => {
    const missing: number[] = [];
    for (let core = 4; core <= 100; core += 4) {
      const made = (['paley1', 'paley2'] as const).filter((kind) => {
        try {
          return isHadamard(hadamardCore({ kind, core }), core);
        } catch {
          return false;
        }
      });
      if (made.length === 0) missing.push(core);
    }
    expect(missing).toEqual([16, 40, 56, 64, 88, 92, 96]);
  });

  it('may be beyond what a rotation uses, or not exist', () => {
    expect(planCore(10920)).toEqual({ kind: 'paley2', core: 5460 });
    expect(planCore(13696)).toBeUndefined();
    expect(planCore(6)).toBeUndefined();
    expect(planCore(15)).toBeUndefined();
    expect(() => planCore(0)).toThrow(RangeError);
    expect(() => hadamardCore({ kind: 'paley1', core: 92 })).toThrow('there is no paley1 core of order 92');
  });

  it('that are none are found out', () => {
    const core = hadamardCore({ kind: 'paley1', core: 12 }).slice();
    core[5] = -core[5];
    expect(isHadamard(core, 12)).toBe(false);
    expect(isHadamard(new Int8Array(144), 12)).toBe(false);
  });
});

describe('plans of rotations', () => {
  it('fall back on blocks of the largest power of two', () => {
    for (const [width, segment] of [
      [13696, 128],
      [10920, 8],
      [6, 2],
    ]) {
      const { kind, blocks, permutation, ...rest } = planRotation(width, 3n);
      expect([kind, blocks, rest.segment, rest.core]).toEqual(['blocks', width / segment, segment, 1]);
      expect(permutation?.slice().sort()).toEqual(Int32Array.from({ length: width }, (_, i) => i));
      expect(permutation).toEqual(planRotation(width, 3n).permutation);
      expect(permutation).not.toEqual(planRotation(width, 4n).permutation);
    }
  });

  it('leave odd widths alone, but for the sign of a single coordinate', () => {
    expect(planRotation(15, 3n)).toMatchObject({ kind: 'none', signs: new Uint8Array(0) });
    expect(planRotation(1, 7n)).toMatchObject({ kind: 'sylvester', core: 1, segment: 1, signs: Uint8Array.of(1) });
  });

  it('take signs from SplitMix64, whatever the width', () => {
    // First outputs of the published generator for the seeds 0 and 1234567.
    expect(splitmix64(0n).value).toBe(0xe220a8397b1dcdafn);
    expect(splitmix64(1234567n).value).toBe(6457827717110365317n);
    const bits = signBits(70, 0n);
    expect(bits.length).toBe(9);
    expect(new DataView(bits.buffer).getBigUint64(0, true)).toBe(0xe220a8397b1dcdafn);
    expect(bits[8]).toBe(Number(splitmix64(splitmix64(0n).state).value & 0x3fn));
    const signs = signsFromBits(bits, 70);
    expect([...signs.subarray(0, 8)]).toEqual([-1, -1, -1, -1, 1, -1, 1, -1]);
    expect(signBits(4096, 9n).subarray(0, 8)).toEqual(signBits(64, 9n));
  });

  it('give every tensor a seed of its own', () => {
    // FNV-1a of the empty name is its offset; of "a" it is published as af63dc4c8601ec8c.
    expect(tensorSeed(0n, '')).toBe(splitmix64(0xcbf29ce484222325n).value);
    expect(tensorSeed(5n, 'a')).toBe(splitmix64(0xaf63dc4c8601ec8cn ^ 5n).value);
    expect(tensorSeed(-1n, 'a')).toBe(tensorSeed((1n << 64n) - 1n, 'a'));
  });

  it('come back from what files keep', () => {
    for (const width of [1, 15, 64, 344, 13696]) {
      const rotation = planRotation(width, 0xfedcba9876543210n);
      const record: unknown = JSON.parse(JSON.stringify(rotationRecord(rotation)));
      expect(restoreRotation(width, record as Rotation, rotation.signs)).toEqual(rotation);
    }
  });

  it('refuse records that are none', () => {
    const { signs } = planRotation(768, 1n);
    const record = { kind: 'paley1', core: 12, seed: '1', blocks: 1 } as const;
    const restore = (changes: object, bits = signs): unknown => restoreRotation(768, { ...record, ...changes }, bits);
    expect(restore({})).toEqual(planRotation(768, 1n));
    // Another core that exists is somebody's choice.
    expect(restore({ core: 24 })).toMatchObject({ core: 24, segment: 32 });
    for (const changes of [
      { core: 20 },
      { core: 96 },
      { core: 0.5 },
      { core: -12 },
      { core: 1 },
      { kind: 'paley2' },
      { kind: 'sylvester' },
      { kind: 'sylvester', core: 1 },
      { kind: 'blocks' },
      { kind: 'none' },
      { kind: 'other' },
      { blocks: 2 },
      { blocks: 0 },
      { seed: '-1' },
      { seed: '1e3' },
      { seed: '' },
    ]) {
      expect(() => restore(changes), JSON.stringify(changes)).toThrow('no rotation of width 768');
    }
    expect(() => restore({}, signs.subarray(1))).toThrow('95 bytes of signs where width 768 has 96');
  });
});
