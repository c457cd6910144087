import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { createAtomicDirectory, createAtomicFile } from '../src/formats/atomic.js';
import { expandSources } from '../src/formats/inputs.js';
import { chooseMethods, choosePlain } from '../src/policy/interventions/comparison.js';
import { COMPARE_INTERVENTIONS, type ComparisonArguments } from '../src/policy/interventions/comparison-job.js';
import {
  COMPARISON_COLUMNS,
  comparisonRows,
  FACT_COLUMNS,
  factRows,
  INTERVENTIONS_SCHEMA,
  type InterventionsBody,
  interventionsBody,
} from '../src/policy/interventions/comparison-report.js';
import { INTERVENTION_NAMES } from '../src/policy/interventions/registry.js';
import { weightFormOf } from '../src/policy/interventions/weights-export.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { parseNumber } from './edge-values.js';
import { DETAIL_METHODS, type DetailOptions, runDetails, vocabularyOf } from './policy-intervention-details.js';
import {
  attachRollouts,
  openWorkFolder,
  ROLLOUT_OPTIONS,
  type RolloutOwnOptions,
  rolloutModelDigests,
  rolloutModels,
  rolloutParameters,
  rolloutRequest,
  withRollouts,
} from './policy-rollouts.js';
import { ANALYSIS_OPTIONS, attachShared } from './shared-options.js';

const SHARED = [...ANALYSIS_OPTIONS.filter((name) => name !== 'shard'), ...ROLLOUT_OPTIONS, 'table'] as const;

interface OwnOptions extends RolloutOwnOptions, DetailOptions {
  method?: string[];
  plain?: string;
  topFraction?: string;
  weights?: string;
}

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

const DEFAULT_TOP_FRACTION = '0.2';

/** Declares `surprisal analyze-policy interventions`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  attachRollouts(command)
    .option(
      '--method <name[:key=value,...]>',
      `method to compare, with settings; repeatable (default all: ${INTERVENTION_NAMES.slice(1).join(', ')})`,
      (text: string, previous: string[] = []) => [...previous, text],
    )
    .option('--plain <key=value,...>', 'settings of plain GRPO, with which the methods are compared')
    .option(
      '--top-fraction <x>',
      `share of the tokens that count as those of high entropy (default ${DEFAULT_TOP_FRACTION})`,
    )
    .option('--weights <path>', 'what a trainer needs of every method: a directory, or one .jsonl or .npz file')
    .option(
      '--details <name[:key=value,...]>',
      `instead of the comparison, what one method says of every record: ${DETAIL_METHODS.join(', ')}`,
    )
    .option('--tables <directory>', 'where the tables and prefixes of --details go')
    .option('--trigger-words <file>', 'ares: trigger words in the place of the built-in list, one a line')
    .option('--special-tokens <ids>', 'cure: ids of tokens that are no text, separated by commas')
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const paths = await expandSources(options.data);
  const rollouts = rolloutRequest({ ...options, data: paths }, own);
  const parameters = rolloutParameters({ ...rollouts, paths: options.data });
  checkDetails(options, own);
  const { details } = own;
  if (details !== undefined) return runDetails({ options, own: { ...own, details }, paths, rollouts, parameters });
  const args: ComparisonArguments = {
    rollouts,
    ...vocabularyOf(own),
    methods: chooseMethods(own.method ?? []),
    plain: choosePlain(own.plain),
    strict: own.method !== undefined,
    seed: options.seed,
    topFraction: parseNumber('--top-fraction', own.topFraction ?? DEFAULT_TOP_FRACTION, 0, 1),
  };
  for (const [flag, value, name] of [
    ['--trigger-words', own.triggerWords, 'ares'],
    ['--special-tokens', own.specialTokens, 'cure'],
  ] as const) {
    if (value !== undefined && !args.methods.some((method) => method.name === name))
      throw new InputError(`${flag} is for ${name}, which is not among the methods`);
  }
  if (args.topFraction === 0) throw new InputError('--top-fraction 0 leaves no token; give a share above 0');
  return runAnalysis(
    {
      name: INTERVENTIONS_SCHEMA,
      command: 'analyze-policy interventions',
      columns: COMPARISON_COLUMNS,
      tableColumns: FACT_COLUMNS,
      unit: 'tokens',
      inputs: [...paths, ...rolloutModels(rollouts), ...(own.triggerWords === undefined ? [] : [own.triggerWords])],
      ...(own.weights !== undefined && { targets: new Map([['--weights', own.weights]]) }),
      parameters: {
        ...parameters,
        methods: Object.fromEntries(args.methods.map(({ label, settings }) => [label, settings])),
        plain: args.plain.settings,
        top_fraction: args.topFraction,
        seed: options.seed,
        ...(args.triggerWords && { trigger_words: args.triggerWords.length }),
        ...(own.specialTokens !== undefined && { special_tokens: own.specialTokens }),
      },
      subtitle: options.data.join(', '),
    },
    { ...options, shard: undefined },
    {
      measure: (context) => measure(args, own, options, context),
      plan: async () => planOf(args, own, paths),
    },
  );
}

/** @throws InputError for options that belong to the comparison beside `--details`, and the other way round */
function checkDetails({ table }: Options, { details, method, plain, topFraction, weights, tables }: OwnOptions): void {
  if (details === undefined) {
    if (tables === undefined) return;
    throw new InputError('--tables is where the tables of --details go; name a method with --details');
  }
  const others = { '--method': method, '--plain': plain, '--top-fraction': topFraction, '--weights': weights };
  for (const [flag, value] of Object.entries({ ...others, '--table': table }))
    if (value !== undefined) throw new InputError(`${flag} belongs to the comparison of methods, not to --details`);
}

/** Where weights are written until they are complete. */
function openWeights(target: string | undefined, options: Options, args: ComparisonArguments) {
  if (target === undefined) return undefined;
  const form = weightFormOf(target);
  const work = openWorkFolder(args.rollouts.workDirectory, 'surprisal-weights-');
  const workDirectory = work.path;
  if (form === 'directory') {
    const output = createAtomicDirectory(target, { force: options.force });
    return { output, work, weights: { form, path: output.path, workDirectory } };
  }
  const output = createAtomicFile(target, { force: options.force });
  return { output, work, weights: { form, path: output.partialPath, workDirectory } };
}

async function measure(
  args: ComparisonArguments,
  own: OwnOptions,
  options: Options,
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  if (own.triggerWords !== undefined) context.ledger.note(own.triggerWords);
  const opened = openWeights(own.weights, options, args);
  try {
    context.timings.begin('compare');
    const { comparison, dump } = await withRollouts(context.ledger, args.rollouts, (rollouts) =>
      context.run(COMPARE_INTERVENTIONS, { ...args, rollouts, ...(opened && { weights: opened.weights }) }, (value) => {
        const { done, total } = value as { done: number; total: number };
        context.progress.setTotal(total);
        context.progress.update(done);
      }),
    );
    context.timings.count('tokens', dump.tokens);
    const body = interventionsBody(comparison, dump, args.topFraction);
    warnOf(body, context);
    if (opened) context.join(opened.output);
    return {
      body,
      digests: () => rolloutModelDigests(args.rollouts),
      rows: () => comparisonRows(body),
      tableRows: () => factRows(body),
      figure: async (subtitle) =>
        (await import('../src/policy/interventions/comparison-plot.js')).drawInterventions(body, subtitle),
      summary: summaryOf(body),
    };
  } catch (error) {
    opened?.output.abort();
    throw error;
  } finally {
    opened?.work.remove();
  }
}

function warnOf(body: InterventionsBody, context: AnalysisContext): void {
  for (const warning of [...body.dump.warnings, ...body.warnings]) context.warn(warning);
  for (const { method, warnings } of body.methods)
    for (const warning of warnings) context.warn(`${method}: ${warning}`);
  for (const { method, reason } of body.unavailable) context.warn(`${method} is left out: ${reason}`);
}

function summaryOf(body: InterventionsBody): AnalysisOutcome['summary'] {
  return {
    header: [
      'method',
      'tokens touched',
      'gradient moved',
      'predicted dH (STEER)',
      'against plain',
      'predicted dH (exact)',
      'in top entropy',
    ],
    rows: body.methods.map((method): SummaryCell[] => [
      method.method,
      method.touched_share,
      method.gradient_mass_moved_share,
      method.predicted_entropy_change_nats ?? '-',
      method.entropy_change_against_plain_nats ?? '-',
      method.predicted_entropy_change_exact_nats ?? '-',
      method.top_entropy_share_of_touched ?? '-',
    ]),
  };
}

function planOf(args: ComparisonArguments, own: OwnOptions, paths: readonly string[]): (readonly SummaryCell[])[] {
  return [
    ['dump', paths.join(', ')],
    ['methods', args.methods.map(({ label }) => label).join(', ')],
    [
      'plain GRPO',
      Object.entries(args.plain.settings)
        .map(([key, value]) => `${key}=${value}`)
        .join(', '),
    ],
    ['tokens held in memory', `up to ${args.rollouts.exactLimit}, more go to a work file`],
    ['weights', own.weights === undefined ? 'not written' : `${own.weights} (${weightFormOf(own.weights)})`],
  ];
}
