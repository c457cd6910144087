import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { openFeatures } from '../src/features/open-features.js';
import type { FeatureSource } from '../src/formats/feature-matrix.js';
import { checkLabelCount, type LabelKind, type Labels, readLabels } from '../src/formats/labels.js';
import { isTensorFile } from '../src/formats/tensor-file.js';
import { COMPARE_ON_DATA } from '../src/pretraining/data-job.js';
import {
  DATA_COLUMNS,
  type DataBody,
  dataBody,
  dataRows,
  PRETRAINING_SCHEMA,
  RUN_COLUMNS,
  runRows,
  STUDY_TABLE_COLUMNS,
  STUDY_TABLES,
  type StudyBody,
  type StudyTable,
  studyBody,
  studyTableRows,
} from '../src/pretraining/pretraining-report.js';
import {
  BASELINES,
  type DataSettings,
  type EstimatorSettings,
  STUDY_CASES,
  type StudyCase,
  type StudySettings,
} from '../src/pretraining/settings.js';
import { RUN_STUDY } from '../src/pretraining/study-job.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { flagOf, parseChoice, parseInteger, parseNumber } from './edge-values.js';
import { ANALYSIS_OPTIONS, attachShared } from './shared-options.js';

/** A study is one unit of work: rates are fitted to all of its seeds. */
const SHARED = [...ANALYSIS_OPTIONS.filter((name) => name !== 'shard'), 'limit', 'table'] as const;

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

interface OwnOptions {
  case?: string;
  unlabelled?: string;
  labelled?: string;
  test?: string;
  labels?: string;
  testLabels?: string;
  labelColumn?: string;
  labelKind?: string;
  tensor?: string;
  centre?: boolean;
  transductive?: boolean;
  latentDim?: string;
  noise?: string;
  dimension?: string;
  classes?: string;
  m?: string;
  n?: string;
  seeds?: string;
  signal?: string;
  signals?: string;
  sweepM?: string;
  sweepN?: string;
  labelNoise?: string;
  testRows?: string;
  hidden?: string;
  epochs?: string;
  starts?: string;
  startRows?: string;
  emBatch?: string;
  supervised?: string;
  headNorm?: string;
  truncate?: string;
  bootstrap?: string;
  tableOf?: string;
}

const DATA_ONLY = ['labelled', 'test', 'labels', 'testLabels', 'labelColumn', 'labelKind', 'tensor', 'transductive'];
const STUDY_ONLY = [
  'dimension',
  'classes',
  'm',
  'n',
  'seeds',
  'signal',
  'signals',
  'sweepM',
  'sweepN',
  'labelNoise',
  'testRows',
  'hidden',
  'epochs',
  'tableOf',
];

/** Declares `surprisal analyze-entropy pretraining`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--case <name>', `latent-variable model: ${STUDY_CASES.join(', ')} (default factor)`)
    .option('--latent-dim <r>', 'factors r, components K, or outputs of the pair network (default 5)')
    .option('--noise <variance>', 'noise of the factor model: a variance, or estimate (default 1; on data estimate)')
    .option('--m <list>', 'numbers of unlabelled rows (default 100,1000,10000,100000; contrastive to 10000)')
    .option('--n <list>', 'numbers of labelled rows (default 10,30,100,300,1000)')
    .option('--dimension <d>', 'features of drawn rows (default 50)')
    .option('--classes <c>', 'classes of a drawn mixture (default 2)')
    .option('--seeds <n>', 'draws of the whole study (default 20)')
    .option('--signal <size>', 'length of the loadings or of the means, against noise of 1 (default 2; mixture 3)')
    .option('--signals <list>', 'signals of the sweep, none to leave it out (default 0.1,0.3,1,3,10)')
    .option('--sweep-m <n>', 'unlabelled rows of the sweep (default the largest m, at most 10000)')
    .option('--sweep-n <n>', 'labelled rows of the sweep (default 100)')
    .option('--label-noise <size>', 'standard deviation of the noise of y, or share of random labels (default 0.1; 0)')
    .option('--test-rows <n>', 'test rows where the risk has no closed form (default 10000)')
    .option('--hidden <units>', 'contrastive: hidden units (default 32)')
    .option('--epochs <n>', 'contrastive: passes over the pairs (default 30)')
    .option('--starts <n>', 'mixture: seeded starts of EM (default 20)')
    .option('--start-rows <n>', 'mixture: rows on which the starts compete (default 5000)')
    .option('--em-batch <rows>', 'mixture: stepwise EM on batches of so many rows (default full passes)')
    .option('--supervised <name>', `mixture: supervised baseline, ${BASELINES.join(' or ')} (default logistic)`)
    .option('--head-norm <bound>', 'largest norm of a least-squares head (default none)')
    .option('--truncate <bound>', 'predictions are cut to this size (contrastive, and on data; default none)')
    .option('--bootstrap <n>', 'resamples of seeds or test rows for intervals (default 1000)')
    .option('--unlabelled <file>', 'compare on your data: the unlabelled rows')
    .option('--labelled <file>', 'the labelled rows')
    .option('--test <file>', 'the test rows')
    .option('--labels <file>', 'labels of --labelled')
    .option('--test-labels <file>', 'labels of --test')
    .option('--label-column <name>', 'column that holds the labels')
    .option('--label-kind <kind>', 'auto, classes or numbers (default auto)')
    .option('--tensor <name>', 'array of .npz or .safetensors files')
    .option('--no-centre', 'rows have mean zero: fit second moments, and heads without an intercept')
    .option('--transductive', 'test rows join the unlabelled ones')
    .option('--table-of <rows>', `rows of --table: ${STUDY_TABLES.join(', ')} (default crossover)`)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

const count = (flag: string, text: string | undefined, fallback: number, least = 1): number =>
  text === undefined ? fallback : parseInteger(flag, text, least);

function positive(flag: string, text: string | undefined, fallback: number): number {
  if (text === undefined) return fallback;
  const value = parseNumber(flag, text);
  if (value >= 0) return value;
  throw new InputError(`${flag} ${text}: must not be negative`);
}

function ascending(flag: string, text: string | undefined, fallback: readonly number[]): number[] {
  if (text === undefined) return [...fallback];
  const values = text.split(',').map((part) => parseInteger(flag, part.trim(), 1));
  return [...new Set(values)].sort((a, b) => a - b);
}

function estimatorOf(options: Options, own: OwnOptions, onData: boolean): EstimatorSettings {
  const noise = own.noise ?? (onData ? 'estimate' : '1');
  const variance = noise === 'estimate' ? 1 : parseNumber('--noise', noise);
  if (!(variance > 0)) throw new InputError(`--noise ${noise}: give a positive variance, or estimate`);
  return {
    case: parseChoice('--case', own.case ?? 'factor', STUDY_CASES),
    latent: count('--latent-dim', own.latentDim, 5),
    noise: noise === 'estimate' ? 'estimate' : variance,
    starts: count('--starts', own.starts, 20),
    startRows: count('--start-rows', own.startRows, 5000),
    emBatch: count('--em-batch', own.emBatch, 0),
    baseline: parseChoice('--supervised', own.supervised ?? 'logistic', BASELINES),
    headNorm: positive('--head-norm', own.headNorm, Number.POSITIVE_INFINITY),
    truncate: positive('--truncate', own.truncate, Number.POSITIVE_INFINITY),
    resamples: count('--bootstrap', own.bootstrap, 1000, 10),
    seed: options.seed,
    threads: options.threads,
    maxMemoryBytes: options.maxMemory,
  };
}

const DEFAULT_M: Readonly<Record<StudyCase, readonly number[]>> = {
  factor: [100, 1000, 10_000, 100_000],
  mixture: [100, 1000, 10_000, 100_000],
  contrastive: [100, 1000, 10_000],
};

function studySettings(options: Options, own: OwnOptions): StudySettings {
  const estimator = estimatorOf(options, own, false);
  const mixture = estimator.case === 'mixture';
  const unlabelledRows = ascending('--m', own.m, DEFAULT_M[estimator.case]);
  const settings: StudySettings = {
    ...estimator,
    dimension: count('--dimension', own.dimension, 50, 2),
    classes: count('--classes', own.classes, 2, 2),
    unlabelled: unlabelledRows,
    labelled: ascending('--n', own.n, [10, 30, 100, 300, 1000]),
    seeds: count('--seeds', own.seeds, 20, 2),
    signal: positive('--signal', own.signal, mixture ? 3 : 2),
    signals:
      own.signals === 'none'
        ? []
        : (own.signals ?? '0.1,0.3,1,3,10').split(',').map((part) => positive('--signals', part.trim(), 0)),
    sweepUnlabelled: count('--sweep-m', own.sweepM, Math.min(10_000, unlabelledRows[unlabelledRows.length - 1])),
    sweepLabelled: count('--sweep-n', own.sweepN, 100),
    labelNoise: positive('--label-noise', own.labelNoise, mixture ? 0 : 0.1),
    testRows: count('--test-rows', own.testRows, 10_000, 10),
    hidden: count('--hidden', own.hidden, 32),
    epochs: count('--epochs', own.epochs, 30),
  };
  const { latent, dimension, classes, unlabelled } = settings;
  if (!mixture && latent >= dimension) {
    throw new InputError(
      `--latent-dim ${latent} must be below the ${dimension} features; lower it or raise --dimension`,
    );
  }
  if (mixture && latent < classes)
    throw new InputError(`--latent-dim ${latent}: ${classes} classes need as many components`);
  if (mixture && unlabelled[0] < latent) {
    throw new InputError(`--m ${unlabelled[0]}: fewer unlabelled rows than the ${latent} components`);
  }
  if (mixture && settings.labelNoise > 1) throw new InputError('--label-noise: a share of random labels is at most 1');
  return settings;
}

function parametersOf(settings: StudySettings | DataSettings, own: OwnOptions): Record<string, ReportValue> {
  const { threads: _, maxMemoryBytes: __, headNorm, truncate, ...rest } = settings;
  const bound = (value: number): number | null => (Number.isFinite(value) ? value : null);
  return {
    ...(rest as unknown as Record<string, ReportValue>),
    headNorm: bound(headNorm),
    truncate: bound(truncate),
    unlabelled_file: own.unlabelled ?? null,
    labelled_file: own.labelled ?? null,
    test_file: own.test ?? null,
    labels_file: own.labels ?? null,
    test_labels_file: own.testLabels ?? null,
    label_column: own.labelColumn ?? null,
  };
}

/** The keys of a report are in snake case. */
function snakeCase(values: Record<string, ReportValue>): Record<string, ReportValue> {
  return Object.fromEntries(
    Object.entries(values).map(([key, value]) => [key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`), value]),
  );
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const onData = own.unlabelled !== undefined;
  const stray = (onData ? STUDY_ONLY : DATA_ONLY).find((name) => own[name as keyof OwnOptions] !== undefined);
  if (stray !== undefined) {
    throw new InputError(
      onData ? `${flagOf(stray)} is for studies, without --unlabelled` : `${flagOf(stray)} needs --unlabelled`,
    );
  }
  return onData ? runData(options, own) : runStudyView(options, own);
}

function runStudyView(options: Options, own: OwnOptions): Promise<number> {
  const settings = studySettings(options, own);
  const kind: StudyTable = parseChoice('--table-of', own.tableOf ?? 'crossover', STUDY_TABLES);
  return runAnalysis(
    {
      name: PRETRAINING_SCHEMA,
      columns: RUN_COLUMNS,
      tableColumns: STUDY_TABLE_COLUMNS[kind],
      unit: 'draws',
      inputs: [],
      parameters: snakeCase(parametersOf(settings, own)),
      subtitle: `${settings.case}, d = ${settings.dimension}, latent ${settings.latent}, signal ${settings.signal}`,
    },
    { ...options, shard: undefined },
    {
      async measure(context) {
        context.timings.begin('study');
        const result = await context.run(RUN_STUDY, settings, (value) => {
          const { done, label } = value as { done: number; label: string };
          context.progress.update(done, label);
        });
        const body = studyBody(settings.case, settings.seeds, result);
        for (const warning of body.warnings) context.warn(warning);
        return {
          body,
          rows: () => runRows(settings.case, result),
          tableRows: () => studyTableRows(kind, body),
          figure: async (subtitle) =>
            (await import('../src/pretraining/pretraining-plot.js')).drawStudy(body, subtitle),
          summary: studySummary(body),
        };
      },
      plan: async () => [
        ['case', settings.case],
        ['unlabelled rows', settings.unlabelled.join(', ')],
        ['labelled rows', settings.labelled.join(', ')],
        ['draws', settings.seeds * (1 + settings.signals.length)],
        ['signals of the sweep', settings.signals.join(', ') || 'none'],
      ],
    },
  );
}

/** One row for every m, with the excess risk at every n. */
function studySummary(body: StudyBody): AnalysisOutcome['summary'] {
  const ns = [...new Set(body.cells.map(({ n }) => n))];
  return {
    header: ['estimator', 'm', ...ns.map((n) => `excess, n = ${n}`), 'slope', '95 %', 'crossover n'],
    rows: body.rates.map(({ method, m, slope }): SummaryCell[] => [
      method,
      m === 0 ? undefined : m,
      ...ns.map((n) => body.cells.find((cell) => cell.method === method && cell.m === m && cell.n === n)?.excess_risk),
      slope.value ?? undefined,
      slope.low === null || slope.high === null ? undefined : `${slope.low.toFixed(2)} to ${slope.high.toFixed(2)}`,
      method === 'pretrained' ? (body.crossover.find((crossing) => crossing.m === m)?.n.value ?? undefined) : undefined,
    ]),
  };
}

interface ReadRows {
  readonly source: FeatureSource;
  readonly labels: Labels | null;
}

async function readRows(
  path: string,
  labelPath: string | undefined,
  options: Options,
  own: OwnOptions,
  context: AnalysisContext,
  labelled: boolean,
): Promise<ReadRows> {
  const { labelColumn, tensor } = own;
  const limit = options.limit === undefined ? {} : { limit: options.limit };
  context.ledger.note(path);
  const stored = isTensorFile(path);
  const source: FeatureSource = {
    kind: 'file',
    path,
    ...(tensor !== undefined && stored && { tensor }),
    ...(labelColumn !== undefined && !stored && labelPath === undefined && labelled && { except: [labelColumn] }),
    ...limit,
  };
  if (!labelled) return { source, labels: null };
  const from = labelPath ?? (labelColumn === undefined ? undefined : path);
  if (from === undefined)
    throw new InputError(`${path}: has no labels; give --labels and --test-labels, or --label-column`);
  if (labelPath !== undefined) context.ledger.note(labelPath);
  const kind = parseChoice('--label-kind', own.labelKind ?? 'auto', ['auto', 'classes', 'numbers'] as const);
  const labels = await readLabels(from, {
    kind: kind as LabelKind,
    ...limit,
    ...(labelColumn !== undefined && { column: labelColumn }),
  });
  const matrix = await openFeatures(source);
  checkLabelCount(labels, matrix.rows, from, path);
  matrix.close();
  return { source, labels };
}

/** Targets of labelled and test rows; classes by the names of the labelled rows. */
function targetsOf(labelled: Labels, test: Labels, testPath: string) {
  if (labelled.kind === 'numbers') {
    const values =
      test.kind === 'numbers' ? test.values : Float64Array.from(test.codes, (code) => Number(test.names[code]));
    if (values.some(Number.isNaN))
      throw new InputError(`${testPath}: labels are classes, those of --labelled are amounts`);
    return { y: labelled.values, yTest: values, classes: null };
  }
  if (test.kind === 'numbers') throw new InputError(`${testPath}: labels are amounts, those of --labelled are classes`);
  const names = [...labelled.names];
  const codeOf = new Map(names.map((name, code) => [name, code]));
  const yTest = Int32Array.from(test.codes, (code, row) => {
    const found = codeOf.get(test.names[code]);
    if (found !== undefined) return found;
    throw new InputError(
      `${testPath}: row ${row} has class "${test.names[code]}", which no labelled row has; label one`,
    );
  });
  return { y: labelled.codes, yTest, classes: names };
}

function runData(options: Options, own: OwnOptions): Promise<number> {
  const { unlabelled, labelled, test } = own;
  if (unlabelled === undefined || labelled === undefined || test === undefined) {
    throw new InputError('on your data --unlabelled, --labelled and --test are needed');
  }
  const settings: DataSettings = {
    ...estimatorOf(options, own, true),
    centre: own.centre !== false,
    transductive: own.transductive === true,
  };
  if (settings.case === 'contrastive') {
    throw new InputError('--case contrastive is a study of drawn pairs; on your data use factor or mixture');
  }
  const paths = [unlabelled, labelled, test, own.labels, own.testLabels].filter((path) => path !== undefined);
  return runAnalysis(
    {
      name: PRETRAINING_SCHEMA,
      columns: DATA_COLUMNS,
      unit: 'steps',
      inputs: paths,
      parameters: snakeCase(parametersOf(settings, own)),
      subtitle: `${unlabelled}, ${labelled}, ${test}`,
    },
    { ...options, shard: undefined, table: undefined },
    {
      async measure(context) {
        const { labels: __, ...pool } = await readRows(unlabelled, undefined, options, own, context, false);
        const train = await readRows(labelled, own.labels, options, own, context, true);
        const held = await readRows(test, own.testLabels, options, own, context, true);
        if (train.labels === null || held.labels === null) throw new InputError('labels are missing');
        context.timings.begin('estimate');
        const result = await context.run(COMPARE_ON_DATA, {
          unlabelled: pool.source,
          labelled: train.source,
          test: held.source,
          ...targetsOf(train.labels, held.labels, own.testLabels ?? test),
          settings,
        });
        for (const warning of result.warnings) context.warn(warning);
        const body = dataBody(settings.case, result);
        return {
          body,
          rows: () => dataRows(body),
          figure: async (subtitle) => (await import('../src/pretraining/pretraining-plot.js')).drawData(body, subtitle),
          summary: dataSummary(body),
        };
      },
      plan: async () => [
        ['case', settings.case],
        ['unlabelled', unlabelled],
        ['labelled', labelled],
        ['test', test],
        ['latent dimension', settings.latent],
      ],
    },
  );
}

function dataSummary(body: DataBody): AnalysisOutcome['summary'] {
  const row = (name: string, { value, low, high }: DataBody['gain']): SummaryCell[] => [
    name,
    value ?? undefined,
    low === null || high === null ? undefined : `${low.toPrecision(4)} to ${high.toPrecision(4)}`,
  ];
  return {
    header: ['estimator', body.measure, '95 %'],
    rows: [
      row('pretrained', body.risk_pretrained),
      row('supervised', body.risk_supervised),
      row('constant', body.risk_trivial),
      row('supervised - pretrained', body.gain),
      ['effective latent dimension', body.model.effective_latent, `of ${body.model.latent}`],
    ],
  };
}
