import { tmpdir } from 'node:os';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { openFeatures } from '../src/features/open-features.js';
import type { FeatureSource } from '../src/formats/feature-matrix.js';
import { expandSources, type InputDigest } from '../src/formats/inputs.js';
import { type LabelKind, readLabels } from '../src/formats/labels.js';
import { isTensorFile } from '../src/formats/tensor-file.js';
import type { BandwidthRule } from '../src/kernels/column-scale.js';
import { REGRESS_SPARSELY, type SparseSettings } from '../src/regression/sparse-job.js';
import { regressBody, regressSummary } from '../src/regression/sparse-report.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { streamedDelimiter } from '../src/screening/column-source.js';
import { DEFAULT_CLASS_GRID, DEFAULT_GRID, ESTIMATORS, type EstimatorName } from '../src/screening/estimators.js';
import { DEFAULT_NEIGHBOURS } from '../src/screening/ksg.js';
import { DEFAULT_PERMUTATIONS, DEFAULT_STOP_AFTER } from '../src/screening/permutation.js';
import {
  matrixBytes,
  type OutcomeSource,
  SCREEN_COLUMNS,
  type ScreenArguments,
  type ScreenResult,
} from '../src/screening/screen-job.js';
import {
  SCREEN_COLUMNS_OF_TABLE,
  SCREEN_SCHEMA,
  type ScreenBody,
  type ScreenReportSettings,
  screenBody,
  screenPartial,
  screenRows,
} from '../src/screening/screen-report.js';
import { DEFAULT_DISCRETE_LEVELS } from '../src/screening/variables.js';
import { type AnalysisContext, type AnalysisOutcome, type AnalysisView, runAnalysis } from './analysis-run.js';
import { withOutcome } from './analyze-entropy-regress.js';
import { parseChoice, parseInteger, parseList, parseNumber } from './edge-values.js';
import {
  addFeatureOptions,
  FEATURE_OPTIONS,
  type FeatureOwnOptions,
  featureParameters,
  openFeatureInputs,
} from './feature-inputs.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption } from './shared-options.js';
import { addSparseOptions, type SparseOwnOptions, sparseParameters, sparseSettings } from './sparse-options.js';

const SHARED = [...ANALYSIS_OPTIONS, ...FEATURE_OPTIONS, 'variant'] as const;

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

interface OwnOptions extends FeatureOwnOptions, SparseOwnOptions {
  outcome?: string;
  except?: string;
  estimators?: string;
  compat?: string;
  grid?: string;
  classGrid?: string;
  neighbours?: string;
  discreteLevels?: string;
  permutations?: string;
  stopAfter?: string;
  skipConstant?: boolean;
  top?: string;
  clump?: string;
  then?: string;
}

const DEFAULT_TOP = 50;
const SHOWN = 20;

/** Declares `surprisal analyze-entropy screen`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  addFeatureOptions(command)
    .option('--outcome <name>', 'column or field to explain (the same as --label-column)')
    .option('--except <names>', 'columns of a table that are left out, separated by commas')
    .option('--estimators <list>', `${ESTIMATORS.join(', ')}; the first ranks (default kernel,binned)`)
    .option('--compat <name>', 'unit-bw: the kernel width 1 that the reference runs with (the same as --variant)')
    .option('--grid <points>', `kernel: side of the grid of two amounts (default ${DEFAULT_GRID})`)
    .option('--class-grid <points>', `kernel: points of the grid of classes (default ${DEFAULT_CLASS_GRID})`)
    .option('--neighbours <k>', `ksg: neighbours (default ${DEFAULT_NEIGHBOURS})`)
    .option(
      '--discrete-levels <n>',
      `distinct values up to which numbers are classes (default ${DEFAULT_DISCRETE_LEVELS})`,
    )
    .option('--permutations <n>', `replicates of the test, 0 for none (default ${DEFAULT_PERMUTATIONS})`)
    .option(
      '--stop-after <n>',
      `stop testing a column whose replicates reached its figure n times, 0 for never (default ${DEFAULT_STOP_AFTER})`,
    )
    .option('--skip-constant', 'leave constant columns out')
    .option('--top <n>', `columns listed, and kept for --clump and --then (default ${DEFAULT_TOP})`)
    .option('--clump <nats>', 'drop columns with more information about a better one than this')
    .option('--then <penalty>', 'sparse regression on the kept columns: lasso, scad or mcp');
  addSparseOptions(command).action(async () => {
    process.exitCode = await run(await read(), command.opts<OwnOptions>());
  });
}

/** Everything of the run that does not depend on the input. */
interface Plan {
  readonly settings: ScreenReportSettings;
  readonly rule: BandwidthRule;
  readonly grid: number;
  readonly classGrid: number;
  readonly neighbours: number;
  readonly discreteLevels: number;
  readonly labelKind: LabelKind;
  readonly clump: number | undefined;
  readonly regression: SparseSettings | undefined;
}

function parsePlan(options: Options, own: OwnOptions): Plan {
  const estimators = [
    ...new Set(
      parseList(own.estimators ?? 'kernel,binned').map((name) => parseChoice('--estimators', name, ESTIMATORS)),
    ),
  ] as EstimatorName[];
  if (estimators.length === 0) throw new InputError(`--estimators names none; choose from ${ESTIMATORS.join(', ')}`);
  const variant = own.compat ?? options.variant ?? 'silverman';
  if (own.compat !== undefined && options.variant !== undefined && own.compat !== options.variant) {
    throw new InputError('--compat and --variant name different readings; give one');
  }
  const rule = parseChoice('--variant', variant, ['silverman', 'unit-bw'] as const);
  const clump = own.clump === undefined ? undefined : parseNumber('--clump', own.clump, 0);
  const penalty =
    own.then === undefined ? undefined : parseChoice('--then', own.then, ['lasso', 'scad', 'mcp'] as const);
  if (options.shard && (clump !== undefined || penalty !== undefined)) {
    throw new InputError('--clump and --then need all columns; run them without --shard');
  }
  const count = (flag: string, text: string | undefined, fallback: number, least: number): number =>
    parseInteger(flag, text ?? String(fallback), least);
  return {
    settings: {
      estimators,
      permutations: count('--permutations', own.permutations, DEFAULT_PERMUTATIONS, 0),
      stopAfter: count('--stop-after', own.stopAfter, DEFAULT_STOP_AFTER, 0),
      top: count('--top', own.top, DEFAULT_TOP, 1),
    },
    rule: rule === 'unit-bw' ? 'unit' : 'silverman',
    grid: parseInteger('--grid', own.grid ?? String(DEFAULT_GRID), 16, 4096),
    classGrid: parseInteger('--class-grid', own.classGrid ?? String(DEFAULT_CLASS_GRID), 16, 1 << 20),
    neighbours: count('--neighbours', own.neighbours, DEFAULT_NEIGHBOURS, 1),
    discreteLevels: count('--discrete-levels', own.discreteLevels, DEFAULT_DISCRETE_LEVELS, 2),
    labelKind: parseChoice('--label-kind', own.labelKind ?? 'auto', ['auto', 'classes', 'numbers'] as const),
    clump,
    regression: penalty === undefined ? undefined : sparseSettings(penalty, own, options.seed),
  };
}

async function run(options: Options, given: OwnOptions): Promise<number> {
  const data = requireOption(options.data, '--data', 'a table or matrix of features, or a text with --model');
  const own = withOutcome(given);
  const plan = parsePlan(options, own);
  const { settings } = plan;
  const parameters: Record<string, ReportValue> = {
    ...featureParameters(options, own),
    except: own.except === undefined ? null : parseList(own.except),
    estimators: [...settings.estimators],
    variant: plan.rule === 'unit' ? 'unit-bw' : 'silverman',
    grid: plan.grid,
    class_grid: plan.classGrid,
    neighbours: plan.neighbours,
    discrete_levels: plan.discreteLevels,
    permutations: settings.permutations,
    stop_after: settings.stopAfter,
    skip_constant: own.skipConstant === true,
    top: settings.top,
    clump: plan.clump ?? null,
    regression: plan.regression === undefined ? null : sparseParameters(plan.regression),
  };
  const view: AnalysisView = {
    name: SCREEN_SCHEMA,
    columns: SCREEN_COLUMNS_OF_TABLE,
    unit: 'columns',
    inputs: [...data, ...(own.labels === undefined ? [] : [own.labels])],
    parameters,
    subtitle: `${data.join(', ')}, outcome ${own.labelColumn ?? own.labels}`,
  };
  return runAnalysis(view, options, {
    measure: (context) => measure(options, own, plan, context),
    plan: (context) => describe(options, own, plan, context),
  });
}

interface Input {
  readonly source: FeatureSource;
  readonly outcome: OutcomeSource;
  digests(): Promise<readonly InputDigest[]>;
}

/** The features and the outcome; the outcome of a CSV or TSV stays in its table, which is read once, as a stream. */
async function openInput(options: Options, own: OwnOptions, plan: Plan, context: AnalysisContext): Promise<Input> {
  const paths = options.model === undefined ? await expandSources(options.data) : options.data;
  if (options.model !== undefined || paths.length !== 1) {
    if (own.except !== undefined) throw new InputError('--except is for one table, without --model');
    return openOther(options, own, context);
  }
  const [path] = paths;
  const inTable = own.labels === undefined && own.labelColumn !== undefined;
  if (inTable && isTensorFile(path)) {
    throw new InputError(`${path}: has no named columns; give the outcome as a file with --labels`);
  }
  const streamed = streamedDelimiter(path) !== undefined;
  const except = [
    ...(own.except === undefined ? [] : parseList(own.except)),
    ...(own.idColumn === undefined ? [] : [own.idColumn]),
    ...(inTable && !streamed && own.labelColumn !== undefined ? [own.labelColumn] : []),
  ];
  const columns = own.columns === undefined ? undefined : parseList(own.columns);
  const stored = isTensorFile(path);
  if (stored && (columns !== undefined || except.length > 0)) {
    throw new InputError(`${path}: has no named columns; --columns, --except and --id-column are for tables`);
  }
  const source: FeatureSource = {
    kind: 'file',
    path,
    ...(own.tensor !== undefined && { tensor: own.tensor }),
    ...(columns && { columns }),
    ...(except.length > 0 && { except }),
    ...(options.limit !== undefined && { limit: options.limit }),
  };
  context.ledger.note(path);
  if (inTable && streamed && own.labelColumn !== undefined) {
    return { source, outcome: { kind: 'column', name: own.labelColumn }, digests: async () => [] };
  }
  const labelPath = own.labels ?? path;
  if (own.labels !== undefined) context.ledger.note(own.labels);
  const labels = await readLabels(labelPath, {
    kind: plan.labelKind,
    ...(own.labelColumn !== undefined && { column: own.labelColumn }),
    ...(options.limit !== undefined && { limit: options.limit }),
  });
  const name = inTable ? `${path}: outcome "${own.labelColumn}"` : labelPath;
  return { source, outcome: { kind: 'labels', name, labels }, digests: async () => [] };
}

/** Layers of a model. */
async function openOther(options: Options, own: OwnOptions, context: AnalysisContext): Promise<Input> {
  const inputs = await openFeatureInputs(options, own, context);
  if (inputs.sets.length !== 1) {
    throw new InputError(`a screening takes one matrix of features, not ${inputs.sets.length}; name one file or layer`);
  }
  const [{ source, labels, name }] = inputs.sets;
  if (labels === undefined) throw new InputError(`${name}: no outcome was read; name it with --outcome or --labels`);
  return {
    source,
    outcome: { kind: 'labels', name: own.labels ?? `outcome "${own.labelColumn}"`, labels },
    digests: inputs.digests,
  };
}

function screenArguments(options: Options, own: OwnOptions, plan: Plan, input: Input): ScreenArguments {
  return {
    source: input.source,
    outcome: input.outcome,
    outcomeKind: plan.labelKind,
    estimators: plan.settings.estimators,
    settings: {
      grid: plan.grid,
      classGrid: plan.classGrid,
      rule: plan.rule,
      neighbours: plan.neighbours,
      seed: options.seed,
      threads: options.threads,
    },
    discreteLevels: plan.discreteLevels,
    permutations: plan.settings.permutations,
    stopAfter: plan.settings.stopAfter,
    skipConstant: own.skipConstant === true,
    top: plan.settings.top,
    ...(plan.clump !== undefined && { clump: plan.clump }),
    keepValues: plan.regression !== undefined,
    ...(options.shard && { shard: options.shard }),
    maxMemoryBytes: options.maxMemory,
    scratchDirectory: tmpdir(),
  };
}

async function measure(
  options: Options,
  own: OwnOptions,
  plan: Plan,
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  const input = await openInput(options, own, plan, context);
  context.timings.begin('screen');
  const result = await context.run(SCREEN_COLUMNS, screenArguments(options, own, plan, input), (value) => {
    const { columns, of } = value as { columns: number; of: number };
    context.progress.update(columns, `of ${of}`);
  });
  context.timings.count('columns', result.names.length);
  if (result.spilled)
    context.warn('the columns were kept in a temporary file; raise --max-memory to keep them in memory');
  const regression =
    plan.regression === undefined ? null : await regressKept(result, plan.regression, input, options, context);
  const body = {
    ...screenBody(
      result,
      plan.settings,
      plan.clump === undefined ? undefined : { threshold: plan.clump, decisions: result.clumps },
    ),
    regression,
  };
  return {
    body,
    rows: () => screenRows(result, plan.settings, options.shard !== undefined),
    figure: async (subtitle) => (await import('../src/screening/screen-plot.js')).drawScreen(body, result, subtitle),
    summary: summary(body, regression),
    digests: input.digests,
    partial: () => screenPartial(result, plan.settings),
  };
}

/** Sparse regression on the columns that the screening kept. */
async function regressKept(
  result: ScreenResult,
  settings: SparseSettings,
  input: Input,
  options: Options,
  context: AnalysisContext,
): Promise<ReturnType<typeof regressSummary>> {
  if (result.outcomeValues === undefined || result.keptValues === undefined) {
    throw new InputError(
      `${input.outcome.name}: ${result.outcome.bins} classes; --then needs an outcome of numbers or of 2 classes`,
    );
  }
  context.timings.begin('regression');
  const fitted = await context.run(REGRESS_SPARSELY, {
    input: {
      kind: 'design',
      values: result.keptValues,
      names: Array.from(result.kept, (j) => result.names[j]),
      name: input.source.kind === 'file' ? input.source.path : input.source.name,
    },
    labels: { kind: 'numbers', values: result.outcomeValues },
    labelName: input.outcome.name,
    labelKind: 'numbers',
    settings,
    maxMemoryBytes: options.maxMemory,
  });
  const body = regressSummary(regressBody(fitted, settings));
  for (const warning of body.warnings) context.warn(warning);
  const { levelNames } = result.outcome;
  return {
    ...body,
    coefficients: body.coefficients.map((row) => ({ ...row, index: result.places[result.kept[row.index]] })),
    classes: body.classes.length === 2 && levelNames.length === 2 ? levelNames : body.classes,
  };
}

async function describe(
  options: Options,
  own: OwnOptions,
  plan: Plan,
  context: AnalysisContext,
): Promise<SummaryCell[][]> {
  const rows: SummaryCell[][] = [
    ['estimators', plan.settings.estimators.join(', ')],
    ['replicates of the test', plan.settings.permutations],
    ['memory for the columns, MiB', Math.floor(matrixBytes(options.maxMemory) / 2 ** 20)],
    ['beyond it', `a temporary file in ${tmpdir()}`],
  ];
  if (options.model !== undefined) return [['model', options.model], ...rows];
  const { source } = await openInput(options, own, plan, context);
  if (source.kind === 'file' && streamedDelimiter(source.path) !== undefined) {
    return [['input', `${source.path}, read once as a stream`], ...rows];
  }
  const matrix = await openFeatures(source);
  rows.unshift(['input', `${matrix.name}, ${matrix.rows} x ${matrix.columns} ${matrix.dtype}`]);
  matrix.close();
  return rows;
}

function summary(body: ScreenBody, regression: ReturnType<typeof regressSummary> | null): AnalysisOutcome['summary'] {
  const chosen = new Map(regression?.coefficients.map(({ column, coefficient }) => [column, coefficient]));
  const header = ['rank', 'column', 'MI, nats', 'Linfoot', '|r|', 'p', 'q', ...(regression ? ['coefficient'] : [])];
  return {
    header,
    rows: body.ranking
      .slice(0, SHOWN)
      .map(({ rank, column, mi_nats, linfoot, pearson_r, p_value, q_value }) => [
        rank,
        column,
        mi_nats,
        linfoot,
        pearson_r === null ? undefined : Math.abs(pearson_r),
        p_value ?? undefined,
        q_value ?? undefined,
        ...(regression ? [chosen.get(column)] : []),
      ]),
  };
}
