import { basename } from 'node:path';
import { didYouMean, InputError } from '../../errors.js';
import { readRecords } from '../../formats/documents.js';
import { numberOf } from '../../formats/feature-table.js';
import { placeOf, type Row } from '../../formats/rows.js';
import type { LabelledSet } from './alloy-table.js';
import type { ExpertAnswer, ExpertAnswers } from './experts.js';
import { namesOfSet } from './focal-sets.js';

export interface AlloyColumns {
  /** Column of the sets; `set_name`, `set` or `alloy` where it is not named, else columns of 0 and 1 by element. */
  readonly set?: string;
  readonly label: string;
  /** `weight` where such a column is there. */
  readonly weight?: string;
}

export interface NamedSet {
  readonly set: readonly string[];
  readonly where: string;
}

const SET_COLUMNS = ['set_name', 'set', 'alloy'];
/** Columns of 0 and 1 that are no elements. */
const NO_ELEMENTS = ['length'];

async function rowsOf(path: string): Promise<{ rows: Row[]; columns: string[] }> {
  const rows: Row[] = [];
  for await (const row of readRecords([path])) rows.push(row);
  if (rows.length === 0) throw new InputError(`${path}: holds no record`);
  return { rows, columns: Object.keys(rows[0].record) };
}

const textAt = (row: Row, column: string): string => {
  const cell = row.record[column];
  return cell === null || cell === undefined ? '' : String(cell).trim();
};

function columnNamed(path: string, columns: readonly string[], name: string): string {
  const found =
    columns.find((column) => column === name) ?? columns.find((c) => c.toLowerCase() === name.toLowerCase());
  if (found === undefined) throw new InputError(`${path}: no column "${name}"${didYouMean(name, columns)}`);
  return found;
}

/** How sets are written: joined names in a column, or a column of 0 and 1 for every element. */
function setReader(
  path: string,
  rows: readonly Row[],
  columns: readonly string[],
  wanted: string | undefined,
  others: readonly string[],
): (row: Row) => string[] {
  const column =
    wanted === undefined ? SET_COLUMNS.find((name) => columns.includes(name)) : columnNamed(path, columns, wanted);
  if (column !== undefined) return (row) => namesOfSet(textAt(row, column));
  const elements = columns.filter(
    (name) =>
      !others.includes(name) &&
      !NO_ELEMENTS.includes(name) &&
      rows.every((row) => ['0', '1', '0.0', '1.0'].includes(textAt(row, name))),
  );
  if (elements.length === 0) {
    throw new InputError(
      `${path}: no column ${SET_COLUMNS.join(', ')}, and none of 0 and 1 for an element; use --set-column`,
    );
  }
  return (row) => elements.filter((name) => Number(textAt(row, name)) === 1);
}

/** @throws InputError naming file and row: a missing column, an empty label, a weight that is no number */
export async function readAlloys(path: string, wanted: AlloyColumns): Promise<LabelledSet[]> {
  const { rows, columns } = await rowsOf(path);
  const label = columnNamed(path, columns, wanted.label);
  const weight =
    wanted.weight === undefined ? columns.find((name) => name === 'weight') : columnNamed(path, columns, wanted.weight);
  const others = [label, ...(weight === undefined ? [] : [weight])];
  const setOf = setReader(path, rows, columns, wanted.set, others);
  return rows.map((row) => {
    const where = placeOf(row);
    const name = textAt(row, label);
    if (name === '') throw new InputError(`${where}: no label in column "${label}"`);
    if (weight === undefined) return { set: setOf(row), label: name, where };
    const value = numberOf(row.record[weight]);
    if (value === undefined || Number.isNaN(value)) {
      throw new InputError(`${where}: column "${weight}" holds ${JSON.stringify(row.record[weight])}, no weight`);
    }
    return { set: setOf(row), label: name, weight: value, where };
  });
}

/** Candidates: sets without labels. */
export async function readCandidates(path: string, setColumn: string | undefined): Promise<NamedSet[]> {
  const { rows, columns } = await rowsOf(path);
  const setOf = setReader(path, rows, columns, setColumn, []);
  return rows.map((row) => ({ set: setOf(row), where: placeOf(row) }));
}

/**
 * Experts' answers: columns element_1, element_2, and either Q1 and Q2 or sim and dissim; a column `expert` where a file
 * holds several, else the file's name is the expert's.
 * @throws InputError naming file and row
 */
export async function readExperts(paths: readonly string[]): Promise<ExpertAnswers[]> {
  const experts = new Map<string, ExpertAnswer[]>();
  for (const path of paths) {
    const { rows, columns } = await rowsOf(path);
    const [first, second] = ['element_1', 'element_2'].map((name) => columnNamed(path, columns, name));
    const named = columns.find((name) => name.toLowerCase() === 'expert');
    const numeric = columns.some((name) => name.toLowerCase() === 'sim');
    const [x, y] = (numeric ? ['sim', 'dissim'] : ['Q1', 'Q2']).map((name) => columnNamed(path, columns, name));
    for (const row of rows) {
      const where = placeOf(row);
      const expert = named === undefined ? basename(path).replace(/\.[^.]+$/, '') : textAt(row, named);
      const answers = experts.get(expert) ?? [];
      experts.set(expert, answers);
      const judgement = numeric
        ? { kind: 'masses' as const, similar: massAt(row, x), dissimilar: massAt(row, y) }
        : { kind: 'answers' as const, canJudge: textAt(row, x), similarity: textAt(row, y) };
      const [a, b] = [textAt(row, first), textAt(row, second)];
      if (a === '' || b === '') throw new InputError(`${where}: two elements are needed`);
      answers.push({ first: a, second: b, where, judgement });
    }
  }
  return Array.from(experts, ([name, answers]) => ({ name, answers }));
}

function massAt(row: Row, column: string): number {
  const value = numberOf(row.record[column]);
  if (value === undefined || Number.isNaN(value)) {
    throw new InputError(`${placeOf(row)}: column "${column}" holds ${JSON.stringify(row.record[column])}, no mass`);
  }
  return value;
}
