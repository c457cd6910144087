import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { generate } from '../../decoding/generation.js';
import { InputError, RunError } from '../../errors.js';
import type { HashedFile } from '../../formats/hash.js';
import { createEngine } from '../../models/engine.js';
import { type LanguageModel, modelOfEngine, openLanguageModel } from '../../models/language-model.js';
import { ENTROPY_PENALTY, type EntropyAttentionSettings } from '../attention-entropy.js';
import { openCheckpoints } from '../checkpoint.js';
import { createDataOrder } from '../data-order.js';
import type { CompanionParameter } from '../decoder-weights.js';
import { gradCheck, missingDoubleKernel } from '../grad-check.js';
import { type GradCheckBody, type GradientGraphBody, gradCheckBody, gradientGraphBody } from '../grad-check-report.js';
import type { LoSparseFigures } from '../losparse-parts.js';
import { parseLosses, termWeight } from '../losses/loss-text.js';
import { openMetricsFile } from '../metrics-file.js';
import { createObjective, type Objective } from '../objective.js';
import { writeOnnxModel } from '../onnx-export.js';
import { type TrainSettings, train } from '../trainer.js';
import { readStepHistory } from '../training-curve.js';
import type { TrainingPlan } from '../training-memory.js';
import { type BatchSource, IGNORED, type StepRecord, type Student, type TokenBatch } from '../types.js';
import {
  type AttentionTrainingBody,
  attentionTrainingBody,
  createAttentionWatch,
  readLayerCurve,
} from './attention-training.js';
import { windowsSha256 } from './capture-file.js';
import { capturedLanguageTeacher } from './captured-language-teacher.js';
import { openCapturedTeacher } from './captured-teacher.js';
import { evaluateLanguage, type LanguageEvaluation } from './language-evaluation.js';
import type { LanguageBody } from './language-report.js';
import {
  type LanguageStudent,
  type LoSparseSettings,
  openLanguageStudent,
  type StudentRequest,
  type StudentStart,
  type StudentTarget,
} from './language-student.js';
import { type LanguageTeacher, openLiveTeacher, type TeacherOfBatch } from './live-teacher.js';
import { adoptTeacherLabels, isOnPolicy, isSampled, type OnPolicySettings, onPolicyBatches } from './on-policy.js';
import { batchOfWindows, orderedBatches, type TokenWindows } from './token-data.js';

/** Where the teacher's distributions come from. */
export type TeacherSource =
  | { readonly kind: 'model'; readonly path: string }
  | { readonly kind: 'capture'; readonly paths: readonly string[] };

/** A run of training a language model, as the command describes it. */
export interface LanguageTraining {
  readonly student: StudentStart;
  readonly teacher?: TeacherSource;
  readonly windows: TokenWindows;
  readonly heldOut?: TokenWindows;
  /** As `parseLosses` reads it. */
  readonly loss: string;
  readonly batchSize: number;
  readonly precision: 'f32' | 'f64';
  readonly seed: number;
  readonly threads: number;
  readonly maxMemoryBytes: number;
  readonly train?: readonly string[];
  readonly freeze?: readonly string[];
  readonly lora?: { readonly rank: number; readonly alpha: number; readonly targets?: readonly string[] };
  /** The routers of experts stay as they are. */
  readonly freezeRouters?: boolean;
  readonly loSparse?: LoSparseSettings;
  /** Temperatures and thresholds that are trained, and their penalty. */
  readonly attention?: EntropyAttentionSettings;
  readonly onPolicy?: OnPolicySettings;
  readonly vocabularies: 'error' | 'truncate';
  readonly tokenizerSha256?: string;
  readonly settings: TrainSettings;
  /** Folder of the checkpoints, and of the metrics where no other file is named. */
  readonly checkpoints: string;
  /** What decides the numbers of the run beside what is here: digests of models and options. */
  readonly identity: { readonly model: string; readonly configuration: Readonly<Record<string, unknown>> };
  readonly resume: boolean;
  /** Gradients are held to finite differences before the first step. */
  readonly gradCheck: boolean;
  /** File for the graph of loss and gradients before the first step; beyond 2 GiB its weights lie in `<file>.data`. */
  readonly gradientGraph?: string;
  readonly metrics?: { readonly path: string; readonly force: boolean };
  readonly target: StudentTarget;
}

/** What the command hears while a run lasts. */
export type LanguageProgress =
  | { readonly kind: 'phase'; readonly name: string }
  | { readonly kind: 'plan'; readonly plan: TrainingPlan }
  | { readonly kind: 'step'; readonly step: number; readonly tokens: number; readonly loss: number }
  | { readonly kind: 'warning'; readonly message: string };

/** What a run gives to its report; what only the command knows is added there. */
export interface LanguageResult
  extends Pick<
    LanguageBody,
    'run' | 'first_loss_nats' | 'last_loss_nats' | 'evaluation' | 'grad_check' | 'gradient_graph' | 'curve'
  > {
  readonly files: readonly HashedFile[];
  readonly parameters: number;
  readonly adaptedMatrices: number;
  readonly trainableParameters: number;
  readonly droppedMass: number | null;
  readonly teacherVocabulary: number | null;
  readonly loSparse: LoSparseFigures | null;
  readonly attention: AttentionTrainingBody | null;
}

/** What a field adds to a run; made in the run's own thread, behind its description. */
export interface LanguageExtension {
  /** Parameters that learn beside the model's: in steps, clipping and checkpoints, not in the model that is written. */
  readonly companions?: readonly CompanionParameter[];
  /** What is made small, in the place of `loss` and the teacher; asked once for every copy of the student. */
  objective?(student: Student<TokenBatch>): Objective<TokenBatch>;
  /** Micro-batches in the place of shuffled windows; it may wrap those that it is given. */
  batches?(ordered: BatchSource<TokenBatch>): BatchSource<TokenBatch>;
  /** Figures of an evaluation beside the held-out loss, for the metrics; their names must always be the same. */
  readonly figureNames?: readonly string[];
  figures?(student: Student<TokenBatch>): Promise<Readonly<Record<string, number>>>;
  /** Before the run, with the student as it begins; `step` steps were made by earlier parts of the run. */
  begun?(student: Student<TokenBatch>, step: number): void | Promise<void>;
  /** Behind every step. */
  onStep?(record: StepRecord): void;
  /** Behind the last step, with the values that are written. */
  finished?(student: Student<TokenBatch>): void | Promise<void>;
}

/** Share of the memory that a live teacher may take. */
const TEACHER_SHARE = 0.5;

/** The parts of a run. */
interface Parts {
  readonly training: LanguageTraining;
  readonly learner: LanguageStudent;
  readonly teacher: ConnectedTeacher | undefined;
  readonly progress: (value: LanguageProgress) => void;
  readonly extension: LanguageExtension;
}

interface ConnectedTeacher {
  readonly source: LanguageTeacher;
  readonly vocabulary: number;
  readonly live: boolean;
  droppedMass(): number | null;
}

/** Trains a language model and writes it: a job in a thread of its own, or the heart of one that extends it. */
export async function trainLanguageModel(
  training: LanguageTraining,
  progress: (value: LanguageProgress) => void,
  extension: LanguageExtension = {},
): Promise<LanguageResult> {
  progress({ kind: 'phase', name: 'open the models' });
  const model =
    training.teacher?.kind === 'model' ? await openTeacherModel(training, training.teacher.path) : undefined;
  try {
    const learner = await openLanguageStudent(requestOf(training, model?.info.peakBytes ?? 0, extension));
    if (learner.plan) progress({ kind: 'plan', plan: learner.plan });
    try {
      const teacher = connectTeacher(training, model, learner.student.classes);
      const gradient_graph = training.gradientGraph === undefined ? null : await writeGradientGraph(training, learner);
      const parts: Parts = { training, learner, teacher, progress, extension };
      const grad_check = training.gradCheck ? await checkGradients(parts) : null;
      const result = await runTraining(parts);
      progress({ kind: 'phase', name: 'write' });
      return { ...result, grad_check, gradient_graph, files: learner.write(training.target) };
    } finally {
      await learner.close();
    }
  } finally {
    await model?.close();
  }
}

/** What a run would take, without its teacher: the same job up to its first step; null where the runtime decides. */
export async function planLanguageTraining(training: LanguageTraining): Promise<TrainingPlan | null> {
  const learner = await openLanguageStudent(requestOf(training, 0, {}));
  try {
    return learner.plan ?? null;
  } finally {
    await learner.close();
  }
}

function requestOf(
  training: LanguageTraining,
  teacherBytes: number,
  { companions }: LanguageExtension,
): StudentRequest {
  const { windows, heldOut, settings, batchSize, loss, lora, train: trained, freeze } = training;
  const { method } = settings.optimizer;
  const longest = (of: TokenWindows | undefined): number => (of === undefined ? 1 : Math.max(...of.lengths));
  return {
    start: training.student,
    precision: training.precision,
    threads: training.threads,
    seed: training.seed,
    batch: Math.min(batchSize, Math.max(windows.count, heldOut?.count ?? 0)),
    length: Math.max(longest(windows), longest(heldOut)),
    maxMemoryBytes: training.maxMemoryBytes,
    processBytes: Math.max(process.memoryUsage.rss(), teacherBytes),
    optimizerSlots: method === 'adamw' || method === 'adam' ? 2 : 1,
    wholeBatch: parseLosses(loss).some((term) => term.loss.scope === 'batch'),
    ...(lora && { lora }),
    ...(trained && { train: trained }),
    ...(freeze && { freeze }),
    ...(training.freezeRouters && { freezeRouters: true }),
    ...(training.loSparse && { loSparse: training.loSparse }),
    ...(training.attention && { attention: training.attention }),
    ...(companions && { companions }),
  };
}

function openTeacherModel(training: LanguageTraining, path: string): Promise<LanguageModel> {
  return openLanguageModel(path, {
    threads: training.threads,
    maxMemoryBytes: training.maxMemoryBytes * TEACHER_SHARE,
    device: 'cpu',
    precision: training.precision,
    context: training.windows.length,
  });
}

/** @throws InputError when vocabularies differ in size and nothing says what to do, with both */
function connectTeacher(
  training: LanguageTraining,
  model: LanguageModel | undefined,
  classes: number,
): ConnectedTeacher | undefined {
  const { teacher, vocabularies, tokenizerSha256 } = training;
  if (teacher === undefined) return undefined;
  if (model === undefined || teacher.kind === 'capture') {
    const captured = openCapturedTeacher(teacher.kind === 'capture' ? teacher.paths : [], {
      vocabulary: classes,
      align: vocabularies,
      dataSha256: windowsSha256(training.windows),
      ...(tokenizerSha256 !== undefined && { tokenizerSha256 }),
    });
    const source = capturedLanguageTeacher(captured);
    return { source, vocabulary: captured.header.vocabulary, live: false, droppedMass: () => null };
  }
  const { vocabularySize } = model.info;
  if (vocabularySize !== classes && vocabularies === 'error') {
    throw new InputError(
      `the teacher ${model.info.path} has a vocabulary of ${vocabularySize} and the student one of ${classes}; ` +
        '--vocab-align truncate keeps the common prefix',
    );
  }
  const source = openLiveTeacher(model, classes);
  return { source, vocabulary: vocabularySize, live: true, droppedMass: () => source.dropped()?.mean ?? null };
}

/** Labels, and the teacher's rows of the batch at hand. */
function objectiveOf({ training, learner, teacher, extension }: Parts): Objective<TokenBatch> {
  if (extension.objective) return extension.objective(learner.student);
  let current: { readonly batch: TokenBatch; readonly rows: TeacherOfBatch } | undefined;
  const terms = parseLosses(training.loss).map((term) => ({
    loss: term.loss,
    weight: ({ epoch }: { readonly epoch: number }) => termWeight(term, epoch),
  }));
  return createObjective<TokenBatch>(terms, {
    labels: (batch) => batch.labels,
    sequences: ({ batch }) => batch,
    ...(teacher && {
      async teacher(batch, { firstRow, rows }) {
        if (current?.batch !== batch) current = { batch, rows: await teacher.source.begin(batch) };
        const found = await current.rows.rows(firstRow, rows);
        if (isOnPolicy(batch)) adoptTeacherLabels(batch.labels, firstRow, rows, found);
        return found;
      },
    }),
  });
}

/** Micro-batches in their order, a share of them written by the student as it is. */
function batchesOf({ training, learner, teacher, extension }: Parts): BatchSource<TokenBatch> {
  const { windows, batchSize, seed, onPolicy, threads } = training;
  const shuffled = orderedBatches(windows, createDataOrder({ count: windows.count, batchSize, seed }));
  const ordered = extension.batches?.(shuffled) ?? shuffled;
  if (onPolicy === undefined) return ordered;
  if (!teacher?.live)
    throw new InputError('--on-policy needs a teacher that runs beside the student: --teacher <model>');
  const { currentModel, attention } = learner;
  if (currentModel === undefined) throw new InputError('--on-policy needs a student that is a model directory');
  if (attention?.notFolded !== undefined) {
    throw new InputError(
      `--on-policy writes with the weights alone, which cannot hold these temperatures of attention: ${attention.notFolded}`,
    );
  }
  const plan = { steps: [{ kind: 'temperature' as const, temperature: onPolicy.temperature }] };
  return onPolicyBatches(ordered, onPolicy, async (prompts, count, stream) => {
    const files = currentModel();
    const engine = await createEngine(files, {
      threads,
      maxMemoryBytes: training.maxMemoryBytes,
      device: 'cpu',
      precision: 'f32',
      context: windows.length + 1,
    });
    const model = modelOfEngine(files, engine);
    try {
      const written = await generate(model, {
        prompts,
        maxNewTokens: count,
        stopIds: model.info.eosIds,
        plan,
        seed: onPolicy.seed,
        keys: (prompt) => stream * batchSize + prompt,
      });
      return written.map(([one]) => one.tokens);
    } finally {
      await engine.close();
    }
  });
}

/** Positions of the window that gradients are checked on: every entry takes four passes over it. */
const CHECKED_POSITIONS = 12;

/**
 * Holds the gradients of a copy of the student in double precision to finite differences of the run's own loss.
 * @throws RunError when they do not agree
 */
async function checkGradients(parts: Parts): Promise<GradCheckBody> {
  const { training, teacher, progress } = parts;
  progress({ kind: 'phase', name: 'check gradients' });
  const window = training.windows.labels.findIndex((label) => label !== IGNORED) / training.windows.length;
  const whole = batchOfWindows(training.windows, Int32Array.of(Math.floor(window)));
  const from = Math.max(0, whole.labels.findIndex((label) => label !== IGNORED) + 1 - CHECKED_POSITIONS);
  const length = Math.min(CHECKED_POSITIONS, whole.length - from);
  const batch: TokenBatch = {
    ...whole,
    length: from + length,
    tokens: whole.tokens.slice(0, from + length),
    labels: whole.labels.slice(0, from + length),
  };
  const request = {
    ...requestOf(training, 0, parts.extension),
    precision: 'f64' as const,
    batch: 1,
    length: batch.length,
  };
  const { learner, missing } = await openForCheck(request);
  try {
    const check = await gradCheck(learner.student, batch, objectiveOf({ ...parts, learner, teacher }));
    const body = gradCheckBody(check, missing);
    if (body.agrees) return body;
    throw new RunError(
      `the gradient of ${body.worst_parameter} differs from finite differences by ${body.worst_relative_error} ` +
        `(tolerance ${body.tolerance}): this is a fault of the program, please report it`,
    );
  } finally {
    await learner.close();
  }
}

/** Lists of a captured teacher have no form in a graph: the loss is then outside. */
async function writeGradientGraph(
  { gradientGraph = '', loss, teacher }: LanguageTraining,
  learner: LanguageStudent,
): Promise<GradientGraphBody> {
  const terms = parseLosses(loss);
  const needsLists = teacher?.kind === 'capture' && terms.some((term) => term.loss.reads.teacher !== 'none');
  const graph = await learner.gradientGraph(needsLists ? undefined : terms);
  mkdirSync(dirname(gradientGraph), { recursive: true });
  writeOnnxModel(graph.model, gradientGraph, true);
  return gradientGraphBody(graph);
}

/** A copy in double precision, or in single where the runtime cannot compute an operator in double. */
async function openForCheck(
  request: StudentRequest,
): Promise<{ readonly learner: LanguageStudent; readonly missing?: string }> {
  try {
    return { learner: await openLanguageStudent(request) };
  } catch (error) {
    const missing = missingDoubleKernel(error);
    if (missing === undefined) throw error;
    return { learner: await openLanguageStudent({ ...request, precision: 'f32' }), missing };
  }
}

/** Micro-batches of so many steps that the student wrote. */
function countSampled({ onPolicy, settings }: LanguageTraining, steps: number): number {
  if (onPolicy === undefined) return 0;
  let sampled = 0;
  for (let index = 0; index < steps * (settings.accumulate ?? 1); index++) if (isSampled(onPolicy, index)) sampled++;
  return sampled;
}

async function runTraining(parts: Parts): Promise<Omit<LanguageResult, 'files' | 'grad_check' | 'gradient_graph'>> {
  const { training, learner, teacher, progress, extension } = parts;
  const { student } = learner;
  const { settings, windows, heldOut, batchSize, seed, threads } = training;
  const objective = objectiveOf(parts);
  const source = batchesOf(parts);
  const checkpoints = openCheckpoints(training.checkpoints, {
    model: training.identity.model,
    seed,
    configuration: training.identity.configuration,
  });
  const { attention } = learner;
  const watch = attention && createAttentionWatch(student, attention, { windows, heldOut, batchSize });
  const judge = (beside: LanguageTeacher | undefined): Promise<LanguageEvaluation | undefined> => {
    watch?.begin();
    return Promise.resolve(heldOut && evaluateLanguage(student, heldOut, { batchSize, seed, threads }, beside));
  };
  const beside = teacher?.live ? teacher.source : undefined;
  progress({ kind: 'phase', name: 'evaluate the student as it is' });
  const before = await judge(beside);
  const entropiesBefore = await watch?.end();
  const terms = [...objective.terms, ...(attention?.settings.regulariser ? [ENTROPY_PENALTY] : [])];
  const metricsPath = training.metrics?.path ?? join(training.checkpoints, 'metrics.csv');
  const metrics = openMetricsFile(metricsPath, {
    terms,
    ...(heldOut && { evaluation: [...(watch?.figureNames ?? []), ...(extension.figureNames ?? [])] }),
    force: training.metrics?.force ?? true,
    ...(training.resume && { resumeAt: checkpoints.last ?? 0 }),
  });
  progress({ kind: 'phase', name: 'train' });
  await extension.begun?.(student, checkpoints.last ?? 0);
  const result = await train(student, source, objective, settings, {
    checkpoints,
    ...(learner.follower && { follower: learner.follower }),
    warn: (message) => progress({ kind: 'warning', message }),
    onStep(record, evaluation) {
      metrics.append(record, evaluation);
      extension.onStep?.(record);
      progress({ kind: 'step', step: record.step, tokens: record.validRows, loss: record.loss });
    },
    ...(heldOut && {
      async evaluate() {
        const found = await judge(undefined);
        const loss = found?.nll_nats.mean ?? Number.NaN;
        const ofWatch = watch ? watch.figures(await watch.end()) : {};
        return { loss, figures: { ...ofWatch, ...(await extension.figures?.(student)) } };
      },
    }),
  }).finally(() => metrics.close());
  await extension.finished?.(student);
  progress({ kind: 'phase', name: 'evaluate' });
  const after = await judge(beside);
  const entropiesAfter = await watch?.end();
  const history = readStepHistory(metricsPath, terms);
  return {
    parameters: learner.parameters,
    adaptedMatrices: learner.adaptedMatrices,
    trainableParameters: student.parameters.values.length,
    teacherVocabulary: teacher?.vocabulary ?? null,
    droppedMass: teacher?.droppedMass() ?? null,
    loSparse: learner.loSparse?.(training.target.dtype) ?? null,
    attention:
      attention && entropiesBefore && entropiesAfter
        ? attentionTrainingBody(attention, {
            before: entropiesBefore,
            after: entropiesAfter,
            measuredOn: heldOut ? 'held-out' : 'training',
            contextSize: attention.settings.regulariser?.contextSize ?? windows.length,
            curve: heldOut ? readLayerCurve(metricsPath, attention) : [],
          })
        : null,
    run: {
      steps: result.steps,
      steps_of_an_epoch: Math.ceil(source.perEpoch / (settings.accumulate ?? 1)),
      tokens_learnt: history.validRows,
      skipped_steps: result.skipped,
      on_policy_batches: countSampled(training, result.steps),
      recomputed_layers: learner.plan?.recomputedLayers ?? 0,
      kept: settings.restoreBest ? 'best' : 'last',
      best_step: result.best?.step ?? null,
    },
    first_loss_nats: history.firstLoss,
    last_loss_nats: history.lastLoss,
    evaluation: before && after ? { before, after } : null,
    curve: history.points,
  };
}
