import { InputError } from '../errors.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { configureKernels } from '../kernels/native.js';
import { createRandom } from '../random.js';
import { isNeighbourEstimator } from './continuous-analysis.js';
import { columnLength } from './data-columns.js';
import { entropyEstimator } from './entropy-estimators.js';
import type { AnalysisArguments, AnalysisResult, Bench, MeasureResult, VariableResult } from './measure-bench.js';
import { checkBlock, segmentsOf } from './row-orders.js';
import { type SerialTest, serialNumbers, serialSymbols } from './serial-dependence.js';
import { conditionalOf, entropyOf, pairOf } from './standard-measures.js';
import { compactCodes, symbolsOf } from './symbols.js';
import { transferOf } from './transfer-measures.js';
import { makeVariable, type Variable } from './variables.js';

function serialOf(bench: Bench, variable: Variable): SerialTest | null {
  if (bench.args.counts !== null) return null;
  const { segments } = bench;
  if (variable.kind === 'symbols') {
    return serialSymbols(variable.symbols.codes, variable.symbols.size, segments) ?? null;
  }
  const { data, rows, columns } = variable.points;
  return (
    serialNumbers(
      Float64Array.from({ length: rows }, (_, i) => data[i * columns]),
      segments,
    ) ?? null
  );
}

/** Below this the rows are taken to depend on the rows before them. */
const SERIAL_LEVEL = 0.01;

function warnOfSerialRows(bench: Bench, variables: readonly VariableResult[]): void {
  const { settings, mode } = bench.args;
  if (mode === 'transfer' || settings.block !== null || settings.exchange !== 'rows') return;
  if (bench.variables.length === 1 && settings.bootstrap === 0) return;
  const serial = variables.filter((variable) => variable.serial !== null && variable.serial.pValue < SERIAL_LEVEL);
  if (serial.length === 0) return;
  const names = serial.map(({ name, serial: found }) => `${name} (z = ${found?.z.toPrecision(3)})`).join(', ');
  bench.warnings.push(
    `rows depend on the row before them: ${names}; plain permutation and bootstrap take rows as exchangeable, ` +
      'use --null shift, or --block with a length beyond the dependence (as many rows as the memory lasts)',
  );
}

/** @throws InputError for an estimator that no measure of these variables has a use for */
function checkEstimator(name: string | null, variables: readonly Variable[]): void {
  if (name === null) return;
  const ofPoints = isNeighbourEstimator(name);
  if (!ofPoints) entropyEstimator(name);
  if (variables.some(({ kind }) => (kind === 'numbers') === ofPoints)) return;
  throw new InputError(
    ofPoints
      ? `--estimator ${name} is for continuous variables, and all of these are symbols; --as numbers takes whole numbers as continuous`
      : `--estimator ${name} is for counts of symbols, and all of these variables are continuous; give --bins, or --as symbols`,
  );
}

function prepare(args: AnalysisArguments, tick: () => void): Bench {
  const { settings, variables, counts, group } = args;
  const rows = columnLength(variables[0].columns[0]);
  const least = 2;
  if (counts === null && rows < least) {
    throw new InputError(`the input has ${rows} rows; a measure of dependence needs at least ${least}`);
  }
  const random = createRandom(settings.seed).fork(0x6a697474);
  const made = variables.map(({ name, columns }, v) =>
    makeVariable(name, columns, counts === null ? settings : { ...settings, as: 'symbols' }, random.fork(v)),
  );
  const groups =
    group === null
      ? undefined
      : group.kind === 'text'
        ? compactCodes(group.codes, group.names.length)
        : symbolsOf(group.values);
  const segments = segmentsOf(rows, groups);
  if (settings.block !== null) checkBlock(segments, settings.block);
  checkEstimator(settings.estimator, made);
  return { args, variables: made, segments, warnings: [], next: 0, tick };
}

/** All pairs, with tests and without intervals and curves. */
function pairsOf(bench: Bench): MeasureResult[] {
  const results: MeasureResult[] = [];
  for (let a = 0; a < bench.variables.length; a++) {
    for (let b = a + 1; b < bench.variables.length; b++) results.push(pairOf(bench, a, b));
  }
  return results;
}

function measuresOf(bench: Bench): MeasureResult[] {
  if (bench.args.mode === 'pairs') return pairsOf(bench);
  if (bench.args.mode === 'transfer') return transferOf(bench);
  const entropies = bench.variables.map((_, place) => entropyOf(bench, place));
  if (bench.variables.length === 1) return entropies;
  const pair = pairOf(bench, 0, 1);
  return bench.variables.length === 2 ? [...entropies, pair] : [...entropies, pair, ...conditionalOf(bench)];
}

/**
 * The job of the view: all measures of the variables, in nats.
 * @param progress is told the number of replicates done
 * @throws InputError for data that a measure cannot be taken of
 */
export function analyseDependence(args: AnalysisArguments, progress: (done: number) => void): AnalysisResult {
  configureKernels({ threads: args.threads });
  let done = 0;
  const bench = prepare(args, () => {
    done++;
    if (done % 50 === 0) progress(done);
  });
  const variables = bench.variables.map(
    (variable): VariableResult => ({
      name: variable.name,
      columns: variable.columns,
      kind: variable.kind,
      symbols: variable.kind === 'symbols' ? variable.symbols.size : null,
      bins: variable.kind === 'symbols' ? variable.bins : null,
      serial: serialOf(bench, variable),
    }),
  );
  warnOfSerialRows(bench, variables);
  const measures = measuresOf(bench);
  return {
    rows: bench.segments.rows.length,
    segments: bench.segments.starts.length - 1,
    variables,
    measures,
    warnings: bench.warnings,
  };
}

export const ANALYSE_DEPENDENCE: ComputeReference<AnalysisArguments, AnalysisResult> = {
  module: import.meta.url,
  job: analyseDependence as ComputeReference<AnalysisArguments, AnalysisResult>['job'],
};
