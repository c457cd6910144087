import type { Design } from './loss.js';

/** A design of some rows, centred and scaled, with what was taken away. */
export interface Standardised {
  readonly design: Design;
  /** Means of the columns. */
  readonly centre: Float64Array;
  /** Standard deviations with n; 1 where standardisation is off or a column is constant. */
  readonly scale: Float64Array;
}

/** Rows `[rows, columns]`, row-major, as a design. */
export function designOf(data: ArrayLike<number>, rows: number, columns: number): Design {
  const values = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) values[j * rows + i] = data[i * columns + j];
  return { values, rows, columns };
}

/**
 * The chosen rows, every column centred and divided by its standard deviation (n in the denominator). Without `standardise`
 * columns are left as they are.
 */
export function standardiseRows(design: Design, rows: Int32Array, standardise = true): Standardised {
  const n = rows.length;
  const values = new Float64Array(n * design.columns);
  const centre = new Float64Array(design.columns);
  const scale = new Float64Array(design.columns).fill(1);
  for (let j = 0; j < design.columns; j++) {
    const from = j * design.rows;
    const to = j * n;
    for (let i = 0; i < n; i++) values[to + i] = design.values[from + rows[i]];
    if (!standardise) continue;
    let mean = 0;
    for (let i = 0; i < n; i++) mean += values[to + i];
    mean /= n;
    let squares = 0;
    for (let i = 0; i < n; i++) squares += (values[to + i] - mean) ** 2;
    const deviation = Math.sqrt(squares / n);
    // Rounding gives a constant column a deviation of about 1e-16 of its mean.
    const divisor = deviation > 1e-12 * Math.abs(mean) ? deviation : 1;
    for (let i = 0; i < n; i++) values[to + i] = (values[to + i] - mean) / divisor;
    centre[j] = mean;
    scale[j] = divisor;
  }
  return { design: { values, rows: n, columns: design.columns }, centre, scale };
}
