import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import type { HeadsArguments, HeadsResult, Members } from '../src/distillation/heads-job.js';
import { HEADS_COLUMNS, HEADS_SCHEMA, headsBody, headsRows } from '../src/distillation/heads-report.js';
import { InputError } from '../src/errors.js';
import { expandSources } from '../src/formats/inputs.js';
import { createNpyWriter } from '../src/formats/npy.js';
import type { ReportValue } from '../src/report/values.js';
import { parseLosses } from '../src/training/losses/loss-text.js';
import { parseNetwork } from '../src/training/network-text.js';
import { type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { classSource, parseShare } from './distill-classifier-options.js';
import { addStepOptions, parseSteps, type StepOptions, stepParameters } from './distill-options.js';
import { flagOf, parseChoice, parseInteger } from './edge-values.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption, type SharedOptions } from './shared-options.js';

const SHARED = [
  ...ANALYSIS_OPTIONS.filter((name) => name !== 'shard' && name !== 'maxMemory'),
  'data',
  'limit',
] as const;
type Options = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Options as commander gives them. */
interface OwnOptions extends StepOptions {
  members?: string;
  member?: string;
  memberEpochs?: string;
  memberLogits?: string[];
  evalMemberLogits?: string[];
  student?: string;
  standardize?: string;
  labels?: string;
  labelColumn?: string;
  tensor?: string;
  columns?: string;
  evalData?: string[];
  evalLabels?: string;
  evalShare?: string;
  features?: string;
  saveStudent?: string;
}

/** Declares `surprisal distill-pld heads`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--members <n>', 'networks that are trained here, each from a seed of its own (default 4)')
    .option('--member <network>', 'what they are (default mlp:32)')
    .option('--member-epochs <n>', 'their passes over the data (default those of the student)')
    .option('--member-logits <file...>', 'in place of --members: logits of the rows of --data, a file a network')
    .option('--eval-member-logits <file...>', 'their logits of the rows of --eval-data')
    .option('--student <network>', 'the student without its heads (default mlp:64)')
    .option('--loss <terms>', 'loss of every head against its teacher (default kd(T=2))')
    .option('--standardize <how>', 'none, columns or all (default none)')
    .option('--labels <file>', 'labels of the rows of --data')
    .option('--label-column <name>', 'column or array that holds the labels')
    .option('--tensor <name>', 'array of --data that holds the features')
    .option('--columns <names>', 'columns that are features (default all but the labels)')
    .option('--eval-data <file...>', 'rows that everything is judged on')
    .option('--eval-labels <file>', 'labels of --eval-data')
    .option('--eval-share <share>', 'share of --data that is held out instead (default 0.2)')
    .option('--features <folder>', 'write the features of student and members as .npy, to be probed')
    .option(
      '--save-student <file.onnx>',
      'write the student: outputs logits (heads side by side) and hidden (features)',
    );
  addStepOptions(command);
  command.action(async () => {
    process.exitCode = await run(await read(), command.opts<OwnOptions>());
  });
}

const STEP_DEFAULTS = {
  loss: 'kd(T=2)',
  epochs: 30,
  batchSize: 64,
  learningRate: 2e-3,
  schedule: 'cosine',
  clipNorm: Number.POSITIVE_INFINITY,
} as const;

function membersOf(own: OwnOptions): Members {
  const { memberLogits, evalMemberLogits } = own;
  if (memberLogits === undefined) {
    if (evalMemberLogits !== undefined) throw new InputError('--eval-member-logits needs --member-logits');
    // Their course is the student's, in passes or in steps, unless passes of their own are named.
    const course = own.memberEpochs === undefined ? own : { ...own, steps: undefined, epochs: own.memberEpochs };
    const training = parseSteps({ ...course, loss: 'ce' }, STEP_DEFAULTS);
    const network = own.member ?? 'mlp:32';
    parseNetwork(network);
    return {
      kind: 'trained',
      network,
      count: parseInteger('--members', own.members ?? '4', 1, 1000),
      training,
    };
  }
  const stray = (['members', 'member', 'memberEpochs'] as const).find((name) => own[name] !== undefined);
  if (stray) throw new InputError(`${flagOf(stray)} is not read with --member-logits`);
  if (evalMemberLogits?.length !== memberLogits.length || own.evalData === undefined) {
    throw new InputError(
      `--member-logits names ${memberLogits.length} files: give --eval-data, and as many --eval-member-logits (${evalMemberLogits?.length ?? 0})`,
    );
  }
  return { kind: 'logits', paths: memberLogits, evalPaths: evalMemberLogits };
}

async function argumentsOf(options: Options, own: OwnOptions): Promise<HeadsArguments> {
  const data = requireOption(options.data, '--data', 'rows of features with labels');
  if (own.evalData === undefined && own.evalLabels !== undefined)
    throw new InputError('--eval-labels needs --eval-data');
  if (own.evalData !== undefined && own.evalShare !== undefined) {
    throw new InputError('--eval-share and --eval-data both say what is held out: pass one of them');
  }
  const student = own.student ?? 'mlp:64';
  parseNetwork(student);
  const training = parseSteps(own, STEP_DEFAULTS);
  parseLosses(training.loss);
  const sources = async (paths: readonly string[], labels: string | undefined, limit: number | undefined) =>
    (await expandSources(paths)).map((path) => classSource(path, own, labels, limit));
  return {
    data: await sources(data, own.labels, options.limit),
    heldOut: own.evalData
      ? await sources(own.evalData, own.evalLabels, undefined)
      : parseShare('--eval-share', own.evalShare ?? '0.2'),
    members: membersOf(own),
    student,
    standardize: parseChoice('--standardize', own.standardize ?? 'none', ['none', 'columns', 'all'] as const),
    training,
    seed: options.seed,
    threads: options.threads,
  };
}

function parametersOf(args: HeadsArguments, own: OwnOptions): Record<string, ReportValue> {
  const { members, heldOut } = args;
  return {
    data: args.data.map(({ path }) => path),
    eval_data: typeof heldOut === 'number' ? null : heldOut.map(({ path }) => path),
    eval_share: typeof heldOut === 'number' ? heldOut : null,
    members: members.kind === 'trained' ? members.count : null,
    member: members.kind === 'trained' ? members.network : null,
    member_epochs: members.kind === 'trained' ? (members.training.epochs ?? null) : null,
    member_logits: members.kind === 'logits' ? [...members.paths] : null,
    eval_member_logits: members.kind === 'logits' ? [...members.evalPaths] : null,
    student: args.student,
    standardize: args.standardize,
    labels: own.labels ?? null,
    label_column: own.labelColumn ?? null,
    eval_labels: own.evalLabels ?? null,
    tensor: own.tensor ?? null,
    columns: own.columns ?? null,
    ...stepParameters(parseSteps(own, STEP_DEFAULTS)),
    seed: args.seed,
  };
}

function filesOf({ data, heldOut, members }: HeadsArguments): string[] {
  const rows = [...data, ...(typeof heldOut === 'number' ? [] : heldOut)];
  const logits = members.kind === 'logits' ? [...members.paths, ...members.evalPaths] : [];
  return [...new Set([...rows.flatMap(({ path, labels }) => [path, ...(labels ? [labels] : [])]), ...logits])];
}

/** Known before the training, so that no work is lost. */
function refuseExisting(folder: string | undefined, force: boolean): void {
  if (folder !== undefined && !force && existsSync(folder)) {
    throw new InputError(`--features ${folder}: exists; use --force to write into it`);
  }
}

/** `<network>-train.npy`, `<network>-eval.npy` and the labels of both sets of rows. */
function writeFeatures(folder: string, result: HeadsResult, force: boolean): void {
  mkdirSync(folder, { recursive: true });
  const write = (name: string, shape: number[], data: Float32Array | Float64Array | Int32Array): void => {
    const dtype = data instanceof Float32Array ? 'F32' : data instanceof Float64Array ? 'F64' : 'I32';
    const writer = createNpyWriter(join(folder, `${name}.npy`), { dtype, shape }, { force });
    writer.write(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    writer.commit();
  };
  for (const { name, width, training, heldOut } of result.features) {
    write(`${name}-train`, [result.trainingRows, width], training);
    write(`${name}-eval`, [result.heldOutRows, width], heldOut);
  }
  write('labels-train', [result.trainingRows], result.labels.training);
  write('labels-eval', [result.heldOutRows], result.labels.heldOut);
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const args = await argumentsOf(options, own);
  const inputs = filesOf(args);
  const networks = args.members.kind === 'trained' ? args.members.count : args.members.paths.length;
  const view = {
    name: HEADS_SCHEMA,
    command: 'distill-pld heads',
    columns: HEADS_COLUMNS,
    unit: 'networks',
    inputs,
    files: new Map(own.saveStudent === undefined ? [] : [['--save-student', own.saveStudent] as const]),
    parameters: parametersOf(args, own),
    subtitle: `${networks} networks into ${args.student}`,
  };
  return runAnalysis(
    view,
    { ...options, maxMemory: 0, shard: undefined },
    {
      async plan() {
        return [
          ['networks', networks],
          ['student', args.student],
          ['loss of a head', args.training.loss],
        ];
      },
      async measure(context): Promise<AnalysisOutcome> {
        refuseExisting(own.features, options.force);
        for (const path of inputs) context.ledger.note(path);
        context.progress.setTotal(networks + 1);
        const { DISTIL_HEADS } = await import('../src/distillation/heads-job.js');
        const result = await context.run(DISTIL_HEADS, args, (done) => context.progress.update(Number(done)));
        for (const warning of result.warnings) context.warn(warning);
        if (own.features !== undefined) writeFeatures(own.features, result, options.force);
        return {
          body: headsBody(result),
          rows: () => headsRows(result),
          figure: async (subtitle) => (await import('../src/distillation/heads-report.js')).drawHeads(result, subtitle),
          files: () => new Map([['--save-student', result.model]]),
          summary: {
            header: ['network', 'accuracy', 'se', 'NLL, nats', 'agreement', 'KL, nats'],
            rows: [...headsRows(result)].map(([name, accuracy, error, nll, , , agreement, kl]) =>
              [name, accuracy, error, nll, agreement, kl].map((cell) =>
                typeof cell === 'number' ? cell : cell === undefined ? undefined : String(cell),
              ),
            ),
          },
        };
      },
    },
  );
}
