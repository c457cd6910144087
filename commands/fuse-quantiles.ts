import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { expandSources } from '../src/formats/inputs.js';
import { isTensorFile } from '../src/formats/tensor-file.js';
import type { ForecastSource } from '../src/fusion/quantiles/forecast-data.js';
import { METHODS } from '../src/fusion/quantiles/methods.js';
import { NON_CROSSINGS, SORTS } from '../src/fusion/quantiles/non-crossing.js';
import { CONFORMAL_KINDS } from '../src/fusion/quantiles/pipeline.js';
import {
  AGGREGATE_QUANTILES,
  type QuantilesArguments,
  type QuantilesResult,
} from '../src/fusion/quantiles/quantiles-job.js';
import {
  PREDICTION_COLUMNS,
  predictionRows,
  QUANTILES_SCHEMA,
  quantilesBody,
  SCORE_COLUMNS,
  scoreRows,
  WEIGHT_COLUMNS,
  weightRows,
} from '../src/fusion/quantiles/quantiles-report.js';
import { CODE_TRAINING } from '../src/fusion/quantiles/training.js';
import { WEIGHT_FORMS } from '../src/fusion/quantiles/weight-forms.js';
import { MARGIN_KINDS } from '../src/fusion/quantiles/weight-search.js';
import { tableBytes } from '../src/report/csv.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { flagOf, parseChoice, parseInteger, parseList, parseNumber } from './edge-values.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption } from './shared-options.js';

const SHARED = [
  ...ANALYSIS_OPTIONS.filter((name) => name !== 'shard'),
  ...(['data', 'limit', 'table'] as const),
] as const;

interface OwnOptions {
  method?: string;
  weights?: string;
  layout?: string;
  idColumn?: string;
  outcome?: string;
  modelColumn?: string;
  levelColumn?: string;
  quantileColumn?: string;
  splitColumn?: string;
  features?: string;
  outcomes?: string;
  levels?: string;
  models?: string;
  featureData?: string;
  shares?: string;
  splitBy?: string;
  solver?: string;
  tolerance?: string;
  unnormalized?: boolean;
  margins?: string;
  crossing?: string;
  smoothing?: string;
  trials?: string;
  validationShare?: string;
  maxSteps?: string;
  nonCrossing?: string;
  sort?: string;
  conformal?: string;
}

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

const METHOD_NAMES = METHODS.map(({ name }) => name);
const SOLVERS = ['lp', 'eg', 'adam'] as const;
const DEFAULT_SHARES = '0.6,0.2,0.2';
/** Relative duality gaps at which the solvers stop. */
const TOLERANCES = { lp: '1e-8', eg: '1e-3', adam: '1e-8' } as const;

/** Declares `surprisal fuse quantiles`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--method <names>', `all, or of ${METHOD_NAMES.join(', ')}, separated by commas (default all)`)
    .option('--weights <file.csv>', 'table of the weights')
    .option('--layout <kind>', 'auto, long (id, model, tau, q, y) or wide (columns model@tau, y) (default auto)')
    .option('--id-column <name>', 'column that names a sample (default id)')
    .option('--outcome <name>', 'column of the outcome (default y)')
    .option('--model-column <name>', 'long tables: column of the model (default model)')
    .option('--level-column <name>', 'long tables: column of the level (default tau)')
    .option('--quantile-column <name>', 'long tables: column of the forecast (default q)')
    .option('--split-column <name>', 'column that says train, calibration, test or predict')
    .option('--features <names>', 'columns that local weights depend on, separated by commas')
    .option('--outcomes <file>', 'arrays: outcomes [rows], beside --data forecasts.npy [rows, models, levels]')
    .option('--levels <numbers>', 'arrays: levels of the last axis, separated by commas, or first:last:count')
    .option('--models <names>', 'arrays: names of the models, separated by commas')
    .option('--feature-data <file>', 'arrays: features [rows, columns]')
    .option('--shares <numbers>', `shares of training, calibration and test rows (default ${DEFAULT_SHARES})`)
    .option('--split-by <how>', 'random, or order: the last rows are the test (default random)')
    .option('--solver <name>', 'global weights: lp or eg with a certificate, or adam as published (default lp)')
    .option('--tolerance <gap>', 'relative duality gap at which lp and eg stop (default lp 1e-8, eg 1e-3)')
    .option('--unnormalized', 'weights of any sign and sum instead of convex ones')
    .option('--margins <kind>', 'adam and local: margins of the crossing penalty: single, vec, adapt (default single)')
    .option('--crossing <factor>', 'adam and local: factor of the crossing penalty (default: searched in 0.5 to 10)')
    .option('--smoothing <width>', 'adam and local: half-width of the rounded corner of the loss (default 0)')
    .option('--trials <n>', 'adam and local: trials of the random search (default 20)')
    .option('--validation-share <x>', 'adam and local: share of the training rows that chooses (default 0.2)')
    .option('--max-steps <n>', `adam and local: steps of a training at most (default ${CODE_TRAINING.mostSteps})`)
    .option('--non-crossing <map>', `how crossings end: ${NON_CROSSINGS.join(', ')} (default sort)`)
    .option('--sort <kind>', `the map sort: ${SORTS.join(', ')} (default hard)`)
    .option(
      '--conformal <kind>',
      `intervals by the calibration rows: ${CONFORMAL_KINDS.join(', ')} (default symmetric)`,
    )
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

/** `0.1,0.5,0.9`, or `first:last:count` for levels at equal distances. */
function parseLevels(text: string): number[] {
  const range = text.split(':');
  if (range.length !== 3) return parseList(text).map((level) => parseNumber('--levels', level, 0, 1));
  const [first, last] = range.slice(0, 2).map((level) => parseNumber('--levels', level, 0, 1));
  const count = parseInteger('--levels', range[2], 2);
  // Nine digits: 0.01:0.99:99 gives 0.07, not 0.06999999999999999.
  return Array.from({ length: count }, (_, j) => Number((first + ((last - first) * j) / (count - 1)).toPrecision(9)));
}

const TABLE_ONLY = [
  ...([
    'layout',
    'idColumn',
    'outcome',
    'modelColumn',
    'levelColumn',
    'quantileColumn',
    'splitColumn',
    'features',
  ] as const),
];
const ARRAY_ONLY = ['outcomes', 'levels', 'models', 'featureData'] as const;

function sourceOf(paths: readonly string[], own: OwnOptions, limit: number | undefined): ForecastSource {
  const limited = limit === undefined ? {} : { limit };
  const arrays = paths.some(isTensorFile);
  const stray = (arrays ? TABLE_ONLY : ARRAY_ONLY).find((name) => own[name] !== undefined);
  if (stray !== undefined) {
    throw new InputError(`${flagOf(stray)} is for ${arrays ? 'tables' : 'arrays'}; --data ${paths[0]} is not one`);
  }
  if (arrays) {
    if (paths.length > 1) throw new InputError('--data: one array of forecasts at a time');
    return {
      kind: 'arrays',
      path: paths[0],
      outcomes: requireOption(own.outcomes, '--outcomes', 'the file with one outcome a row'),
      levels: parseLevels(requireOption(own.levels, '--levels', 'the levels of the last axis')),
      ...(own.models !== undefined && { models: parseList(own.models) }),
      ...(own.featureData !== undefined && { features: own.featureData }),
      ...limited,
    };
  }
  return {
    kind: 'table',
    paths,
    layout: parseChoice('--layout', own.layout ?? 'auto', ['auto', 'long', 'wide'] as const),
    columns: {
      id: own.idColumn ?? 'id',
      outcome: own.outcome ?? 'y',
      model: own.modelColumn ?? 'model',
      level: own.levelColumn ?? 'tau',
      quantile: own.quantileColumn ?? 'q',
      ...(own.splitColumn !== undefined && { split: own.splitColumn }),
      features: own.features === undefined ? [] : parseList(own.features),
    },
    ...limited,
  };
}

function parseShares(text: string): [number, number, number] {
  const shares = parseList(text).map((share) => parseNumber('--shares', share, 0, 1));
  const sum = shares.reduce((total, share) => total + share, 0);
  if (shares.length !== 3 || Math.abs(sum - 1) > 1e-9) {
    throw new InputError(`--shares ${text}: three numbers that make 1 are needed (training, calibration, test)`);
  }
  return [shares[0], shares[1], shares[2]];
}

const TRAINING_ONLY = ['margins', 'crossing', 'smoothing', 'trials', 'validationShare', 'maxSteps'] as const;

const GLOBAL_ONLY = ['solver', 'tolerance', 'unnormalized'] as const;
const FEATURES_ONLY = ['features', 'featureData'] as const;

function parseMethods(own: OwnOptions): string[] {
  const names = parseList(own.method ?? 'all').map((name) => parseChoice('--method', name, ['all', ...METHOD_NAMES]));
  if (names.length === 0) throw new InputError(`--method names none; choose from all, ${METHOD_NAMES.join(', ')}`);
  return [...new Set(names)];
}

function argumentsOf(options: Options, own: OwnOptions, paths: readonly string[]): QuantilesArguments {
  const methods = parseMethods(own);
  const solver = parseChoice('--solver', own.solver ?? 'lp', SOLVERS);
  const local = methods.some((name) => name === 'all' || name.startsWith('local-'));
  const trains = solver === 'adam' || local;
  const strayTraining = trains ? undefined : TRAINING_ONLY.find((name) => own[name] !== undefined);
  if (strayTraining !== undefined) {
    throw new InputError(`${flagOf(strayTraining)} has no meaning without --solver adam or a local method`);
  }
  const fitsGlobal = methods.some((name) => name === 'all' || WEIGHT_FORMS.some((form) => form === name));
  const strayGlobal = fitsGlobal ? undefined : GLOBAL_ONLY.find((name) => own[name] !== undefined);
  if (strayGlobal !== undefined) {
    throw new InputError(
      `${flagOf(strayGlobal)} is for global weights (${WEIGHT_FORMS.join(', ')}); --method names none`,
    );
  }
  const strayFeatures = local ? undefined : FEATURES_ONLY.find((name) => own[name] !== undefined);
  if (strayFeatures !== undefined) {
    throw new InputError(`${flagOf(strayFeatures)} is for local weights; --method names none`);
  }
  if (own.tolerance !== undefined && solver === 'adam') throw new InputError('--tolerance is for --solver lp and eg');
  if (own.splitColumn !== undefined && (own.shares !== undefined || own.splitBy !== undefined)) {
    throw new InputError('--split-column says what each row is for; leave --shares and --split-by out');
  }
  const nonCrossing = parseChoice('--non-crossing', own.nonCrossing ?? 'sort', NON_CROSSINGS);
  const sort = parseChoice('--sort', own.sort ?? 'hard', SORTS);
  if (own.sort !== undefined && nonCrossing !== 'sort') throw new InputError('--sort is for --non-crossing sort');
  return {
    source: sourceOf(paths, own, options.limit),
    methods,
    fit: {
      solver,
      tolerance: parseNumber('--tolerance', own.tolerance ?? TOLERANCES[solver], 1e-12, 1),
      normalised: own.unnormalized !== true,
      margins: parseChoice('--margins', own.margins ?? 'single', MARGIN_KINDS),
      ...(own.crossing !== undefined && { crossing: parseNumber('--crossing', own.crossing, 0) }),
      smoothing: parseNumber('--smoothing', own.smoothing ?? '0', 0),
      trials: parseInteger('--trials', own.trials ?? '20', 1),
      validationShare: parseNumber('--validation-share', own.validationShare ?? '0.2', 0.01, 0.9),
      mostSteps: parseInteger('--max-steps', own.maxSteps ?? String(CODE_TRAINING.mostSteps), 1),
      seed: options.seed,
      threads: options.threads,
    },
    split: {
      shares: parseShares(own.shares ?? DEFAULT_SHARES),
      by: parseChoice('--split-by', own.splitBy ?? 'random', ['random', 'order'] as const),
      seed: options.seed,
    },
    shape: { nonCrossing, sort },
    conformal: parseChoice('--conformal', own.conformal ?? 'symmetric', CONFORMAL_KINDS),
    keepPredictions: options.out !== undefined,
    maxMemoryBytes: options.maxMemory,
  };
}

function parametersOf(args: QuantilesArguments, own: OwnOptions, options: Options): Record<string, ReportValue> {
  const { fit, split, shape } = args;
  return {
    methods: [...args.methods],
    layout: own.layout ?? 'auto',
    outcome: own.outcomes ?? own.outcome ?? 'y',
    split_column: own.splitColumn ?? null,
    shares: own.splitColumn === undefined ? [...split.shares] : null,
    split_by: own.splitColumn === undefined ? split.by : null,
    features: own.featureData ?? own.features ?? null,
    solver: fit.solver,
    tolerance: fit.tolerance,
    normalized: fit.normalised,
    margins: fit.margins,
    crossing: fit.crossing ?? null,
    smoothing: fit.smoothing,
    trials: fit.trials,
    validation_share: fit.validationShare,
    max_steps: fit.mostSteps,
    non_crossing: shape.nonCrossing,
    sort: shape.sort,
    conformal: args.conformal,
    limit: options.limit ?? null,
    seed: options.seed,
  };
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const data = requireOption(options.data, '--data', 'a table of quantile forecasts, or an array with --outcomes');
  const paths = await expandSources(data);
  const args = argumentsOf(options, own, paths);
  const beside = [own.outcomes, own.featureData].filter((path): path is string => path !== undefined);
  return runAnalysis(
    {
      name: QUANTILES_SCHEMA,
      command: 'fuse quantiles',
      columns: PREDICTION_COLUMNS,
      tableColumns: SCORE_COLUMNS,
      files: new Map(own.weights === undefined ? [] : [['--weights', own.weights]]),
      unit: 'methods',
      inputs: [...paths, ...beside],
      parameters: parametersOf(args, own, options),
      subtitle: data.join(', '),
    },
    { ...options, shard: undefined },
    {
      measure: (context) => measure(args, own, [...paths, ...beside], context),
      plan: async () => planOf(args, paths),
    },
  );
}

async function measure(
  args: QuantilesArguments,
  own: OwnOptions,
  inputs: readonly string[],
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  for (const path of inputs) context.ledger.note(path);
  context.timings.begin('fit and judge');
  const result = await context.run(AGGREGATE_QUANTILES, args, (value) => {
    const { done, what } = value as { done: number; what: string };
    context.progress.update(Math.floor(done), what);
  });
  context.timings.count('rows', result.data.rows);
  for (const warning of result.warnings) context.warn(warning);
  const body = quantilesBody(result);
  return {
    body,
    rows: () => predictionRows(result),
    tableRows: () => scoreRows(result),
    figure: async (subtitle) =>
      (await import('../src/fusion/quantiles/quantiles-plot.js')).drawQuantiles(result, subtitle),
    summary: summaryOf(result),
    files: () =>
      new Map(
        own.weights === undefined ? [] : [['--weights', tableBytes(own.weights, WEIGHT_COLUMNS, weightRows(result))]],
      ),
  };
}

function summaryOf(result: QuantilesResult): AnalysisOutcome['summary'] {
  const orNone = (value: number | undefined): SummaryCell => (value === undefined || Number.isNaN(value) ? '' : value);
  return {
    header: ['method', 'test pinball', 'WIS', 'calibration error', 'fit pinball', 'gap to the optimum'],
    rows: result.methods.map(({ name, shaped, facts }): SummaryCell[] => [
      name,
      shaped.meanPinball,
      orNone(shaped.wis),
      shaped.meanAbsoluteCalibrationError,
      facts.objective,
      facts.bound === undefined ? '' : facts.objective - facts.bound,
    ]),
  };
}

function planOf(args: QuantilesArguments, paths: readonly string[]): SummaryCell[][] {
  return [
    ['forecasts', paths.join(', ')],
    ['methods', args.methods.join(', ')],
    ['solver of global weights', args.fit.solver],
    ['trainings of a trained method', args.fit.trials + 1],
    ['crossings end by', args.shape.nonCrossing],
    ['intervals', args.conformal],
    ['forecasts in memory', 'doubles up to a quarter of --max-memory, single precision up to half of it'],
  ];
}
