type Floats = Float32Array | Float64Array;

/** Rows that come in any number and go on in blocks of one size, so that sums over them do not depend on how they came. */
export interface RowBlocks {
  /** Adds rows of every matrix, row-major. */
  add(matrices: readonly Floats[], rows: number): void;
  /** Passes on what is left. */
  finish(): void;
}

/**
 * @param columns of every matrix
 * @param use given a full block, or what is left at the end; the arrays are used anew after it
 */
export function createRowBlocks(
  columns: readonly number[],
  blockRows: number,
  use: (matrices: readonly Floats[], rows: number) => void,
): RowBlocks {
  let blocks: Floats[] = [];
  let filled = 0;
  const pass = (): void => {
    if (filled === 0) return;
    const rows = filled;
    filled = 0;
    use(
      blocks.map((block, m) => block.subarray(0, rows * columns[m])),
      rows,
    );
  };
  return {
    add(matrices, rows) {
      if (blocks.length === 0) {
        blocks = matrices.map((matrix, m) => {
          const length = blockRows * columns[m];
          return matrix instanceof Float32Array ? new Float32Array(length) : new Float64Array(length);
        });
      }
      for (let from = 0; from < rows; ) {
        const count = Math.min(blockRows - filled, rows - from);
        matrices.forEach((matrix, m) => {
          const width = columns[m];
          blocks[m].set(matrix.subarray(from * width, (from + count) * width), filled * width);
        });
        filled += count;
        from += count;
        if (filled === blockRows) pass();
      }
    },
    finish: pass,
  };
}
