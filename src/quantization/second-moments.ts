import { multiply, symmetricRankK } from '../kernels/gemm.js';
import type { Floats } from '../models/layer-runner.js';

/** Rows of a panel of a Hessian: panels follow the diagonal, so that the upper triangle takes no memory. */
export const PANEL_ROWS = 1024;

/** Rows from..to-1 of the lower triangle of an input's second moment, kept as [to - from, to]. */
export interface Panel {
  readonly from: number;
  readonly to: number;
}

/** Panels of a triangle of n columns, from the top. */
export function panelsOf(n: number, rows = PANEL_ROWS): Panel[] {
  const panels: Panel[] = [];
  for (let from = 0; from < n; from += rows) panels.push({ from, to: Math.min(from + rows, n) });
  return panels;
}

/** Bytes that a panel takes: its sums, and the packed triangle that is made of them in the end. */
export function panelBytes({ from, to }: Panel, stored: 'F32' | 'F64'): number {
  return (to - from) * to * (stored === 'F32' ? 12 : 16);
}

/** Rows of a panel as they are stored, and the sums of squares of its columns. */
export interface FinishedPanel {
  /** Rows from..to-1 of the lower triangle, row r with r + 1 entries, times the factor. */
  readonly packed: Float32Array | Float64Array;
  /** [to - from]: diagonal before the factor. */
  readonly squares: Float64Array;
}

/** Sums x x^T over rows x [n] for some panels of the triangle. */
export interface MomentSums {
  readonly rows: number;
  /** Adds rows [count, columns]. */
  add(data: Floats, count: number): void;
  /** The panels, times 2 / rows (zero without rows). Ends the sums: their memory is given back. */
  finish(stored: 'F32' | 'F64'): FinishedPanel[];
}

/**
 * Second moments of rows that come in pieces of any size. Rows are gathered into blocks of a fixed number, in the order in
 * which they come, so that the sums are the same bits however the pieces were cut and whichever panels are asked for.
 * Products of a block are single for f32 rows (panels of 256 rows) and added in double.
 *
 * @param blockRows rows of a block, a multiple of 256
 */
export function createMomentSums(
  columns: number,
  panels: readonly Panel[],
  options: { readonly blockRows: number; readonly precision: 'f32' | 'f64'; readonly threads: number },
): MomentSums {
  const { blockRows, precision, threads } = options;
  const block: Floats =
    precision === 'f32' ? new Float32Array(blockRows * columns) : new Float64Array(blockRows * columns);
  let sums = panels.map(({ from, to }) => new Float64Array((to - from) * to));
  let filled = 0;
  let rows = 0;

  const accumulate = (data: Floats, count: number): void => {
    panels.forEach(({ from, to }, p) => {
      const height = to - from;
      const own = data.subarray(from);
      const strides = { strideC: to, beta: 1, threads };
      if (from > 0) {
        const sizes = { m: height, n: from, k: count };
        multiply(own, data, sums[p], sizes, { ...strides, transposeA: true, strideA: columns, strideB: columns });
      }
      const square = sums[p].subarray(from);
      symmetricRankK(own, square, { n: height, k: count }, { ...strides, transpose: true, strideX: columns });
    });
  };

  return {
    get rows() {
      return rows;
    },
    add(data, count) {
      rows += count;
      let done = 0;
      while (done < count) {
        if (filled === 0 && count - done >= blockRows) {
          accumulate(data.subarray(done * columns, (done + blockRows) * columns), blockRows);
          done += blockRows;
          continue;
        }
        const taken = Math.min(blockRows - filled, count - done);
        block.set(data.subarray(done * columns, (done + taken) * columns), filled * columns);
        filled += taken;
        done += taken;
        if (filled === blockRows) {
          accumulate(block, blockRows);
          filled = 0;
        }
      }
    },
    finish(stored) {
      if (filled > 0) accumulate(block, filled);
      filled = 0;
      const factor = rows === 0 ? 0 : 2 / rows;
      const finished = panels.map(({ from, to }, p): FinishedPanel => {
        const length = ((to - from) * (from + 1 + to)) / 2;
        const packed = stored === 'F32' ? new Float32Array(length) : new Float64Array(length);
        const squares = new Float64Array(to - from);
        let at = 0;
        for (let r = from; r < to; r++) {
          const row = sums[p].subarray((r - from) * to, (r - from) * to + r + 1);
          for (let j = 0; j <= r; j++) packed[at + j] = factor * row[j];
          squares[r - from] = row[r];
          at += r + 1;
        }
        return { packed, squares };
      });
      sums = [];
      return finished;
    },
  };
}
