import { InputError } from '../errors.js';
import type { Points } from '../kernels/neighbours.js';
import type { Random } from '../random.js';
import { type BinnedColumn, type Binning, equalMassBins, equalWidthBins, freedmanDiaconisBins } from './binning.js';
import type { DataColumn } from './data-columns.js';
import { compactCodes, joinSymbols, type Symbols, symbolsOf } from './symbols.js';

/** How columns of numbers are taken. */
export interface VariableSettings {
  /** `auto`: text and whole numbers are symbols, other numbers are continuous. */
  readonly as: 'auto' | 'symbols' | 'numbers';
  /** Bins turn numbers into symbols. */
  readonly binning: Binning | null;
  /** Null for Freedman and Diaconis's number. */
  readonly bins: number | null;
  /** Standard deviation of the noise that breaks ties, in units of each column's own; 0 for none. */
  readonly jitter: number;
  readonly standardise: boolean;
}

interface CommonVariable {
  readonly name: string;
  readonly columns: readonly string[];
}

/** One variable of the analysis: a symbol a row, or a point a row. */
export type Variable = CommonVariable &
  (
    | { readonly kind: 'symbols'; readonly symbols: Symbols; readonly bins: readonly number[] | null }
    | { readonly kind: 'numbers'; readonly points: Points }
  );

function textSymbols(column: DataColumn): Symbols {
  return column.kind === 'text' ? compactCodes(column.codes, column.names.length) : symbolsOf(column.values);
}

function binColumn(column: DataColumn, settings: VariableSettings): BinnedColumn {
  if (column.kind === 'text') {
    const symbols = textSymbols(column);
    return { ...symbols, bins: symbols.size };
  }
  if (settings.binning === 'equal-mass') return equalMassBins(column.values, settings.bins ?? 1);
  const bins = settings.bins ?? freedmanDiaconisBins(column.values, column.name);
  return equalWidthBins(column.values, bins);
}

const isWhole = (column: DataColumn): boolean => column.kind === 'text' || column.values.every(Number.isInteger);

/** Throws InputError for a column of one value, whose density has no scale. */
function spreadOf(values: Float64Array, name: string): { mean: number; deviation: number } {
  let mean = 0;
  for (const value of values) mean += value / values.length;
  let squares = 0;
  let constant = true;
  for (const value of values) {
    squares += (value - mean) ** 2;
    if (value !== values[0]) constant = false;
  }
  if (constant) {
    throw new InputError(
      `column "${name}" is constant (${values[0]} in all ${values.length} rows): a continuous estimator has nothing to measure; leave it out, or take it as symbols with --as symbols`,
    );
  }
  return { mean, deviation: Math.sqrt(squares / values.length) };
}

function pointsOf(columns: readonly DataColumn[], settings: VariableSettings, random: Random): Points {
  const width = columns.length;
  const rows = columns[0].kind === 'numbers' ? columns[0].values.length : columns[0].codes.length;
  const data = new Float64Array(rows * width);
  columns.forEach((column, j) => {
    if (column.kind === 'text') {
      throw new InputError(
        `column "${column.name}" is text; a continuous estimator needs numbers: drop --as numbers, or give --bins`,
      );
    }
    const { mean, deviation } = spreadOf(column.values, column.name);
    const noise = random.fork(j);
    for (let i = 0; i < rows; i++) {
      let value = column.values[i];
      if (settings.jitter > 0) value += settings.jitter * deviation * noise.normal();
      data[i * width + j] = settings.standardise ? (value - mean) / deviation : value;
    }
  });
  return { data, rows, columns: width };
}

/** The variable that some columns make together. @param random draws the noise of `jitter` */
export function makeVariable(
  name: string,
  columns: readonly DataColumn[],
  settings: VariableSettings,
  random: Random,
): Variable {
  const common = { name, columns: columns.map((column) => column.name) };
  if (settings.binning !== null) {
    const binned = columns.map((column) => binColumn(column, settings));
    return { ...common, kind: 'symbols', symbols: joinSymbols(binned), bins: binned.map(({ bins }) => bins) };
  }
  if (settings.as === 'symbols' || (settings.as === 'auto' && columns.every(isWhole))) {
    return { ...common, kind: 'symbols', symbols: joinSymbols(columns.map(textSymbols)), bins: null };
  }
  return { ...common, kind: 'numbers', points: pointsOf(columns, settings, random) };
}

/**
 * Symbols as points for the mixed estimator: codes stand farther apart than any two rows of `other` do, so that a
 * neighbour of another symbol comes after all of the same one.
 */
export function symbolPoints(symbols: Symbols, other: Points): Points {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const value of other.data) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const step = 2 * (high - low) || 1;
  return { data: Float64Array.from(symbols.codes, (code) => code * step), rows: symbols.codes.length, columns: 1 };
}
