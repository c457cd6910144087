import { copyFileSync, existsSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { InputError } from '../src/errors.js';
import { type AtomicDirectory, type AtomicFile, createAtomicDirectory } from '../src/formats/atomic.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { createInputLedger, expandSources, type InputDigest, type InputLedger } from '../src/formats/inputs.js';
import type { ModelDescription } from '../src/models/description.js';
import { buildReport, serializeReport, writeReport } from '../src/report/json.js';
import { createProgress, type Progress } from '../src/report/progress.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import { type ReportValue, reportObject } from '../src/report/values.js';
import { checkVocabulary, type Tokenizer } from '../src/tokenizers/tokenizer.js';
import { firstDifference, tokenizerDigest } from '../src/tokenizers/tokenizer-digest.js';
import {
  LANGUAGE_SCHEMA,
  type LanguageBody,
  languageFigure,
  languageSummary,
} from '../src/training/language/language-report.js';
import type { LoSparseSettings, StudentStart } from '../src/training/language/language-student.js';
import type { TokenWindows } from '../src/training/language/token-data.js';
import type {
  LanguageProgress,
  LanguageResult,
  LanguageTraining,
  TeacherSource,
} from '../src/training/language/train-language-job.js';
import type { TrainSettings } from '../src/training/trainer.js';
import {
  attentionTrainingFiles,
  attentionTrainingParameters,
  parseAttentionTraining,
} from './distill-attention-options.js';
import { type LanguageOptions, parseLora, parseOnPolicy, parseStudent } from './distill-language-options.js';
import {
  checkpointFolder,
  MANIFEST_SCHEMA,
  parseCadence,
  parseSteps,
  type StepDefaults,
  type StepSettings,
  stepParameters,
  type TrainOptions,
  type TrainShared,
  totalSteps,
} from './distill-options.js';
import { describeWindows, type LearningSubject, learningTextParameters, readTokenWindows } from './distill-text.js';
import { prepareAsserts } from './edge-asserts.js';
import { type Outputs, openOutputs } from './edge-outputs.js';
import { parseChoice } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { noticeSlowKernels } from './kernel-notice.js';
import { modelDigests } from './model-digests.js';
import { DEFAULT_CONTEXT } from './model-session.js';
import { runInThread } from './run-in-thread.js';
import { type RunTimings, startRunTimings } from './run-timings.js';
import { requireOption } from './shared-options.js';

const COMMAND = 'distill-pld train';
const DEFAULTS = { loss: 'pld', epochs: 1, batchSize: 8, learningRate: 3e-4, schedule: 'cosine', clipNorm: 1 } as const;
const DTYPES = { f32: 'F32', f16: 'F16', bf16: 'BF16' } as const;
const MIB = 2 ** 20;

type Own = TrainOptions & LanguageOptions;

/** What a command makes of training a language model. */
export interface LanguageRecipe {
  /** As reports name it. */
  readonly command: string;
  readonly defaults: StepDefaults;
  /** Further parameters of the report. */
  readonly parameters?: Readonly<Record<string, ReportValue>>;
  readonly freezeRouters?: boolean;
  /** Of a run of so many steps. */
  readonly loSparse?: (steps: number, warmupSteps: number) => LoSparseSettings;
  /** Which weights are written where nothing says it. */
  readonly keep?: 'best' | 'last';
}

const TRAINING: LanguageRecipe = { command: COMMAND, defaults: DEFAULTS };

/** The student before it is trained, and what its text is read with. */
interface Subject extends LearningSubject {
  readonly start: StudentStart;
  readonly modelType: string;
  readonly layers: number | null;
  readonly hiddenSize: number | null;
  /** Heads of every layer; null where layers differ or the files do not say. */
  readonly heads: number | null;
  /** Positions of a window. */
  readonly context: number;
}

/** Trains a language model: from the options to the exit code. */
export async function trainLanguage(
  options: TrainShared,
  own: Own,
  recipe: LanguageRecipe = TRAINING,
): Promise<number> {
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings(recipe.command);
  const out = requireOption(options.out, '--out', 'the directory to write');
  const data = await expandSources(requireOption(options.data, '--data', 'text to learn from'));
  const evalData = own.evalData ? await expandSources([...own.evalData]) : [];
  const outputs = openOutputs([...data, ...evalData], { force: options.force, resume: options.resume });
  let directory: AtomicDirectory | undefined;
  try {
    const reportFile = outputs.file('--report', options.report);
    const plotFile = outputs.file('--plot', options.plot);
    const timingsFile = outputs.file('--timings', options.timings);
    const graphFile = openGraphFile(outputs, own.saveGradientGraph, options);
    if (plotFile) (await import('../src/report/plots/figure.js')).plotExtension(options.plot as string);
    const work = checkTargets(out, options);
    noticeSlowKernels();
    timings.begin('read the text');
    const run = await prepare(options, own, recipe, { data, evalData, work });
    if (options.dryRun) {
      process.stdout.write(summaryTable(['plan', 'value'], await planRows(run, out)));
      return 0;
    }
    if (!options.resume) rmSync(work, { recursive: true, force: true });
    const progress = await createProgress({
      stream: process.stderr,
      quiet: options.quiet,
      unit: 'steps',
      total: run.training.settings.steps,
      now: () => performance.now(),
    });
    const warnings: string[] = [];
    const { trainLanguageModel } = await import('../src/training/language/train-language-job.js');
    const module = new URL('../src/training/language/train-language-job.js', import.meta.url).href;
    const result = await runInThread(
      { module, job: trainLanguageModel },
      run.training,
      listener(options, progress, timings, warnings),
      options.threads,
    );
    progress.stop();
    timings.begin('summarise');
    directory = createAtomicDirectory(out, { force: options.force });
    for (const { name } of result.files) renameSync(join(run.training.target.path, name), join(directory.path, name));
    const body = bodyOf(run, result, warnings);
    const head = {
      tool: { name: 'surprisal', version: toolVersion() },
      command: recipe.command,
      parameters: run.parameters,
      inputs: [...run.models, ...(await run.ledger.digests())],
    };
    const report = buildReport({ name: LANGUAGE_SCHEMA, ...head }, reportObject(body));
    if (reportFile) writeReport(report, reportFile);
    if (plotFile) {
      const { plotBytes } = await import('../src/report/plots/figure.js');
      plotFile.write(
        await plotBytes(await languageFigure(body, `${own.student} by ${run.training.loss}`), options.plot as string),
      );
    }
    if (timingsFile) timings.write(timingsFile, options);
    if (graphFile && run.training.gradientGraph !== undefined) moveGraph(run.training.gradientGraph, graphFile);
    const manifest = buildReport({ name: MANIFEST_SCHEMA, ...head }, reportObject({ files: result.files }));
    const { writeHashed } = await import('../src/models/model-directory.js');
    writeHashed(directory.path, 'manifest.json', serializeReport(manifest));
    directory.commit();
    outputs.commit();
    rmSync(work, { recursive: true, force: true });
    if (!options.quiet) {
      const rows: SummaryCell[][] = [...languageSummary(body), ['written', out]];
      process.stdout.write(summaryTable(['training', 'value'], rows));
    }
    return asserts.check(report);
  } finally {
    directory?.abort();
    outputs.abort();
  }
}

/** Where the graph of gradients goes, and its weights where they do not fit into it. */
interface GraphFile {
  readonly file: AtomicFile;
  readonly data: string;
}

/** @throws InputError when one of its files is there and nothing says that it may be replaced */
function openGraphFile(outputs: Outputs, path: string | undefined, options: TrainShared): GraphFile | undefined {
  const file = outputs.file('--save-gradient-graph', path);
  if (path === undefined || !file) return undefined;
  if (!path.toLowerCase().endsWith('.onnx')) throw new InputError(`--save-gradient-graph ${path}: name an .onnx file`);
  const data = `${path}.data`;
  if (existsSync(data) && !options.force && !options.resume) {
    throw new InputError(`${data}: already exists: pass --force to replace it, or choose another path`);
  }
  return { file, data };
}

function moveGraph(written: string, { file, data }: GraphFile): void {
  file.write(readFileSync(written));
  if (existsSync(`${written}.data`)) copyFileSync(`${written}.data`, data);
}

/**
 * The folder of the checkpoints, beside the output.
 * @throws InputError when the output is there, or what an interrupted run left and nothing says what to do with it
 */
function checkTargets(out: string, options: TrainShared): string {
  const work = checkpointFolder(out);
  if (existsSync(out) && !statSync(out).isDirectory()) {
    throw new InputError(`${out}: exists and is not a directory; choose another path`);
  }
  if (existsSync(out) && !options.force) {
    throw new InputError(`${out}: exists; pass --force to replace it, or choose another path`);
  }
  if (existsSync(work) && !options.resume && !options.force && !options.dryRun) {
    throw new InputError(
      `${work}: an interrupted run left its checkpoints; pass --resume to continue it, or --force to begin anew`,
    );
  }
  return work;
}

/** A run before its first step. */
interface PreparedRun {
  readonly subject: Subject;
  readonly training: LanguageTraining;
  readonly steps: StepSettings;
  readonly parameters: Record<string, ReportValue>;
  readonly ledger: InputLedger;
  readonly models: readonly InputDigest[];
}

async function prepare(
  options: TrainShared,
  own: Own,
  recipe: LanguageRecipe,
  files: { readonly data: readonly string[]; readonly evalData: readonly string[]; readonly work: string },
): Promise<PreparedRun> {
  const steps = parseSteps(own, recipe.defaults);
  const cadence = parseCadence({ ...own, keep: own.keep ?? recipe.keep });
  const lora = parseLora(own);
  const onPolicy = parseOnPolicy(own);
  if (own.vocabAlign !== undefined && own.teacher === undefined) throw new InputError('--vocab-align needs --teacher');
  const vocabularies = parseChoice('--vocab-align', own.vocabAlign ?? 'error', ['error', 'truncate'] as const);
  const dtype = own.dtype === undefined ? undefined : DTYPES[parseChoice('--dtype', own.dtype, ['f32', 'f16', 'bf16'])];
  const { parseLosses } = await import('../src/training/losses/loss-text.js');
  const losses = parseLosses(steps.loss);
  const teacher = await teacherOf(own);
  const needy = losses.find(({ loss }) => loss.reads.teacher !== 'none');
  if (needy && !teacher) throw new InputError(`--teacher is missing: the loss ${needy.loss.label} learns from one`);
  const subject = await openSubject(options, own, teacher);
  const attention = await parseAttentionTraining(own, subject, options.seed);
  const ledger = createInputLedger();
  for (const file of attentionTrainingFiles(own)) ledger.note(file);
  const read = (from: readonly string[]): Promise<TokenWindows> =>
    readTokenWindows(from, options, own, subject, subject.context, ledger);
  const windows = await read(files.data);
  const heldOut = files.evalData.length > 0 ? await read(files.evalData) : undefined;
  const models = await hashModels(own, subject, teacher);
  const batches = Math.ceil(windows.count / steps.batchSize);
  const total = totalSteps(steps, batches);
  const epoch = Math.ceil(batches / steps.accumulate);
  const parameters = {
    ...parametersOf(options, own, steps, cadence.keep),
    ...attentionTrainingParameters(own),
    ...recipe.parameters,
  };
  const settings: TrainSettings = {
    steps: total,
    optimizer: steps.optimizer,
    schedule: {
      schedule: steps.schedule,
      learningRate: steps.learningRate,
      warmupSteps: steps.warmupSteps,
      finalShare: steps.finalShare,
    },
    accumulate: steps.accumulate,
    ...(Number.isFinite(steps.clipNorm) && { clipNorm: steps.clipNorm }),
    ...(heldOut && { evaluateEvery: Math.min(total, cadence.evalEvery ?? epoch) }),
    checkpointEvery: cadence.checkpointEvery ?? cadence.evalEvery ?? Math.min(total, epoch),
    restoreBest: cadence.keep === 'best',
    threads: options.threads,
  };
  const training: LanguageTraining = {
    student: subject.start,
    ...(teacher && { teacher }),
    windows,
    ...(heldOut && { heldOut }),
    loss: steps.loss,
    batchSize: steps.batchSize,
    precision: steps.precision,
    seed: options.seed,
    threads: options.threads,
    maxMemoryBytes: options.maxMemory,
    ...(own.train && { train: own.train }),
    ...(own.freeze && { freeze: own.freeze }),
    ...(lora && { lora: { rank: lora.rank, alpha: lora.alpha, ...(lora.targets && { targets: lora.targets }) } }),
    ...(onPolicy && { onPolicy: { ...onPolicy, seed: options.seed } }),
    ...(attention && { attention }),
    ...(recipe.freezeRouters && { freezeRouters: true }),
    ...(recipe.loSparse && { loSparse: recipe.loSparse(total, steps.warmupSteps) }),
    vocabularies,
    ...(subject.tokenizer && { tokenizerSha256: tokenizerDigest(subject.tokenizer) }),
    settings,
    checkpoints: files.work,
    identity: {
      model: models.map(({ sha256 }) => sha256).join(' '),
      configuration: { ...parameters, steps_in_all: total, data: windows.validLabels },
    },
    resume: options.resume,
    gradCheck: own.gradCheck === true,
    ...(own.saveGradientGraph !== undefined && {
      gradientGraph: join(files.work, 'gradients', basename(own.saveGradientGraph)),
    }),
    ...(own.metrics !== undefined && { metrics: { path: own.metrics, force: options.force } }),
    target: {
      path: join(files.work, 'result'),
      form: lora?.output === 'adapter' ? 'adapter' : 'model',
      ...(dtype && { dtype }),
      base: own.student ?? '',
    },
  };
  return { subject, training, steps, parameters, ledger, models };
}

/** A file that is no model holds what a teacher said. */
async function teacherOf(own: Own): Promise<TeacherSource | undefined> {
  const { teacher } = own;
  if (teacher === undefined) return undefined;
  const isFile = existsSync(teacher) && statSync(teacher).isFile() && !/\.(gguf|onnx)$/i.test(teacher);
  if (isFile || teacher.includes('*')) {
    return { kind: 'capture', paths: await expandSources([teacher]) };
  }
  return { kind: 'model', path: resolveModelPath(teacher, process.env).path };
}

async function openSubject(options: TrainShared, own: Own, teacher: TeacherSource | undefined): Promise<Subject> {
  const spec = requireOption(own.student, '--student', 'what is to be trained');
  const teacherPath = teacher?.kind === 'model' ? teacher.path : undefined;
  const opened = await openStart(spec, teacherPath);
  const { start, maxPositions } = opened;
  const home = start.kind === 'config' || start.kind === 'onnx' ? dirname(start.path) : start.path;
  const tokenizer = await openFirstTokenizer([home, teacherPath]);
  if (home !== teacherPath) {
    checkTokenizers(tokenizer, await openFirstTokenizer([teacherPath]), spec, own.teacher ?? '');
  }
  const vocabularySize = opened.vocabularySize ?? tokenizer?.vocabularySize;
  if (vocabularySize === undefined) {
    throw new InputError(`${spec}: neither the graph nor a tokenizer beside it says how many tokens there are`);
  }
  if (tokenizer) checkVocabulary(tokenizer, vocabularySize, `${spec}: the tokenizer`);
  const context = options.context ?? Math.min(maxPositions ?? DEFAULT_CONTEXT, DEFAULT_CONTEXT);
  if (maxPositions !== undefined && context > maxPositions) {
    throw new InputError(`--context ${context} is longer than the ${maxPositions} positions of ${spec}`);
  }
  return { ...opened, name: spec, tokenizer, vocabularySize, context };
}

/** What a student starts as, and what its files say of it; an ONNX graph says little. */
interface OpenedStart extends Pick<Subject, 'start' | 'modelType' | 'layers' | 'hiddenSize' | 'heads'> {
  readonly vocabularySize?: number;
  readonly maxPositions?: number;
}

async function openStart(spec: string, teacherPath: string | undefined): Promise<OpenedStart> {
  const source = parseStudent(spec);
  const { openModelFiles, readJson } = await import('../src/models/model-files.js');
  if (source.kind === 'config') {
    const { describeModel } = await import('../src/models/architectures.js');
    const start = { kind: 'config', path: source.path, ...(teacherPath && { companions: teacherPath }) } as const;
    return describedStart(start, describeModel(readJson(source.path), source.path));
  }
  if (source.kind === 'layers') {
    if (teacherPath === undefined) {
      throw new InputError(`--student ${spec}: copies layers of the teacher: pass its directory as --teacher`);
    }
    const { everyLayer } = await import('../src/training/student-config.js');
    const { description } = openModelFiles(teacherPath);
    const layers = source.chosen ?? everyLayer(description.layers.length, source.every ?? 1);
    return { ...describedStart({ kind: 'layers', path: teacherPath, layers }, description), layers: layers.length };
  }
  const { path } = resolveModelPath(source.spec, process.env);
  if (!path.toLowerCase().endsWith('.onnx')) {
    return describedStart({ kind: 'directory', path }, openModelFiles(path).description);
  }
  const { onnxOutputs, readOnnxModel } = await import('../src/formats/onnx.js');
  const outputs = onnxOutputs(readOnnxModel(path));
  const columns = (outputs.find(({ name }) => name === 'logits') ?? outputs[0])?.shape?.at(-1);
  return {
    start: { kind: 'onnx', path },
    modelType: 'onnx',
    layers: null,
    hiddenSize: null,
    heads: null,
    ...(typeof columns === 'number' && { vocabularySize: columns }),
  };
}

function describedStart(start: StudentStart, description: ModelDescription): OpenedStart {
  const { modelType, layers, hiddenSize, vocabularySize, maxPositions } = description;
  const [{ attention }] = layers;
  const heads = layers.every((layer) => layer.attention.heads === attention.heads) ? attention.heads : null;
  return { start, modelType, layers: layers.length, hiddenSize, heads, vocabularySize, maxPositions };
}

/** @throws InputError when an id means one token to the student and another to the teacher */
function checkTokenizers(
  student: Tokenizer | undefined,
  teacher: Tokenizer | undefined,
  studentName: string,
  teacherName: string,
): void {
  const id = student && teacher && firstDifference(student, teacher);
  if (id === undefined || !student || !teacher) return;
  const shown = (tokenizer: Tokenizer): string => JSON.stringify(tokenizer.tokenText(id));
  throw new InputError(
    `${studentName} and ${teacherName} have different tokenizers: token ${id} is ${shown(student)} to the student and ` +
      `${shown(teacher)} to the teacher; a teacher must share the student's tokenizer`,
  );
}

async function openFirstTokenizer(homes: readonly (string | undefined)[]): Promise<Tokenizer | undefined> {
  const { openModelTokenizer } = await import('../src/models/model-tokenizer.js');
  for (const home of homes) {
    if (home === undefined) continue;
    try {
      return openModelTokenizer(home);
    } catch (error) {
      if (!(error instanceof InputError && /no tokenizer\.json|carries no tokenizer/i.test(error.message))) throw error;
    }
  }
  return undefined;
}

async function hashModels(own: Own, subject: Subject, teacher: TeacherSource | undefined): Promise<InputDigest[]> {
  const digests: InputDigest[] = [];
  if (subject.start.kind === 'directory' || subject.start.kind === 'onnx') {
    digests.push(...(await modelDigests(own.student as string, subject.start.path)).digests);
  } else if (subject.start.kind === 'config') {
    const ledger = createInputLedger();
    ledger.note(subject.start.path);
    digests.push(...(await ledger.digests()));
  }
  if (teacher?.kind === 'model') digests.push(...(await modelDigests(own.teacher as string, teacher.path)).digests);
  if (teacher?.kind === 'capture') {
    const ledger = createInputLedger();
    for (const path of teacher.paths) ledger.note(path);
    digests.push(...(await ledger.digests()));
  }
  return digests;
}

function parametersOf(
  options: TrainShared,
  own: Own,
  steps: StepSettings,
  keep: 'best' | 'last',
): Record<string, ReportValue> {
  return {
    student: own.student ?? null,
    teacher: own.teacher ?? null,
    ...learningTextParameters(options, own),
    ...stepParameters(steps),
    train: own.train ? [...own.train] : null,
    freeze: own.freeze ? [...own.freeze] : null,
    lora_rank: own.loraRank ?? null,
    lora_alpha: own.loraAlpha ?? null,
    lora_targets: own.loraTargets ? [...own.loraTargets] : null,
    lora_output: own.loraOutput ?? null,
    on_policy: own.onPolicy ?? null,
    on_policy_temperature: own.onPolicyTemperature ?? null,
    on_policy_tokens: own.onPolicyTokens ?? null,
    vocab_align: own.vocabAlign ?? 'error',
    dtype: own.dtype ?? null,
    eval_data: own.evalData ? [...own.evalData] : null,
    eval_every: own.evalEvery ?? null,
    keep,
    seed: options.seed,
  };
}

/** Shows what the job tells. */
function listener(
  options: TrainShared,
  progress: Progress,
  timings: RunTimings,
  warnings: string[],
): (value: unknown) => void {
  let counted = 0;
  return (value) => {
    const event = value as LanguageProgress;
    if (event.kind === 'phase') timings.begin(event.name);
    if (event.kind === 'step') {
      timings.count('tokens', event.tokens - counted);
      counted = event.tokens;
      progress.update(event.step, `loss ${event.loss.toPrecision(4)}`);
    }
    if (event.kind === 'warning') {
      warnings.push(event.message);
      if (!options.quiet) process.stderr.write(`warning: ${event.message}\n`);
    }
    if (event.kind === 'plan' && !options.quiet) {
      const { estimate, recomputedLayers } = event.plan;
      const again = recomputedLayers > 0 ? `, ${recomputedLayers} layers computed twice` : '';
      process.stderr.write(`memory: about ${Math.ceil(estimate.total / MIB)} MiB${again}\n`);
    }
  };
}

function bodyOf(run: PreparedRun, result: LanguageResult, warnings: string[]): LanguageBody {
  const { subject, training } = run;
  const { lora, loSparse, teacher, windows, heldOut } = training;
  const { run: course, first_loss_nats, last_loss_nats, evaluation, grad_check, gradient_graph, curve } = result;
  const dropped = result.droppedMass;
  return {
    student: {
      source: subject.start.kind,
      model_type: subject.modelType,
      layers: subject.layers,
      hidden_size: subject.hiddenSize,
      vocabulary: subject.vocabularySize,
      parameters: result.parameters,
      trainable_parameters: result.trainableParameters,
      lora: lora ? { rank: lora.rank, alpha: lora.alpha, matrices: result.adaptedMatrices } : null,
      copied_layers: subject.start.kind === 'layers' ? subject.start.layers : null,
    },
    losparse: result.loSparse && {
      ...result.loSparse,
      final_share: loSparse?.schedule?.finalShare ?? null,
      pruning_warmup_steps: loSparse?.schedule?.warmupSteps ?? null,
    },
    teacher: teacher ? { kind: teacher.kind, vocabulary: result.teacherVocabulary, dropped_mass: dropped } : null,
    texts: { train: describeWindows(windows), held_out: heldOut ? describeWindows(heldOut) : null },
    run: course,
    first_loss_nats,
    last_loss_nats,
    evaluation,
    grad_check,
    attention: result.attention,
    gradient_graph,
    curve,
    warnings,
  };
}

/** Lines of `--dry-run`. */
async function planRows({ subject, training, steps }: PreparedRun, out: string): Promise<SummaryCell[][]> {
  const { planLanguageTraining } = await import('../src/training/language/train-language-job.js');
  const module = new URL('../src/training/language/train-language-job.js', import.meta.url).href;
  const plan = await runInThread({ module, job: planLanguageTraining }, training, undefined, training.threads);
  const { windows, heldOut, settings, loss } = training;
  return [
    [
      'student',
      subject.layers === null
        ? subject.modelType
        : `${subject.modelType}, ${subject.layers} layers of ${subject.hiddenSize}`,
    ],
    ['loss', loss],
    ['windows', `${windows.count} of ${windows.length} positions`],
    ['tokens learnt in a pass', windows.validLabels],
    ['held-out tokens', heldOut?.validLabels ?? 0],
    ['windows of a step', steps.batchSize * steps.accumulate],
    ['steps', settings.steps],
    ...(plan
      ? [
          ['peak memory in MiB without a teacher, about', Math.ceil(plan.estimate.total / MIB)],
          ['layers computed twice', plan.recomputedLayers],
          ['largest batch that fits', plan.largestBatch],
        ]
      : []),
    ['directory', out],
  ];
}
