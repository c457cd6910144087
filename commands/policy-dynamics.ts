import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { expandSources } from '../src/formats/inputs.js';
import {
  ANALYSE_DYNAMICS,
  type DynamicsArguments,
  type DynamicsProgress,
} from '../src/policy/dynamics/analyse-dynamics.js';
import {
  DYNAMICS_SCHEMA,
  type DynamicsBody,
  dynamicsBody,
  STEP_COLUMNS,
  stepRows,
  TOKEN_COLUMNS_OUT,
  tokenRows,
} from '../src/policy/dynamics/dynamics-report.js';
import { type AlarmRules, USUAL_ALARMS } from '../src/policy/dynamics/entropy-alarms.js';
import { TOKEN_SCORES, type TokenScore } from '../src/policy/dynamics/token-table.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { parseChoice, parseInteger, parseNumber } from './edge-values.js';
import {
  attachRollouts,
  ROLLOUT_OPTIONS,
  type RolloutOwnOptions,
  rolloutModelDigests,
  rolloutParameters,
  rolloutRequest,
  withRollouts,
} from './policy-rollouts.js';
import { ANALYSIS_OPTIONS, attachShared } from './shared-options.js';

/** Nothing is drawn by chance; and a change of entropy needs two steps, so that a shard would lack its neighbour. */
const SHARED = [
  ...ANALYSIS_OPTIONS.filter((name) => name !== 'shard' && name !== 'seed'),
  ...ROLLOUT_OPTIONS,
  'table',
] as const;

interface OwnOptions extends RolloutOwnOptions {
  clipLow: string;
  clipHigh: string;
  lengthLimit?: string;
  score?: string;
  top?: string;
  neighbours?: string;
  frequent: string;
  collapseRatio: string;
  surgeRatio: string;
  window: string;
}

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

const DEFAULT_TOP = 200;
const DEFAULT_NEIGHBOURS = 8;

/** Declares `surprisal analyze-policy dynamics`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  attachRollouts(command)
    .option('--clip-low <x>', 'ratios are clipped below 1 - x', '0.2')
    .option('--clip-high <x>', 'ratios are clipped above 1 + x', '0.2')
    .option(
      '--length-limit <tokens>',
      'length at which responses were cut off (default: as long as the longest of the dump)',
    )
    .option('--score <name>', `what tokens of --table are the largest in: ${TOKEN_SCORES.join(', ')} (default entropy)`)
    .option('--top <n>', `tokens of --table (default ${DEFAULT_TOP})`)
    .option('--neighbours <n>', `tokens of context on either side in --table (default ${DEFAULT_NEIGHBOURS})`)
    .option('--frequent <n>', 'texts of the report that are most often among the top 20% of entropies', '30')
    .option(
      '--collapse-ratio <x>',
      'collapse: the last entropies are at most this share of the first',
      String(USUAL_ALARMS.collapseRatio),
    )
    .option(
      '--surge-ratio <x>',
      'surge: entropies rise to at least this multiple of earlier ones',
      String(USUAL_ALARMS.surgeRatio),
    )
    .option('--window <share>', 'steps whose medians are compared, as a share of all', String(USUAL_ALARMS.window))
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

function tableOf(options: Options, own: OwnOptions): DynamicsArguments['table'] {
  if (options.table === undefined) {
    const idle = [
      ['--score', own.score],
      ['--top', own.top],
      ['--neighbours', own.neighbours],
    ].find(([, value]) => value !== undefined);
    if (idle) throw new InputError(`${idle[0]} is about the tokens of --table; name a file with --table`);
    return null;
  }
  return {
    score: parseChoice<TokenScore>('--score', own.score ?? 'entropy', TOKEN_SCORES),
    top: parseInteger('--top', own.top ?? String(DEFAULT_TOP), 1),
    context: parseInteger('--neighbours', own.neighbours ?? String(DEFAULT_NEIGHBOURS), 0),
  };
}

function rulesOf(own: OwnOptions): AlarmRules {
  const window = parseNumber('--window', own.window, 0, 0.5);
  if (window === 0) throw new InputError('--window 0 holds no step; give a share above 0');
  return {
    collapseRatio: parseNumber('--collapse-ratio', own.collapseRatio, 0, 1),
    surgeRatio: parseNumber('--surge-ratio', own.surgeRatio, 1),
    window,
  };
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const paths = await expandSources(options.data);
  const args: DynamicsArguments = {
    request: rolloutRequest({ ...options, data: paths }, own),
    clip: {
      low: parseNumber('--clip-low', own.clipLow, 0, 1),
      high: parseNumber('--clip-high', own.clipHigh, 0),
    },
    lengthLimit: own.lengthLimit === undefined ? null : parseInteger('--length-limit', own.lengthLimit, 1),
    table: tableOf(options, own),
    frequent: parseInteger('--frequent', own.frequent, 0),
    threads: options.threads,
  };
  const rules = rulesOf(own);
  return runAnalysis(
    {
      name: DYNAMICS_SCHEMA,
      command: 'analyze-policy dynamics',
      columns: STEP_COLUMNS,
      tableColumns: TOKEN_COLUMNS_OUT,
      unit: 'tokens',
      inputs: paths,
      parameters: {
        ...rolloutParameters({ ...args.request, paths: options.data }),
        clip_low: args.clip.low,
        clip_high: args.clip.high,
        length_limit: args.lengthLimit,
        table: args.table && { ...args.table },
        frequent: args.frequent,
        collapse_ratio: rules.collapseRatio,
        surge_ratio: rules.surgeRatio,
        window: rules.window,
      },
      subtitle: options.data.join(', '),
    },
    { ...options, seed: 0, shard: undefined },
    {
      measure: (context) => measure(args, rules, context),
      plan: async () => planOf(args, paths),
    },
  );
}

function planOf({ request, table }: DynamicsArguments, paths: readonly string[]): [string, SummaryCell][] {
  return [
    ...paths.map((path): [string, SummaryCell] => ['reads', path]),
    ['scored again by', request.model ?? 'nothing'],
    ['token values in memory, at most', request.exactLimit],
    ['passes over every step', table === null ? 3 : 5],
    ['table of tokens', table === null ? 'none' : `${table.top} by ${table.score}`],
  ];
}

async function measure(args: DynamicsArguments, rules: AlarmRules, context: AnalysisContext): Promise<AnalysisOutcome> {
  const result = await withRollouts(context.ledger, args.request, (request) =>
    context.run(ANALYSE_DYNAMICS, { ...args, request }, (value) => {
      const { done, total } = value as DynamicsProgress;
      context.progress.setTotal(total);
      context.progress.update(done);
    }),
  );
  context.timings.count('tokens', result.dump.tokens);
  const body = dynamicsBody(result, rules);
  for (const warning of [...body.dump.warnings, ...body.warnings]) context.warn(warning);
  return {
    body,
    digests: () => rolloutModelDigests(args.request),
    rows: () => stepRows(body),
    tableRows: () => tokenRows(result.tokens),
    figure: async (subtitle) => (await import('../src/policy/dynamics/dynamics-plot.js')).drawDynamics(body, subtitle),
    summary: summaryOf(body),
  };
}

/** Most steps of the summary on standard output. */
const MOST_SHOWN = 20;

function summaryOf(body: DynamicsBody): AnalysisOutcome['summary'] {
  const every = Math.ceil(body.by_step.length / MOST_SHOWN);
  const shown = body.by_step.filter((_, t) => t % every === 0 || t === body.by_step.length - 1);
  const columns = [
    'step',
    'n_tokens',
    body.predicted_change.measured,
    'cov_mean',
    'cov_top_2e-3',
    'response_cov',
    'clip_frac',
    'reward_mean',
    'length_mean',
  ];
  return {
    header: columns.map((name) => name.replaceAll('_', ' ')),
    rows: shown.map((row) => columns.map((name) => row[name] ?? undefined)),
  };
}
