import type { Command } from 'commander';
import { ANALYSE_DEPENDENCE } from '../src/dependence/analysis.js';
import { BINNINGS } from '../src/dependence/binning.js';
import { checkedCounts } from '../src/dependence/count-profile.js';
import { columnLength, type DataColumn, readColumns } from '../src/dependence/data-columns.js';
import {
  DEPENDENCE_SCHEMA,
  dependenceBody,
  estimateColumns,
  estimateRows,
  intervalNote,
  pairColumns,
  pairRows,
} from '../src/dependence/dependence-report.js';
import { type EntropyUnit, inUnit } from '../src/dependence/entropy-estimators.js';
import type { AnalysisArguments, AnalysisResult, AnalysisSettings } from '../src/dependence/measure-bench.js';
import { InputError } from '../src/errors.js';
import { expandSources } from '../src/formats/inputs.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { parseChoice, parseInteger, parseList, parseNumber } from './edge-values.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption, type SharedOptions } from './shared-options.js';

/** Shards are not among them: null laws and intervals need all rows. */
const SHARED = [
  ...ANALYSIS_OPTIONS.filter((name): name is Exclude<(typeof ANALYSIS_OPTIONS)[number], 'shard'> => name !== 'shard'),
  'data',
  'dataFormat',
  'limit',
] as const;

type Shared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Options of this view alone, as commander gives them. */
interface OwnOptions {
  columns?: string;
  x?: string;
  y?: string;
  z?: string;
  counts?: string;
  text?: string;
  group?: string;
  pairs?: string;
  as: string;
  estimator?: string;
  k: string;
  bins?: string;
  binning?: string;
  support?: string;
  lag?: string;
  history?: string;
  permutations: string;
  bootstrap: string;
  level: string;
  null?: string;
  block?: string;
  jitter?: string;
  standardise?: boolean;
  units: string;
  convergence: boolean;
}

/** Declares `surprisal analyze-entropy dependence`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--columns <names>', 'one to three variables, or all that --pairs compares: names or places from 0')
    .option('--x <columns>', 'first variable; several columns make one variable')
    .option('--y <columns>', 'second variable')
    .option('--z <columns>', 'variable that is conditioned on')
    .option('--counts <column>', 'column that says how often each row was seen')
    .option('--text <columns>', 'columns that are text even where they look like numbers')
    .option('--group <column>', 'series that a row belongs to: histories, shifts and blocks stay within one')
    .option('--pairs <which>', 'all: every two columns, with adjusted p values')
    .option('--as <kind>', 'auto, symbols or numbers (auto: text and whole numbers are symbols)', 'auto')
    .option(
      '--estimator <name>',
      'estimator of tests and intervals (default grassberger; ksg1, mixed, ... for numbers)',
    )
    .option('--k <n>', 'neighbour of the continuous estimators', '3')
    .option('--bins <n>', 'bins for numbers, or fd for the number of Freedman and Diaconis')
    .option('--binning <how>', `${BINNINGS.join(', ')} (default equal-width)`)
    .option('--support <list>', 'number of symbols that can occur, one number a variable')
    .option('--history <k>', 'transfer entropy: rows of the past of the target')
    .option('--lag <l>', 'transfer entropy: rows of the past of the source')
    .option('--permutations <b>', 'replicates of the null law, 0 for none', '999')
    .option('--bootstrap <b>', 'bootstrap replicates of the intervals, 0 for none', '999')
    .option('--level <share>', 'level of the intervals', '0.95')
    .option('--null <how>', 'rows, shift or block: how rows are exchanged (default rows; block with --block)')
    .option('--block <rows>', 'rows of a block, for series: blocks are exchanged and drawn')
    .option('--jitter <share>', 'noise that breaks ties, in standard deviations of the column, such as 1e-10')
    .option('--standardise', 'bring columns of numbers to mean 0 and variance 1')
    .option('--units <unit>', 'nats or bits', 'nats')
    .option('--no-convergence', 'leave out the curves over subsamples')
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

/** What the options ask for, before any data are seen. */
interface Plan {
  readonly mode: AnalysisArguments['mode'];
  /** Columns of each variable; null for every column of the input. */
  readonly variables: readonly (readonly string[])[] | null;
  readonly text: readonly string[];
  readonly counts: string | null;
  readonly group: string | null;
  readonly unit: EntropyUnit;
  readonly settings: AnalysisSettings;
}

function variablesOf(own: OwnOptions): string[][] | null {
  const { columns, x, y, z } = own;
  if (columns !== undefined && (x ?? y ?? z) !== undefined) {
    throw new InputError('--columns and --x, --y, --z exclude each other; name the variables in one way');
  }
  if (columns !== undefined) return parseList(columns).map((name) => [name]);
  const roles = [
    ['--x', x],
    ['--y', y],
    ['--z', z],
  ] as const;
  const named = roles.filter(([, text]) => text !== undefined);
  if (named.some(([flag], i) => flag !== roles[i][0])) {
    throw new InputError(`${named[named.length - 1][0]} needs ${roles[named.length - 1][0]} too`);
  }
  return named.length === 0 ? null : named.map(([, text]) => parseList(text ?? ''));
}

function modeOf(own: OwnOptions, variables: string[][] | null): AnalysisArguments['mode'] {
  const transfer = own.lag !== undefined || own.history !== undefined;
  if (own.pairs !== undefined) {
    parseChoice('--pairs', own.pairs, ['all'] as const);
    if (transfer) throw new InputError('--pairs and --lag or --history exclude each other');
    if (own.x !== undefined) throw new InputError('--pairs compares --columns; --x, --y, --z have no meaning for it');
    return 'pairs';
  }
  const count = variables?.length;
  if (transfer) {
    if (count !== 2)
      throw new InputError('--lag and --history measure a transfer between two variables: name --x and --y');
    if (own.counts !== undefined) throw new InputError('--counts has no order of rows; a transfer needs rows in time');
    return 'transfer';
  }
  if (count !== undefined && (count < 1 || count > 3)) {
    throw new InputError(
      `--columns names ${count} variables; one gives its entropy, two their mutual information, three the conditional one, --pairs all compares more`,
    );
  }
  return 'measures';
}

function binsOf(own: OwnOptions): Pick<AnalysisSettings, 'bins' | 'binning'> {
  const binning = own.binning === undefined ? undefined : parseChoice('--binning', own.binning, BINNINGS);
  if (own.bins === undefined && binning === undefined) return { bins: null, binning: null };
  const diaconis = own.bins === 'fd' || own.bins === 'freedman-diaconis' || binning === 'freedman-diaconis';
  if (diaconis) {
    if (binning !== undefined && binning !== 'freedman-diaconis') {
      throw new InputError(
        `--bins fd chooses the number of bins of equal width; --binning ${binning} does not go with it`,
      );
    }
    if (own.bins !== undefined && !/^(fd|freedman-diaconis)$/.test(own.bins)) {
      throw new InputError(`--binning freedman-diaconis chooses the number of bins; leave --bins ${own.bins} out`);
    }
    return { bins: null, binning: 'freedman-diaconis' };
  }
  if (own.bins === undefined) throw new InputError(`--binning ${own.binning} needs the number of --bins`);
  return { bins: parseInteger('--bins', own.bins, 1), binning: binning ?? 'equal-width' };
}

function exchangeOf(own: OwnOptions): Pick<AnalysisSettings, 'exchange' | 'block'> {
  const block = own.block === undefined ? null : parseInteger('--block', own.block, 1);
  const fallback = block === null ? 'rows' : 'block';
  const exchange = parseChoice('--null', own.null ?? fallback, ['rows', 'shift', 'block'] as const);
  if (exchange === 'block' && block === null) throw new InputError('--null block needs the number of rows: --block');
  return { exchange, block };
}

function planOf(options: Shared, own: OwnOptions): Plan {
  const variables = variablesOf(own);
  const mode = modeOf(own, variables);
  const level = parseNumber('--level', own.level, 0, 1);
  if (!(level > 0 && level < 1))
    throw new InputError(`--level ${own.level}: a share between 0 and 1 is needed, such as 0.95`);
  const support =
    own.support === undefined ? null : parseList(own.support).map((text) => parseInteger('--support', text, 1));
  if (support !== null && variables !== null && support.length !== variables.length) {
    throw new InputError(
      `--support names ${support.length} numbers for ${variables.length} variables; give one for each`,
    );
  }
  if (own.counts !== undefined && (own.block !== undefined || own.group !== undefined || own.null !== undefined)) {
    throw new InputError('--counts has no order of rows; --block, --group and --null have no meaning for it');
  }
  const bootstrap = parseInteger('--bootstrap', own.bootstrap, 0);
  if (bootstrap === 1) throw new InputError('--bootstrap 1: an interval needs at least 2 replicates');
  return {
    mode,
    variables,
    text: own.text === undefined ? [] : parseList(own.text),
    counts: own.counts ?? null,
    group: own.group ?? null,
    unit: parseChoice('--units', own.units, ['nats', 'bits'] as const),
    settings: {
      as: parseChoice('--as', own.as, ['auto', 'symbols', 'numbers'] as const),
      ...binsOf(own),
      ...exchangeOf(own),
      jitter: own.jitter === undefined ? 0 : parseNumber('--jitter', own.jitter, 0),
      standardise: own.standardise === true,
      estimator: own.estimator ?? null,
      k: parseInteger('--k', own.k, 1),
      support,
      permutations: parseInteger('--permutations', own.permutations, 0),
      bootstrap: mode === 'pairs' ? 0 : bootstrap,
      alpha: 1 - level,
      history: parseInteger('--history', own.history ?? '1', 1),
      lag: parseInteger('--lag', own.lag ?? '1', 1),
      convergence: own.convergence && mode !== 'pairs',
      seed: options.seed,
    },
  };
}

function parametersOf(options: Shared, plan: Plan): Record<string, ReportValue> {
  const { settings } = plan;
  return {
    data: [...options.data],
    data_format: options.dataFormat ?? null,
    limit: options.limit ?? null,
    mode: plan.mode,
    variables: plan.variables === null ? null : plan.variables.map((columns) => [...columns]),
    text: [...plan.text],
    counts: plan.counts,
    group: plan.group,
    units: plan.unit,
    as: settings.as,
    bins: settings.bins,
    binning: settings.binning,
    estimator: settings.estimator,
    k: settings.k,
    support: settings.support === null ? null : [...settings.support],
    history: plan.mode === 'transfer' ? settings.history : null,
    lag: plan.mode === 'transfer' ? settings.lag : null,
    permutations: settings.permutations,
    bootstrap: settings.bootstrap,
    level: 1 - settings.alpha,
    null: settings.exchange,
    block: settings.block,
    jitter: settings.jitter,
    standardise: settings.standardise,
    convergence: settings.convergence,
    seed: settings.seed,
  };
}

async function run(options: Shared, own: OwnOptions): Promise<number> {
  const data = requireOption(options.data, '--data', 'tables or arrays with --data');
  const plan = planOf(options, own);
  const sources = await expandSources(data);
  const columns = plan.mode === 'pairs' ? pairColumns(plan.unit) : estimateColumns(plan.unit);
  return runAnalysis(
    {
      name: DEPENDENCE_SCHEMA,
      columns,
      unit: 'replicates',
      inputs: sources,
      parameters: parametersOf(options, plan),
      subtitle: data.join(', '),
    },
    { ...options, shard: undefined },
    {
      measure: (context) => measure(context, sources, options, plan),
      plan: async () => planLines(sources, plan),
    },
  );
}

function planLines(sources: readonly string[], plan: Plan): [string, SummaryCell][] {
  const { settings, variables } = plan;
  return [
    ...sources.map((source): [string, SummaryCell] => ['reads', source]),
    ['measures', plan.mode === 'pairs' ? 'mutual information of all pairs' : plan.mode],
    ['variables', variables === null ? 'all columns' : variables.map((columns) => columns.join(' + ')).join('; ')],
    ['estimator', settings.estimator ?? 'grassberger for symbols, ksg1 and its kin for numbers'],
    ['permutations a test', settings.permutations],
    ['bootstrap replicates', settings.bootstrap],
    ['bytes in memory a row, at most', ROW_BYTES + COLUMN_BYTES * (variables?.flat().length ?? 1)],
  ];
}

/** Reads what the plan names. Columns come in the order of the variables, then counts, then groups. */
async function readVariables(
  context: AnalysisContext,
  sources: readonly string[],
  options: Shared,
  plan: Plan,
): Promise<Pick<AnalysisArguments, 'variables' | 'counts' | 'group'>> {
  const extra = [plan.counts, plan.group].filter((name): name is string => name !== null);
  const wanted = plan.variables === null ? undefined : [...plan.variables.flat(), ...extra];
  const found = await readColumns(sources, {
    ...(wanted && { columns: wanted }),
    text: plan.text,
    ...(options.limit !== undefined && { limit: options.limit }),
    ...(options.dataFormat !== undefined && { format: options.dataFormat }),
    ledger: context.ledger,
  });
  const taken = new Set<DataColumn>();
  const take = (name: string | null, place: number): DataColumn | null => {
    if (name === null) return null;
    const column =
      wanted === undefined
        ? found.find((candidate) => candidate.name === name)
        : found[found.length - extra.length + place];
    if (column === undefined) throw new InputError(`${sources.join(', ')}: no column "${name}"`);
    taken.add(column);
    return column;
  };
  const counted = take(plan.counts, 0);
  const group = take(plan.group, plan.counts === null ? 0 : 1);
  const rest = found.filter((column) => !taken.has(column));
  const groups = plan.variables ?? rest.map((column) => [column.name]);
  let at = 0;
  const variables = groups.map((names) => {
    const columns = names.map(() => rest[at++]);
    return { name: columns.map((column) => column.name).join('+'), columns };
  });
  checkVariables(variables, plan, sources);
  checkMemory(columnLength(variables[0].columns[0]), found.length, options.maxMemory, sources);
  return { variables, counts: counted && countsOf(counted, sources), group };
}

/** What a row takes while it is measured, at most: joint codes, an order of rows, a tree's copy; and what a column adds. */
const ROW_BYTES = 64;
const COLUMN_BYTES = 56;
/** The program itself. */
const BASE_BYTES = 128 * 2 ** 20;

function checkMemory(rows: number, columns: number, most: number, sources: readonly string[]): void {
  const needed = BASE_BYTES + rows * (ROW_BYTES + columns * COLUMN_BYTES);
  if (needed <= most) return;
  const shown = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`;
  throw new InputError(
    `${sources.join(', ')}: ${rows} rows of ${columns} columns take about ${shown(needed)}, more than --max-memory ${shown(most)}; raise it, or take fewer rows with --limit`,
  );
}

function checkVariables(variables: AnalysisArguments['variables'], plan: Plan, sources: readonly string[]): void {
  const where = sources.join(', ');
  if (variables.length === 0) throw new InputError(`${where}: no column is left to measure; name them with --columns`);
  if (plan.mode === 'pairs' && variables.length < 2)
    throw new InputError(`${where}: --pairs needs at least two columns`);
  if (plan.mode !== 'pairs' && plan.variables === null && variables.length > 3) {
    throw new InputError(
      `${where}: has ${variables.length} columns; name one to three with --columns or --x, --y, --z, or compare every two with --pairs all`,
    );
  }
  const seen = new Set<string>();
  for (const { name } of variables) {
    if (seen.has(name))
      throw new InputError(`${where}: column "${name}" is named twice; a column says all about itself`);
    seen.add(name);
  }
  const { support } = plan.settings;
  if (support !== null && support.length !== variables.length) {
    throw new InputError(
      `--support names ${support.length} numbers for ${variables.length} variables; give one for each`,
    );
  }
}

function countsOf(column: DataColumn, sources: readonly string[]): Float64Array {
  const where = `${sources.join(', ')}: column "${column.name}"`;
  if (column.kind === 'text') throw new InputError(`${where} is text; counts are whole numbers`);
  return checkedCounts(column.values, where);
}

async function measure(
  context: AnalysisContext,
  sources: readonly string[],
  options: Shared,
  plan: Plan,
): Promise<AnalysisOutcome> {
  const { settings, unit } = plan;
  const inputs = await readVariables(context, sources, options, plan);
  const result = await context.run(
    ANALYSE_DEPENDENCE,
    { mode: plan.mode, ...inputs, settings, threads: options.threads },
    (done) => context.progress.update(Number(done)),
  );
  context.timings.count('rows', columnLength(inputs.variables[0].columns[0]));
  for (const warning of result.warnings) context.warn(warning);
  const pairs = plan.mode === 'pairs';
  const shown = { unit, alpha: settings.alpha, pairs };
  return {
    body: dependenceBody(result, shown),
    rows: () => (pairs ? pairRows(result, unit) : estimateRows(result, unit)),
    figure: async (subtitle) =>
      (await import('../src/dependence/dependence-plot.js')).drawDependence(result, shown, subtitle),
    summary: summaryOf(result, unit),
  };
}

function summaryOf(result: AnalysisResult, unit: EntropyUnit): AnalysisOutcome['summary'] {
  const shownP = (p: number | undefined): SummaryCell => (p === undefined ? undefined : Number(p.toPrecision(3)));
  return {
    header: ['measure', 'of', 'estimator', unit, 'standard error', 'less null mean', 'p', 'interval'],
    rows: result.measures.map(({ measure: name, of, chosen, test, interval }) => [
      name.replaceAll('_', ' '),
      of,
      chosen.estimator,
      inUnit(chosen.valueNats, unit),
      chosen.seNats === null ? undefined : inUnit(chosen.seNats, unit),
      test === null ? undefined : inUnit(test.excess, unit),
      shownP(test?.pValue),
      interval === null
        ? ''
        : `${inUnit(interval.bca.low, unit).toPrecision(5)} to ${inUnit(interval.bca.high, unit).toPrecision(5)}${intervalNote(interval, unit) === null ? '' : ' (biased)'}`,
    ]),
  };
}
