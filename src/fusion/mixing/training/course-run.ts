import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createRandom } from '../../../random.js';
import { openCheckpoints, type RunIdentity } from '../../../training/checkpoint.js';
import type { TokenWindows } from '../../../training/language/token-data.js';
import { createSchedule } from '../../../training/schedules.js';
import { type TrainResult, type TrainSettings, train } from '../../../training/trainer.js';
import type { Floats, Student, TokenBatch } from '../../../training/types.js';
import { type AlignedStudent, createAlignedStudent } from './aligned-student.js';
import type { MixingCourse, Observation } from './course.js';
import { createGroupSource, type GroupBatch, type GroupSource } from './group-batches.js';
import { evaluateGroups, type GroupLoss } from './group-evaluation.js';
import { createGroupObjective, type GroupObjective } from './group-objective.js';
import { openObservationLog } from './observation-log.js';

/** What runs of one student share. */
export interface RunParts {
  readonly student: Student<TokenBatch>;
  readonly groups: readonly string[];
  /** Text that is learnt, and text that losses are measured on, by group. */
  readonly windows: readonly TokenWindows[];
  readonly heldOut: readonly TokenWindows[];
  readonly batchSize: number;
  readonly seed: number;
  readonly threads: number;
  readonly identity: Omit<RunIdentity, 'seed'>;
  warn(message: string): void;
  /** Behind every step of any run. */
  step(loss: number): void;
}

/** One run on a course. */
export interface CourseRun {
  /** Folder of its checkpoints and of its log, and the key of its random numbers. */
  readonly folder: string;
  readonly stream: number;
  readonly settings: TrainSettings;
  readonly course: MixingCourse;
  /** Values of the reference model, where the course measures an excess. */
  readonly reference?: Floats;
  /** Windows of a validation batch, where the course measures alignments. */
  readonly validationBatch?: number;
}

/** What a run ended with. */
export interface FinishedRun {
  readonly train: TrainResult;
  readonly losses: readonly GroupLoss[];
  /** Windows drawn from each group, [k]. */
  readonly drawn: Float64Array;
}

/**
 * Trains a student on a course. A run that finds a checkpoint goes on behind it: the observations of before are told to the course
 * again, and batches are drawn and thrown away, so that method and data are where they were.
 * @throws InputError, RunError as `train` does
 */
export async function runCourse(parts: RunParts, run: CourseRun): Promise<FinishedRun> {
  const { groups, heldOut, batchSize, threads } = parts;
  const { course, folder, settings } = run;
  mkdirSync(folder, { recursive: true });
  const seed = streamSeed(parts.seed, run.stream);
  const checkpoints = openCheckpoints(folder, { ...parts.identity, seed });
  const log = openObservationLog(join(folder, 'observations.jsonl'), checkpoints.last);
  const objective = createGroupObjective(groups.length);
  const student = parts.student as Student<GroupBatch>;
  const aligned = course.ofSteps === 'alignments' ? createAlignedStudent(student, groups.length, threads) : undefined;
  let coming = 1;
  const { accumulate = 1 } = settings;
  const source = createGroupSource({
    windows: parts.windows,
    batchSize,
    accumulate,
    seed,
    proportions: () => course.proportions(coming),
  });
  let measured: { readonly step: number; readonly losses: readonly GroupLoss[] } | undefined;
  const measure = async (step: number): Promise<readonly GroupLoss[]> => {
    if (measured?.step !== step) measured = { step, losses: await evaluateGroups(student, heldOut, batchSize) };
    return measured.losses;
  };
  const observe = (observation: Observation): void => {
    course.observe(observation);
    log.append(observation);
  };
  try {
    replay(course, source, log.past, { upTo: checkpoints.last, accumulate, moveTo: (step) => (coming = step) });
    if (checkpoints.last === undefined) observe({ step: 0, losses: means(await measure(0)) });
    const ofStep = stepMeasure({ parts, run, objective, source, aligned, seed });
    await ofStep.before?.(coming);
    const result = await train<GroupBatch>(aligned ?? student, source, objective, settings, {
      checkpoints,
      warn: parts.warn,
      async evaluate(step) {
        const losses = means(await measure(step));
        return { loss: losses.reduce((sum, loss) => sum + loss, 0) / losses.length };
      },
      async onStep(record) {
        const { step } = record;
        const own = record.skipped ? undefined : await ofStep.measure(step);
        const losses = course.measures(step) ? means(await measure(step)) : undefined;
        if (own || losses) observe({ step, ...own, ...(losses && { losses }) });
        coming = step + 1;
        if (step < settings.steps) await ofStep.before?.(coming);
        parts.step(record.loss);
      },
    });
    if (settings.restoreBest) measured = undefined;
    return { train: result, losses: await measure(result.steps), drawn: source.drawn };
  } finally {
    log.close();
  }
}

/** Each run of a session has its own stream. */
const streamSeed = (seed: number, stream: number): number =>
  stream === 0 ? seed : Number(createRandom(seed).fork(stream).next64() & 0x1fffffffffffffn);

const means = (losses: readonly GroupLoss[]): number[] => losses.map(({ mean }) => mean);

/** Tells a course what was observed, and draws the batches between, up to a step. */
function replay(
  course: MixingCourse,
  source: GroupSource,
  past: readonly Observation[],
  to: { readonly upTo: number | undefined; readonly accumulate: number; moveTo(step: number): void },
): void {
  if (to.upTo === undefined) return;
  let at = 0;
  for (let step = 0; step <= to.upTo; step++) {
    to.moveTo(step);
    for (let micro = 0; step > 0 && micro < to.accumulate; micro++) source.skip((step - 1) * to.accumulate + micro);
    for (; past[at]?.step === step; at++) course.observe(past[at]);
  }
  to.moveTo(to.upTo + 1);
}

/** Stream of the batches that gradients are held against. */
const VALIDATION = 0x76616c69;

interface StepMeasure {
  /** Before step `step` is made. */
  before?(step: number): Promise<void>;
  /** Behind it. */
  measure(step: number): Promise<Partial<Observation> | undefined>;
}

/** What a course wants to know of every step. */
function stepMeasure(of: {
  readonly parts: RunParts;
  readonly run: CourseRun;
  readonly objective: GroupObjective;
  readonly source: GroupSource;
  readonly aligned: AlignedStudent | undefined;
  readonly seed: number;
}): StepMeasure {
  const { parts, run, objective, source, aligned, seed } = of;
  const { accumulate = 1 } = run.settings;
  if (run.course.ofSteps === 'excess') {
    const ofReference = createGroupObjective(parts.groups.length);
    return {
      async before() {
        objective.sums.clear();
      },
      async measure(step) {
        const losses = meanLosses(objective);
        ofReference.sums.clear();
        await withValues(parts.student, run.reference, async () => {
          for (let micro = 0; micro < accumulate; micro++) {
            const batch = source.batch((step - 1) * accumulate + micro);
            await parts.student.evaluate(batch, ofReference.begin(batch, { step, epoch: 0 }).visit);
          }
        });
        return { excess: { losses, reference: meanLosses(ofReference) } };
      },
    };
  }
  if (aligned === undefined) return { measure: () => Promise.resolve(undefined) };
  const k = parts.groups.length;
  const uniform = new Float64Array(k).fill(1 / k);
  const ofValidation = createGroupObjective(k);
  const schedule = createSchedule({ totalSteps: run.settings.steps, ...run.settings.schedule });
  // Equally many windows of every group, other ones in every step.
  const validation = createGroupSource({
    windows: parts.heldOut,
    batchSize: Math.max(k, run.validationBatch ?? k),
    accumulate: 1,
    seed: streamSeed(seed, VALIDATION),
    proportions: () => uniform,
  });
  let drawn = 0;
  return {
    async before(step) {
      while (drawn < step - 1) validation.skip(drawn++);
      const batch = validation.batch(drawn++);
      await aligned.aim(batch, ofValidation.begin(batch, { step, epoch: 0 }).visit);
    },
    async measure(step) {
      const { inner, norms } = aligned.taken();
      return { alignments: { inner: [...inner], norms: [...norms], learningRate: schedule(step - 1) } };
    },
  };
}

/** Means by group; 0 for a group without tokens, whose difference from the reference is then exactly 0. */
const meanLosses = ({ sums: { nll, tokens } }: GroupObjective): number[] =>
  Array.from(nll, (sum, j) => (tokens[j] === 0 ? 0 : sum / tokens[j]));

/** Runs `work` with other values in the student, then puts its own back. */
async function withValues(
  student: Student<TokenBatch>,
  values: Floats | undefined,
  work: () => Promise<void>,
): Promise<void> {
  if (values === undefined) throw new TypeError('an excess needs the values of a reference');
  const own = student.parameters.values.slice();
  student.parameters.values.set(values);
  try {
    await work();
  } finally {
    student.parameters.values.set(own);
  }
}
