import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { InputError } from '../../../errors.js';
import type { HashedFile } from '../../../formats/hash.js';
import { differingKey, readWorkFile } from '../../../formats/work-files.js';
import {
  openLanguageStudent,
  type StudentRequest,
  type StudentStart,
  type StudentTarget,
} from '../../../training/language/language-student.js';
import type { TokenWindows } from '../../../training/language/token-data.js';
import type { TrainSettings } from '../../../training/trainer.js';
import type { TrainingPlan } from '../../../training/training-memory.js';
import type { Floats, Precision } from '../../../training/types.js';
import { designMixtures } from '../mixture-design.js';
import { mixingMethod } from '../rows/registry.js';
import { learnedGraph } from '../rows/skill-it.js';
import type { MixerStart, MixingParameters, Sweep } from '../types.js';
import {
  type CourseRound,
  type CourseSettings,
  createCourse,
  type LossLine,
  type MixingCourse,
  staticCourse,
} from './course.js';
import { type CourseRun, type FinishedRun, type RunParts, runCourse } from './course-run.js';
import { evaluateGroups, type GroupLoss } from './group-evaluation.js';
import { planStages, type Stage, type StageKind, type StageSettings, totalSteps } from './stages.js';

/** A group of text: what is learnt, what losses are measured on, and what only the end is judged by. */
export interface MixGroup {
  readonly name: string;
  readonly windows: TokenWindows;
  readonly heldOut: TokenWindows;
  readonly test?: TokenWindows;
}

/** A run of `fuse mix` on the training engine, as the command describes it. */
export interface MixTraining {
  readonly student: StudentStart;
  readonly groups: readonly MixGroup[];
  readonly method: string;
  readonly parameters: MixingParameters;
  readonly course: Omit<CourseSettings, 'steps'>;
  readonly stages: StageSettings;
  /** Concentration of the mixtures of a sweep. */
  readonly sweepAlpha: number;
  /** Proportions at the start, [k]; uniform when absent. */
  readonly initial?: Float64Array;
  /** Of the final run; `steps` is set by the stages. */
  readonly settings: TrainSettings;
  readonly batchSize: number;
  readonly precision: Precision;
  readonly seed: number;
  readonly threads: number;
  readonly maxMemoryBytes: number;
  readonly train?: readonly string[];
  readonly freeze?: readonly string[];
  /** Folder of the checkpoints of all runs. */
  readonly checkpoints: string;
  readonly identity: { readonly model: string; readonly configuration: Readonly<Record<string, unknown>> };
  readonly target: StudentTarget;
}

export type MixProgress =
  | { readonly kind: 'phase'; readonly name: string }
  | { readonly kind: 'plan'; readonly plan: TrainingPlan }
  | { readonly kind: 'step'; readonly loss: number }
  | { readonly kind: 'warning'; readonly message: string };

/** A run on which the proportions moved, or the final one. */
export interface MixRun {
  readonly kind: StageKind;
  readonly steps: number;
  readonly rounds: readonly CourseRound[];
  readonly log: readonly LossLine[];
  /** Windows drawn from each group. */
  readonly drawn: Float64Array;
}

export interface MixResult {
  readonly runs: readonly MixRun[];
  readonly stages: readonly Stage[];
  readonly probeSteps: number;
  /** What the method recommends, [k]. */
  readonly proportions: Float64Array;
  /** Losses of the model that is written, by group. */
  readonly losses: readonly GroupLoss[];
  readonly test: readonly (GroupLoss | null)[];
  readonly reference: Float64Array | null;
  /** Skill-It, [k, k], row = trained group. */
  readonly graph: Float64Array | null;
  readonly sweep: Sweep | null;
  readonly bestStep: number | null;
  readonly skipped: number;
  readonly resumedFrom: number;
  readonly parameters: number;
  readonly trainableParameters: number;
  readonly files: readonly HashedFile[];
}

/** Runs a method from its first helper run to the model that it gives, and writes that: a job in a thread of its own. */
export async function trainMixture(training: MixTraining, progress: (value: MixProgress) => void): Promise<MixResult> {
  progress({ kind: 'phase', name: 'open the model' });
  const learner = await openLanguageStudent(requestOf(training));
  try {
    if (learner.plan) progress({ kind: 'plan', plan: learner.plan });
    const { student } = learner;
    const parts: RunParts = {
      student,
      groups: training.groups.map(({ name }) => name),
      windows: training.groups.map(({ windows }) => windows),
      heldOut: training.groups.map(({ heldOut }) => heldOut),
      batchSize: training.batchSize,
      seed: training.seed,
      threads: training.threads,
      identity: training.identity,
      warn: (message) => progress({ kind: 'warning', message }),
      step: (loss) => progress({ kind: 'step', loss }),
    };
    const session: Session = { training, parts, progress, initial: student.parameters.values.slice() };
    const result = await runStages(session);
    progress({ kind: 'phase', name: 'write' });
    return {
      ...result,
      parameters: learner.parameters,
      trainableParameters: student.parameters.values.length,
      files: learner.write(training.target),
    };
  } finally {
    await learner.close();
  }
}

/** Steps of all runs. */
export const stepsOfAll = ({ method, stages }: Pick<MixTraining, 'method' | 'stages'>): number =>
  totalSteps(planStages(mixingMethod(method), stages));

/** What a run would take; null where the runtime decides. */
export async function planMixture(training: MixTraining): Promise<TrainingPlan | null> {
  const learner = await openLanguageStudent(requestOf(training));
  try {
    return learner.plan ?? null;
  } finally {
    await learner.close();
  }
}

function requestOf(training: MixTraining): StudentRequest {
  const { settings, groups } = training;
  const { method } = settings.optimizer;
  const longest = Math.max(...groups.flatMap(({ windows, heldOut }) => [windows.length, heldOut.length]));
  return {
    start: training.student,
    precision: training.precision,
    threads: training.threads,
    seed: training.seed,
    batch: training.batchSize,
    length: longest,
    maxMemoryBytes: training.maxMemoryBytes,
    processBytes: process.memoryUsage.rss(),
    optimizerSlots: method === 'adamw' || method === 'adam' ? 2 : 1,
    wholeBatch: false,
    ...(training.train && { train: training.train }),
    ...(training.freeze && { freeze: training.freeze }),
  };
}

interface Session {
  readonly training: MixTraining;
  readonly parts: RunParts;
  readonly progress: (value: MixProgress) => void;
  /** Values that every run begins with. */
  readonly initial: Floats;
}

/** Settings of a helper run: shorter, judged at its end alone. */
function helperSettings({ training }: Session, steps: number): TrainSettings {
  const { evaluateEvery: _, restoreBest: __, schedule, ...rest } = training.settings;
  return {
    ...rest,
    steps,
    schedule: { ...schedule, warmupSteps: Math.min(schedule.warmupSteps ?? 0, steps) },
    checkpointEvery: Math.min(steps, training.settings.checkpointEvery ?? steps),
  };
}

const courseSettings = ({ training }: Session, steps: number): CourseSettings => ({ ...training.course, steps });

/** Runs a course from the initial values. */
function begin(session: Session, run: CourseRun): Promise<FinishedRun> {
  session.parts.student.parameters.values.set(session.initial);
  return runCourse(session.parts, run);
}

/** A short run on a mixture; what it found stays in its folder, its checkpoints do not. */
async function shortRun(
  session: Session,
  of: { readonly name: string; readonly stream: number; readonly steps: number; readonly mixture: Float64Array },
): Promise<readonly number[]> {
  const { training, parts } = session;
  const folder = join(training.checkpoints, of.name);
  const file = join(folder, 'finished.json');
  const head = { ...training.identity, mixture: [...of.mixture], steps: of.steps };
  const known = readWorkFile(file) as { readonly head: unknown; readonly losses: number[] } | undefined;
  if (known !== undefined) {
    const differs = differingKey(known.head, JSON.parse(JSON.stringify(head)));
    if (differs === undefined) {
      for (let step = 0; step < of.steps; step++) parts.step(Number.NaN);
      return known.losses;
    }
    throw new InputError(`${file}: left by another run: ${differs} differs; use the same options, or another output`);
  }
  const { losses } = await begin(session, {
    folder,
    stream: of.stream,
    settings: helperSettings(session, of.steps),
    course: staticCourse(of.mixture, parts.groups, courseSettings(session, of.steps)),
  });
  const found = losses.map(({ mean }) => mean);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(file, `${JSON.stringify({ head, losses: found })}\n`);
  return found;
}

/** Streams of the random numbers of runs. */
const STREAMS = { final: 0, reference: 1, proxy: 2, graph: 1_000, sweep: 1_000_000 } as const;

async function runStages(session: Session): Promise<Omit<MixResult, 'parameters' | 'trainableParameters' | 'files'>> {
  const { training, parts, progress } = session;
  const { student, groups } = parts;
  const method = mixingMethod(training.method);
  const stages = planStages(method, training.stages);
  const stage = (kind: StageKind): Stage | undefined => stages.find((one) => one.kind === kind);
  const runs: MixRun[] = [];
  let start: MixerStart = {
    groups,
    parameters: training.parameters,
    seed: training.seed,
    ...(training.initial && { initial: training.initial }),
  };
  const keep = (kind: StageKind, steps: number, course: MixingCourse, drawn: Float64Array): void => {
    runs.push({ kind, steps, rounds: course.rounds, log: course.log, drawn });
  };

  let graph: Float64Array | null = null;
  const graphStage = stage('graph');
  if (graphStage) {
    progress({ kind: 'phase', name: 'learn the graph' });
    graph = await learnGraph(session, graphStage);
    start = { ...start, graph };
  }
  let sweep: Sweep | null = null;
  const sweepStage = stage('sweep');
  if (sweepStage) {
    progress({ kind: 'phase', name: 'sweep' });
    sweep = await runSweep(session, sweepStage);
    start = { ...start, sweep };
  }
  let reference: { readonly values: Floats; readonly losses: Float64Array } | undefined;
  const referenceStage = stage('reference');
  if (referenceStage) {
    progress({ kind: 'phase', name: 'train the reference' });
    const uniform = new Float64Array(groups.length).fill(1 / groups.length);
    const { losses } = await begin(session, {
      folder: join(training.checkpoints, 'reference'),
      stream: STREAMS.reference,
      settings: helperSettings(session, referenceStage.steps),
      course: staticCourse(uniform, groups, courseSettings(session, referenceStage.steps)),
    });
    reference = {
      values: student.parameters.values.slice(),
      losses: Float64Array.from(losses, ({ mean }) => mean),
    };
  }
  const proxyStage = stage('proxy');
  let proportions: Float64Array | undefined;
  if (proxyStage) {
    progress({ kind: 'phase', name: 'learn the proportions' });
    const course = createCourse(method, start, courseSettings(session, proxyStage.steps));
    const { drawn } = await begin(session, {
      folder: join(training.checkpoints, 'proxy'),
      stream: STREAMS.proxy,
      settings: helperSettings(session, proxyStage.steps),
      course,
      ...(reference && { reference: reference.values }),
      validationBatch: training.batchSize,
    });
    keep('proxy', proxyStage.steps, course, drawn);
    proportions = course.result();
  }

  progress({ kind: 'phase', name: 'train' });
  const { steps } = stages[stages.length - 1];
  const course = proportions
    ? staticCourse(proportions, groups, courseSettings(session, steps))
    : createCourse(method, start, courseSettings(session, steps));
  const finished = await begin(session, {
    folder: join(training.checkpoints, 'final'),
    stream: STREAMS.final,
    settings: { ...training.settings, steps },
    course,
  });
  keep('final', steps, course, finished.drawn);
  progress({ kind: 'phase', name: 'evaluate' });
  const test: (GroupLoss | null)[] = [];
  for (const group of training.groups) {
    test.push(group.test ? (await evaluateGroups(student, [group.test], training.batchSize))[0] : null);
  }
  return {
    runs,
    stages,
    probeSteps: course.probeSteps,
    proportions: course.result(),
    losses: finished.losses,
    test,
    reference: reference?.losses ?? null,
    graph,
    sweep,
    bestStep: finished.train.best?.step ?? null,
    skipped: finished.train.skipped,
    resumedFrom: finished.train.resumedFrom,
  };
}

/** One run a group from the initial values; the loss that each takes off every group. */
async function learnGraph(session: Session, { steps }: Stage): Promise<Float64Array> {
  const { parts } = session;
  const k = parts.groups.length;
  parts.student.parameters.values.set(session.initial);
  const before = await evaluateGroups(parts.student, parts.heldOut, parts.batchSize);
  const ends = new Float64Array(k * k);
  for (let j = 0; j < k; j++) {
    const mixture = new Float64Array(k).fill(1, j, j + 1);
    ends.set(await shortRun(session, { name: `graph-${j}`, stream: STREAMS.graph + j, steps, mixture }), j * k);
  }
  return learnedGraph(
    Float64Array.from(before, ({ mean }) => mean),
    ends,
  );
}

/** Runs on mixtures that are spread over the simplex. */
async function runSweep(session: Session, { runs, steps }: Stage): Promise<Sweep> {
  const { training, parts } = session;
  const k = parts.groups.length;
  const mixtures = designMixtures({ groups: k, count: runs, alpha: training.sweepAlpha, seed: training.seed });
  const losses = new Float64Array(runs * k);
  for (let r = 0; r < runs; r++) {
    const mixture = mixtures.slice(r * k, (r + 1) * k);
    losses.set(await shortRun(session, { name: `sweep-${r}`, stream: STREAMS.sweep + r, steps, mixture }), r * k);
  }
  return { count: runs, sources: parts.groups, evaluated: parts.groups, mixtures, losses };
}
