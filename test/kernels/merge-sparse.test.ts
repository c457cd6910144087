import { createHash } from 'node:crypto';
import { afterAll, describe, expect, it } from 'vitest';
import { DTYPE_BYTES } from '../../src/formats/tensor.js';
import { type MergeElementType, storeElements } from '../../src/kernels/merge-elements-reference.js';
import { philox } from '../../src/kernels/merge-masks-reference.js';
import {
  activeCounts,
  bernoulliMask,
  type MaskKey,
  type MixedVector,
  type MixSettings,
  measureTaskVector,
  mixActive,
  mixByVariation,
  mixTaskVectors,
  rankedMask,
  type Sparsity,
  type StoredElements,
  selectKth,
  type TaskVectors,
  taskVectorCuts,
  varianceCut,
  varianceMask,
} from '../../src/kernels/merge-sparse.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

const modes = kernelModes();
const [reference, ...compiled] = modes;
const KEY: MaskKey = [7, 0, 0x12345678, 0x9abcdef0];

function stored(values: Float64Array, dtype: MergeElementType): StoredElements {
  // Odd offsets: nothing may assume alignment.
  const bytes = new Uint8Array(values.length * DTYPE_BYTES[dtype] + 1).subarray(1);
  storeElements(values, dtype, 0, values.length, bytes);
  return { dtype, bytes };
}

interface Kind {
  readonly name: string;
  readonly count: number;
  readonly dtypes: readonly MergeElementType[];
  readonly delta: (random: () => number, i: number) => number;
}

const plain = (random: () => number): number => random() * 0.01;
const KINDS: readonly Kind[] = [
  { name: 'bf16', count: 3 * 1024 + 5, dtypes: ['BF16', 'BF16', 'BF16'], delta: plain },
  { name: 'mixed', count: 2049, dtypes: ['F16', 'F32', 'BF16'], delta: plain },
  { name: 'doubles', count: 1031, dtypes: ['F32', 'F64', 'BF16'], delta: plain },
  {
    name: 'few magnitudes',
    count: 5000,
    dtypes: ['F32', 'F32', 'F32'],
    delta: (random) => Math.round(random() * 3) / 64,
  },
  { name: 'all equal', count: 1500, dtypes: ['F32', 'F32', 'F32'], delta: (random) => (random() > 0 ? 0.25 : -0.25) },
  { name: 'no change', count: 70, dtypes: ['BF16', 'BF16', 'BF16'], delta: () => 0 },
  {
    name: 'NaN',
    count: 1100,
    dtypes: ['F32', 'F32', 'F32'],
    delta: (random, i) => (i % 300 === 7 ? Number.NaN : random()),
  },
  { name: 'one', count: 1, dtypes: ['F32', 'BF16', 'F16'], delta: plain },
];

function vectorsOf(kind: Kind): TaskVectors {
  const random = createRandom(kind.count);
  const normal = (): number => random.normal();
  const base = Float64Array.from({ length: kind.count }, () => Math.fround(Math.round(normal() * 64) / 64));
  const models = kind.dtypes.slice(1).map((dtype) =>
    stored(
      base.map((value, i) => value + kind.delta(normal, i)),
      dtype,
    ),
  );
  return { base: stored(base, kind.dtypes[0]), models, wide: kind.dtypes.includes('F64') };
}

/** A result whose arrays are digests: comparing them entry by entry takes seconds. */
function digest(value: unknown): unknown {
  if (ArrayBuffer.isView(value)) {
    const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    return `${value.constructor.name} ${createHash('sha1').update(bytes).digest('hex')}`;
  }
  if (Array.isArray(value)) return value.map(digest);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, digest(entry)]));
}

/** What `run` gives in every mode, on one thread and on three, is the reference's. */
function sameEverywhere<T>(run: (threads: number) => T): void {
  reference.use();
  const wanted = digest(run(1));
  for (const mode of compiled) {
    mode.use();
    for (const threads of [1, 3]) {
      expect({ mode: mode.name, found: digest(run(threads)) }).toEqual({ mode: mode.name, found: wanted });
    }
  }
}

const outputs = (count: number): StoredElements[] =>
  (['F64', 'F32', 'F16', 'BF16'] as const).map((dtype) => ({
    dtype,
    bytes: new Uint8Array(count * DTYPE_BYTES[dtype]),
  }));

const SETTINGS: MixSettings = {
  wide: false,
  consensus: 'sum',
  divideByAgreeing: true,
  smallDivisor: 0.2,
  divisor: 1,
  factor: 0.7,
  ontoBase: true,
};

afterAll(useBestKernels);

describe.each(KINDS)('task vectors: $name', (kind) => {
  const vectors = vectorsOf(kind);
  const { count } = kind;
  const { base, models, wide } = vectors;
  const [model] = models;
  const vector = { base, model, wide };
  const ranks = [0, 1, Math.floor(count / 3), count - 1, count].filter((rank) => rank >= 0);

  it('cuts', () => sameEverywhere((threads) => taskVectorCuts(vector, count, ranks, threads)));

  it('cuts have as many elements inside as they say', () => {
    const whole = new Float64Array(count);
    const settings = {
      ...SETTINGS,
      wide,
      consensus: 'none',
      divideByAgreeing: false,
      factor: 1,
      ontoBase: false,
    } as const;
    const plainly = { tensor: model, sparsity: {}, weight: 1, coefficient: 1, election: 1 };
    mixTaskVectors(base, [plainly], settings, { dtype: 'F64', bytes: new Uint8Array(whole.buffer) }, count);
    const order = Array.from(whole.keys()).sort((a, b) => Math.abs(whole[b]) - Math.abs(whole[a]) || a - b);
    const { cuts } = taskVectorCuts(vector, count, ranks);
    ranks.forEach((rank, k) => {
      const { magnitude, end } = cuts[k];
      const inside = order.filter(
        (i) => Math.abs(whole[i]) > magnitude || (Math.abs(whole[i]) === magnitude && i < end),
      );
      expect(inside).toEqual(order.slice(0, rank));
      expect(measureTaskVector(vector, count, { keep: cuts[k] }).kept).toBe(rank);
    });
  });

  it('measures', () => {
    const [keep, drop] = taskVectorCuts(vector, count, [Math.ceil(count / 2), Math.floor(count / 10)]).cuts;
    const mask = bernoulliMask(KEY, 0, count, 0.5);
    const shares = Array.from({ length: count }, (_, i) => 0.25 + (i % 7) / 16);
    const probabilities = wide ? Float64Array.from(shares) : Float32Array.from(shares);
    const sparsities: Sparsity[] = [{}, { keep }, { keep, drop }, { mask }, { mask, keep, drop, probabilities }];
    for (const sparsity of sparsities) sameEverywhere((threads) => measureTaskVector(vector, count, sparsity, threads));
  });

  it('mixes', () => {
    const mask = bernoulliMask(KEY, 0, count, 0.6);
    const [keep] = taskVectorCuts({ base, model: models[1], wide }, count, [Math.ceil(count / 2)]).cuts;
    const mixed: MixedVector[] = [
      { tensor: models[0], sparsity: { mask }, weight: 0.6, coefficient: 0.9, election: 0.9 },
      { tensor: models[1], sparsity: { keep }, weight: -0.5, coefficient: -0.5, election: -0.5 },
    ];
    const cases: Partial<MixSettings>[] = [
      {},
      { consensus: 'count' },
      { consensus: 'none', divideByAgreeing: false, divisor: 0.1, smallDivisor: 0 },
      { leastDivisor: 0.3 },
      { ontoBase: false, divideByAgreeing: false },
    ];
    for (const settings of cases) {
      sameEverywhere((threads) =>
        outputs(count).map((output) => {
          const figures = mixTaskVectors(base, mixed, { ...SETTINGS, wide, ...settings }, output, count, threads);
          return { figures, bytes: output.bytes };
        }),
      );
    }
  });

  it('variance', () => {
    for (const share of [0.1, 0.5, 1]) {
      sameEverywhere((threads) => {
        const found = varianceCut(vectors, count, share, threads);
        return { found, marked: varianceMask(vectors, count, found.cut, threads) };
      });
    }
  });

  it('active elements and variations', () => {
    sameEverywhere((threads) => activeCounts(vectors, count, 1e-3, threads));
    sameEverywhere((threads) =>
      outputs(count).map((output) => {
        mixActive(vectors, count, 1e-3, Float64Array.of(1.02, 1.01), output, threads);
        const active = output.bytes.slice();
        const nans = mixByVariation(vectors, count, { measure: 'square' }, output, threads);
        const square = output.bytes.slice();
        mixByVariation(vectors, count, { measure: 'absolute', floor: 1e-3 }, output, threads);
        return { active, nans, square, absolute: output.bytes };
      }),
    );
  });

  it('ranked masks', () => {
    const columns = [1, 5, 7, 10, 1023, count].filter((width) => count % width === 0).at(-2) ?? count;
    for (const rows of [columns, count]) {
      const settings = { rows: { columns: rows, low: 0.3, step: rows > 1 ? 0.4 / (rows - 1) : 0 } };
      const uniforms = { key: KEY, firstElement: 100 * rows };
      sameEverywhere((threads) =>
        rankedMask(vector, count, { ...settings, uniforms, wantProbabilities: true }, threads),
      );
    }
  });
});

describe('many blocks', () => {
  it('are shared by threads without a trace', () => {
    const kind: Kind = { name: 'large', count: 200_003, dtypes: ['BF16', 'BF16', 'F16'], delta: plain };
    const vectors = vectorsOf(kind);
    const { base, models } = vectors;
    const { count } = kind;
    useBestKernels();
    const found = [1, 2, 5].map((threads) => {
      const mask = bernoulliMask(KEY, 0, count, 0.6, threads);
      const [keep] = taskVectorCuts({ base, model: models[0], wide: false }, count, [50_000], threads).cuts;
      const sparsities = [{ keep }, { mask }];
      const mixed = models.map((tensor, j) => ({
        tensor,
        sparsity: sparsities[j],
        weight: 0.5 + j,
        coefficient: 0.5 + j,
        election: 0.5 + j,
      }));
      const output: StoredElements = { dtype: 'BF16', bytes: new Uint8Array(2 * count) };
      const figures = mixTaskVectors(base, mixed, SETTINGS, output, count, threads);
      const cut = varianceCut(vectors, count, 0.2, threads);
      const rows = { columns: 1031, low: 0.4, step: 0.0001 };
      const ranked = { rows, uniforms: { key: KEY, firstElement: 0 }, wantProbabilities: true };
      const measured = measureTaskVector({ base, model: models[1], wide: false }, count, { mask }, threads);
      const whole = 193 * 1031;
      const part = {
        base: undefined,
        model: { dtype: 'BF16', bytes: base.bytes.subarray(0, 2 * whole) },
        wide: false,
      } as const;
      return digest({
        output,
        figures,
        cut,
        marked: varianceMask(vectors, count, cut.cut, threads),
        measured,
        active: activeCounts(vectors, count, 1e-3, threads),
        ranked: rankedMask(part, whole, ranked, threads),
      });
    });
    expect(found[1]).toEqual(found[0]);
    expect(found[2]).toEqual(found[0]);
  });
});

describe('Philox4x32-10', () => {
  it.each([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ] as const)('known answer of counter %j', (counter, key, wanted) => {
    const words = new Uint32Array(4);
    philox(counter, key, words);
    expect(Array.from(words)).toEqual(wanted);
  });
});

describe('random masks', () => {
  const bitsOf = (mask: Uint8Array, count: number): number[] =>
    Array.from({ length: count }, (_, i) => (mask[i >> 3] >> (i & 7)) & 1);

  it('are the same in every mode and on any number of threads', () => {
    for (const [first, count] of [
      [0, 1000],
      [3, 777],
      [64, 64],
      [2 ** 34 + 17, 200],
      [0, 200_001],
    ]) {
      sameEverywhere((threads) => bernoulliMask(KEY, first, count, 0.37, threads));
    }
    for (const density of [0, 1e-12, 1 - 1e-12, 1]) sameEverywhere(() => bernoulliMask(KEY, 0, 300, density));
  });

  it('are functions of the index in the whole tensor', () => {
    const whole = bitsOf(bernoulliMask(KEY, 0, 1000, 0.5), 1000);
    for (const [first, count] of [
      [0, 1],
      [63, 2],
      [130, 600],
    ]) {
      expect(bitsOf(bernoulliMask(KEY, first, count, 0.5), count)).toEqual(whole.slice(first, first + count));
    }
  });

  it('have the frequency of their density, bit by bit independent of their neighbours and of other keys', () => {
    const count = 1 << 17;
    for (const density of [0.1, 0.5, 0.9]) {
      const one = bitsOf(bernoulliMask(KEY, 0, count, density), count);
      const two = bitsOf(bernoulliMask([8, 0, KEY[2], KEY[3]], 0, count, density), count);
      const three = bitsOf(bernoulliMask([7, 0, KEY[2] + 1, KEY[3]], 0, count, density), count);
      const mean = (product: (i: number) => number): number => one.reduce((sum, _, i) => sum + product(i), 0) / count;
      const near = (found: number, expected: number): void => {
        expect(Math.abs(found - expected)).toBeLessThan(5 * Math.sqrt((expected * (1 - expected)) / count));
      };
      near(
        mean((i) => one[i]),
        density,
      );
      near(
        mean((i) => one[i] * two[i]),
        density ** 2,
      );
      near(
        mean((i) => one[i] * three[i]),
        density ** 2,
      );
      near(
        mean((i) => one[i] * one[(i + 1) % count]),
        density ** 2,
      );
      near(
        mean((i) => one[i] * one[(i + 16) % count]),
        density ** 2,
      );
    }
  });
});

describe('selection', () => {
  const large = 300_000;

  it.each([
    ['normal', (random: () => number) => random()],
    ['few values', (random: () => number) => Math.round(2 * random())],
    ['one value', () => 3],
    ['negative and infinite', (random: () => number) => (random() > 2 ? Number.POSITIVE_INFINITY : -(random() ** 2))],
  ] as const)('of %s', (_, draw) => {
    const random = createRandom(5);
    const values = Float64Array.from({ length: large }, () => draw(() => random.normal()));
    const sorted = values.toSorted();
    for (const k of [0, 1, 1000, large >> 1, large - 2, large - 1]) {
      for (const mode of modes) {
        mode.use();
        expect(selectKth(values, k)).toBe(sorted[k]);
      }
      expect(selectKth(Float32Array.from(values), k)).toBe(Math.fround(sorted[k]));
    }
  });

  it('does not trust its sample', () => {
    // Small values where the sample looks, large ones elsewhere.
    const step = Math.floor((large - 16) / 1023);
    const random = createRandom(6);
    const values = Float64Array.from({ length: large }, (_, i) => (i % step < 16 ? 0 : 1) + random.uniform());
    const sorted = values.toSorted();
    for (const k of [10, large >> 1, large - 10]) expect(selectKth(values, k)).toBe(sorted[k]);
    const floats = { dtype: 'F32', bytes: new Uint8Array(Float32Array.from(values).buffer) } as const;
    sameEverywhere((threads) =>
      taskVectorCuts({ base: undefined, model: floats, wide: false }, large, [1, large >> 1, large - 3], threads),
    );
  });

  it('finds ties in large tensors', () => {
    const random = createRandom(7);
    const tied = Float64Array.from({ length: large }, () => Math.round(4 * random.normal()) / 8);
    const model = stored(tied, 'BF16');
    sameEverywhere((threads) =>
      taskVectorCuts({ base: undefined, model, wide: false }, large, [5, 70_000, large >> 1, large - 9], threads),
    );
    const base = stored(new Float64Array(large), 'BF16');
    const models = [model, stored(tied.toReversed(), 'BF16')];
    sameEverywhere((threads) => varianceCut({ base, models, wide: false }, large, 0.3, threads));
  });
});

describe('refused', () => {
  const one = stored(Float64Array.of(1, 2, 3), 'F32');
  const vector = { base: one, model: one, wide: false };

  it.each([
    ['a tensor of another length', () => taskVectorCuts(vector, 4, [1])],
    ['a rank that is too high', () => taskVectorCuts(vector, 3, [4])],
    ['a short mask', () => measureTaskVector(vector, 3, { mask: new Uint8Array(0) })],
    ['probabilities of the other type', () => measureTaskVector(vector, 3, { probabilities: new Float64Array(3) })],
    ['no models', () => mixTaskVectors(one, [], SETTINGS, one, 3)],
    [
      'factors of other models',
      () => mixActive({ base: one, models: [one], wide: false }, 3, 0, new Float64Array(2), one),
    ],
    ['a rank outside', () => selectKth(new Float64Array(3), 3)],
  ])('%s', (_, run) => {
    expect(run).toThrow(RangeError);
  });
});
