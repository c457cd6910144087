import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import {
  accumulateRows,
  createRowAccumulator,
  finalizeRows,
  type LogitBlock,
  mergeRows,
  type RowAccumulator,
  type RowStatistics,
  rowStatistics,
} from '../../src/kernels/row-statistics.js';
import { kernelModes, useBestKernels } from './kernel-modes.js';
import { blockOf, columnsOf, normalLogits } from './logit-rows.js';

const ORDERS = [0, 0.3, 0.5, 1, 2, 3, Infinity];

/** Largest relative difference over all figures of two sets of statistics; NaN equals NaN. */
function worstDifference(a: RowStatistics, b: RowStatistics): { name: string; difference: number } {
  let worst = { name: '', difference: 0 };
  const compare = (name: string, x: ArrayLike<number>, y: ArrayLike<number>): void => {
    expect(x.length).toBe(y.length);
    for (let i = 0; i < x.length; i++) {
      if (Object.is(x[i], y[i]) || x[i] === y[i]) continue;
      const difference = Math.abs(x[i] - y[i]) / Math.max(Math.abs(x[i]), Math.abs(y[i]), 1e-3);
      if (!(difference <= worst.difference)) worst = { name: `${name}[${i}] ${x[i]} ${y[i]}`, difference };
    }
  };
  for (const [name, value] of Object.entries(a)) {
    const other = b[name as keyof RowStatistics];
    if (name === 'renyiNats' || name === 'tsallis') {
      a[name].forEach((array, k) => {
        compare(`${name}.${k}`, array, b[name][k]);
      });
    } else if (name === 'fisherRao') {
      // Near 0 the angle magnifies rounding without bound; its cosine is what the sums determine.
      const overlap = (angles: Float64Array): Float64Array => angles.map((angle) => Math.cos((angle * Math.PI) / 2));
      compare('cos fisherRao', overlap(a.fisherRao), overlap(b.fisherRao));
    } else if (value instanceof Float64Array || value instanceof Int32Array) {
      compare(name, value, other as ArrayLike<number>);
    }
  }
  return worst;
}

/** Folds the columns between `cuts` in the given order of the pieces. */
function accumulated(
  block: LogitBlock,
  cuts: readonly number[],
  order: readonly number[],
  options: { targets: Int32Array; targetLogits?: Float64Array },
): RowAccumulator {
  const accumulator = createRowAccumulator(block.rows, { renyiOrders: ORDERS });
  const edges = [0, ...cuts, block.columns];
  for (const piece of order) {
    accumulateRows(accumulator, columnsOf(block, edges[piece], edges[piece + 1]), {
      ...options,
      columnOffset: edges[piece],
    });
  }
  return accumulator;
}

const rows = 5;
const columns = 9173;
const values = normalLogits(3, rows * columns, 4, 11);
// Ties across blocks, so that the order of equal values shows.
for (let i = 0; i < values.length; i += 97) values[i] = 9;
const targets = Int32Array.of(17, 4999, 9172, 10, 0);
const targetLogits = (block: LogitBlock): Float64Array => {
  const logits = new Float64Array(rows);
  const whole = rowStatistics(block, { targets });
  // The logit back from the surprisal, which is how far a caller's own product may be off.
  for (let r = 0; r < rows; r++) logits[r] = whole.logSumExp[r] - whole.surprisalNats[r];
  return logits;
};

const modes = kernelModes();

describe('kernels held together', () => {
  afterAll(useBestKernels);

  describe.each(['F64', 'F32', 'F16', 'BF16'] as const)('%s', (dtype) => {
    const tolerance = dtype === 'F64' ? 1e-13 : 1e-6;
    const block = blockOf(values, dtype, rows, columns);
    const compute = (measures: 'full' | 'entropy', threads = 1): RowStatistics =>
      rowStatistics(block, { measures, targets, threads, renyiOrders: measures === 'full' ? ORDERS : [] });

    it('native at every level equals the reference', () => {
      for (const measures of ['full', 'entropy'] as const) {
        modes[0].use();
        const reference = compute(measures);
        for (const mode of modes.slice(1)) {
          mode.use();
          const { name, difference } = worstDifference(compute(measures), reference);
          expect(difference, `${mode.name} ${name}`).toBeLessThan(tolerance);
        }
      }
    });

    it('does not depend on blocks, their order, or how shards are united', () => {
      for (const mode of modes) {
        mode.use();
        const options = { targets, targetLogits: targetLogits(block) };
        const whole = finalizeRows(accumulated(block, [], [0], options), columns);
        const cuts = [1, 100, 4096, 4100, 9000];
        const forward = finalizeRows(accumulated(block, cuts, [0, 1, 2, 3, 4, 5], options), columns);
        const shuffled = finalizeRows(accumulated(block, cuts, [4, 2, 5, 0, 3, 1], options), columns);
        const left = (): RowAccumulator => accumulated(block, cuts, [0, 1], options);
        const middle = (): RowAccumulator => accumulated(block, cuts, [3, 2], options);
        const right = (): RowAccumulator => accumulated(block, cuts, [4, 5], options);
        const leftFirst = finalizeRows(mergeRows(mergeRows(left(), middle()), right()), columns);
        const rightFirst = finalizeRows(mergeRows(right(), mergeRows(middle(), left())), columns);
        const limit = dtype === 'F64' ? 1e-12 : 1e-6;
        for (const other of [forward, shuffled, leftFirst, rightFirst]) {
          const { name, difference } = worstDifference(other, whole);
          expect(difference, `${mode.name} ${name}`).toBeLessThan(limit);
          expect(other.rank).toEqual(whole.rank);
          expect(other.topColumns).toEqual(whole.topColumns);
        }
      }
    });

    it('gives the same bits for 1, 2 and 4 threads', () => {
      useBestKernels();
      for (const measures of ['full', 'entropy'] as const) {
        const one = compute(measures, 1);
        expect(compute(measures, 2)).toEqual(one);
        expect(compute(measures, 4)).toEqual(one);
      }
    });
  });

  it('reads rows at any stride and offset', () => {
    const padded = new Float32Array(3 * 50 + 3);
    const logits = normalLogits(9, 3 * 37, 2);
    for (let r = 0; r < 3; r++) for (let i = 0; i < 37; i++) padded[3 + r * 50 + i] = logits[r * 37 + i];
    padded.fill(Number.NaN, 40, 53);
    const strided: LogitBlock = { data: padded.subarray(3), dtype: 'F32', rows: 3, columns: 37, rowStride: 50 };
    for (const mode of modes) {
      mode.use();
      expect(rowStatistics(strided)).toEqual(rowStatistics(blockOf(logits, 'F32', 3, 37)));
    }
  });

  it('leaves the rank open when earlier blocks could not be compared', () => {
    const block = blockOf(values, 'F64', rows, columns);
    for (const mode of modes) {
      mode.use();
      const s = finalizeRows(accumulated(block, [5000], [0, 1], { targets }), columns);
      // Targets in the first block were known to both; the one in the second was not known to the first.
      expect([...s.rank].map(Number.isNaN)).toEqual([false, false, true, false, false]);
      expect(s.surprisalNats).toEqual(
        rowStatistics(block, { targets }).surprisalNats.map((v, r) => {
          expect(Math.abs(v - s.surprisalNats[r])).toBeLessThan(1e-11);
          return s.surprisalNats[r];
        }),
      );
    }
  });

  it('equals the reference on any shape', () => {
    const shape = fc.record({
      rows: fc.integer({ min: 1, max: 4 }),
      columns: fc.integer({ min: 1, max: 400 }),
      seed: fc.integer({ min: 0, max: 1e6 }),
      spread: fc.constantFrom(0, 0.01, 1, 10, 100),
      mask: fc.constantFrom(0, 2, 3),
    });
    fc.assert(
      fc.property(shape, (s) => {
        const logits = normalLogits(s.seed, s.rows * s.columns, s.spread, s.mask);
        if (s.mask > 0 && s.columns < s.mask) return;
        for (let r = 0; r < s.rows; r++) logits[r * s.columns] = 0.25;
        const block = blockOf(logits, 'F64', s.rows, s.columns);
        modes[0].use();
        const reference = rowStatistics(block, { renyiOrders: ORDERS, topK: 5 });
        for (const mode of modes.slice(1)) {
          mode.use();
          const { name, difference } = worstDifference(
            rowStatistics(block, { renyiOrders: ORDERS, topK: 5 }),
            reference,
          );
          expect(difference, `${mode.name} ${name}`).toBeLessThan(1e-11);
        }
      }),
      { numRuns: 100, seed: 7 },
    );
  });
});
