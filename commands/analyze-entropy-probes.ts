import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { type ProbeProgress, TRAIN_PROBES } from '../src/probes/probes-job.js';
import {
  PROBE_COLUMNS,
  PROBE_TABLE_COLUMNS,
  PROBE_TABLES,
  PROBES_SCHEMA,
  type ProbesBody,
  type ProbeTable,
  probeRows,
  probesBody,
  probeTableRows,
} from '../src/probes/probes-report.js';
import type { SplitRole } from '../src/probes/settings.js';
import {
  DEFAULT_DECAYS,
  PROBE_KINDS,
  type ProbeArguments,
  type ProbeKind,
  type ProbeSettings,
} from '../src/probes/settings.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import { type AnalysisContext, type AnalysisOutcome, type AnalysisView, runAnalysis } from './analysis-run.js';
import { flagOf, parseChoice, parseInteger, parseNumber } from './edge-values.js';
import { addFeatureOptions, FEATURE_OPTIONS, type FeatureOwnOptions, featureParameters } from './feature-inputs.js';
import { openProbeSplits, type SplitFiles } from './probe-splits.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption } from './shared-options.js';

/** One set of members is one unit of work; there is nothing to merge. */
const SHARED = [...ANALYSIS_OPTIONS.filter((name) => name !== 'shard'), ...FEATURE_OPTIONS, 'table'] as const;

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

interface OwnOptions extends FeatureOwnOptions {
  alsoModel?: string[];
  validation?: string[];
  validationLabels?: string;
  test?: string[];
  testLabels?: string;
  ood?: string[];
  oodLabels?: string[];
  wide?: string;
  heads?: string[];
  probe?: string;
  decays?: string;
  sizes?: string;
  batchNorm?: string;
  epochs?: string;
  learningRate?: string;
  batch?: string;
  bootstrap?: string;
  rankRows?: string;
  validationShare?: string;
  testShare?: string;
  tableOf?: string;
}

/** Declares `surprisal analyze-entropy probes`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  const collect = (value: string, earlier: string[] | undefined): string[] => [...(earlier ?? []), value];
  addFeatureOptions(command)
    .option('--also-model <models...>', 'further models, whose layers are further members')
    .option('--validation <files...>', 'rows on which decays are chosen, one file a member (default: of --data)')
    .option('--validation-labels <file>', 'their labels')
    .option('--test <files...>', 'test rows of the training distribution, one file a member')
    .option('--test-labels <file>', 'their labels')
    .option('--ood <name=files>', 'shifted test rows, files separated by commas; repeatable', collect)
    .option('--ood-labels <name=file>', 'their labels; repeatable', collect)
    .option('--wide <count>', 'the last files of every list are networks of equal width: compared, not concatenated')
    .option('--heads <files...>', 'heads of the members, for --probe two-stage')
    .option('--probe <kind>', `${PROBE_KINDS.join(', ')} (default newton; ridge for labels that are amounts)`)
    .option('--decays <list>', 'weight decays to choose from on the validation rows')
    .option('--sizes <list>', 'how many of the first members are concatenated (default 2, 4, 8, ... and all)')
    .option('--batch-norm <when>', 'sgd and two-stage: auto, on or off (default auto)')
    .option('--epochs <n>', 'sgd and two-stage: epochs (default 28 and 2)')
    .option('--learning-rate <rate>', 'sgd and two-stage: first learning rate (default 0.01 and 0.001)')
    .option('--batch <rows>', 'sgd and two-stage: rows of a batch (default 256)')
    .option('--bootstrap <n>', 'resamples of the test items for intervals (default 1000)')
    .option('--rank-rows <n>', 'training rows for ranks and CKA, at most (default 5000)')
    .option('--validation-share <share>', 'taken from --data when there is no --validation (default 0.2)')
    .option('--test-share <share>', 'taken from --data when there is neither --test nor --ood (default 0.2)')
    .option('--table-of <rows>', `rows of --table: ${PROBE_TABLES.join(', ')} (default rank)`)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

const parts = (text: string): string[] =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');

const count = (flag: string, text: string | undefined, fallback: number, least = 1): number =>
  text === undefined ? fallback : parseInteger(flag, text, least);

function share(flag: string, text: string | undefined): number {
  const value = text === undefined ? 0.2 : parseNumber(flag, text);
  if (value > 0 && value < 0.5) return value;
  throw new InputError(`${flag} ${text}: give a share above 0 and below 0.5`);
}

/** `name=a,b` of a repeatable option. */
function named(flag: string, text: string): [string, string[]] {
  const at = text.indexOf('=');
  const files = parts(text.slice(at + 1));
  if (at < 1 || files.length === 0) throw new InputError(`${flag} ${text}: write name=file,file,...`);
  return [text.slice(0, at), files];
}

/** Splits that the options name, training first. */
function splitFiles(options: Options, own: OwnOptions): SplitFiles[] {
  const data = requireOption(options.data, '--data', 'the training rows, one file a member');
  const splits: SplitFiles[] = [{ name: 'train', role: 'train', files: data, labels: own.labels }];
  const add = (name: string, role: SplitRole, files: string[] | undefined, labels: string | undefined): void => {
    if (files === undefined) {
      if (labels !== undefined) throw new InputError(`--${name}-labels needs --${name}`);
      return;
    }
    splits.push({ name, role, files, labels });
  };
  add('validation', 'validation', own.validation, own.validationLabels);
  add('test', 'id', own.test, own.testLabels);
  const labels = new Map((own.oodLabels ?? []).map((text) => named('--ood-labels', text)));
  for (const text of own.ood ?? []) {
    const [name, files] = named('--ood', text);
    if (splits.some((split) => split.name === name)) throw new InputError(`--ood ${name}: the name is taken`);
    add(name, 'ood', files, labels.get(name)?.[0]);
    labels.delete(name);
  }
  const [stray] = labels.keys();
  if (stray !== undefined) throw new InputError(`--ood-labels ${stray}: there is no --ood of that name`);
  return splits;
}

function parseDecays(text: string, probe: ProbeKind): number[] {
  const decays = [...new Set(parts(text).map((part) => parseNumber('--decays', part)))];
  if (decays.length > 0 && decays.every((decay) => decay >= 0)) return decays;
  throw new InputError(`--decays ${text}: give decays of 0 or more, such as ${DEFAULT_DECAYS[probe].join(',')}`);
}

/** 2, 4, 8, ... and all members. */
function parseSizes(text: string | undefined, members: number): number[] {
  const sizes: number[] = [];
  if (text === undefined) for (let size = 2; size < members; size *= 2) sizes.push(size);
  else sizes.push(...parts(text).map((part) => parseInteger('--sizes', part, 2, members)));
  if (text === undefined && members > 1) sizes.push(members);
  return [...new Set(sizes)].sort((a, b) => a - b);
}

/** Everything but what depends on the members and labels. */
function settingsOf(options: Options, own: OwnOptions, amounts: boolean, members: number): ProbeSettings {
  const fallback: ProbeKind = amounts ? 'ridge' : 'newton';
  const probe = parseChoice('--probe', own.probe ?? fallback, PROBE_KINDS);
  if (amounts !== (probe === 'ridge')) {
    throw new InputError(
      amounts
        ? `--probe ${probe} needs classes, and the labels are amounts; use ridge or --label-kind classes`
        : '--probe ridge needs amounts, and the labels are classes; use newton or --label-kind numbers',
    );
  }
  const stochastic = probe === 'sgd' || probe === 'two-stage';
  const unused = (['batchNorm', 'epochs', 'learningRate', 'batch'] as const).find((name) => own[name] !== undefined);
  if (!stochastic && unused !== undefined) {
    throw new InputError(`${flagOf(unused)} is for --probe sgd and two-stage`);
  }
  if (probe === 'two-stage' && own.heads === undefined) throw new InputError('--probe two-stage needs --heads');
  if (probe !== 'two-stage' && own.heads !== undefined) throw new InputError('--heads is for --probe two-stage');
  return {
    probe,
    decays: own.decays === undefined ? DEFAULT_DECAYS[probe] : parseDecays(own.decays, probe),
    sizes: parseSizes(own.sizes, members),
    batchNorm: parseChoice('--batch-norm', own.batchNorm ?? 'auto', ['auto', 'on', 'off'] as const),
    epochs: own.epochs === undefined ? null : parseInteger('--epochs', own.epochs, 1),
    learningRate: own.learningRate === undefined ? null : parseNumber('--learning-rate', own.learningRate),
    batch: count('--batch', own.batch, 256, 2),
    resamples: count('--bootstrap', own.bootstrap, 1000, 10),
    rankRows: count('--rank-rows', own.rankRows, 5000, 2),
    seed: options.seed,
    threads: options.threads,
    maxMemoryBytes: options.maxMemory,
  };
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const files = splitFiles(options, own);
  const kind: ProbeTable = parseChoice('--table-of', own.tableOf ?? 'rank', PROBE_TABLES);
  const everyPath = files.flatMap((split) => [...split.files, ...(split.labels === undefined ? [] : [split.labels])]);
  const view: AnalysisView = {
    name: PROBES_SCHEMA,
    columns: PROBE_COLUMNS,
    tableColumns: PROBE_TABLE_COLUMNS[kind],
    unit: 'passes',
    inputs: [...everyPath, ...(own.heads ?? [])],
    parameters: {
      ...featureParameters(options, own),
      also_model: own.alsoModel ?? [],
      splits: files.map(({ name, role, files: paths, labels }) => ({
        name,
        role,
        files: paths,
        labels: labels ?? null,
      })),
      wide: own.wide === undefined ? 0 : parseInteger('--wide', own.wide, 0),
      heads: own.heads ?? [],
      probe: own.probe ?? null,
      decays: own.decays === undefined ? null : parts(own.decays),
      sizes: own.sizes ?? null,
      batch_norm: own.batchNorm ?? 'auto',
      epochs: own.epochs ?? null,
      learning_rate: own.learningRate ?? null,
      batch: count('--batch', own.batch, 256, 2),
      bootstrap: count('--bootstrap', own.bootstrap, 1000, 10),
      rank_rows: count('--rank-rows', own.rankRows, 5000, 2),
      validation_share: share('--validation-share', own.validationShare),
      test_share: share('--test-share', own.testShare),
    },
    subtitle: options.model === undefined ? options.data.join(', ') : `${options.model}: ${options.data.join(', ')}`,
  };
  return runAnalysis(
    view,
    { ...options, shard: undefined },
    {
      measure: (context) => measure(options, own, files, kind, context),
      plan: (context) => plan(options, own, files, context),
    },
  );
}

const openSplits = (options: Options, own: OwnOptions, files: readonly SplitFiles[], context: AnalysisContext) =>
  openProbeSplits(options, own, files, context, {
    wide: own.wide === undefined ? 0 : parseInteger('--wide', own.wide, 0),
    validationShare: share('--validation-share', own.validationShare),
    testShare: share('--test-share', own.testShare),
  });

async function measure(
  options: Options,
  own: OwnOptions,
  files: readonly SplitFiles[],
  kind: ProbeTable,
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  const opened = await openSplits(options, own, files, context);
  const plain = opened.members.filter((member) => member.kind === 'member').length;
  const amounts = opened.tasks.some(({ classes }) => classes === null);
  const args: ProbeArguments = {
    members: opened.members,
    tasks: opened.tasks,
    splits: opened.splits,
    settings: settingsOf(options, own, amounts, plain),
  };
  context.timings.begin('probes');
  const measures = await context.run(TRAIN_PROBES, args, (value) => {
    const { done, label } = value as ProbeProgress;
    context.progress.update(done, label);
  });
  const warnings = [...opened.warnings, ...measures.warnings];
  for (const warning of warnings) context.warn(warning);
  const body = probesBody(args, { ...measures, warnings }, opened.carved);
  return {
    body,
    rows: () => probeRows(body),
    tableRows: () => probeTableRows(kind, body),
    figure: async (subtitle) => (await import('../src/probes/probes-plot.js')).drawProbes(body, subtitle),
    summary: summary(body),
    digests: opened.digests,
  };
}

async function plan(
  options: Options,
  own: OwnOptions,
  files: readonly SplitFiles[],
  context: AnalysisContext,
): Promise<SummaryCell[][]> {
  if (options.model !== undefined) {
    return [
      ['models', [options.model, ...(own.alsoModel ?? [])].join(', ')],
      ['layers', own.layer ?? 'final'],
      ['splits', files.map(({ name }) => name).join(', ')],
    ];
  }
  const opened = await openSplits(options, own, files, context);
  const amounts = opened.tasks.some(({ classes }) => classes === null);
  const plain = opened.members.filter((member) => member.kind === 'member').length;
  const settings = settingsOf(options, own, amounts, plain);
  const cells = opened.splits.reduce((sum, { targets }) => sum + targets[0].length, 0) * opened.features;
  const held = 8 * cells <= options.maxMemory / 2;
  return [
    ['members', opened.members.map(({ name }) => name).join(', ')],
    ['features', opened.features],
    ...opened.splits.map(({ name, role, targets }): SummaryCell[] => [`rows of ${name} (${role})`, targets[0].length]),
    ['tasks', opened.tasks.map(({ name, classes }) => `${name} (${classes?.length ?? 'amounts'})`).join(', ')],
    ['probe', settings.probe],
    ['decays', settings.decays.join(', ')],
    ['concatenations', settings.sizes.join(', ')],
    ['features in memory, MiB', held ? Math.ceil((8 * cells) / 2 ** 20) : 'too many: read by blocks'],
  ];
}

/** One row for every set, with a column for every split that is not for fitting. */
function summary(body: ProbesBody): AnalysisOutcome['summary'] {
  const shown = body.splits.flatMap(({ role }, s) => (role === 'id' || role === 'ood' ? [s] : []));
  const amounts = body.tasks.some(({ classes }) => classes === null);
  const several = body.tasks.length > 1;
  return {
    header: [
      ...(several ? ['task'] : []),
      'set',
      'features',
      'parameters',
      'decay',
      'path',
      'train loss',
      ...shown.flatMap((s) => [`${amounts ? 'mse' : 'accuracy'}, ${body.splits[s].name}`, '95 %']),
    ],
    rows: body.sets.map((set) => [
      ...(several ? [set.task] : []),
      set.name,
      set.features,
      set.parameters,
      set.weight_decay ?? undefined,
      set.path,
      set.train_loss ?? undefined,
      ...shown.flatMap((s): SummaryCell[] => {
        const score = set.scores[s];
        const ends = [score.interval_low, score.interval_high].map((end) => end?.toPrecision(4) ?? 'nan');
        return [score.accuracy ?? score.mse ?? undefined, ends.join(' to ')];
      }),
    ]),
  };
}
