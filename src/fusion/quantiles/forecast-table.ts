import { didYouMean, InputError } from '../../errors.js';
import { readRecords } from '../../formats/documents.js';
import type { Floats } from '../../formats/feature-matrix.js';
import { numberOf } from '../../formats/feature-table.js';
import { placeOf, type Row } from '../../formats/rows.js';
import type { ForecastData, ForecastSource, TableColumns } from './forecast-data.js';
import { bytesPerForecast, growingRows } from './forecast-storage.js';
import { sameLevel, sortLevels } from './levels.js';
import { splitCode } from './splits.js';

type TableSource = Extract<ForecastSource, { kind: 'table' }>;

/** A cell as a number, NaN where it is empty. @throws InputError naming row and column */
function cellOf(row: Row, column: string): number {
  const value = numberOf(row.record[column]);
  if (value === undefined) {
    throw new InputError(
      `${placeOf(row)}: column "${column}" holds ${JSON.stringify(row.record[column])}, which is no number`,
    );
  }
  return value;
}

/** A column of forecasts in a wide table: `model@tau`. */
interface WideColumn {
  readonly name: string;
  readonly model: string;
  readonly level: number;
}

function wideColumns(names: readonly string[]): WideColumn[] {
  return names.flatMap((name) => {
    const [, model, level] = /^(.+)@([+-]?[\d.]+(?:e[+-]?\d+)?)$/i.exec(name) ?? [];
    return model === undefined ? [] : [{ name, model, level: Number(level) }];
  });
}

function requireColumns(path: string, present: readonly string[], wanted: readonly string[]): void {
  for (const name of wanted) {
    if (!present.includes(name)) throw new InputError(`${path}: no column "${name}"${didYouMean(name, present)}`);
  }
}

/** Growing per-row facts that both layouts have. */
interface RowFacts {
  readonly ids: string[];
  readonly outcomes: number[];
  readonly splits: number[];
  readonly features: number[];
  hasIds: boolean;
}

const newFacts = (): RowFacts => ({ ids: [], outcomes: [], splits: [], features: [], hasIds: true });

function addFacts(facts: RowFacts, row: Row, columns: TableColumns, id: string): void {
  facts.ids.push(id);
  facts.outcomes.push(Object.hasOwn(row.record, columns.outcome) ? cellOf(row, columns.outcome) : Number.NaN);
  if (columns.split !== undefined) {
    facts.splits.push(splitCode(row.record[columns.split], `${placeOf(row)}, column "${columns.split}"`));
  }
  for (const feature of columns.features) facts.features.push(cellOf(row, feature));
}

const dataOf = (
  facts: RowFacts,
  columns: TableColumns,
  rest: Omit<ForecastData, 'ids' | 'outcomes' | 'splits' | 'features'>,
): ForecastData => ({
  ...rest,
  ...(facts.hasIds && { ids: facts.ids }),
  outcomes: Float64Array.from(facts.outcomes),
  ...(columns.split !== undefined && { splits: Uint8Array.from(facts.splits) }),
  ...(columns.features.length > 0 && {
    features: { values: Float64Array.from(facts.features), names: columns.features },
  }),
});

/**
 * Reads a table of forecasts: long, one row a forecast (id, model, tau, q and, repeated, y, split, features), or wide,
 * one row a sample with columns `model@tau`.
 * @throws InputError naming file, row and column: a missing column, a cell that is no number, a level outside (0, 1), a
 *   sample whose facts change from row to row, a forecast given twice with different values
 */
export async function readForecastTable(source: TableSource, maxMemoryBytes: number): Promise<ForecastData> {
  const records = readRecords(
    source.paths,
    source.limit !== undefined && source.layout === 'wide' ? { limit: source.limit } : {},
  );
  const first = await records.next();
  const [path] = source.paths;
  if (first.done === true) throw new InputError(`${path}: holds no record`);
  const names = Object.keys(first.value.record);
  const wide = wideColumns(names);
  const { columns } = source;
  const layout = source.layout === 'auto' ? (wide.length > 0 ? 'wide' : 'long') : source.layout;
  const extra = [...columns.features, ...(columns.split === undefined ? [] : [columns.split])];
  const rows = async function* (): AsyncGenerator<Row, void, undefined> {
    yield first.value as Row;
    yield* records;
  };
  if (layout === 'wide') {
    if (wide.length === 0) {
      throw new InputError(
        `${path}: no column is named model@tau (${names.slice(0, 8).join(', ')}, ...); a long table needs --layout long`,
      );
    }
    requireColumns(path, names, [columns.outcome, ...extra]);
    return readWide(source, wide, rows(), names.includes(columns.id), maxMemoryBytes);
  }
  requireColumns(path, names, [columns.id, columns.model, columns.level, columns.quantile, columns.outcome, ...extra]);
  return readLong(source, rows(), maxMemoryBytes);
}

async function readWide(
  source: TableSource,
  wide: readonly WideColumn[],
  rows: AsyncIterable<Row>,
  hasIds: boolean,
  maxMemoryBytes: number,
): Promise<ForecastData> {
  const { columns, limit } = source;
  const [path] = source.paths;
  const models = [...new Set(wide.map(({ model }) => model))];
  const { levels, places, wasSorted } = sortLevels(
    wide.map(({ level }) => level),
    path,
  );
  const m = levels.length;
  const slots = Int32Array.from(wide, ({ model }, c) => models.indexOf(model) * m + places[c]);
  const taken = new Map<number, string>();
  slots.forEach((slot, c) => {
    const other = taken.get(slot);
    if (other !== undefined) {
      throw new InputError(`${path}: columns "${other}" and "${wide[c].name}" are one model at one level; drop one`);
    }
    taken.set(slot, wide[c].name);
  });
  const cells = growingRows(models.length * m, maxMemoryBytes, path);
  const facts = newFacts();
  for await (const row of rows) {
    if (limit !== undefined && facts.outcomes.length >= limit) break;
    const base = cells.add();
    const { data } = cells;
    for (let c = 0; c < wide.length; c++) data[base + slots[c]] = cellOf(row, wide[c].name);
    addFacts(facts, row, columns, hasIds ? String(row.record[columns.id]) : '');
  }
  facts.hasIds = hasIds;
  // Levels count as sorted when each model's columns stand in ascending order.
  const ascending = wide.every(({ model }, c) => c === 0 || wide[c - 1].model !== model || places[c - 1] < places[c]);
  return dataOf(facts, columns, {
    models,
    levels,
    values: cells.take(),
    layout: 'wide',
    levelsSorted: wasSorted || ascending,
    duplicateLevels: 0,
  });
}

/** Codes and values of long rows, kept until the number of levels is known. */
interface LongCells {
  row: Uint32Array;
  model: Uint16Array;
  level: Uint16Array;
  value: Float64Array;
  count: number;
}

function grow(cells: LongCells): void {
  const size = 2 * cells.value.length;
  const copy = <T extends Uint32Array | Uint16Array | Float64Array>(larger: T, from: T): T => {
    larger.set(from);
    return larger;
  };
  cells.row = copy(new Uint32Array(size), cells.row);
  cells.model = copy(new Uint16Array(size), cells.model);
  cells.level = copy(new Uint16Array(size), cells.level);
  cells.value = copy(new Float64Array(size), cells.value);
}

/** Number of a name in the order of first sight. */
function numbering<K>(): { of(name: K): number; readonly names: K[] } {
  const numbers = new Map<K, number>();
  const names: K[] = [];
  return {
    names,
    of(name) {
      let number = numbers.get(name);
      if (number === undefined) {
        number = names.length;
        numbers.set(name, number);
        names.push(name);
      }
      return number;
    },
  };
}

async function readLong(source: TableSource, rows: AsyncIterable<Row>, maxMemoryBytes: number): Promise<ForecastData> {
  const { columns } = source;
  const [path] = source.paths;
  const samples = numbering<string>();
  const models = numbering<string>();
  const given = numbering<number>();
  const facts = newFacts();
  const cells: LongCells = {
    row: new Uint32Array(1024),
    model: new Uint16Array(1024),
    level: new Uint16Array(1024),
    value: new Float64Array(1024),
    count: 0,
  };
  let previousLevel = Number.NEGATIVE_INFINITY;
  let previousKey = '';
  let ascending = true;
  for await (const row of rows) {
    const id = String(row.record[columns.id]);
    const known = samples.names.length;
    const sample = samples.of(id);
    if (source.limit !== undefined && sample >= source.limit) break;
    if (sample === known) addFacts(facts, row, columns, id);
    else checkFacts(facts, sample, row, columns, id);
    const level = cellOf(row, columns.level);
    if (!(level > 0 && level < 1)) {
      throw new InputError(`${placeOf(row)}: quantile level ${level}; levels must lie strictly between 0 and 1`);
    }
    const model = String(row.record[columns.model]);
    const key = `${id}\n${model}`;
    if (key === previousKey && level < previousLevel) ascending = false;
    previousKey = key;
    previousLevel = level;
    if (cells.count === cells.value.length) grow(cells);
    cells.row[cells.count] = sample;
    cells.model[cells.count] = models.of(model);
    cells.level[cells.count] = given.of(level);
    cells.value[cells.count++] = cellOf(row, columns.quantile);
    if (models.names.length > 65_535 || given.names.length > 65_535) {
      throw new InputError(`${path}: over 65,535 models or levels; are the columns the right ones?`);
    }
  }
  const { levels, places } = sortLevels(given.names, path);
  const { values, repeated } = scatter(
    cells,
    facts.outcomes.length,
    models.names,
    levels,
    places,
    facts.ids,
    maxMemoryBytes,
    path,
  );
  return dataOf(facts, columns, {
    models: models.names,
    levels,
    values,
    layout: 'long',
    levelsSorted: ascending,
    duplicateLevels: repeated,
  });
}

/** A sample's outcome, split and features must be the same in all of its rows. */
function checkFacts(facts: RowFacts, sample: number, row: Row, columns: TableColumns, id: string): void {
  const differs = (column: string): never => {
    throw new InputError(`${placeOf(row)}: sample "${id}" has another ${column} than before`);
  };
  const y = cellOf(row, columns.outcome);
  if (!Number.isNaN(y) && y !== facts.outcomes[sample]) {
    if (!Number.isNaN(facts.outcomes[sample])) differs(columns.outcome);
    facts.outcomes[sample] = y;
  }
  if (columns.split !== undefined) {
    const code = splitCode(row.record[columns.split], `${placeOf(row)}, column "${columns.split}"`);
    if (code !== facts.splits[sample]) differs(columns.split);
  }
  columns.features.forEach((feature, c) => {
    const value = cellOf(row, feature);
    if (!Object.is(value, facts.features[sample * columns.features.length + c])) differs(feature);
  });
}

function scatter(
  cells: LongCells,
  rows: number,
  models: readonly string[],
  levels: Float64Array,
  places: Int32Array,
  ids: readonly string[],
  maxMemoryBytes: number,
  path: string,
): { values: Floats; repeated: number } {
  const m = levels.length;
  const total = rows * models.length * m;
  const bytes = bytesPerForecast(total, maxMemoryBytes, path);
  const values: Floats = bytes === 8 ? new Float64Array(total) : new Float32Array(total);
  values.fill(Number.NaN);
  let repeated = 0;
  for (let c = 0; c < cells.count; c++) {
    const at = (cells.row[c] * models.length + cells.model[c]) * m + places[cells.level[c]];
    const value = bytes === 8 ? cells.value[c] : Math.fround(cells.value[c]);
    if (!Number.isNaN(values[at])) {
      if (!sameLevel(values[at], value)) {
        throw new InputError(
          `${path}: sample "${ids[cells.row[c]]}", model ${models[cells.model[c]]}, level ${levels[places[cells.level[c]]]}: ` +
            `two forecasts, ${values[at]} and ${cells.value[c]}`,
        );
      }
      repeated++;
    }
    values[at] = value;
  }
  return { values, repeated };
}
