import path from 'node:path';
import { InputError } from '../../../errors.js';
import { createAtomicFile } from '../../../formats/atomic.js';
import { createTable } from '../../../report/csv.js';
import { type DumpReport, dumpReport } from '../../rollouts/dump-report.js';
import { openRollouts } from '../../rollouts/open-rollouts.js';
import type { RolloutRequest, Rollouts } from '../../rollouts/types.js';
import type { MethodChoice } from '../comparison.js';
import type { InterventionContext } from '../types.js';
import { METHOD_DETAILS } from './method-details.js';
import type { DetailOutcome, DetailSink, DetailTable, DetailValue } from './types.js';

export interface DetailArguments {
  readonly rollouts: RolloutRequest;
  readonly method: MethodChoice;
  readonly seed: number;
  readonly triggerWords?: readonly string[];
  readonly specialTokens?: readonly number[];
  /** Directory that is there and takes the tables; without it rows are made and counted alone. */
  readonly directory?: string;
}

export interface DetailResult extends DetailOutcome {
  readonly dump: DumpReport;
  /** Rows of every table. */
  readonly rows: Readonly<Record<string, number>>;
}

interface Writer {
  write(values: readonly DetailValue[]): void;
  commit(): void;
  abort(): void;
}

/** What stands in a cell of a table: neither NaN nor lists. */
function cellOf(value: DetailValue): string | number | boolean | undefined {
  if (typeof value === 'object') throw new TypeError('a list in a table');
  return typeof value === 'number' && Number.isNaN(value) ? undefined : value;
}

function openWriter({ name, form, columns }: DetailTable, directory: string): Writer {
  const target = path.join(directory, `${name}.${form}`);
  if (form === 'csv') {
    const table = createTable(target, columns);
    return { write: (values) => table.write(values.map(cellOf)), commit: table.commit, abort: table.abort };
  }
  const file = createAtomicFile(target);
  return {
    write(values) {
      // What a line does not know it leaves out.
      const entries = columns.map((column, c) => [column, values[c]] as const);
      file.write(`${JSON.stringify(Object.fromEntries(entries.filter(([, value]) => value !== undefined)))}\n`);
    },
    commit: file.commit,
    abort: file.abort,
  };
}

function contextOf(rollouts: Rollouts, args: DetailArguments): InterventionContext {
  const { index, textOf, textOfToken } = rollouts;
  return {
    index,
    ...(textOf && { textOf }),
    ...(textOfToken && { textOfToken }),
    seed: args.seed,
    ...(args.triggerWords && { triggerWords: args.triggerWords }),
    ...(args.specialTokens && { specialTokens: args.specialTokens }),
  };
}

/** Details of one method on an open dump. @throws InputError for steps without valid tokens, and as the method says */
export function methodDetails(rollouts: Rollouts, args: DetailArguments, sink: DetailSink): DetailOutcome {
  const details = METHOD_DETAILS[args.method.name];
  const counted = rollouts.steps.filter((step) => step.counted > 0);
  if (counted.length === 0) throw new InputError('the dump has no valid tokens: every position is masked out');
  const empty = rollouts.steps.length - counted.length;
  const outcome = details.run(
    empty === 0 ? rollouts : { ...rollouts, steps: counted },
    args.method.settings,
    contextOf(rollouts, args),
    sink,
  );
  if (empty === 0) return outcome;
  const warning = `${empty} steps have no valid tokens and are left out: every position is masked out`;
  return { ...outcome, warnings: [warning, ...outcome.warnings] };
}

/** Reads a dump and writes what one method says of it, row by row. */
export async function describeMethod(args: DetailArguments): Promise<DetailResult> {
  const rollouts = await openRollouts(args.rollouts);
  const { tables } = METHOD_DETAILS[args.method.name];
  const { directory } = args;
  const writers = new Map<string, Writer>();
  const rows: Record<string, number> = Object.fromEntries(tables.map(({ name }) => [name, 0]));
  try {
    if (directory !== undefined) for (const table of tables) writers.set(table.name, openWriter(table, directory));
    const outcome = methodDetails(rollouts, args, {
      row(table, values) {
        rows[table]++;
        writers.get(table)?.write(values);
      },
    });
    for (const writer of writers.values()) writer.commit();
    return { ...outcome, dump: dumpReport(rollouts), rows };
  } catch (error) {
    for (const writer of writers.values()) writer.abort();
    throw error;
  } finally {
    rollouts.close();
  }
}

export const DESCRIBE_METHOD = { module: import.meta.url, job: describeMethod } as const;
