import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { readRecords } from '../src/formats/documents.js';
import { expandSources } from '../src/formats/inputs.js';
import { evaluationScore, type ScoreRecipe } from '../src/policy/reward/evaluation-score.js';
import {
  type LoggedAdvantages,
  learnsMultipliers,
  squashOf,
  VARIANTS,
} from '../src/policy/reward/multiplier-replay.js';
import { type Squash, USUAL_MULTIPLIERS } from '../src/policy/reward/multipliers.js';
import { joinColumns, readNumbers } from '../src/policy/reward/reward-data.js';
import {
  analyseReward,
  type ReplayRequest,
  type RewardArguments,
  type SearchRequest,
} from '../src/policy/reward/reward-job.js';
import {
  MIXED_COLUMNS,
  MULTIPLIER_COLUMNS,
  mixedRows,
  multiplierRows,
  REWARD_SCHEMA,
  RUN_COLUMNS,
  rewardBody,
  runRows,
  SIMPLEX_COLUMNS,
  simplexRows,
} from '../src/policy/reward/reward-report.js';
import { OBJECTIVES } from '../src/policy/reward/threshold-search.js';
import { type DataBox, type ScoredRuns, SMOOTHERS } from '../src/policy/reward/types.js';
import { tableBytes } from '../src/report/csv.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { flagOf, parseChoice, parseInteger, parseList, parseNumber } from './edge-values.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption } from './shared-options.js';

const SHARED = [...ANALYSIS_OPTIONS.filter((name) => name !== 'shard'), 'data', 'limit'] as const;

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

interface OwnOptions {
  rewards?: string;
  score?: string;
  scoreGroups?: string;
  scoreRanges?: string;
  smoother?: string;
  span?: string;
  draws?: string;
  level?: string;
  updates?: string;
  updateColumn?: string;
  thresholds?: string;
  variant?: string;
  squash?: string;
  multiplierRate?: string;
  multiplierMomentum?: string;
  maxGradNorm?: string;
  rawStart?: string;
  advantages?: string;
  klColumn?: string;
  multipliers?: string;
  mixed?: string;
  search?: string;
  searchRanges?: string;
  searchTable?: string;
  maxEvaluations?: string;
  searchTolerance?: string;
  cacheTolerance?: string;
  simplexStart?: string;
  simplex?: string;
}

const SQUASHES = ['tanh', 'sigmoid', 'none'] as const satisfies readonly Squash[];
const DEFAULT_CACHE = '2%';

/** Options that decide the result, with what stands for them where they are not given. */
const DEFAULTS = {
  score: 'score',
  scoreGroups: null,
  scoreRanges: null,
  smoother: 'quadratic',
  span: '0.75',
  draws: '1000',
  level: '0.9',
  updates: null,
  updateColumn: 'update',
  thresholds: null,
  variant: 'xi-ppo',
  squash: null,
  multiplierRate: String(USUAL_MULTIPLIERS.learningRate),
  multiplierMomentum: String(USUAL_MULTIPLIERS.momentum),
  maxGradNorm: String(USUAL_MULTIPLIERS.maxGradientNorm),
  rawStart: null,
  advantages: null,
  klColumn: 'kl',
  search: null,
  searchRanges: null,
  searchTable: null,
  maxEvaluations: '60',
  searchTolerance: '0.01',
  cacheTolerance: DEFAULT_CACHE,
  simplexStart: null,
} as const satisfies Partial<Record<keyof OwnOptions, string | null>>;

/** Declares `surprisal analyze-policy reward`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--rewards <names>', 'columns of the component rewards, separated by commas')
    .option('--score <column>', 'column of the evaluation score in --data (default score)')
    .option(
      '--score-groups <a,b;c,d>',
      'score of metrics: the mean over groups of the mean of a group, each scaled to its range',
    )
    .option('--score-ranges <a=low:high,...>', 'values of metrics that become 0 and 1 (default those of the data)')
    .option('--smoother <name>', `surface of the score: ${SMOOTHERS.join(', ')} (default quadratic)`)
    .option('--span <share>', 'loess: share of the runs in a neighbourhood (default 0.75)')
    .option('--draws <n>', 'resamples of the runs for the intervals, 0 for none (default 1000)')
    .option('--level <x>', 'coverage of the intervals (default 0.9)')
    .option('--updates <file>', 'log of updates with the reward columns, for the multipliers')
    .option('--update-column <name>', 'column that numbers the updates (default update, else the rows)')
    .option('--thresholds <a=x,b=y>', 'threshold of every reward by name, or joint or individual for the proxy points')
    .option('--variant <name>', `how thresholds are used: ${VARIANTS.join(', ')} (default xi-ppo)`)
    .option('--squash <name>', `multipliers: ${SQUASHES.join(', ')} (default that of the variant)`)
    .option('--multiplier-rate <x>', `learning rate of the multipliers (default ${USUAL_MULTIPLIERS.learningRate})`)
    .option('--multiplier-momentum <x>', `momentum of the multipliers (default ${USUAL_MULTIPLIERS.momentum})`)
    .option('--max-grad-norm <x>', `largest norm of their gradient (default ${USUAL_MULTIPLIERS.maxGradientNorm})`)
    .option(
      '--raw-start <x|a=x,b=y>',
      'raw multipliers at the start (default one draw of N(0, 0.01²) for all; unsquashed 0.5)',
    )
    .option('--advantages <file>', 'advantages of minibatches to mix: update, the reward columns and --kl-column')
    .option('--kl-column <name>', 'column of the advantage of the divergence (default kl)')
    .option('--multipliers <file>', 'table of the multipliers by update')
    .option('--mixed <file>', 'table of the mixed advantages')
    .option(
      '--search <objective>',
      'search thresholds: fit (the surface), nearest (logged run) or table (--search-table)',
    )
    .option(
      '--search-ranges <a=low:high,...>',
      'range of every threshold for the first simplex (default that of the data)',
    )
    .option('--search-table <file>', 'evaluations: thresholds in the reward columns and their score')
    .option('--max-evaluations <n>', 'evaluations after which no pass begins (default 60)')
    .option('--search-tolerance <x>', 'deviation of the scores of the simplex at which it has converged (default 0.01)')
    .option(
      '--cache-tolerance <x>',
      `points this near share an evaluation: a number, or % of each range (default ${DEFAULT_CACHE})`,
    )
    .option('--simplex-start <file>', 'first simplex: one more row than rewards (default drawn in the ranges)')
    .option('--simplex <file>', 'table of the simplex by pass')
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

/** `a=x,b=y` by name, every name once and known. @throws InputError */
function parseNamed(option: string, text: string, known: readonly string[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const entry of parseList(text)) {
    const at = entry.lastIndexOf('=');
    if (at < 1) throw new InputError(`${option} ${entry}: write name=value`);
    const name = parseChoice(option, entry.slice(0, at).trim(), known);
    if (found.has(name)) throw new InputError(`${option} names ${name} twice`);
    found.set(name, entry.slice(at + 1).trim());
  }
  return found;
}

/** One value a reward. @throws InputError where one is missing */
function perReward(option: string, text: string, names: readonly string[]): Float64Array {
  const found = parseNamed(option, text, names);
  return Float64Array.from(names, (name) => {
    const value = found.get(name);
    if (value === undefined) throw new InputError(`${option}: no value for "${name}"; every reward needs one`);
    return parseNumber(option, value);
  });
}

function parseRange(option: string, text: string): [number, number] {
  const ends = text.split(':').map((end) => parseNumber(option, end));
  if (ends.length !== 2 || !(ends[1] > ends[0]))
    throw new InputError(`${option} ${text}: write low:high with low below high`);
  return [ends[0], ends[1]];
}

const NEEDS_UPDATES = [
  'thresholds',
  'variant',
  'squash',
  'multiplierRate',
  'multiplierMomentum',
  'maxGradNorm',
  'rawStart',
  'advantages',
  'multipliers',
  'mixed',
  'updateColumn',
  'klColumn',
] as const;
const NEEDS_SEARCH = [
  'searchRanges',
  'searchTable',
  'maxEvaluations',
  'searchTolerance',
  'cacheTolerance',
  'simplexStart',
  'simplex',
] as const;
const NEEDS_DATA = ['score', 'scoreGroups', 'scoreRanges', 'smoother', 'span', 'draws', 'level'] as const;
const NEEDS_LEARNING = ['squash', 'multiplierRate', 'multiplierMomentum', 'maxGradNorm'] as const;

/** Options that nothing would read are refused. */
function checkOptions(options: Options, own: OwnOptions): void {
  const refuse = (names: readonly (keyof OwnOptions)[], there: boolean, what: string): void => {
    const stray = there ? undefined : names.find((name) => own[name] !== undefined);
    if (stray !== undefined) throw new InputError(`${flagOf(stray)} has no meaning without ${what}`);
  };
  if (options.data.length === 0 && own.updates === undefined && own.search === undefined) {
    throw new InputError('nothing to do: give scored runs with --data, a log with --updates, or --search');
  }
  refuse(NEEDS_UPDATES, own.updates !== undefined, '--updates');
  refuse(NEEDS_SEARCH, own.search !== undefined, '--search');
  refuse(
    NEEDS_DATA.filter((name) => name !== 'score' || own.search !== 'table'),
    options.data.length > 0,
    '--data',
  );
  refuse(['klColumn', 'mixed'], own.advantages !== undefined, '--advantages');
  refuse(['span'], own.smoother === 'loess', '--smoother loess');
  refuse(['scoreRanges'], own.scoreGroups !== undefined, '--score-groups');
  refuse(['searchTable'], own.search === 'table', '--search table');
  if (own.advantages !== undefined && own.mixed === undefined)
    throw new InputError('--advantages are mixed into a file; name it with --mixed');
  if (own.scoreGroups !== undefined && own.score !== undefined)
    throw new InputError('--score and --score-groups both say what the score is');
}

/** The score: a column, or a recipe of metrics. */
async function readRuns(
  options: Options,
  own: OwnOptions,
  names: readonly string[],
  context: AnalysisContext,
): Promise<ScoredRuns> {
  const limit = options.limit === undefined ? {} : { limit: options.limit };
  const rows = readRecords(options.data, { ledger: context.ledger, ...limit });
  const groups = own.scoreGroups
    ?.split(';')
    .map(parseList)
    .filter((group) => group.length > 0);
  const metrics = groups?.flat() ?? [own.score ?? DEFAULTS.score];
  if (new Set(metrics).size < metrics.length)
    throw new InputError(`--score-groups ${own.scoreGroups}: a metric is named twice`);
  const table = await readNumbers(
    rows,
    [...new Set([...names, ...metrics])],
    groups ? '--rewards, --score-groups' : '--rewards, --score',
  );
  const column = (name: string): Float64Array => table.columns.get(name) ?? new Float64Array(0);
  const recipe: ScoreRecipe | undefined = groups && {
    groups,
    ranges: new Map(
      [...parseNamed('--score-ranges', own.scoreRanges ?? '', metrics)].map(([name, text]) => [
        name,
        parseRange('--score-ranges', text),
      ]),
    ),
  };
  return {
    names,
    rows: table.rows,
    rewards: joinColumns(table, names),
    score: recipe === undefined ? column(metrics[0]) : evaluationScore(table.columns, recipe),
  };
}

interface ReplayInput {
  readonly request: ReplayRequest;
  /** How the log numbers its updates, and each row of the advantages. */
  readonly updates: Float64Array;
  readonly advantageUpdates: Float64Array;
}

async function readReplay(
  own: OwnOptions,
  names: readonly string[],
  path: string,
  context: AnalysisContext,
): Promise<ReplayInput> {
  const key = own.updateColumn ?? DEFAULTS.updateColumn;
  const rows = readRecords([path], { ledger: context.ledger });
  const required = own.updateColumn === undefined ? names : [key, ...names];
  const table = await readNumbers(
    rows,
    required,
    own.updateColumn === undefined ? '--rewards' : '--update-column, --rewards',
    own.updateColumn === undefined ? [key] : [],
  );
  const updates = table.columns.get(key) ?? Float64Array.from({ length: table.rows }, (_, r) => r + 1);
  const places = new Map<number, number>();
  updates.forEach((update, r) => {
    if (places.has(update))
      throw new InputError(`${path}: update ${update} is there twice; keep the mean rewards of each update in one row`);
    places.set(update, r);
  });
  const text = requireOption(
    own.thresholds,
    '--thresholds',
    'a threshold for every reward (a=x,b=y), joint or individual',
  );
  const thresholds = text === 'joint' || text === 'individual' ? text : perReward('--thresholds', text, names);
  const variant = parseChoice('--variant', own.variant ?? DEFAULTS.variant, VARIANTS);
  const learns = learnsMultipliers(variant);
  const stray = learns ? undefined : NEEDS_LEARNING.find((name) => own[name] !== undefined);
  if (stray !== undefined)
    throw new InputError(`${flagOf(stray)} has no meaning for --variant ${variant}, whose weights are fixed`);
  const start = own.rawStart;
  const { advantages, advantageUpdates } = await readAdvantages(own, names, key, places, context);
  return {
    updates,
    advantageUpdates,
    request: {
      rewards: joinColumns(table, names),
      thresholds,
      options: {
        variant,
        squash: own.squash === undefined ? squashOf(variant) : parseChoice('--squash', own.squash, SQUASHES),
        learningRate: parseNumber('--multiplier-rate', own.multiplierRate ?? DEFAULTS.multiplierRate, 0),
        momentum: parseNumber('--multiplier-momentum', own.multiplierMomentum ?? DEFAULTS.multiplierMomentum, 0, 1),
        maxGradientNorm: parseNumber('--max-grad-norm', own.maxGradNorm ?? DEFAULTS.maxGradNorm, 0),
      },
      ...(start !== undefined && {
        start: start.includes('=')
          ? perReward('--raw-start', start, names)
          : new Float64Array(names.length).fill(parseNumber('--raw-start', start)),
      }),
      ...(advantages && { advantages }),
    },
  };
}

async function readAdvantages(
  own: OwnOptions,
  names: readonly string[],
  key: string,
  places: ReadonlyMap<number, number>,
  context: AnalysisContext,
): Promise<{ advantages?: LoggedAdvantages; advantageUpdates: Float64Array }> {
  if (own.advantages === undefined) return { advantageUpdates: new Float64Array(0) };
  const kl = own.klColumn ?? DEFAULTS.klColumn;
  const rows = readRecords([own.advantages], { ledger: context.ledger });
  const table = await readNumbers(rows, [...new Set([key, kl, ...names])], '--advantages, --kl-column, --rewards');
  const column = (name: string): Float64Array => table.columns.get(name) ?? new Float64Array(0);
  const counts = new Map<number, number>();
  const update = Int32Array.from(column(key), (number, row) => {
    const place = places.get(number);
    if (place === undefined)
      throw new InputError(`${own.advantages}, row ${row + 1}: update ${number} is not in --updates`);
    counts.set(number, (counts.get(number) ?? 0) + 1);
    return place;
  });
  const single = [...counts].find(([, count]) => count < 2);
  if (single !== undefined)
    throw new InputError(
      `${own.advantages}: update ${single[0]} has one row; a minibatch of two or more is standardised`,
    );
  return {
    advantages: { update, divergence: column(kl), constraints: names.map(column) },
    advantageUpdates: column(key),
  };
}

async function readSearch(
  options: Options,
  own: OwnOptions,
  names: readonly string[],
  context: AnalysisContext,
): Promise<SearchRequest | undefined> {
  if (own.search === undefined) return undefined;
  const objective = parseChoice('--search', own.search, OBJECTIVES);
  const cache = own.cacheTolerance ?? DEFAULTS.cacheTolerance;
  const percent = cache.trim().endsWith('%');
  const width = parseNumber('--cache-tolerance', percent ? cache.trim().slice(0, -1) : cache, 0);
  const numbers = (path: string, columns: readonly string[], flag: string) =>
    readNumbers(readRecords([path], { ledger: context.ledger }), columns, flag);
  const score = own.score ?? DEFAULTS.score;
  const table =
    objective === 'table'
      ? await numbers(
          requireOption(own.searchTable, '--search-table', 'a table of thresholds and scores'),
          [...names, score],
          '--rewards, --score',
        )
      : undefined;
  const first = own.simplexStart === undefined ? undefined : await numbers(own.simplexStart, names, '--rewards');
  if (first !== undefined && first.rows !== names.length + 1) {
    throw new InputError(
      `${own.simplexStart}: a simplex of ${names.length} thresholds has ${names.length + 1} rows, not ${first.rows}`,
    );
  }
  const points = first && joinColumns(first, names);
  const range = own.searchRanges === undefined ? undefined : parseRanges(own.searchRanges, names);
  return {
    options: {
      objective,
      seed: options.seed,
      maxEvaluations: parseInteger('--max-evaluations', own.maxEvaluations ?? DEFAULTS.maxEvaluations, 1),
      tolerance: parseNumber('--search-tolerance', own.searchTolerance ?? DEFAULTS.searchTolerance, 0),
    },
    cache: percent ? { share: width / 100 } : { absolute: width },
    ...(range && { range }),
    ...(points && {
      simplex: Array.from({ length: names.length + 1 }, (_, k) =>
        points.slice(k * names.length, (k + 1) * names.length),
      ),
    }),
    ...(table && {
      table: {
        names,
        rows: table.rows,
        rewards: joinColumns(table, names),
        score: table.columns.get(score) ?? new Float64Array(0),
      },
    }),
  };
}

function parseRanges(text: string, names: readonly string[]): DataBox {
  const found = parseNamed('--search-ranges', text, names);
  const ranges = names.map((name) =>
    parseRange('--search-ranges', requireOption(found.get(name), '--search-ranges', `low:high of "${name}"`)),
  );
  return { low: Float64Array.from(ranges, ([low]) => low), high: Float64Array.from(ranges, ([, high]) => high) };
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  checkOptions(options, own);
  const names = parseList(requireOption(own.rewards, '--rewards', 'the columns of the component rewards'));
  if (names.length === 0 || new Set(names).size < names.length)
    throw new InputError(`--rewards ${own.rewards}: name each reward once`);
  const paths = options.data.length === 0 ? [] : await expandSources(options.data);
  const level = parseNumber('--level', own.level ?? DEFAULTS.level);
  if (!(level > 0 && level < 1)) throw new InputError(`--level ${own.level}: a share above 0 and below 1 is needed`);
  const draws = parseInteger('--draws', own.draws ?? DEFAULTS.draws);
  if (draws === 1) throw new InputError('--draws 1: one resample has no spread');
  const span = parseNumber('--span', own.span ?? DEFAULTS.span, 0, 1);
  const smoother = parseChoice('--smoother', own.smoother ?? DEFAULTS.smoother, SMOOTHERS);
  if (own.search !== undefined && own.search !== 'table' && options.data.length === 0) {
    throw new InputError(`--search ${own.search} needs scored runs; give them with --data`);
  }
  const inputs = [...paths, own.updates, own.advantages, own.searchTable, own.simplexStart].filter(
    (path) => path !== undefined,
  );
  const files = new Map<string, string>();
  for (const [flag, path] of [
    ['--multipliers', own.multipliers],
    ['--simplex', own.simplex],
    ['--mixed', own.mixed],
  ] as const) {
    if (path !== undefined) files.set(flag, path);
  }
  const readAll = async (context: AnalysisContext) => {
    const runs = paths.length === 0 ? undefined : await readRuns(options, own, names, context);
    const replay = own.updates === undefined ? undefined : await readReplay(own, names, own.updates, context);
    const search = await readSearch(options, own, names, context);
    const args: RewardArguments = {
      names,
      seed: options.seed,
      ...(runs && { runs, proxy: { smoother, span, draws, level, seed: options.seed, threads: options.threads } }),
      ...(replay && { replay: replay.request }),
      ...(search && { search }),
    };
    return { args, replay };
  };
  return runAnalysis(
    {
      name: REWARD_SCHEMA,
      command: 'analyze-policy reward',
      columns: RUN_COLUMNS(names),
      files,
      unit: 'draws',
      inputs,
      parameters: parametersOf(options, own, names),
      subtitle: inputs.join(', '),
    },
    { ...options, shard: undefined },
    {
      measure: async (context) => outcomeOf(await readAll(context), own, context),
      plan: async (context) => {
        const { args } = await readAll(context);
        return [
          ['rewards', names.join(', ')],
          ['scored runs', args.runs?.rows ?? 0],
          ['updates', (args.replay?.rewards.length ?? 0) / names.length],
          ['search', own.search ?? 'none'],
        ];
      },
    },
  );
}

function parametersOf(options: Options, own: OwnOptions, names: readonly string[]): Record<string, ReportValue> {
  const given: Record<string, ReportValue> = {};
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    const value = own[name as keyof typeof DEFAULTS] ?? usual;
    given[flagOf(name).slice(2).replaceAll('-', '_')] = value;
  }
  return { ...given, data: [...options.data], limit: options.limit ?? null, rewards: [...names], seed: options.seed };
}

async function outcomeOf(
  { args, replay }: { args: RewardArguments; replay: ReplayInput | undefined },
  own: OwnOptions,
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  const module = new URL('../src/policy/reward/reward-job.js', import.meta.url).href;
  const result = await context.run({ module, job: analyseReward }, args, (done) =>
    context.progress.update(done as number),
  );
  for (const warning of result.warnings) context.warn(warning);
  const updates = replay?.updates ?? new Float64Array(0);
  const bytes = (
    path: string | undefined,
    columns: readonly string[],
    rows: () => Iterable<readonly (string | number | bigint | boolean | null | undefined)[]>,
  ) => (path === undefined ? undefined : tableBytes(path, columns, rows()));
  return {
    body: rewardBody(args, result, result.warnings),
    rows: () => runRows(args, result),
    figure: async (subtitle) =>
      (await import('../src/policy/reward/reward-plot.js')).rewardFigure(args, result, updates, subtitle),
    summary: { header: ['what', ...args.names, 'score'], rows: summaryRows(args, result) },
    files: () => {
      const written = new Map<string, Uint8Array>();
      const add = (flag: string, content: Uint8Array | undefined): void => {
        if (content !== undefined) written.set(flag, content);
      };
      add(
        '--multipliers',
        bytes(own.multipliers, MULTIPLIER_COLUMNS, () => multiplierRows(args, result, updates)),
      );
      add(
        '--simplex',
        bytes(own.simplex, SIMPLEX_COLUMNS(args.names), () => simplexRows(result)),
      );
      add(
        '--mixed',
        bytes(own.mixed, MIXED_COLUMNS, () => mixedRows(result, replay?.advantageUpdates ?? [])),
      );
      return written;
    },
  };
}

function summaryRows(
  { names }: RewardArguments,
  { proxy, replay, search }: Awaited<ReturnType<typeof analyseReward>>,
): SummaryCell[][] {
  const rows: SummaryCell[][] = [];
  if (proxy) {
    rows.push(['individual proxy points', ...proxy.individual.map(({ point }) => point[0]), '']);
    rows.push([`joint proxy point (${proxy.joint.status})`, ...proxy.joint.point, proxy.joint.score]);
  }
  if (replay) {
    const last = (replay.updates - 1) * names.length;
    rows.push(['last multipliers', ...replay.multiplier.subarray(last), '']);
    rows.push(['last R - threshold', ...replay.violation.subarray(last), '']);
  }
  if (search?.best)
    rows.push([`best of ${search.evaluated.length} evaluations`, ...search.best.thresholds, search.best.score]);
  if (search?.next) rows.push(['evaluate next', ...search.next, '']);
  return rows;
}
