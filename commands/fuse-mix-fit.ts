import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { readRecords } from '../src/formats/documents.js';
import type { FitArguments } from '../src/fusion/mixing/fit-job.js';
import {
  type ComparedMatrix,
  FIT_COLUMNS,
  FIT_SCHEMA,
  type FitResult,
  fitBody,
  fitFigure,
  fitRows,
} from '../src/fusion/mixing/law-report.js';
import { readGroupMatrix, readSweep } from '../src/fusion/mixing/loss-log.js';
import { readJsonInput } from '../src/fusion/mixing/report-matrix.js';
import type { Sweep } from '../src/fusion/mixing/types.js';
import { type AnalysisContext, runAnalysis } from './analysis-run.js';
import { parseInteger } from './edge-values.js';
import { type MixShared, parseShares } from './fuse-mix-options.js';
import { requireOption } from './shared-options.js';

/** Own options of the form that fits laws, as commander gives them. */
export interface FitOptions {
  readonly fit?: string;
  readonly starts?: string;
  readonly startLosses?: string;
  readonly compareMatrix?: string;
  readonly leaveOneOut?: boolean;
}

/** Fewest starts: with fewer, minima are missed. */
const FEWEST_STARTS = 20;

/** Declares them. */
export function addFitOptions(command: Command): Command {
  return command
    .option('--fit <file>', 'a sweep: one row a run, columns p_<group> and loss_<group>')
    .option('--starts <n>', 'starts of the search of a law, 20 or more (default 32)')
    .option('--start-losses <a=x,b=y>', 'losses before the runs, all of which began with the same weights')
    .option('--compare-matrix <file>', "a method's A: a report of fuse mix, or a table, row = evaluated group")
    .option('--no-leave-one-out', 'do not refit the laws without each run');
}

/** Fits mixing laws to a sweep: from the options to the exit code. */
export function fitMix(options: MixShared, own: FitOptions): Promise<number> {
  const path = requireOption(own.fit, '--fit', 'a sweep of runs');
  const starts = own.starts === undefined ? 32 : parseInteger('--starts', own.starts, FEWEST_STARTS);
  const { compareMatrix } = own;
  const read = async ({ ledger }: AnalysisContext): Promise<Sweep> => readSweep(readRecords([path], { ledger }));
  return runAnalysis(
    {
      name: FIT_SCHEMA,
      command: 'fuse mix',
      columns: FIT_COLUMNS,
      unit: 'runs',
      inputs: [path, ...(compareMatrix === undefined ? [] : [compareMatrix])],
      parameters: {
        fit: path,
        starts,
        start_losses: own.startLosses ?? null,
        compare_matrix: compareMatrix ?? null,
        leave_one_out: own.leaveOneOut !== false,
        seed: options.seed,
      },
      subtitle: path,
    },
    { ...options, shard: undefined },
    {
      async measure(context) {
        const sweep = await read(context);
        const { fitLaws } = await import('../src/fusion/mixing/fit-job.js');
        const module = new URL('../src/fusion/mixing/fit-job.js', import.meta.url).href;
        const args: FitArguments = { sweep, seed: options.seed, starts, leaveOneOut: own.leaveOneOut !== false };
        const result: FitResult = await context.run({ module, job: fitLaws }, args, (runs) =>
          context.progress.update(runs as number),
        );
        const start =
          own.startLosses === undefined ? undefined : parseShares('--start-losses', own.startLosses, sweep.evaluated);
        const compared = compareMatrix === undefined ? undefined : await matrixOf(compareMatrix, sweep, context);
        const body = fitBody(sweep, result, start, compared);
        if (result.leftOut === null && own.leaveOneOut !== false) {
          context.warn(
            `${sweep.count} runs are too few to leave one out: ${sweep.sources.length + 2} or more are needed`,
          );
        }
        return {
          body,
          rows: () => fitRows(sweep, result),
          figure: (subtitle) => fitFigure(body, sweep, result, subtitle),
          summary: {
            header: ['group', 'best p (log-linear)', 'best p (linear)'],
            rows: [
              ...sweep.sources.map((name, j) => [
                name,
                body.log_linear.optimum.mixture[j],
                body.linear.optimum.mixture[j],
              ]),
              ['mean loss', body.log_linear.optimum.mean_loss_nats, body.linear.optimum.mean_loss_nats],
              ['R2', body.log_linear.fit.r2, body.linear.fit.r2],
              ['R2 left out', body.log_linear.left_out?.r2 ?? '', body.linear.left_out?.r2 ?? ''],
            ],
          },
        };
      },
      async plan(context) {
        const sweep = await read(context);
        return [
          ['runs', sweep.count],
          ['groups', sweep.sources.join(', ')],
          ['evaluated', sweep.evaluated.join(', ')],
          ['starts a group', starts],
        ];
      },
    },
  );
}

/** The matrix of a table, or the mean of those of a report. */
async function matrixOf(path: string, sweep: Sweep, { ledger }: AnalysisContext): Promise<ComparedMatrix> {
  const { sources, evaluated } = sweep;
  if (sources.join() !== evaluated.join()) {
    throw new InputError(`${path}: a mixing matrix needs losses of the groups that are mixed: ${sources.join(', ')}`);
  }
  if (path.toLowerCase().endsWith('.json')) {
    return { name: path, matrix: readJsonInput(path, sources, (file) => ledger.note(file)) };
  }
  return { name: path, matrix: await readGroupMatrix(readRecords([path], { ledger }), sources) };
}
