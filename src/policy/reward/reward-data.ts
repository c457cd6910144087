import { didYouMean, InputError } from '../../errors.js';
import { numberOf } from '../../formats/feature-table.js';
import { placeOf, type Row } from '../../formats/rows.js';

/** Columns of numbers of a table, read whole. */
export interface NumberTable {
  readonly rows: number;
  readonly columns: ReadonlyMap<string, Float64Array>;
}

/**
 * Named columns of a table.
 * @param optional columns that are taken where the table has them
 * @throws InputError naming the row: a missing column, a cell that is no number or is empty
 */
export async function readNumbers(
  rows: AsyncIterable<Row>,
  names: readonly string[],
  flag: string,
  optional: readonly string[] = [],
): Promise<NumberTable> {
  const values = new Map<string, number[]>(names.map((name) => [name, []]));
  let count = 0;
  for await (const row of rows) {
    const present = Object.keys(row.record);
    if (count === 0) for (const name of optional) if (present.includes(name)) values.set(name, []);
    for (const [name, column] of values) {
      if (!Object.hasOwn(row.record, name)) {
        throw new InputError(
          `${placeOf(row)}: no column "${name}" (${flag})${didYouMean(name, present)}; its columns: ${present.join(', ')}`,
        );
      }
      const value = numberOf(row.record[name]);
      if (value === undefined || !Number.isFinite(value)) {
        throw new InputError(
          `${placeOf(row)}: column "${name}" holds ${JSON.stringify(row.record[name]) ?? 'nothing'}, a finite number is needed`,
        );
      }
      column.push(value);
    }
    count++;
  }
  return { rows: count, columns: new Map([...values].map(([name, column]) => [name, Float64Array.from(column)])) };
}

/** Columns beside each other, [rows, names] row-major. */
export function joinColumns({ rows, columns }: NumberTable, names: readonly string[]): Float64Array {
  const joined = new Float64Array(rows * names.length);
  names.forEach((name, i) => {
    columns.get(name)?.forEach((value, r) => {
      joined[r * names.length + i] = value;
    });
  });
  return joined;
}
