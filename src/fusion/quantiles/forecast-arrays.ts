import { InputError } from '../../errors.js';
import { openFeatures } from '../../features/open-features.js';
import type { Floats } from '../../formats/feature-matrix.js';
import type { ForecastData, ForecastSource } from './forecast-data.js';
import { bytesPerForecast } from './forecast-storage.js';
import { sortLevels } from './levels.js';

/** Cells that are read at once. */
const CHUNK_CELLS = 1 << 22;

/** All values of a file as doubles. */
async function readAll(
  path: string,
  limit?: number,
): Promise<{ values: Float64Array; rows: number; columns: number; names?: readonly string[] }> {
  const matrix = await openFeatures({ kind: 'file', path, ...(limit !== undefined && { limit }) });
  try {
    const values = new Float64Array(matrix.rows * matrix.columns);
    matrix.readRows(0, matrix.rows, values);
    return {
      values,
      rows: matrix.rows,
      columns: matrix.columns,
      ...(matrix.columnNames && { names: matrix.columnNames }),
    };
  } finally {
    matrix.close();
  }
}

/**
 * Forecasts z [n, p, m] of an array file, with outcomes and features beside it.
 * @throws InputError for another number of axes, levels or rows
 */
export async function readForecastArrays(
  source: Extract<ForecastSource, { kind: 'arrays' }>,
  maxMemoryBytes: number,
): Promise<ForecastData> {
  const limit = source.limit === undefined ? {} : { limit: source.limit };
  const matrix = await openFeatures({ kind: 'file', path: source.path, flatten: true, ...limit });
  try {
    const { rows, rowDims } = matrix;
    if (rowDims?.length !== 2) {
      throw new InputError(`${source.path}: forecasts must be [rows, models, levels]; reshape the array`);
    }
    const [models, given] = rowDims;
    if (given !== source.levels.length) {
      throw new InputError(`${source.path}: holds ${given} levels, but --levels names ${source.levels.length}`);
    }
    if (source.models !== undefined && source.models.length !== models) {
      throw new InputError(`${source.path}: holds ${models} models, but --models names ${source.models.length}`);
    }
    const { levels, places, wasSorted, duplicates } = sortLevels(source.levels, '--levels');
    if (duplicates > 0) {
      throw new InputError(`--levels: ${duplicates} of them repeat another; drop the repeated forecasts`);
    }
    const width = models * given;
    const bytes = bytesPerForecast(rows * width, maxMemoryBytes, source.path);
    const values: Floats = bytes === 8 ? new Float64Array(rows * width) : new Float32Array(rows * width);
    const chunk = Math.max(1, Math.floor(CHUNK_CELLS / width));
    for (let start = 0; start < rows; start += chunk) {
      const count = Math.min(chunk, rows - start);
      const part = values.subarray(start * width, (start + count) * width);
      matrix.readRows(start, count, part);
      if (!wasSorted) reorder(part, places);
    }
    const outcomes = await readAll(source.outcomes, source.limit);
    if (outcomes.columns !== 1 || outcomes.rows !== rows) {
      throw new InputError(
        `${source.outcomes}: holds [${outcomes.rows}, ${outcomes.columns}], but ${source.path} has ${rows} rows; give one outcome a row`,
      );
    }
    const features = source.features === undefined ? undefined : await readAll(source.features, source.limit);
    if (features !== undefined && features.rows !== rows) {
      throw new InputError(`${source.features}: holds ${features.rows} rows, but ${source.path} has ${rows}`);
    }
    return {
      models: source.models ?? Array.from({ length: models }, (_, k) => `model${k}`),
      levels,
      values,
      outcomes: outcomes.values,
      ...(features && {
        features: {
          values: features.values,
          names: features.names ?? Array.from({ length: features.columns }, (_, c) => `x${c}`),
        },
      }),
      layout: 'array',
      levelsSorted: wasSorted,
      duplicateLevels: 0,
    };
  } finally {
    matrix.close();
  }
}

/** Puts the levels of every model of every row in their sorted places. */
function reorder(values: Floats, places: Int32Array): void {
  const m = places.length;
  const row = new Float64Array(m);
  for (let start = 0; start < values.length; start += m) {
    for (let j = 0; j < m; j++) row[places[j]] = values[start + j];
    values.set(row, start);
  }
}
