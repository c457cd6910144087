import { didYouMean, InputError } from '../../errors.js';
import { numberOf } from '../../formats/feature-table.js';
import { placeOf, type Row } from '../../formats/rows.js';
import { checkGroups } from './exponentiated-gradient.js';
import type { Sweep } from './types.js';

/** A round of logged losses. */
export interface LoggedRound {
  readonly round: number;
  readonly start: Float64Array;
  readonly probes: readonly { readonly group: number; readonly losses: Float64Array }[];
}

/** Logged losses of a run. */
export interface LossLog {
  readonly groups: readonly string[];
  readonly rounds: readonly LoggedRound[];
}

type Rows = AsyncIterable<Row>;

/** @throws InputError for a row without the column */
function textOf(row: Row, column: string): string {
  const cell = row.record[column];
  if (cell === undefined) {
    const names = Object.keys(row.record);
    throw new InputError(`${placeOf(row)}: there is no column ${column}${didYouMean(column, names)}`);
  }
  return cell === null ? '' : String(cell).trim();
}

/** @throws InputError for a cell that is no finite number */
function finiteOf(row: Row, column: string, what: string): number {
  textOf(row, column);
  const value = numberOf(row.record[column]);
  if (value === undefined || !Number.isFinite(value)) {
    throw new InputError(`${placeOf(row)}: ${what} is ${String(row.record[column]) || 'empty'}, not a finite number`);
  }
  return value;
}

/** Losses of one evaluation, as its rows come. */
interface Evaluation {
  readonly place: string;
  readonly losses: Map<string, number>;
  probed?: string;
}

const vectorOf = ({ place, losses }: Evaluation, groups: readonly string[], what: string): Float64Array =>
  Float64Array.from(groups, (name) => {
    const loss = losses.get(name);
    if (loss === undefined) throw new InputError(`${place}: ${what} holds no loss of the group ${name}`);
    return loss;
  });

/**
 * Reads rows (round, probe, group, val_loss): `probe` is `start` for the losses before a round, else the number of the probe within
 * it, from 0. `probe_group` names the group that was probed; without it probes take turns in the order of the groups. Without a column
 * `probe` every row is one of `start`.
 * @throws InputError with the row for losses that are no numbers, rows that stand twice, groups that an evaluation lacks
 */
export async function readLossLog(rows: Rows): Promise<LossLog> {
  const rounds = new Map<number, Map<number, Evaluation>>();
  const groups: string[] = [];
  for await (const row of rows) {
    const round = finiteOf(row, 'round', 'the round');
    const group = textOf(row, 'group');
    const probeText = 'probe' in row.record ? textOf(row, 'probe') : 'start';
    const probe = probeText === 'start' ? -1 : Number(probeText);
    if (probeText === '' || !Number.isInteger(probe) || probe < -1) {
      throw new InputError(`${placeOf(row)}: the probe is "${probeText}"; a number from 0 on, or start, is needed`);
    }
    if (!groups.includes(group)) groups.push(group);
    const ofRound = rounds.get(round) ?? new Map<number, Evaluation>();
    rounds.set(round, ofRound);
    const evaluation = ofRound.get(probe) ?? { place: placeOf(row), losses: new Map<string, number>() };
    ofRound.set(probe, evaluation);
    if (evaluation.losses.has(group)) {
      throw new InputError(`${placeOf(row)}: round ${round}, probe ${probeText} has two losses of the group ${group}`);
    }
    evaluation.losses.set(group, finiteOf(row, 'val_loss', `the loss of ${group}`));
    const probed = 'probe_group' in row.record ? textOf(row, 'probe_group') : '';
    if (probe >= 0 && probed !== '') {
      if (evaluation.probed !== undefined && evaluation.probed !== probed) {
        throw new InputError(`${placeOf(row)}: one probe is of ${evaluation.probed} and of ${probed}`);
      }
      evaluation.probed = probed;
    }
  }
  if (groups.length === 0) throw new InputError('the log holds no losses');
  checkGroups(groups, 'the log');
  return { groups, rounds: [...rounds].sort(([a], [b]) => a - b).map(([round, of]) => roundOf(round, of, groups)) };
}

function roundOf(round: number, evaluations: ReadonlyMap<number, Evaluation>, groups: readonly string[]): LoggedRound {
  const first = evaluations.get(-1);
  if (first === undefined) {
    const [any] = evaluations.values();
    throw new InputError(`${any.place}: round ${round} has no losses from its start (probe "start")`);
  }
  const probes = [...evaluations].filter(([probe]) => probe >= 0).sort(([a], [b]) => a - b);
  return {
    round,
    start: vectorOf(first, groups, `round ${round}, start`),
    probes: probes.map(([probe, evaluation], at) => {
      if (probe !== at)
        throw new InputError(`${evaluation.place}: round ${round} has probe ${probe} but no probe ${at}`);
      const { probed } = evaluation;
      const group = probed === undefined ? at % groups.length : groups.indexOf(probed);
      if (group < 0) throw new InputError(`${evaluation.place}: the probed group ${probed} has no losses`);
      return { group, losses: vectorOf(evaluation, groups, `round ${round}, probe ${probe}`) };
    }),
  };
}

/**
 * One number a group from rows (group, `column`).
 * @throws InputError with the row for cells that are no numbers, groups that are unknown, missing, or stand twice
 */
export async function readGroupNumbers(rows: Rows, column: string, groups: readonly string[]): Promise<Float64Array> {
  const values = new Float64Array(groups.length).fill(Number.NaN);
  for await (const row of rows) {
    const group = textOf(row, 'group');
    const at = groups.indexOf(group);
    if (at < 0) {
      throw new InputError(
        `${placeOf(row)}: there is no group ${group}${didYouMean(group, groups)}; known: ${groups.join(', ')}`,
      );
    }
    if (!Number.isNaN(values[at])) throw new InputError(`${placeOf(row)}: the group ${group} stands twice`);
    values[at] = finiteOf(row, column, `the ${column} of ${group}`);
  }
  groups.forEach((name, at) => {
    if (Number.isNaN(values[at])) throw new InputError(`nothing is said of the group ${name}`);
  });
  return values;
}

/** Inner products and norms of a round, from rows (round, group, inner_product, norm). */
export async function readAlignments(rows: Rows): Promise<{
  readonly groups: readonly string[];
  readonly rounds: readonly { inner: Float64Array; norms: Float64Array }[];
}> {
  const groups: string[] = [];
  const rounds = new Map<number, { readonly place: string; readonly of: Map<string, readonly [number, number]> }>();
  for await (const row of rows) {
    const round = finiteOf(row, 'round', 'the round');
    const group = textOf(row, 'group');
    if (!groups.includes(group)) groups.push(group);
    const held = rounds.get(round) ?? { place: placeOf(row), of: new Map<string, readonly [number, number]>() };
    rounds.set(round, held);
    if (held.of.has(group)) throw new InputError(`${placeOf(row)}: round ${round} has two rows of the group ${group}`);
    const norm = finiteOf(row, 'norm', `the norm of ${group}`);
    if (norm < 0) throw new InputError(`${placeOf(row)}: the norm of ${group} is ${norm}`);
    held.of.set(group, [finiteOf(row, 'inner_product', `the inner product of ${group}`), norm]);
  }
  checkGroups(groups, 'the gradients');
  const ordered = [...rounds].sort(([a], [b]) => a - b);
  return {
    groups,
    rounds: ordered.map(([round, { place, of }]) => {
      const part = (index: 0 | 1): Float64Array =>
        Float64Array.from(groups, (name) => {
          const pair = of.get(name);
          if (!pair) throw new InputError(`${place}: round ${round} says nothing of the group ${name}`);
          return pair[index];
        });
      return { inner: part(0), norms: part(1) };
    }),
  };
}

/**
 * A matrix [k, k] from rows that begin with a name: columns are groups, and so are the names in the first column.
 * @throws InputError for names that are no groups, missing rows or cells that are no numbers
 */
export async function readGroupMatrix(rows: Rows, groups: readonly string[]): Promise<Float64Array> {
  const k = groups.length;
  const matrix = new Float64Array(k * k);
  const seen = new Set<string>();
  for await (const row of rows) {
    const [first] = Object.keys(row.record);
    const name = textOf(row, first);
    const at = groups.indexOf(name);
    if (at < 0)
      throw new InputError(
        `${placeOf(row)}: there is no group ${name}${didYouMean(name, groups)}; known: ${groups.join(', ')}`,
      );
    if (seen.has(name)) throw new InputError(`${placeOf(row)}: the group ${name} stands twice`);
    seen.add(name);
    groups.forEach((column, j) => {
      matrix[at * k + j] = finiteOf(row, column, `row ${name}, column ${column}`);
    });
  }
  const missing = groups.find((name) => !seen.has(name));
  if (missing !== undefined) throw new InputError(`the matrix has no row of the group ${missing}`);
  return matrix;
}

const SHARE = /^p[_:](.+)$/;
const LOSS = /^loss[_:](.+)$/;

/**
 * A sweep: one row a run, proportions in the columns `p_<group>`, losses in `loss_<group>`.
 * @throws InputError with the row for cells that are no numbers, and where no such columns are there
 */
export async function readSweep(rows: Rows): Promise<Sweep> {
  let sources: string[] | undefined;
  let evaluated: string[] = [];
  const mixtures: number[] = [];
  const losses: number[] = [];
  for await (const row of rows) {
    if (sources === undefined) {
      const names = Object.keys(row.record);
      const matching = (pattern: RegExp): string[] => names.flatMap((name) => pattern.exec(name)?.[1] ?? []);
      sources = matching(SHARE);
      evaluated = matching(LOSS);
      if (sources.length === 0 || evaluated.length === 0) {
        throw new InputError(
          `${placeOf(row)}: a sweep needs columns p_<group> with proportions and loss_<group> with losses; it has ${names.join(', ')}`,
        );
      }
    }
    const cell = (kind: 'p' | 'loss', name: string, what: string): number => {
      const column = `${kind}_${name}` in row.record ? `${kind}_${name}` : `${kind}:${name}`;
      return finiteOf(row, column, what);
    };
    let sum = 0;
    for (const name of sources) {
      const share = cell('p', name, `the proportion of ${name}`);
      if (!(share >= 0)) throw new InputError(`${placeOf(row)}: the proportion of ${name} is ${share}`);
      mixtures.push(share);
      sum += share;
    }
    if (Math.abs(sum - 1) > 1e-3) throw new InputError(`${placeOf(row)}: the proportions sum to ${sum}, not to 1`);
    for (const name of evaluated) losses.push(cell('loss', name, `the loss of ${name}`));
  }
  if (sources === undefined) throw new InputError('the sweep holds no run');
  checkGroups(sources, 'the sweep');
  return {
    count: mixtures.length / sources.length,
    sources,
    evaluated,
    mixtures: Float64Array.from(mixtures),
    losses: Float64Array.from(losses),
  };
}
