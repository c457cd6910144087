import { readFile } from 'node:fs/promises';
import { didYouMean, InputError } from '../../errors.js';
import { readRecords } from '../../formats/documents.js';
import { numberOf } from '../../formats/feature-table.js';
import { placeOf, type Row } from '../../formats/rows.js';
import { createFrame, type Frame, namesOfSet } from './focal-sets.js';
import type { MassEntry } from './mass-function.js';

export interface MassColumns {
  readonly source: string;
  readonly set: string;
  readonly mass: string;
  /** Column of the case; `case` or `id` where such a column is there. */
  readonly case?: string;
}

/** Word that stands for the whole frame, also for elements that other rows name. */
export const WHOLE = '*';

/** One question, and what every source says of it. */
export interface MassCase {
  readonly name: string;
  readonly sources: readonly { readonly name: string; readonly entries: readonly MassEntry[] }[];
}

export interface MassTable {
  readonly frame: Frame;
  readonly cases: readonly MassCase[];
}

/** Cases and sources in the order of the file. */
type Gathered = Map<string, Map<string, MassEntry[]>>;

function add(gathered: Gathered, name: string, source: string, entry: MassEntry): void {
  let sources = gathered.get(name);
  if (sources === undefined) {
    sources = new Map();
    gathered.set(name, sources);
  }
  const entries = sources.get(source);
  if (entries === undefined) sources.set(source, [entry]);
  else entries.push(entry);
}

function textOf(row: Row, column: string): string {
  const cell = row.record[column];
  return cell === null || cell === undefined ? '' : String(cell).trim();
}

async function gatherRows(paths: readonly string[], columns: MassColumns, gathered: Gathered): Promise<void> {
  let caseColumn: string | undefined;
  let checked = false;
  for await (const row of readRecords(paths)) {
    if (!checked) {
      const present = Object.keys(row.record);
      for (const name of [columns.source, columns.set, columns.mass, ...(columns.case ? [columns.case] : [])]) {
        if (!present.includes(name))
          throw new InputError(`${row.source}: no column "${name}"${didYouMean(name, present)}`);
      }
      caseColumn = columns.case ?? ['case', 'id'].find((name) => present.includes(name));
      checked = true;
    }
    const where = placeOf(row);
    const mass = numberOf(row.record[columns.mass]);
    if (mass === undefined || Number.isNaN(mass)) {
      throw new InputError(
        `${where}: column "${columns.mass}" holds ${JSON.stringify(row.record[columns.mass])}, no mass`,
      );
    }
    const source = textOf(row, columns.source);
    if (source === '') throw new InputError(`${where}: a row without a source`);
    const name = caseColumn === undefined ? '' : textOf(row, caseColumn);
    add(gathered, name, source, { set: textOf(row, columns.set), mass, where });
  }
}

type JsonObject = { readonly [key: string]: unknown };
const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** `{"case": ..., "frame": [...], "sources": {"name": {"A|C": 0.3}}}`, or a list of such. */
function gatherJson(path: string, text: string, gathered: Gathered, frame: Set<string>): void {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new InputError(`${path}: not readable as JSON: ${(error as Error).message}`);
  }
  const all = Array.isArray(parsed) ? parsed : [parsed];
  all.forEach((given: unknown, i) => {
    const where = all.length > 1 ? `${path}, case ${i + 1}` : path;
    if (!isObject(given) || !isObject(given.sources)) {
      throw new InputError(`${where}: an object with "sources": {name: {set: mass}} is needed`);
    }
    const name = given.case === undefined ? (all.length > 1 ? String(i + 1) : '') : String(given.case);
    if (Array.isArray(given.frame)) for (const element of given.frame) frame.add(String(element));
    for (const [source, masses] of Object.entries(given.sources)) {
      if (!isObject(masses)) throw new InputError(`${where}: source ${source} is no object of masses`);
      for (const [set, mass] of Object.entries(masses)) {
        if (typeof mass !== 'number')
          throw new InputError(`${where}: mass of "${set}" of source ${source} is no number`);
        add(gathered, name, source, { set, mass, where });
      }
    }
  });
}

const wholeName = (frame: Frame): string => frame.elements.join('|');

/**
 * Reads mass functions: a table with a row a focal set (source, set, mass, and a case where many fusions run at once), or
 * JSON. All cases share one frame: the elements that are named anywhere, and those of `frame`.
 * @throws InputError naming file and row
 */
export async function readMassTable(
  paths: readonly string[],
  columns: MassColumns,
  frame: readonly string[],
): Promise<MassTable> {
  const gathered: Gathered = new Map();
  const names = new Set(frame);
  const tables = paths.filter((path) => !path.endsWith('.json'));
  for (const path of paths) {
    if (!tables.includes(path)) gatherJson(path, await readFile(path, 'utf8'), gathered, names);
  }
  if (tables.length > 0) await gatherRows(tables, columns, gathered);
  if (gathered.size === 0) throw new InputError(`${paths.join(', ')}: no masses`);
  for (const sources of gathered.values()) {
    for (const entries of sources.values()) {
      for (const { set } of entries) if (set !== WHOLE) for (const name of namesOfSet(set)) names.add(name);
    }
  }
  const whole = createFrame(names);
  return {
    frame: whole,
    cases: Array.from(gathered, ([name, sources]) => ({
      name,
      sources: Array.from(sources, ([source, entries]) => ({
        name: source,
        entries: entries.map((entry) => (entry.set === WHOLE ? { ...entry, set: wholeName(whole) } : entry)),
      })),
    })),
  };
}
