import { describe, expect, it } from 'vitest';
import { encodeRows } from '../../src/quantization/encode-rows.js';
import { gainLevels } from '../../src/quantization/gain-levels.js';
import { createRandom } from '../../src/random.js';

/**
 * SQNR in dB of N(0, 1) weights, rows of 3072, at 2, 3 and 4 payload bits a weight: greedy search from
 * floor((K + 0.8) u / ||u||_1), projection gains, Lloyd levels, 256 rows; standard error about 0.01 dB. All columns by
 * bench/pvq-gaussian.mjs.
 */
const TABLE: readonly [D: number, ...cells: [K: number, gainBits: number, sqnrDb: number][]][] = [
  [4, [3, 1, 8.89], [7, 2, 14.91], [14, 3, 20.61]],
  [8, [6, 1, 9.71], [13, 2, 15.45], [24, 4, 21.46]],
  [16, [11, 1, 9.78], [23, 3, 15.66], [48, 4, 21.82]],
  [24, [16, 2, 10.01], [35, 3, 15.93], [72, 4, 21.98]],
  [32, [21, 2, 9.98], [48, 2, 16.03], [96, 4, 22.08]],
  [64, [42, 2, 10.1], [92, 3, 16.04], [190, 4, 22.13]],
  [128, [83, 2, 10.08], [184, 3, 16.11], [378, 4, 22.16]],
];
const COLUMNS = 3072;

describe('SQNR of normal weights', () => {
  const random = createRandom(20241016);
  const weights = Float32Array.from({ length: 64 * COLUMNS }, () => random.normal());

  function sqnr(D: number, K: number, gainBits: number, rows: number, mode?: 'greedy'): number {
    const levels = Float32Array.from(gainLevels('lloyd', D, COLUMNS, 2 ** gainBits));
    const code = { groupLength: D, pulses: K, gainBits, superGroup: 1 };
    const own = weights.subarray(0, rows * COLUMNS);
    const { statistics } = encodeRows(own, rows, COLUMNS, code, levels, mode === undefined ? {} : { mode });
    return 10 * Math.log10(statistics.weightEnergy / statistics.squaredError);
  }

  const cells = TABLE.flatMap(([D, ...all]) => all.map(([K, gainBits, dB], i) => [i + 2, D, K, gainBits, dB] as const));

  it.each(cells)('the default reaches the table: %d bits, D=%d', (_, D, K, gainBits, dB) => {
    expect(sqnr(D, K, gainBits, D > 32 ? 32 : 64)).toBeGreaterThanOrEqual(dB - 0.05);
  });

  it.each([
    [8, 24, 4],
    [16, 23, 3],
    [16, 48, 4],
  ])('exact search is worth more than 0.06 dB over greedy: D=%d K=%d', (D, K, gainBits) => {
    expect(sqnr(D, K, gainBits, 32) - sqnr(D, K, gainBits, 32, 'greedy')).toBeGreaterThan(0.06);
  });
});
