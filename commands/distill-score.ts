import type { Command } from 'commander';
import {
  drawScore,
  LOSS_COLUMNS,
  lossRows,
  RANK_COLUMNS,
  rankRows,
  rowTable,
  SCORE_SCHEMA,
  SUMMARY_HEADER,
  scoreBody,
  summaryRows,
} from '../src/distillation/score-report.js';
import type { ScoreFigures, SharedScore } from '../src/distillation/score-settings.js';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { expandSources, type InputDigest } from '../src/formats/inputs.js';
import { encodeNpy } from '../src/formats/npy.js';
import { tableBytes } from '../src/report/csv.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import type { Tokenizer } from '../src/tokenizers/tokenizer.js';
import { firstDifference, tokenizerDigest } from '../src/tokenizers/tokenizer-digest.js';
import type { TokenWindows } from '../src/training/language/token-data.js';
import { type AnalysisContext, type AnalysisOutcome, type AnalysisWork, runAnalysis } from './analysis-run.js';
import { addLearningTextOptions, describeWindows, type LearningTextOptions, readTokenWindows } from './distill-text.js';
import { flagOf, parseChoice, parseNumber } from './edge-values.js';
import { modelDigests } from './model-digests.js';
import { DEFAULT_CONTEXT, PRECISION_OPTION, parsePrecision } from './model-session.js';
import { ANALYSIS_OPTIONS, attachShared, type SharedOptions } from './shared-options.js';

const SHARED = [
  ...ANALYSIS_OPTIONS.filter((name) => name !== 'shard' && name !== 'seed'),
  ...(['table', 'data', 'dataFormat', 'textSplit', 'textField', 'limit', 'context'] as const),
] as const;
type Options = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Options as commander gives them. */
interface OwnOptions extends LearningTextOptions {
  studentLogits?: string;
  teacherLogits?: string;
  tensor?: string;
  teacherTensor?: string;
  labels?: string;
  labelColumn?: string;
  conditional?: string;
  student?: string;
  teacher?: string;
  vocabAlign?: string;
  losses?: string;
  pldTau?: string;
  taus?: string;
  scoreBound?: string;
  perRow?: string;
  gradients?: string;
  gradientOf?: string;
  precision?: string;
}

/** Declares `surprisal distill-pld score`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--student-logits <file>', 'logits [rows, classes] or [batch, positions, classes]: .npy .npz .safetensors')
    .option('--teacher-logits <file>', "the teacher's, of the same rows")
    .option('--tensor <name>', 'array of the student, in a file of several')
    .option('--teacher-tensor <name>', 'array of the teacher, in a file of several')
    .option('--labels <file>', 'class of every row, -100 for rows that do not count')
    .option('--label-column <name>', 'column or array of the labels')
    .option('--conditional <file>', 'label probabilities [rows, classes], for the comp-sum bounds')
    .option('--student <model>', 'in place of --student-logits: a language model, run on --data')
    .option('--teacher <model>', 'a language model, or a capture (.capture)')
    .option('--vocab-align <how>', 'other vocabulary of the teacher: error or truncate (default error)')
    .option('--losses <list>', 'losses separated by commas, such as pld(tau=2),kd(T=4) (default: all that apply)')
    .option('--pld-tau <x>', 'temperature of the weights of the per-rank curve (default 1)')
    .option('--taus <list>', 'comp-sum losses that bound the error (default 0,0.5,1,1.3,1.7,2)')
    .option('--score-bound <x>', 'also the least comp-sum loss of scores within [-x, x]')
    .option('--per-row <file>', 'a row for every row: .csv .tsv .jsonl .parquet')
    .option('--gradients <file.npy>', 'gradient of --gradient-of by the student logits, [rows, classes]')
    .option('--gradient-of <terms>', "loss of --gradients, such as '0.1*ce + 0.9*kd(T=4)' (default pld)")
    .option(...PRECISION_OPTION);
  addLearningTextOptions(command);
  command.action(async () => {
    process.exitCode = await run(await read(), command.opts<OwnOptions>());
  });
}

const FILE_ONLY = [
  'teacherLogits',
  'tensor',
  'teacherTensor',
  'labels',
  'labelColumn',
  'conditional',
  'gradients',
  'gradientOf',
] as const;
const MODEL_ONLY = [
  ...(['teacher', 'lossOn', 'chatTemplate', 'promptField', 'answerField', 'prefixToken', 'precision'] as const),
] as const;
const TEXT_ONLY = ['dataFormat', 'context'] as const;

/** What an option belongs to. */
const NEEDS = [
  ['gradientOf', 'gradients'],
  ['conditional', 'labels'],
  ['labelColumn', 'labels'],
  ['teacherTensor', 'teacherLogits'],
] as const;

/** @throws InputError for options of one kind of pair beside the other */
function checkKind(own: OwnOptions, options: Options): 'logits' | 'models' {
  if ((own.studentLogits === undefined) === (own.student === undefined)) {
    throw new InputError('pass either --student-logits (stored logits) or --student with --teacher and --data');
  }
  const files = own.studentLogits !== undefined;
  const stray = (files ? MODEL_ONLY : FILE_ONLY).find((name) => own[name] !== undefined);
  if (stray) throw new InputError(`${flagOf(stray)} is of no use with ${files ? '--student-logits' : '--student'}`);
  if (files && options.data.length > 0) throw new InputError('--data is of no use with --student-logits');
  if (!files && (own.teacher === undefined || options.data.length === 0)) {
    throw new InputError('--student needs --teacher and --data');
  }
  const text = TEXT_ONLY.find((name) => options[name] !== undefined);
  const noEnd = own.endToken === false ? '--no-end-token' : undefined;
  const unread = text ? flagOf(text) : noEnd;
  if (files && unread) throw new InputError(`${unread} is of no use with --student-logits`);
  const lone = NEEDS.find(([name, needed]) => own[name] !== undefined && own[needed] === undefined);
  if (lone) throw new InputError(`${flagOf(lone[0])} is of no use without ${flagOf(lone[1])}`);
  if (own.vocabAlign !== undefined && own.teacherLogits === undefined && own.teacher === undefined) {
    throw new InputError('--vocab-align needs a teacher');
  }
  return files ? 'logits' : 'models';
}

function sharedOf(own: OwnOptions, plot: boolean): SharedScore {
  const taus = (own.taus ?? '0,0.5,1,1.3,1.7,2').split(',').map((text) => parseNumber('--taus', text.trim(), 0));
  return {
    ...(own.losses !== undefined && { losses: own.losses }),
    taus: [...new Set(taus)],
    pldTau: parseNumber('--pld-tau', own.pldTau ?? '1', 0),
    ...(own.scoreBound !== undefined && { scoreBound: parseNumber('--score-bound', own.scoreBound, 0) }),
    rowsWanted: own.perRow !== undefined || plot,
  };
}

/** What a run works on: the job to start, and what it says of itself. */
interface Subject {
  readonly inputs: readonly string[];
  readonly total: number | undefined;
  readonly plan: readonly (readonly SummaryCell[])[];
  start(context: AnalysisContext): Promise<ScoreFigures>;
  digests?(): Promise<readonly InputDigest[]>;
}

async function logitsSubject(own: OwnOptions, options: Options, shared: SharedScore): Promise<Subject> {
  const { SCORE_LOGITS } = await import('../src/distillation/score-logits-job.js');
  const inputs = [own.studentLogits, own.teacherLogits, own.labels, own.conditional].filter(
    (path) => path !== undefined,
  );
  const file = (path: string, tensor: string | undefined) => ({ path, ...(tensor !== undefined && { tensor }) });
  return {
    inputs,
    total: undefined,
    plan: inputs.map((path, i) => [`input ${i + 1}`, path]),
    async start(context) {
      for (const path of inputs) context.ledger.note(path);
      return context.run(
        SCORE_LOGITS,
        {
          ...shared,
          student: file(own.studentLogits ?? '', own.tensor),
          ...(own.teacherLogits !== undefined && { teacher: file(own.teacherLogits, own.teacherTensor) }),
          ...(own.labels !== undefined && {
            labels: { path: own.labels, ...(own.labelColumn !== undefined && { column: own.labelColumn }) },
          }),
          ...(own.conditional !== undefined && { conditional: file(own.conditional, undefined) }),
          ...(options.limit !== undefined && { limit: options.limit }),
          vocabularies: parseChoice('--vocab-align', own.vocabAlign ?? 'error', ['error', 'truncate'] as const),
          ...(own.gradients !== undefined && { gradientOf: own.gradientOf ?? 'pld' }),
        },
        (value) => context.progress.update(Number(value)),
      );
    },
  };
}

async function tokenizerOf(path: string): Promise<Tokenizer | undefined> {
  const { openModelTokenizer } = await import('../src/models/model-tokenizer.js');
  try {
    return openModelTokenizer(path);
  } catch (error) {
    // A model without one is read by token ids; what else is wrong shows when it is opened.
    if (error instanceof InputError) return undefined;
    throw error;
  }
}

async function modelsSubject(
  own: OwnOptions,
  options: Options,
  shared: SharedScore,
  ledger: AnalysisContext['ledger'],
): Promise<Subject> {
  const spec = own.student ?? '';
  const { path } = resolveModelPath(spec, process.env);
  const { openModelFiles } = await import('../src/models/model-files.js');
  const { vocabularySize, maxPositions } = openModelFiles(path).description;
  const tokenizer = await tokenizerOf(path);
  const captured = /\.(capture|topk)$/i.test(own.teacher ?? '') || own.teacher?.includes('*') === true;
  const teacherPaths = captured ? await expandSources([own.teacher ?? '']) : [];
  const teacherPath = captured ? undefined : resolveModelPath(own.teacher ?? '', process.env).path;
  const others = teacherPath === undefined ? undefined : await tokenizerOf(teacherPath);
  const id = tokenizer && others && firstDifference(tokenizer, others);
  if (id !== undefined) {
    throw new InputError(`${spec} and ${own.teacher} have different tokenizers: token ${id} means two things`);
  }
  const data = await expandSources(options.data);
  const context = options.context ?? Math.min(maxPositions ?? DEFAULT_CONTEXT, DEFAULT_CONTEXT);
  if (maxPositions && context > maxPositions) {
    throw new InputError(`--context ${context} is longer than the ${maxPositions} positions of ${spec}`);
  }
  const reading = { name: spec, tokenizer, vocabularySize };
  const windows: TokenWindows = await readTokenWindows(data, options, own, reading, context, ledger);
  for (const capture of teacherPaths) ledger.note(capture);
  const described = describeWindows(windows);
  return {
    inputs: [...data, ...teacherPaths],
    total: windows.count,
    plan: [
      ['student', spec],
      ['teacher', own.teacher ?? ''],
      ...Object.entries(described).map(([name, value]): SummaryCell[] => [name.replaceAll('_', ' '), Number(value)]),
    ],
    async start(run) {
      const { SCORE_LANGUAGE } = await import('../src/distillation/score-language-job.js');
      return run.run(
        SCORE_LANGUAGE,
        {
          ...shared,
          student: path,
          teacher:
            teacherPath === undefined ? { kind: 'capture', paths: teacherPaths } : { kind: 'model', path: teacherPath },
          windows,
          vocabularies: parseChoice('--vocab-align', own.vocabAlign ?? 'error', ['error', 'truncate'] as const),
          ...(tokenizer && { tokenizerSha256: tokenizerDigest(tokenizer) }),
          threads: options.threads,
          maxMemoryBytes: options.maxMemory,
          precision: parsePrecision(own.precision),
        },
        (value) => run.progress.update(Number(value)),
      );
    },
    async digests() {
      const student = await modelDigests(spec, path);
      const teacher = teacherPath === undefined ? [] : (await modelDigests(own.teacher ?? '', teacherPath)).digests;
      return [...student.digests, ...teacher];
    },
  };
}

const PARAMETERS = [
  ...['studentLogits', 'teacherLogits', 'tensor', 'teacherTensor', 'labels', 'labelColumn', 'conditional'],
  ...['student', 'teacher', 'vocabAlign', 'losses', 'pldTau', 'taus', 'scoreBound', 'gradientOf', 'precision'],
  ...['lossOn', 'chatTemplate', 'promptField', 'answerField', 'prefixToken', 'endToken'],
] as const;

const underscored = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function parametersOf(own: OwnOptions, options: Options): Record<string, ReportValue> {
  const given = own as Readonly<Record<string, string | boolean | undefined>>;
  return {
    ...Object.fromEntries(PARAMETERS.map((name) => [underscored(name), given[name] ?? null])),
    limit: options.limit ?? null,
    context: options.context ?? null,
  };
}

function outcomeOf({ audit, rows, gradient }: ScoreFigures, own: OwnOptions, subject: Subject): AnalysisOutcome {
  const files = (): Map<string, Uint8Array> => {
    const written = new Map<string, Uint8Array>();
    if (own.perRow !== undefined) {
      const table = rowTable(rows);
      written.set('--per-row', tableBytes(own.perRow, table.columns, table.rows));
    }
    if (gradient) written.set('--gradients', encodeNpy(gradient, [gradient.length / audit.classes, audit.classes]));
    return written;
  };
  return {
    body: scoreBody(audit),
    rows: () => lossRows(audit),
    tableRows: () => rankRows(audit),
    figure: (subtitle) => drawScore(audit, rows, subtitle),
    summary: { header: SUMMARY_HEADER, rows: summaryRows(audit) },
    files,
    ...(subject.digests && { digests: subject.digests }),
  };
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const kind = checkKind(own, options);
  const shared = sharedOf(own, options.plot !== undefined);
  const ownFiles = new Map(
    (
      [
        ['--per-row', own.perRow],
        ['--gradients', own.gradients],
      ] as const
    ).flatMap(([flag, path]) => (path === undefined ? [] : [[flag, path] as const])),
  );
  const student = own.studentLogits ?? own.student ?? '';
  const teacher = own.teacherLogits ?? own.teacher;
  const stored = [own.studentLogits, own.teacherLogits, own.labels, own.conditional].filter(
    (path) => path !== undefined,
  );
  const view = {
    name: SCORE_SCHEMA,
    command: 'distill-pld score',
    columns: LOSS_COLUMNS,
    tableColumns: RANK_COLUMNS,
    files: ownFiles,
    unit: kind === 'logits' ? 'rows' : 'windows',
    inputs: kind === 'logits' ? stored : options.data,
    parameters: parametersOf(own, options),
    subtitle: teacher === undefined ? student : `${student} beside ${teacher}`,
  };
  const subjectOf = (context: AnalysisContext): Promise<Subject> =>
    kind === 'logits' ? logitsSubject(own, options, shared) : modelsSubject(own, options, shared, context.ledger);
  const work: AnalysisWork = {
    plan: async (context) => (await subjectOf(context)).plan,
    async measure(context) {
      const subject = await subjectOf(context);
      if (subject.total !== undefined) context.progress.setTotal(subject.total);
      const figures = await subject.start(context);
      for (const warning of figures.audit.warnings) context.warn(warning);
      return outcomeOf(figures, own, subject);
    },
  };
  return runAnalysis(view, { ...options, seed: 0, shard: undefined }, work);
}
