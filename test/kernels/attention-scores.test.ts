import { afterAll, describe, expect, it } from 'vitest';
import { attentionEntropiesFromQueryKeys, attentionEntropiesFromScores } from '../../src/entropy/attention.js';
import { attentionScoreSums, type ScoreBlock } from '../../src/kernels/attention-scores.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';

afterAll(useBestKernels);

interface Shape {
  heads: number;
  keyHeads: number;
  headDim: number;
  queryCount: number;
  keyCount: number;
}

function draw(shape: Shape, wide: boolean, spread = 1.5, seed = 1): Pick<ScoreBlock, 'queries' | 'keys'> & Shape {
  const { heads, keyHeads, headDim, queryCount, keyCount } = shape;
  const random = createRandom(seed);
  const queries = new Float32Array(queryCount * heads * headDim).map(() => spread * random.normal());
  const keys = new Float32Array(keyCount * keyHeads * headDim).map(() => spread * random.normal());
  return wide
    ? { ...shape, queries: Float64Array.from(queries), keys: Float64Array.from(keys) }
    : { ...shape, queries, keys };
}

/** Scores `[heads, queryCount, keyCount]` one by one, hidden keys at minus infinity. */
function scoresOf(block: ScoreBlock): Float64Array {
  const { heads, keyHeads, headDim, queryCount, keyCount, queryStart = 0, softcap, slidingWindow } = block;
  const scores = new Float64Array(heads * queryCount * keyCount).fill(Number.NEGATIVE_INFINITY);
  for (let h = 0; h < heads; h++) {
    const shared = Math.floor((h * keyHeads) / heads);
    for (let i = 0; i < queryCount; i++) {
      for (let j = 0; j < keyCount; j++) {
        const behind = queryStart + i - j;
        if (block.causal !== false && (behind < 0 || behind >= (slidingWindow ?? Number.POSITIVE_INFINITY))) continue;
        let z = 0;
        for (let d = 0; d < headDim; d++) {
          z += block.queries[(i * heads + h) * headDim + d] * block.keys[(j * keyHeads + shared) * headDim + d];
        }
        z *= block.scale;
        if (softcap !== undefined) z = softcap * Math.tanh(z / softcap);
        scores[(h * queryCount + i) * keyCount + j] = z / (block.temperatures?.[h * queryCount + i] ?? 1);
      }
    }
  }
  return scores;
}

const random = createRandom(9);
const temperaturesOf = (count: number): Float64Array =>
  Float64Array.from({ length: count }, () => Math.exp(0.5 * random.normal()));

const CASES: [string, Shape, Partial<ScoreBlock>][] = [
  ['one query of one key', { heads: 1, keyHeads: 1, headDim: 1, queryCount: 1, keyCount: 1 }, {}],
  ['heads that share keys', { heads: 6, keyHeads: 2, headDim: 5, queryCount: 70, keyCount: 70 }, {}],
  ['more keys than a tile', { heads: 2, keyHeads: 2, headDim: 16, queryCount: 500, keyCount: 500 }, {}],
  ['a chunk of queries', { heads: 4, keyHeads: 1, headDim: 8, queryCount: 9, keyCount: 410 }, { queryStart: 401 }],
  ['a window', { heads: 2, keyHeads: 1, headDim: 8, queryCount: 450, keyCount: 450 }, { slidingWindow: 37 }],
  ['a window of one', { heads: 1, keyHeads: 1, headDim: 8, queryCount: 60, keyCount: 60 }, { slidingWindow: 1 }],
  ['a soft cap', { heads: 2, keyHeads: 1, headDim: 12, queryCount: 99, keyCount: 99 }, { softcap: 2 }],
  ['all keys', { heads: 3, keyHeads: 3, headDim: 7, queryCount: 33, keyCount: 401 }, { causal: false }],
  [
    'temperatures with a window and a soft cap',
    { heads: 4, keyHeads: 2, headDim: 8, queryCount: 200, keyCount: 200 },
    { temperatures: temperaturesOf(800), slidingWindow: 61, softcap: 5 },
  ],
];

describe.each(kernelModes())('attention scores, $name', (mode) => {
  it.each(CASES)('of %s', (_, shape, extra) => {
    for (const wide of [true, false]) {
      const block: ScoreBlock = { ...draw(shape, wide), scale: 1 / Math.sqrt(shape.headDim), ...extra };
      const wanted = attentionEntropiesFromScores(scoresOf(block), {
        batch: 1,
        heads: shape.heads,
        queries: shape.queryCount,
        keys: shape.keyCount,
      });
      mode.use();
      const found = attentionEntropiesFromQueryKeys(block, { moments: true, threads: 2 });
      expect(found.state).toEqual(wanted.state);
      // Scores of f32 products are off by some 1e-6; the entropy follows them by the spread of the scores.
      const allowed = wide ? 1e-11 : 4e-6;
      for (const name of [
        'entropyNats',
        'withoutFirstKeyNats',
        'firstKeyMass',
        'logSumExp',
        'scoreVariance',
      ] as const) {
        found[name].forEach((value, row) => {
          const expected = wanted[name][row];
          if (Number.isNaN(expected)) expect(value).toBeNaN();
          else expect(Math.abs(value - expected)).toBeLessThan(allowed * (1 + Math.abs(expected)));
        });
      }
    }
  });

  it('of f32 agree with f64 sums over the same scores to 1e-6', () => {
    // One dimension and short fractions: the products are exact in f32, so that only the sums can differ.
    const [length, heads] = [700, 4];
    const shape = { heads, keyHeads: heads, headDim: 1, queryCount: length, keyCount: length };
    for (const spread of [0.3, 2, 6]) {
      const block = { ...draw(shape, false, spread), scale: 1 };
      for (const values of [block.queries, block.keys]) {
        for (let i = 0; i < values.length; i++) values[i] = Math.round(64 * values[i]) / 64;
      }
      const scores = new Float64Array(heads * length * length).fill(Number.NEGATIVE_INFINITY);
      for (let h = 0; h < heads; h++) {
        for (let i = 0; i < length; i++) {
          for (let j = 0; j <= i; j++) {
            scores[(h * length + i) * length + j] = block.queries[i * heads + h] * block.keys[j * heads + h];
          }
        }
      }
      const wanted = attentionEntropiesFromScores(scores, { batch: 1, heads, queries: length, keys: length });
      mode.use();
      const { entropyNats } = attentionEntropiesFromQueryKeys(block, { threads: 2 });
      entropyNats.forEach((value, row) => {
        expect(Math.abs(value - wanted.entropyNats[row])).toBeLessThanOrEqual(1e-6 * wanted.entropyNats[row] + 1e-12);
      });
    }
  });

  it('of a row that is nearly one-hot keep their digits', () => {
    const gap = 20;
    const keys = new Float32Array(1000);
    keys[500] = gap;
    mode.use();
    const { entropyNats } = attentionEntropiesFromQueryKeys({
      queries: Float32Array.of(1),
      keys,
      heads: 1,
      keyHeads: 1,
      headDim: 1,
      queryCount: 1,
      keyCount: 1000,
      queryStart: 999,
      scale: 1,
    });
    const others = 999 * Math.exp(-gap);
    const exact = Math.log1p(others) + (others * gap) / (1 + others);
    expect(Math.abs(entropyNats[0] / exact - 1)).toBeLessThan(1e-6);
  });

  it('do not move with a constant that all keys add', () => {
    const shape = { heads: 1, keyHeads: 1, headDim: 2, queryCount: 40, keyCount: 40 };
    const block = { ...draw(shape, true), scale: 1 };
    for (let i = 0; i < 40; i++) block.queries[2 * i + 1] = 1;
    const shifted = { ...block, keys: Float64Array.from(block.keys, (k, i) => (i % 2 === 1 ? k + 1e4 : k)) };
    mode.use();
    const [a, b] = [block, shifted].map((each) => attentionEntropiesFromQueryKeys(each).entropyNats);
    a.forEach((entropy, row) => {
      expect(Math.abs(entropy - b[row])).toBeLessThan(1e-9);
    });
  });

  it('are the same bits for any number of threads and any split of the queries', () => {
    const shape = { heads: 4, keyHeads: 2, headDim: 9, queryCount: 300, keyCount: 300 };
    const block = { ...draw(shape, false), scale: 0.4, slidingWindow: 130 };
    mode.use();
    const whole = attentionScoreSums(block, { moments: true, threads: 1 });
    expect(attentionScoreSums(block, { moments: true, threads: 3 })).toEqual(whole);
    for (const [start, count] of [
      [0, 7],
      [7, 200],
      [207, 93],
    ]) {
      const width = 4 * 9;
      const part = attentionScoreSums(
        {
          ...block,
          queries: block.queries.slice(start * width, (start + count) * width),
          keys: block.keys.slice(0, (start + count) * 18),
          keyCount: start + count,
          queryCount: count,
          queryStart: start,
        },
        { moments: true, threads: 2 },
      );
      for (let head = 0; head < 4; head++) {
        expect(part.subarray(head * count * 5, (head + 1) * count * 5)).toEqual(
          whole.subarray((head * 300 + start) * 5, (head * 300 + start + count) * 5),
        );
      }
    }
  });

  it.each([undefined, 3])('show rows with NaN, soft cap %s', (softcap) => {
    const shape = { heads: 1, keyHeads: 1, headDim: 3, queryCount: 50, keyCount: 50 };
    const block = { ...draw(shape, false), scale: 1, ...(softcap !== undefined && { softcap }) };
    block.keys[3 * 20] = Number.NaN;
    block.queries[3 * 5] = Number.NaN;
    mode.use();
    const { state } = attentionEntropiesFromQueryKeys(block);
    expect([...state]).toEqual(Array.from({ length: 50 }, (_, i) => (i === 5 || i >= 20 ? 2 : 0)));
    const first = { ...block, keys: block.keys.slice() };
    first.keys[0] = Number.NaN;
    expect([...attentionEntropiesFromQueryKeys(first).state]).toEqual(new Array(50).fill(2));
  });
});

describe('attention scores', () => {
  it('refuse shapes that do not fit', () => {
    const shape = { heads: 3, keyHeads: 2, headDim: 4, queryCount: 2, keyCount: 2 };
    expect(() => attentionScoreSums({ ...draw(shape, true), scale: 1 })).toThrow('3 heads cannot share 2 key heads');
    const good = draw({ ...shape, keyHeads: 3 }, true);
    expect(() => attentionScoreSums({ ...good, keyCount: 3, scale: 1 })).toThrow(/do not fit/);
    expect(() => attentionScoreSums({ ...good, keys: Float32Array.from(good.keys), scale: 1 })).toThrow(/types/);
    expect(() => attentionScoreSums({ ...good, scale: 1, temperatures: new Float64Array(5) })).toThrow(/temperatures/);
  });
});
