import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import type { FeatureSource } from '../src/formats/feature-matrix.js';
import { expandSources } from '../src/formats/inputs.js';
import {
  DIFFICULTY_JOB,
  type DifficultyRequest,
  type DifficultyResult,
} from '../src/policy/difficulty/difficulty-job.js';
import {
  ASSIGNMENT_COLUMNS,
  assignmentRows,
  CURVE_COLUMNS,
  curveRows,
  DIFFICULTY_SCHEMA,
  difficultyBody,
} from '../src/policy/difficulty/difficulty-report.js';
import { DEFAULT_GAMMA, DIFFICULTIES, type Difficulty } from '../src/policy/difficulty/labels.js';
import { PROBE_DEFAULTS } from '../src/policy/difficulty/probe-settings.js';
import type { RolloutRequest } from '../src/policy/rollouts/types.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { flagOf, parseInteger, parseList, parseNumber } from './edge-values.js';
import {
  attachRollouts,
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
type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

interface OwnOptions extends RolloutOwnOptions {
  step?: string;
  levels?: string;
  alpha?: string;
  beta?: string;
  gamma?: string;
  hidden?: string;
  tensor?: string;
  probe?: string;
  probeOut?: string;
  width?: string;
  epochs?: string;
  learningRate?: string;
  batchSize?: string;
  balanced?: boolean;
  testShare?: string;
  strategy?: string[];
  mostTokens?: string;
}

const COMMAND = 'analyze-policy difficulty';
const TEST_SHARE = 0.3;

/** Declares `surprisal analyze-policy difficulty`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  attachRollouts(command)
    .option('--step <n>', 'step of the dump whose samples are taken (default the last)')
    .option('--levels <names>', 'difficulties from the easiest on, separated by commas, where they end with no number')
    .option('--alpha <share>', 'least accuracy of a normal question (default the median)')
    .option('--beta <nats>', 'greatest entropy of a normal question (default the median)')
    .option('--gamma <share>', `questions with less accuracy are hard (default ${DEFAULT_GAMMA.toFixed(4)})`)
    .option(
      '--hidden <file>',
      'hidden state of every question, a row each (default: of --model at the last token of the prompt)',
    )
    .option('--tensor <name>', 'array of --hidden that is taken')
    .option('--probe <file.safetensors>', 'use a probe that was trained before')
    .option('--probe-out <file.safetensors>', 'write the probe that was trained')
    .option('--width <n>', `hidden units of the probe (default ${PROBE_DEFAULTS.hidden})`)
    .option('--epochs <n>', `epochs of the probe (default ${PROBE_DEFAULTS.epochs})`)
    .option('--learning-rate <x>', `of AdamW (default ${PROBE_DEFAULTS.learningRate})`)
    .option('--batch-size <n>', `questions of a step (default ${PROBE_DEFAULTS.batchSize})`)
    .option('--balanced', 'weigh classes by the inverse of their frequency')
    .option('--test-share <x>', `share of the questions that the probe is judged on (default ${TEST_SHARE})`)
    .option(
      '--strategy <name=dump>',
      `samples of the same questions under a strategy (${DIFFICULTIES.join(', ')}); all three, or none`,
      (text: string, before: string[] | undefined) => [...(before ?? []), text],
    )
    .option('--most-tokens <n>', 'token budget of the normal strategy (default the longest response)')
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

const PROBE_ONLY: readonly (keyof OwnOptions)[] = [
  'probeOut',
  'width',
  'epochs',
  'learningRate',
  'batchSize',
  'balanced',
  'testShare',
];

/** Dumps of the strategies. @throws InputError unless all three are there, once each */
function strategyDumps(
  entries: readonly string[] | undefined,
  request: RolloutRequest,
): Record<Difficulty, RolloutRequest> | undefined {
  if (entries === undefined) return undefined;
  const found = new Map<string, RolloutRequest>();
  for (const entry of entries) {
    const at = entry.indexOf('=');
    const [name, path] = [entry.slice(0, at), entry.slice(at + 1)];
    if (!DIFFICULTIES.includes(name as Difficulty) || path === '') {
      throw new InputError(`--strategy ${entry}: write easy=DUMP, normal=DUMP and hard=DUMP`);
    }
    if (found.has(name)) throw new InputError(`--strategy names ${name} twice`);
    found.set(name, { ...request, paths: [path] });
  }
  const missing = DIFFICULTIES.find((name) => !found.has(name));
  if (missing !== undefined)
    throw new InputError(`--strategy: no dump for ${missing}; give one for each of ${DIFFICULTIES.join(', ')}`);
  return Object.fromEntries(found) as Record<Difficulty, RolloutRequest>;
}

function requestOf(options: Options, own: OwnOptions): DifficultyRequest {
  const rollouts = rolloutRequest(options, own);
  if (own.probe !== undefined) {
    const stray = PROBE_ONLY.find((name) => own[name] !== undefined);
    if (stray !== undefined) throw new InputError(`${flagOf(stray)} is for a probe that is trained; --probe gives one`);
  }
  if (own.tensor !== undefined && own.hidden === undefined) throw new InputError('--tensor names an array of --hidden');
  if (own.hidden === undefined && options.model === undefined) {
    const stray = (['probe', ...PROBE_ONLY] as const).find((name) => own[name] !== undefined);
    if (stray !== undefined)
      throw new InputError(`${flagOf(stray)}: a probe needs hidden states: give them with --hidden, or a --model`);
  }
  const hidden: FeatureSource | undefined =
    own.hidden === undefined
      ? undefined
      : { kind: 'file', path: own.hidden, ...(own.tensor !== undefined && { tensor: own.tensor }) };
  const share = (name: 'alpha' | 'gamma' | 'testShare'): number | undefined =>
    own[name] === undefined ? undefined : parseNumber(flagOf(name), own[name] ?? '', 0, 1);
  const [alpha, gamma] = [share('alpha'), share('gamma')];
  const beta = own.beta === undefined ? undefined : parseNumber('--beta', own.beta, 0);
  const count = (name: 'width' | 'epochs' | 'batchSize', fallback: number): number =>
    own[name] === undefined ? fallback : parseInteger(flagOf(name), own[name] ?? '', 1);
  const outcomes = strategyDumps(own.strategy, rollouts);
  return {
    rollouts,
    ...(own.step !== undefined && { step: parseNumber('--step', own.step) }),
    ...(own.levels !== undefined && { levels: parseList(own.levels) }),
    thresholds: {
      ...(alpha !== undefined && { alpha }),
      ...(beta !== undefined && { beta }),
      ...(gamma !== undefined && { gamma }),
    },
    ...(hidden && { hidden }),
    ...(own.probe !== undefined && { probe: own.probe }),
    train: {
      hidden: count('width', PROBE_DEFAULTS.hidden),
      epochs: count('epochs', PROBE_DEFAULTS.epochs),
      batchSize: count('batchSize', PROBE_DEFAULTS.batchSize),
      learningRate:
        own.learningRate === undefined
          ? PROBE_DEFAULTS.learningRate
          : parseNumber('--learning-rate', own.learningRate, 0),
      weightDecay: PROBE_DEFAULTS.weightDecay,
      balanced: own.balanced === true,
      seed: options.seed,
      threads: options.threads,
      holdBytes: options.maxMemory / 2,
    },
    testShare: share('testShare') ?? TEST_SHARE,
    ...(outcomes && { outcomes }),
    ...(own.mostTokens !== undefined && { mostTokens: parseInteger('--most-tokens', own.mostTokens, 1) }),
    seed: options.seed,
  };
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const request = requestOf(options, own);
  const paths = await expandSources(options.data);
  const { thresholds, train, outcomes } = request;
  const strategies = Object.values(outcomes ?? {}).flatMap(({ paths }) => paths);
  const inputs = [
    ...[...paths, ...rolloutModels(request.rollouts), ...strategies],
    ...[own.hidden, own.probe].filter((path) => path !== undefined),
  ];
  return runAnalysis(
    {
      name: DIFFICULTY_SCHEMA,
      command: COMMAND,
      columns: ASSIGNMENT_COLUMNS,
      tableColumns: CURVE_COLUMNS,
      ...(own.probeOut !== undefined && { files: new Map([['--probe-out', own.probeOut]]) }),
      unit: 'records',
      inputs,
      parameters: {
        ...rolloutParameters(request.rollouts),
        ...{ step: request.step ?? null, levels: request.levels ? [...request.levels] : null },
        ...{
          alpha: thresholds.alpha ?? null,
          beta_nats: thresholds.beta ?? null,
          gamma: thresholds.gamma ?? DEFAULT_GAMMA,
        },
        ...{ hidden: own.hidden ?? null, tensor: own.tensor ?? null, probe: own.probe ?? null },
        ...{
          width: train.hidden,
          epochs: train.epochs,
          batch_size: train.batchSize,
          learning_rate: train.learningRate,
        },
        ...{ weight_decay: train.weightDecay, balanced: train.balanced, test_share: request.testShare },
        ...{ strategies, most_tokens: request.mostTokens ?? null, seed: options.seed },
      },
      subtitle: options.data.join(', '),
    },
    { ...options, shard: undefined },
    {
      measure: (context) => measure(request, own, context),
      async plan() {
        return [
          ['dump', options.data.join(', ')],
          ['hidden states', own.hidden ?? (options.model === undefined ? 'none: no probe' : `of ${options.model}`)],
          ['probe', own.probe ?? `${train.hidden} hidden units, ${train.epochs} epochs`],
          ['strategies', outcomes ? strategies.join(', ') : 'budgets alone, on the samples of the dump'],
        ];
      },
    },
  );
}

async function measure(
  request: DifficultyRequest,
  own: OwnOptions,
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  const others = Object.values(request.outcomes ?? {}).flatMap(({ paths }) => paths);
  const result: DifficultyResult = await withRollouts(context.ledger, request.rollouts, (rollouts) => {
    for (const path of [...others, own.hidden, own.probe]) if (path !== undefined) context.ledger.note(path);
    return context.run(DIFFICULTY_JOB, { ...request, rollouts });
  });
  const body = difficultyBody(result);
  for (const warning of result.warnings) context.warn(warning);
  const { probeFile } = result;
  if (own.probeOut !== undefined && probeFile === null) {
    throw new InputError(
      '--probe-out: no probe was trained; give hidden states with --hidden, or a --model and a dump with prompts',
    );
  }
  return {
    body,
    digests: () => rolloutModelDigests(request.rollouts),
    rows: () => assignmentRows(result),
    tableRows: () => curveRows(result),
    files: () => new Map(own.probeOut === undefined || probeFile === null ? [] : [['--probe-out', probeFile]]),
    async figure(subtitle) {
      const { difficultyFigure } = await import('../src/policy/difficulty/difficulty-plot.js');
      return difficultyFigure(result, subtitle);
    },
    summary: {
      header: ['strategy', 'accuracy', 'tokens', 'saving'],
      rows: result.routing.policies.map(({ name, accuracy, meanTokens, tokenSaving }) => [
        name,
        accuracy,
        meanTokens,
        tokenSaving,
      ]),
    },
  };
}
