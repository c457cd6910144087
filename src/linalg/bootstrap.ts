import { createRandom } from '../random.js';
import { quantileOfSorted } from './quantile-sketch.js';

/** A percentile interval and the standard deviation over the resamples. */
export interface BootstrapInterval {
  low: number;
  high: number;
  se: number;
}

export interface BootstrapOptions {
  readonly seed: number;
  readonly resamples?: number;
  /** Coverage of the interval (default 0.95). */
  readonly level?: number;
  /** Above this many documents, runs of neighbouring documents are drawn together. */
  readonly maximumBlocks?: number;
}

/** A fast 32-bit generator (xoshiro128**, Blackman & Vigna 2018): a resample draws once a document. */
function createDraw(seed: number): (bound: number) => number {
  const root = createRandom(seed).fork(0x626f6f74);
  const state = new Uint32Array(4);
  for (let i = 0; i < 4; i++) state[i] = Number(root.next64() & 0xffffffffn);
  state[0] |= 1;
  let [a, b, c, d] = state;
  return (bound) => {
    // Rejection of the last, incomplete multiple of `bound` keeps the draw unbiased.
    const limit = 4294967296 - (4294967296 % bound);
    for (;;) {
      const scaled = Math.imul(b, 5);
      const result = Math.imul((scaled << 7) | (scaled >>> 25), 9) >>> 0;
      const shifted = b << 9;
      c ^= a;
      d ^= b;
      b ^= c;
      a ^= d;
      c ^= shifted;
      d = (d << 11) | (d >>> 21);
      if (result < limit) return result % bound;
    }
  };
}

/**
 * Document bootstrap: documents are drawn with replacement, their sums are added, and each statistic is taken of the
 * totals. Tokens of one document are not independent, so documents and not tokens are the units.
 *
 * @param sums `[documents, width]` row-major: the per-document sums, in document order
 * @param statistics functions of the `width` totals
 * @returns one interval a statistic, undefined for fewer than two documents; and the number of units drawn
 */
export function bootstrapDocuments(
  sums: Float64Array,
  width: number,
  statistics: readonly ((totals: Float64Array) => number)[],
  options: BootstrapOptions,
): { intervals: BootstrapInterval[] | undefined; units: number; resamples: number } {
  const { seed, resamples = 1000, level = 0.95, maximumBlocks = 20_000 } = options;
  const documents = sums.length / width;
  const perBlock = Math.max(1, Math.ceil(documents / maximumBlocks));
  const units = Math.ceil(documents / perBlock);
  if (units < 2) return { intervals: undefined, units, resamples };
  const blocks = new Float64Array(units * width);
  for (let document = 0; document < documents; document++) {
    const block = Math.floor(document / perBlock) * width;
    for (let k = 0; k < width; k++) blocks[block + k] += sums[document * width + k];
  }
  const draw = createDraw(seed);
  const totals = new Float64Array(width);
  const replicates = statistics.map(() => new Float64Array(resamples));
  for (let r = 0; r < resamples; r++) {
    totals.fill(0);
    for (let i = 0; i < units; i++) {
      const at = draw(units) * width;
      for (let k = 0; k < width; k++) totals[k] += blocks[at + k];
    }
    for (let s = 0; s < statistics.length; s++) replicates[s][r] = statistics[s](totals);
  }
  const tail = (1 - level) / 2;
  const intervals = replicates.map((values) => {
    const sorted = values.filter((value) => !Number.isNaN(value)).sort();
    const mean = sorted.reduce((sum, value) => sum + value, 0) / sorted.length;
    const squares = sorted.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    return {
      low: quantileOfSorted(sorted, tail),
      high: quantileOfSorted(sorted, 1 - tail),
      se: Math.sqrt(squares / (sorted.length - 1)),
    };
  });
  return { intervals, units, resamples };
}
