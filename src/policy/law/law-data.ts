import { didYouMean, InputError } from '../../errors.js';
import { numberOf } from '../../formats/feature-table.js';
import { placeOf, type Row } from '../../formats/rows.js';

/** One run by step: entropies that its training logged. NaN where a row has none. */
export interface EntropySteps {
  readonly run: string;
  /** Parameters of the model, where they are known. */
  readonly params?: number;
  readonly step: Float64Array;
  /** Mean token entropy of the step, nats. */
  readonly entropy: Float64Array;
  /** Performance that stands in the same table; NaN where a row has none. */
  readonly performance?: Float64Array;
  /** Mean covariance of log-probability and advantage, where the table has it. */
  readonly covariance?: Float64Array;
}

/** Which columns of a table of steps are read. */
export interface StepColumns {
  readonly step: string;
  /** Names in the order of preference. */
  readonly entropy: readonly string[];
  /** Absent: performance comes from another file. */
  readonly performance?: string;
  readonly covariance: readonly string[];
  /** Column that names the run of a row. */
  readonly run?: string;
  /** Column with the number of parameters. */
  readonly params?: string;
}

/** Columns that are looked for when none is named: of a plain table, and of the table of `dynamics`. */
export const ENTROPY_COLUMNS = ['entropy', 'entropy_nats', 'entropy_token_mean', 'entropy_token_mean_nats'] as const;
export const COVARIANCE_COLUMNS = ['cov_mean', 'cov_mean_nats', 'covariance', 'covariance_nats'] as const;

/** A cell as a number, NaN where it is empty. @throws InputError for text */
function cellOf(row: Row, column: string): number {
  const value = numberOf(row.record[column]);
  if (value !== undefined) return value;
  throw new InputError(
    `${placeOf(row)}: column "${column}" holds ${JSON.stringify(row.record[column])}, a number is needed`,
  );
}

/** The step of a row. @throws InputError where it is missing */
function stepOf(row: Row, column: string): number {
  const step = cellOf(row, column);
  if (Number.isFinite(step)) return step;
  throw new InputError(`${placeOf(row)}: column "${column}" holds no step`);
}

function requireColumn(row: Row, column: string, flag: string): void {
  const names = Object.keys(row.record);
  if (names.includes(column)) return;
  const near = didYouMean(column, names);
  throw new InputError(
    `${placeOf(row)}: no column "${column}"${near}; its columns: ${names.join(', ')}; name another with ${flag}`,
  );
}

interface RunRows {
  params?: number;
  readonly step: number[];
  readonly entropy: number[];
  readonly performance: number[];
  readonly covariance: number[];
  readonly places: Map<number, string>;
}

/**
 * Tables of steps as runs: one a value of the run column, else one a file. Rows are put in the order of their steps.
 * @throws InputError naming the row: a missing column, a cell that is no number, a step that a run has twice
 */
export async function readSteps(rows: AsyncIterable<Row>, columns: StepColumns): Promise<EntropySteps[]> {
  const runs = new Map<string, RunRows>();
  const chosen = new Map<string, { entropy: string; covariance?: string }>();
  for await (const row of rows) {
    let own = chosen.get(row.source);
    if (own === undefined) {
      own = chooseColumns(row, columns);
      chosen.set(row.source, own);
    }
    const name = columns.run === undefined ? row.source : String(row.record[columns.run]);
    let run = runs.get(name);
    if (run === undefined) {
      run = { step: [], entropy: [], performance: [], covariance: [], places: new Map() };
      runs.set(name, run);
    }
    const step = stepOf(row, columns.step);
    const before = run.places.get(step);
    if (before !== undefined) {
      const way = columns.run === undefined ? '; several runs in one table need --run-column' : '';
      throw new InputError(`${placeOf(row)}: run "${name}" has step ${step} twice (the other: ${before})${way}`);
    }
    run.places.set(step, placeOf(row));
    run.step.push(step);
    run.entropy.push(cellOf(row, own.entropy));
    run.performance.push(columns.performance === undefined ? Number.NaN : cellOf(row, columns.performance));
    run.covariance.push(own.covariance === undefined ? Number.NaN : cellOf(row, own.covariance));
    if (columns.params !== undefined) addParams(run, name, row, columns.params);
  }
  return [...runs].map(([name, run]) => inOrder(name, run, columns.performance !== undefined));
}

function addParams(run: RunRows, name: string, row: Row, column: string): void {
  const params = cellOf(row, column);
  if (!(params > 0)) throw new InputError(`${placeOf(row)}: column "${column}" holds no number of parameters`);
  if (run.params !== undefined && run.params !== params) {
    throw new InputError(`${placeOf(row)}: run "${name}" has ${params} parameters here and ${run.params} before`);
  }
  run.params = params;
}

function chooseColumns(row: Row, columns: StepColumns): { entropy: string; covariance?: string } {
  requireColumn(row, columns.step, '--step-column');
  const has = (name: string): boolean => Object.hasOwn(row.record, name);
  const entropy = columns.entropy.find(has);
  if (entropy === undefined) requireColumn(row, columns.entropy[0], '--entropy-column');
  if (columns.performance !== undefined) {
    requireColumn(row, columns.performance, '--performance-column, or a file of evaluations with --evaluations');
  }
  if (columns.run !== undefined) requireColumn(row, columns.run, '--run-column');
  if (columns.params !== undefined) requireColumn(row, columns.params, '--params-column');
  const covariance = columns.covariance.find(has);
  return { entropy: entropy ?? columns.entropy[0], ...(covariance !== undefined && { covariance }) };
}

function inOrder(run: string, rows: RunRows, performance: boolean): EntropySteps {
  const order = Array.from(rows.step.keys()).sort((a, b) => rows.step[a] - rows.step[b]);
  const sorted = (values: readonly number[]): Float64Array => Float64Array.from(order, (i) => values[i]);
  return {
    run,
    ...(rows.params !== undefined && { params: rows.params }),
    step: sorted(rows.step),
    entropy: sorted(rows.entropy),
    ...(performance && { performance: sorted(rows.performance) }),
    ...(rows.covariance.some((value) => !Number.isNaN(value)) && { covariance: sorted(rows.covariance) }),
  };
}

/** Scores of evaluations by run and step; the run is `''` where the file has no column of runs. */
export type Evaluations = ReadonlyMap<string, ReadonlyMap<number, number>>;

/**
 * A file of evaluations: one score a step (and run).
 * @throws InputError naming the row: a missing column, a cell that is no number, a step that is there twice
 */
export async function readEvaluations(
  rows: AsyncIterable<Row>,
  columns: { readonly step: string; readonly score: string; readonly run?: string },
): Promise<Evaluations> {
  const runs = new Map<string, Map<number, number>>();
  const checked = new Set<string>();
  for await (const row of rows) {
    if (!checked.has(row.source)) {
      requireColumn(row, columns.step, '--step-column');
      requireColumn(row, columns.score, '--score-column');
      if (columns.run !== undefined) requireColumn(row, columns.run, '--run-column');
      checked.add(row.source);
    }
    const name = columns.run === undefined ? '' : String(row.record[columns.run]);
    const scores = runs.get(name) ?? new Map<number, number>();
    runs.set(name, scores);
    const step = stepOf(row, columns.step);
    if (scores.has(step)) {
      throw new InputError(
        `${placeOf(row)}: step ${step} is evaluated twice; keep one row a step, for instance their mean`,
      );
    }
    scores.set(step, cellOf(row, columns.score));
  }
  return runs;
}

/** The points of a run that have both entropy and performance, and the steps that have one of them alone. */
export interface JoinedRun {
  readonly run: string;
  readonly params?: number;
  readonly step: Float64Array;
  readonly entropy: Float64Array;
  readonly performance: Float64Array;
  readonly entropyOnly: readonly number[];
  readonly evaluationOnly: readonly number[];
  /** The whole run, for curves. */
  readonly steps: EntropySteps;
}

/**
 * Joins a run with its evaluations on equal steps; nothing is interpolated. Without evaluations the table's own performance is
 * used, and rows without it count as not evaluated.
 * @throws InputError where no step has both
 */
export function joinRun(steps: EntropySteps, scores?: ReadonlyMap<number, number>): JoinedRun {
  const taken: number[] = [];
  const performance: number[] = [];
  const entropyOnly: number[] = [];
  const evaluationOnly: number[] = [];
  const seen = new Set<number>();
  steps.step.forEach((step, i) => {
    const score = scores === undefined ? (steps.performance?.[i] ?? Number.NaN) : (scores.get(step) ?? Number.NaN);
    seen.add(step);
    if (Number.isFinite(steps.entropy[i]) && Number.isFinite(score)) {
      taken.push(i);
      performance.push(score);
    } else if (Number.isFinite(steps.entropy[i])) entropyOnly.push(step);
    else if (Number.isFinite(score)) evaluationOnly.push(step);
  });
  for (const [step, score] of scores ?? []) if (!seen.has(step) && Number.isFinite(score)) evaluationOnly.push(step);
  if (taken.length === 0) {
    const [a, b] = [steps.step[0], [...(scores?.keys() ?? [])][0]];
    throw new InputError(
      `run "${steps.run}": no step has both an entropy and a performance` +
        (scores === undefined ? '' : ` (entropies begin at step ${a}, evaluations at step ${b ?? 'none'})`),
    );
  }
  return {
    run: steps.run,
    ...(steps.params !== undefined && { params: steps.params }),
    step: Float64Array.from(taken, (i) => steps.step[i]),
    entropy: Float64Array.from(taken, (i) => steps.entropy[i]),
    performance: Float64Array.from(performance),
    entropyOnly,
    evaluationOnly: evaluationOnly.sort((a, b) => a - b),
    steps,
  };
}
