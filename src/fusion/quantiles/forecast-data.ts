import { InputError } from '../../errors.js';
import type { Floats } from '../../formats/feature-matrix.js';
import { readForecastArrays } from './forecast-arrays.js';
import { readForecastTable } from './forecast-table.js';

/** Columns of a table of forecasts. */
export interface TableColumns {
  readonly id: string;
  readonly outcome: string;
  readonly model: string;
  readonly level: string;
  readonly quantile: string;
  readonly split?: string;
  readonly features: readonly string[];
}

/** Where forecasts come from. */
export type ForecastSource =
  | {
      readonly kind: 'table';
      readonly paths: readonly string[];
      readonly layout: 'auto' | 'long' | 'wide';
      readonly columns: TableColumns;
      readonly limit?: number;
    }
  | {
      readonly kind: 'arrays';
      /** z [n, p, m] */
      readonly path: string;
      /** y [n]: a file of one column. */
      readonly outcomes: string;
      readonly levels: readonly number[];
      readonly models?: readonly string[];
      /** x [n, d] */
      readonly features?: string;
      readonly limit?: number;
    };

/** Forecasts of one data set. */
export interface ForecastData {
  /** Absent: rows are named by their number. */
  readonly ids?: readonly string[];
  readonly models: readonly string[];
  /** Ascending. */
  readonly levels: Float64Array;
  /** z `[n, p, m]`; NaN where a forecast is missing. */
  readonly values: Floats;
  /** y `[n]`; NaN where it is not known. */
  readonly outcomes: Float64Array;
  /** Codes of the split column. */
  readonly splits?: Uint8Array;
  /** x `[n, d]` */
  readonly features?: { readonly values: Float64Array; readonly names: readonly string[] };
  readonly layout: 'long' | 'wide' | 'array';
  /** Whether the levels were given in ascending order, and how many repeated another. */
  readonly levelsSorted: boolean;
  readonly duplicateLevels: number;
}

/**
 * Reads forecasts of any kind.
 * @throws InputError for what a file lacks, with file, row and column
 */
export async function readForecasts(source: ForecastSource, maxMemoryBytes: number): Promise<ForecastData> {
  const data =
    source.kind === 'table'
      ? await readForecastTable(source, maxMemoryBytes)
      : await readForecastArrays(source, maxMemoryBytes);
  const where = source.kind === 'table' ? source.paths.join(', ') : source.path;
  if (data.outcomes.length === 0) throw new InputError(`${where}: holds no row`);
  if (data.outcomes.every(Number.isNaN)) throw new InputError(`${where}: no row has an outcome to fit to`);
  for (let cell = 0; cell < data.values.length; cell++) {
    if (Math.abs(data.values[cell]) === Number.POSITIVE_INFINITY) {
      const width = data.models.length * data.levels.length;
      const row = Math.floor(cell / width);
      const slot = cell % width;
      throw new InputError(
        `${where}: row "${data.ids?.[row] ?? row}": model ${data.models[Math.floor(slot / data.levels.length)]} at level ` +
          `${data.levels[slot % data.levels.length]} is infinite; leave the cell empty or give a number`,
      );
    }
  }
  return data;
}
