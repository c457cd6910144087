import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { openFeatures } from '../src/features/open-features.js';
import { PENALTIES } from '../src/regression/penalty.js';
import { REGRESS_SPARSELY, type SparseSettings } from '../src/regression/sparse-job.js';
import {
  COEFFICIENT_COLUMNS,
  coefficientRows,
  PATH_COLUMNS,
  pathRows,
  REGRESS_SCHEMA,
  type RegressBody,
  regressBody,
} from '../src/regression/sparse-report.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import { type AnalysisContext, type AnalysisOutcome, type AnalysisView, runAnalysis } from './analysis-run.js';
import { parseChoice } from './edge-values.js';
import {
  addFeatureOptions,
  FEATURE_OPTIONS,
  type FeatureOwnOptions,
  type FeatureSet,
  featureParameters,
  openFeatureInputs,
} from './feature-inputs.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption } from './shared-options.js';
import { addSparseOptions, type SparseOwnOptions, sparseParameters, sparseSettings } from './sparse-options.js';

/** One regression is one unit of work; there is nothing to merge. */
const SHARED = [...ANALYSIS_OPTIONS.filter((name) => name !== 'shard'), ...FEATURE_OPTIONS, 'table'] as const;

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

interface OwnOptions extends FeatureOwnOptions, SparseOwnOptions {
  outcome?: string;
  penalty?: string;
  compareSolvers?: boolean;
}

/** Columns that standard output lists. */
const SHOWN = 20;

/** Declares `surprisal analyze-entropy regress`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  addFeatureOptions(command)
    .option('--outcome <name>', 'column or field to explain (the same as --label-column)')
    .option('--penalty <name>', `${PENALTIES.join(', ')} (default scad)`)
    .option('--compare-solvers', 'also run all solvers at the chosen lambda and report how they come down');
  addSparseOptions(command).action(async () => {
    process.exitCode = await run(await read(), command.opts<OwnOptions>());
  });
}

async function run(options: Options, given: OwnOptions): Promise<number> {
  const data = requireOption(options.data, '--data', 'a file of features, or a text with --model');
  const own = withOutcome(given);
  const settings = sparseSettings(
    parseChoice('--penalty', own.penalty ?? 'scad', PENALTIES),
    own,
    options.seed,
    own.compareSolvers === true,
  );
  const view: AnalysisView = {
    name: REGRESS_SCHEMA,
    columns: COEFFICIENT_COLUMNS,
    tableColumns: PATH_COLUMNS,
    unit: 'solutions',
    inputs: [...data, ...(own.labels === undefined ? [] : [own.labels])],
    parameters: {
      ...featureParameters(options, own),
      ...sparseParameters(settings),
      compare_solvers: settings.compareSolvers,
    },
    subtitle: `${data.join(', ')}, outcome ${own.labelColumn ?? own.labels}`,
  };
  return runAnalysis(
    view,
    { ...options, shard: undefined },
    {
      measure: (context) => measure(options, own, settings, context),
      plan: (context) => plan(options, own, settings, context),
    },
  );
}

/** `--outcome` and `--label-column` name the same. @throws InputError when neither, nor --labels, is given */
export function withOutcome<T extends FeatureOwnOptions & { outcome?: string }>(own: T): T {
  if (own.outcome !== undefined && own.labelColumn !== undefined && own.outcome !== own.labelColumn) {
    throw new InputError(
      `--outcome ${own.outcome} and --label-column ${own.labelColumn} name different columns; give one`,
    );
  }
  const labelColumn = own.outcome ?? own.labelColumn;
  if (labelColumn === undefined && own.labels === undefined) {
    throw new InputError('--outcome is missing; name the column to explain, or a file of outcomes with --labels');
  }
  return labelColumn === undefined ? own : { ...own, labelColumn };
}

/** The one set of features with its outcome. */
async function onlySet(options: Options, own: OwnOptions, context: AnalysisContext) {
  const inputs = await openFeatureInputs(options, own, context);
  if (inputs.sets.length !== 1) {
    throw new InputError(
      `a regression takes one matrix of features, not ${inputs.sets.length}; name one file or layer`,
    );
  }
  return { inputs, set: inputs.sets[0] };
}

async function measure(
  options: Options,
  own: OwnOptions,
  settings: SparseSettings,
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  const { inputs, set } = await onlySet(options, own, context);
  const { labels } = set;
  if (labels === undefined)
    throw new InputError(`${set.name}: no outcome was read; name it with --outcome or --labels`);
  context.timings.begin('regression');
  const result = await context.run(
    REGRESS_SPARSELY,
    {
      input: { kind: 'source', source: set.source },
      labels,
      labelName: outcomeName(own, set),
      labelKind: 'auto',
      settings,
      maxMemoryBytes: options.maxMemory,
    },
    (value) => context.progress.update((value as { done: number }).done),
  );
  const body = regressBody(result, settings);
  for (const warning of body.warnings) context.warn(warning);
  return {
    body,
    rows: () => coefficientRows(body),
    tableRows: () => pathRows(body),
    figure: async (subtitle) => (await import('../src/regression/sparse-plot.js')).drawRegress(body, result, subtitle),
    summary: summary(body),
    digests: inputs.digests,
  };
}

export function outcomeName(own: FeatureOwnOptions, set: Pick<FeatureSet, 'name'>): string {
  return own.labels ?? `${set.name}: outcome "${own.labelColumn}"`;
}

async function plan(
  options: Options,
  own: OwnOptions,
  settings: SparseSettings,
  context: AnalysisContext,
): Promise<SummaryCell[][]> {
  const rows: SummaryCell[][] = [
    ['penalty', settings.penalty],
    ['solver', settings.solver],
    ['lambdas', settings.lambda ?? settings.pathLength],
    ['folds', settings.lambda === undefined ? settings.folds : 'none'],
  ];
  if (options.model !== undefined) return [['model', options.model], ...rows];
  const { set } = await onlySet(options, own, context);
  const matrix = await openFeatures(set.source);
  rows.unshift([set.name, `${matrix.rows} x ${matrix.columns} ${matrix.dtype}`]);
  rows.push(['memory, MiB', Math.ceil((4 * 8 * matrix.rows * matrix.columns) / 2 ** 20)]);
  matrix.close();
  return rows;
}

function summary(body: RegressBody): AnalysisOutcome['summary'] {
  const rows: SummaryCell[][] = [
    ['lambda', body.lambda],
    ['selected', body.support_size],
    ['deviance explained', body.deviance_explained],
    ['KKT residual', body.kkt_residual],
    ['intercept', body.intercept],
  ];
  if (body.cross_validation) {
    rows.push([`error (${body.cross_validation.measure})`, body.cross_validation.error]);
    rows.push(['its standard error', body.cross_validation.error_se]);
  }
  for (const { column, coefficient } of body.coefficients.slice(0, SHOWN)) rows.push([column, coefficient]);
  return { header: ['', 'value'], rows };
}
