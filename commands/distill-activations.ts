import type { Command } from 'commander';
import { activationOf, NAMED_ACTIVATIONS } from '../src/distillation/activation-bases.js';
import {
  type ActivationArguments,
  type ActivationResult,
  SEARCH_ACTIVATION,
} from '../src/distillation/activation-job.js';
import {
  ACTIVATION_COLUMNS,
  ACTIVATIONS_SCHEMA,
  activationRows,
  activationsBody,
  searchWarnings,
  summariseTraining,
  TRAINING_COLUMNS,
  trainingRows,
} from '../src/distillation/activation-report.js';
import {
  type ActivationTraining,
  type ActivationTrainingArguments,
  TRAIN_ACTIVATIONS,
} from '../src/distillation/activation-training.js';
import { DENSITY_KINDS } from '../src/distillation/input-density.js';
import { didYouMean, InputError } from '../src/errors.js';
import type { FeatureSource } from '../src/formats/feature-matrix.js';
import { expandSources } from '../src/formats/inputs.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { ACTIVATIONS, parseNetwork } from '../src/training/network-text.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { classSource, parseShare } from './distill-classifier-options.js';
import { addStepOptions, parseSteps, type StepOptions, stepParameters } from './distill-options.js';
import { flagOf, parseChoice, parseInteger, parseNumber } from './edge-values.js';
import { ANALYSIS_OPTIONS, attachShared, type SharedOptions } from './shared-options.js';

const SHARED = [
  ...ANALYSIS_OPTIONS.filter((name) => name !== 'shard'),
  'model',
  'data',
  'dataFormat',
  'textSplit',
  'textField',
  'limit',
  'device',
  'context',
  'table',
] as const;
type Options = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Options as commander gives them. */
interface OwnOptions extends StepOptions {
  base?: string;
  density?: string;
  mean?: string;
  deviation?: string;
  inputs?: string;
  inputsTensor?: string;
  layer?: string;
  nodes?: string;
  eps?: string;
  apply?: string;
  tail?: string;
  leastSlope?: string;
  rows?: string;
  compare?: string;
  student?: string;
  seeds?: string;
  standardize?: string;
  labels?: string;
  labelColumn?: string;
  tensor?: string;
  columns?: string;
  evalData?: string[];
  evalLabels?: string;
  evalShare?: string;
}

/** Declares `surprisal distill-pld activations`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option(
      '--base <activation>',
      `${Object.keys(NAMED_ACTIVATIONS).join(', ')}, an expression of x, or a file of two columns (default relu)`,
    )
    .option('--density <kind>', `of the inputs: ${DENSITY_KINDS.join(', ')} (default normal; kernel with --inputs)`)
    .option('--mean <x>', 'of the normal density (default 0)')
    .option('--deviation <x>', 'of the normal density (default 1)')
    .option('--inputs <file>', 'recorded inputs of the activation: .npy .npz .safetensors or a table, every entry')
    .option('--inputs-tensor <name>', 'array of an .npz or .safetensors file that holds them')
    .option('--layer <n>', 'with --model: record the inputs of this block on the text of --data (0-based; default 0)')
    .option('--nodes <n>', 'nodes of the quadrature (default 256)')
    .option('--eps <list>', 'steps along the direction (default -0.1,-0.05,0.05,0.1,0.2,0.4)')
    .option('--apply <eps>', 'step of the improved activation (default that of --eps with the least entropy)')
    .option('--tail <share>', 'inputs left out at each end of the output interval (default 1e-6)')
    .option('--least-slope <x>', 'the branch ends where the slope of the base falls to this (default 0)')
    .option('--rows <n>', 'rows of --out (default 257)')
    .option('--compare <list>', `train a network with each of ${Object.keys(ACTIVATIONS).join(', ')} on --data`)
    .option('--student <network>', 'compare: the network without its activation (default mlp:128-128)')
    .option('--seeds <n>', 'compare: networks of each activation (default 5)')
    .option('--standardize <how>', 'compare: none, columns or all (default none)')
    .option('--labels <file>', 'compare: labels of the rows of --data')
    .option('--label-column <name>', 'compare: column or array that holds the labels')
    .option('--tensor <name>', 'compare: array of --data that holds the features')
    .option('--columns <names>', 'compare: columns that are features (default all but the labels)')
    .option('--eval-data <file...>', 'compare: rows that the networks are judged on')
    .option('--eval-labels <file>', 'compare: labels of --eval-data')
    .option('--eval-share <share>', 'compare: share of --data that is held out instead (default 0.2)');
  addStepOptions(command);
  command.action(async () => {
    process.exitCode = await run(await read(), command.opts<OwnOptions>());
  });
}

const isFile = (text: string): boolean => /\.(npy|npz|safetensors|csv|tsv|jsonl|parquet)(\.gz)?$/i.test(text);

const numbers = (flag: string, text: string): number[] => text.split(',').map((part) => parseNumber(flag, part.trim()));

const positive = (flag: string, text: string): number => {
  const value = parseNumber(flag, text, 0);
  if (value > 0) return value;
  throw new InputError(`${flag} ${text}: a number above 0 is needed`);
};

/** Inputs come from a file or from a model and a text; rows to train on come from --data when no model reads it. */
function refuseMixtures(options: Options, own: OwnOptions): void {
  if (options.model === undefined) {
    const stray = (['dataFormat', 'context'] as const).find((name) => options[name] !== undefined);
    if (stray) throw new InputError(`${flagOf(stray)} needs --model`);
    if (options.textField !== 'text') throw new InputError('--text-field needs --model');
    if (options.textSplit !== 'file') throw new InputError('--text-split needs --model');
    if (options.device !== 'cpu') throw new InputError('--device needs --model');
    if (options.limit !== undefined && own.compare === undefined) {
      throw new InputError('--limit needs --compare or --model');
    }
    if (own.layer !== undefined) throw new InputError('--layer needs --model');
    return;
  }
  if (own.inputs !== undefined)
    throw new InputError('--model and --inputs both say what the inputs are: pass one of them');
  if (own.compare !== undefined)
    throw new InputError('--model reads --data as text: compare by training in a run of its own');
  if (options.data.length === 0) throw new InputError('--model needs --data: the text on which inputs are recorded');
}

function searchArguments(options: Options, own: OwnOptions): ActivationArguments {
  const base = own.base ?? 'relu';
  refuseMixtures(options, own);
  const recording = own.inputs !== undefined || options.model !== undefined;
  const density = parseChoice('--density', own.density ?? (recording ? 'kernel' : 'normal'), DENSITY_KINDS);
  if (density !== 'normal' && !recording) throw new InputError(`--density ${density} needs --inputs or --model`);
  const stray = (['mean', 'deviation'] as const).find((name) => own[name] !== undefined);
  if (density !== 'normal' && stray) throw new InputError(`${flagOf(stray)} belongs to --density normal`);
  if (own.inputsTensor !== undefined && own.inputs === undefined)
    throw new InputError('--inputs-tensor needs --inputs');
  if (!isFile(base)) activationOf(base);
  const recorded: FeatureSource | undefined =
    own.inputs === undefined
      ? undefined
      : {
          kind: 'file',
          path: own.inputs,
          flatten: true,
          ...(own.inputsTensor !== undefined && { tensor: own.inputsTensor }),
        };
  return {
    base: isFile(base) ? { table: { kind: 'file', path: base } } : { text: base },
    density,
    mean: parseNumber('--mean', own.mean ?? '0'),
    deviation: positive('--deviation', own.deviation ?? '1'),
    ...(recorded && { recorded }),
    settings: {
      nodes: parseInteger('--nodes', own.nodes ?? '256', 2, 4096),
      eps: numbers('--eps', own.eps ?? '-0.1,-0.05,0.05,0.1,0.2,0.4'),
      ...(own.apply !== undefined && { apply: parseNumber('--apply', own.apply) }),
      tail: parseNumber('--tail', own.tail ?? '1e-6', 0, 0.4),
      leastSlope: parseNumber('--least-slope', own.leastSlope ?? '0', 0),
      tableRows: parseInteger('--rows', own.rows ?? '257', 2, 1_000_000),
    },
  };
}

const TRAINING_OPTIONS: readonly (keyof OwnOptions)[] = [
  'student',
  'seeds',
  'standardize',
  'labels',
  'labelColumn',
  'tensor',
  'columns',
  'evalData',
  'evalLabels',
  'evalShare',
  'epochs',
  'steps',
  'batchSize',
  'accumulate',
  'optimizer',
  'learningRate',
  'weightDecay',
  'betas',
  'epsilon',
  'momentum',
  'nesterov',
  'exemptVectors',
  'schedule',
  'warmup',
  'finalRate',
  'clip',
  'precision',
];

const STEP_DEFAULTS = {
  loss: 'ce',
  epochs: 20,
  batchSize: 64,
  learningRate: 1e-3,
  schedule: 'cosine',
  clipNorm: Number.POSITIVE_INFINITY,
} as const;

async function trainingArguments(options: Options, own: OwnOptions): Promise<ActivationTrainingArguments | undefined> {
  if (own.compare === undefined) {
    const stray = TRAINING_OPTIONS.find((name) => own[name] !== undefined);
    if (stray) throw new InputError(`${flagOf(stray)} needs --compare`);
    if (options.data.length > 0 && options.model === undefined)
      throw new InputError('--data needs --compare or --model; recorded inputs are given by --inputs');
    return undefined;
  }
  const names = own.compare.split(',').map((name) => name.trim());
  const known = Object.keys(ACTIVATIONS);
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new InputError(
      `--compare ${unknown}: no such activation${didYouMean(unknown, known)}; known are ${known.join(', ')}`,
    );
  }
  if (options.data.length === 0) throw new InputError('--compare needs --data: rows of features with labels');
  const network = own.student ?? 'mlp:128-128';
  parseNetwork(`${network},${names[0]}`);
  if (own.evalData === undefined && own.evalLabels !== undefined)
    throw new InputError('--eval-labels needs --eval-data');
  if (own.evalData !== undefined && own.evalShare !== undefined) {
    throw new InputError('--eval-share and --eval-data both say what is held out: pass one of them');
  }
  const sources = async (paths: readonly string[], labels: string | undefined, limit: number | undefined) =>
    (await expandSources(paths)).map((path) => classSource(path, own, labels, limit));
  const { loss, ...steps } = parseSteps(own, STEP_DEFAULTS);
  return {
    data: await sources(options.data, own.labels, options.limit),
    heldOut: own.evalData
      ? await sources(own.evalData, own.evalLabels, undefined)
      : parseShare('--eval-share', own.evalShare ?? '0.2'),
    network,
    standardize: parseChoice('--standardize', own.standardize ?? 'none', ['none', 'columns', 'all'] as const),
    activations: names,
    seeds: Array.from({ length: parseInteger('--seeds', own.seeds ?? '5', 1, 1000) }, (_, i) => options.seed + i),
    training: { ...steps, loss },
    seed: options.seed,
    threads: options.threads,
  };
}

function parametersOf(
  args: ActivationArguments,
  training: ActivationTrainingArguments | undefined,
  own: OwnOptions,
  options: Options,
): Record<string, ReportValue> {
  const { settings } = args;
  return {
    base: own.base ?? 'relu',
    density: args.density,
    mean: args.density === 'normal' ? args.mean : null,
    deviation: args.density === 'normal' ? args.deviation : null,
    inputs: own.inputs ?? null,
    inputs_tensor: own.inputsTensor ?? null,
    model: options.model ?? null,
    layer: options.model === undefined ? null : Number(own.layer ?? '0'),
    data: options.model === undefined ? null : [...options.data],
    text_field: options.model === undefined ? null : options.textField,
    text_split: options.model === undefined ? null : options.textSplit,
    limit: options.limit ?? null,
    context: options.context ?? null,
    nodes: settings.nodes,
    eps: [...settings.eps],
    apply: settings.apply ?? null,
    tail: settings.tail,
    least_slope: settings.leastSlope,
    rows: settings.tableRows,
    compare: training
      ? {
          data: training.data.map(({ path }) => path),
          eval_data: typeof training.heldOut === 'number' ? null : training.heldOut.map(({ path }) => path),
          eval_share: typeof training.heldOut === 'number' ? training.heldOut : null,
          activations: [...training.activations],
          student: training.network,
          standardize: training.standardize,
          seeds: [...training.seeds],
          labels: own.labels ?? null,
          label_column: own.labelColumn ?? null,
          eval_labels: own.evalLabels ?? null,
          tensor: own.tensor ?? null,
          columns: own.columns ?? null,
          ...stepParameters(parseSteps(own, STEP_DEFAULTS)),
        }
      : null,
    seed: options.seed,
  };
}

function filesOf(own: OwnOptions, training: ActivationTrainingArguments | undefined): string[] {
  const held = training && typeof training.heldOut !== 'number' ? training.heldOut : [];
  const rows = [...(training?.data ?? []), ...held].flatMap(({ path, labels }) => [path, ...(labels ? [labels] : [])]);
  return [
    ...(isFile(own.base ?? '') ? [own.base ?? ''] : []),
    ...(own.inputs === undefined ? [] : [own.inputs]),
    ...new Set(rows),
  ];
}

const recordedName = (options: Options, own: OwnOptions): string => {
  if (options.model !== undefined) return ` of block ${own.layer ?? 0} of ${options.model}`;
  return own.inputs === undefined ? '' : ` of ${own.inputs}`;
};

async function run(options: Options, own: OwnOptions): Promise<number> {
  const args = searchArguments(options, own);
  const training = await trainingArguments(options, own);
  if (options.table !== undefined && !training)
    throw new InputError('--table holds trained networks: it needs --compare');
  const inputs = filesOf(own, training);
  const base = own.base ?? 'relu';
  const view = {
    name: ACTIVATIONS_SCHEMA,
    command: 'distill-pld activations',
    columns: ACTIVATION_COLUMNS,
    tableColumns: TRAINING_COLUMNS,
    unit: 'networks',
    inputs,
    parameters: parametersOf(args, training, own, options),
    subtitle: `${base}, ${args.density} density${recordedName(options, own)}`,
  };
  return runAnalysis(
    view,
    { ...options, shard: undefined },
    {
      async plan() {
        return [
          ['base', base],
          ['density', args.density],
          ['nodes', args.settings.nodes],
          ['networks', training ? training.activations.length * training.seeds.length : 0],
        ];
      },
      async measure(context: AnalysisContext): Promise<AnalysisOutcome> {
        for (const path of inputs) context.ledger.note(path);
        const { model } = options;
        const recorded =
          model === undefined
            ? undefined
            : await (await import('./activation-recording.js')).recordActivationInputs(
                model,
                parseInteger('--layer', own.layer ?? '0'),
                options,
                context,
              );
        const result = await context.run(SEARCH_ACTIVATION, {
          ...args,
          ...(recorded && { recorded: recorded.source }),
        });
        for (const warning of searchWarnings(result)) context.warn(warning);
        let trained: ActivationTraining | undefined;
        if (training) {
          context.timings.begin('train');
          context.progress.setTotal(training.activations.length * training.seeds.length);
          trained = await context.run(TRAIN_ACTIVATIONS, training, (done) => context.progress.update(Number(done)));
          for (const warning of trained.warnings) context.warn(warning);
        }
        return {
          body: activationsBody(result, trained),
          rows: () => activationRows(result),
          tableRows: () => trainingRows(trained),
          figure: async (subtitle) =>
            (await import('../src/distillation/activation-plot.js')).drawActivations(result, trained, subtitle),
          ...(recorded && { digests: async () => recorded.digests }),
          summary: { header: ['figure', 'value', 'se'], rows: summaryRows(result, trained) },
        };
      },
    },
  );
}

function summaryRows(result: ActivationResult, trained: ActivationTraining | undefined): SummaryCell[][] {
  const rows: SummaryCell[][] = [
    ['output entropy, nats', result.entropyNats],
    ['  less ln of the output range, nats', result.entropyNats - result.logRange],
    ['excluded input mass', result.excludedMass],
    ['first variation', result.firstVariation],
    ['boundary term', result.boundaryTerm],
    ['numeric derivative', result.numericDerivative],
    ['largest admissible eps', result.admissible.high],
    ['applied eps', result.applied.eps],
    ['  output entropy, nats', result.applied.nats],
    ['coefficient of the correction', result.fit.coefficient],
  ];
  if (result.plugIn) {
    rows.push(
      ['plug-in entropy before, nats', result.plugIn.before],
      ['plug-in entropy after, nats', result.plugIn.after],
    );
  }
  for (const row of trained ? summariseTraining(trained) : []) {
    rows.push([`accuracy, ${row.activation}`, row.accuracy.mean, row.accuracy.standardError]);
    for (const [name, value] of row.learnt) rows.push([`  ${name}`, value.mean, value.standardError]);
  }
  return rows;
}
