import { InputError } from '../errors.js';
import { quantileType7 } from './quantiles.js';
import { compactCodes, type Symbols } from './symbols.js';

export const BINNINGS = ['equal-width', 'equal-mass', 'freedman-diaconis'] as const;
export type Binning = (typeof BINNINGS)[number];

/** A column of numbers in bins; only bins that hold a value are symbols. */
export interface BinnedColumn extends Symbols {
  /** Bins that were laid, empty ones too. */
  readonly bins: number;
}

const oneBin = (rows: number): BinnedColumn => ({ codes: new Int32Array(rows), size: 1, bins: 1 });

function extent(values: Float64Array): [number, number] {
  let low = values[0];
  let high = values[0];
  for (let i = 1; i < values.length; i++) {
    if (values[i] < low) low = values[i];
    if (values[i] > high) high = values[i];
  }
  return [low, high];
}

/** Bins of equal width over [min, max], each closed on the left, the last on both sides. A constant column is one bin. */
export function equalWidthBins(values: Float64Array, bins: number): BinnedColumn {
  const [low, high] = extent(values);
  if (low === high) return oneBin(values.length);
  const step = (high - low) / bins;
  const codes = new Int32Array(values.length);
  for (let i = 0; i < values.length; i++) {
    let bin = Math.min(bins - 1, Math.floor((values[i] - low) / step));
    // Rounding of the quotient must not move a value across an edge.
    if (bin > 0 && values[i] < low + bin * step) bin--;
    else if (bin < bins - 1 && values[i] >= low + (bin + 1) * step) bin++;
    codes[i] = bin;
  }
  return { ...compactCodes(codes, bins), bins };
}

/** Bins of equal mass by rank; equal values share the bin of the first of them. */
export function equalMassBins(values: Float64Array, bins: number): BinnedColumn {
  const rows = values.length;
  const sorted = values.slice().sort();
  const codes = new Int32Array(rows);
  for (let i = 0; i < rows; i++) {
    let low = 0;
    let high = rows;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (sorted[middle] < values[i]) low = middle + 1;
      else high = middle;
    }
    codes[i] = Math.floor((low * bins) / rows);
  }
  return { ...compactCodes(codes, bins), bins };
}

/** Number of bins by Freedman & Diaconis (1981): width 2 IQR n^(-1/3). Throws InputError when the middle half is one value. */
export function freedmanDiaconisBins(values: Float64Array, column: string): number {
  const [low, high] = extent(values);
  if (low === high) return 1;
  const sorted = values.slice().sort();
  const range = quantileType7(sorted, 0.75) - quantileType7(sorted, 0.25);
  if (!(range > 0)) {
    throw new InputError(
      `column "${column}": half of its values are equal, so Freedman-Diaconis has no bin width; name a number with --bins, or use --binning equal-mass`,
    );
  }
  return Math.min(values.length, Math.ceil((high - low) / (2 * range * values.length ** (-1 / 3))));
}
