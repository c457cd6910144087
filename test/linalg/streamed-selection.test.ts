import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import {
  selectLargest,
  selectStreamedRanks,
  streamedQuantiles,
  topCount,
  type ValueStream,
} from '../../src/linalg/streamed-selection.js';
import { createRandom } from '../../src/random.js';
import { kernelModes, useBestKernels } from '../kernels/kernel-modes.js';

afterAll(useBestKernels);

/** Values in blocks of `block`, every fifth position masked out with a NaN under the mask. */
function masked(values: Float64Array, block: number): ValueStream {
  const spread: number[] = [];
  const mask: number[] = [];
  for (const value of values) {
    if (spread.length % 5 === 4) {
      spread.push(Number.NaN);
      mask.push(0);
    }
    spread.push(value);
    mask.push(1);
  }
  const all = Float64Array.from(spread);
  const counts = Uint8Array.from(mask);
  return {
    count: values.length,
    each(take) {
      for (let at = 0; at < all.length; at += block) take(all.slice(at, at + block), counts.slice(at, at + block));
    },
  };
}

function plain(values: Float64Array): ValueStream {
  return { count: values.length, each: (take) => take(values) };
}

const random = createRandom(3);
const samples: Record<string, Float64Array> = {
  normal: Float64Array.from({ length: 4001 }, () => random.normal()),
  'few distinct': Float64Array.from({ length: 3000 }, () => Math.round(random.normal())),
  'all equal': new Float64Array(500).fill(-0.25),
  'far apart': Float64Array.from({ length: 2000 }, () => random.normal() * 10 ** (600 * random.uniform() - 300)),
  'the same to 40 bits': Float64Array.from({ length: 2000 }, () => 1 + 1e-13 * random.uniform()),
  infinite: Float64Array.of(Number.POSITIVE_INFINITY, 0, -0, 1, Number.NEGATIVE_INFINITY, -1),
};

// Nothing here depends on the instruction set.
const modes = kernelModes();
for (const mode of modes.length > 1 ? [modes[0], modes[modes.length - 1]] : modes) {
  describe(`order statistics, ${mode.name}`, () => {
    for (const [name, values] of Object.entries(samples)) {
      it(`are those of sorting: ${name}`, () => {
        mode.use();
        const sorted = values.map((value) => value + 0).sort();
        const n = sorted.length;
        const ranks = [n - 1, 0, Math.floor(n / 2), Math.floor(n / 3), Math.floor(n / 3), n - 2];
        for (const exactLimit of [n, 40, 1]) {
          for (const stream of [plain(values), masked(values, 97)]) {
            const { statistics, path } = selectStreamedRanks(stream, ranks, { exactLimit });
            expect(path).toBe(n <= exactLimit ? 'memory' : 'histogram');
            for (const [i, rank] of ranks.entries()) {
              const value = sorted[rank];
              const below = sorted.indexOf(value);
              expect(statistics[i]).toEqual({ value, below, equal: sorted.lastIndexOf(value) - below + 1 });
            }
          }
        }
      });
    }

    it('are the same over many values, for any threads', () => {
      mode.use();
      const values = Float64Array.from({ length: 70_000 }, () => random.normal() ** 3);
      const sorted = values.slice().sort();
      const ranks = [10, 35_000, 69_000];
      for (const threads of [1, 2, 3]) {
        const { statistics } = selectStreamedRanks(plain(values), ranks, { threads });
        expect(statistics.map(({ value }) => value)).toEqual(ranks.map((rank) => sorted[rank]));
      }
    });

    it('refuse a NaN that counts', () => {
      mode.use();
      for (const exactLimit of [10, 1]) {
        const stream = plain(Float64Array.of(1, Number.NaN, 2));
        expect(() => selectStreamedRanks(stream, [0], { exactLimit, name: 'entropy' })).toThrow(InputError);
      }
    });
  });
}

describe('selectLargest', () => {
  it('gives threshold and ties', () => {
    const stream = plain(Float64Array.of(3, 1, 2, 2, 2, 5));
    expect(selectLargest(stream, [1, 3, 6])).toEqual([
      { k: 1, threshold: 5, above: 0, ties: 1, path: 'memory' },
      { k: 3, threshold: 2, above: 2, ties: 1, path: 'memory' },
      { k: 6, threshold: 1, above: 5, ties: 1, path: 'memory' },
    ]);
  });

  it('takes one token at the least', () => {
    expect([topCount(2e-4, 100), topCount(2e-4, 10_000), topCount(1, 7)]).toEqual([1, 2, 7]);
  });
});

describe('streamedQuantiles', () => {
  it('interpolates between order statistics', () => {
    const stream = plain(Float64Array.of(4, 1, 3, 2));
    expect([...streamedQuantiles(stream, [0, 0.5, 0.75, 1]).values]).toEqual([1, 2.5, 3.25, 4]);
  });
});
