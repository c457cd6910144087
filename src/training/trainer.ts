import { InputError, RunError } from '../errors.js';
import { sumOfSquares } from '../kernels/optimizer-steps.js';
import { type CheckpointStore, difference, type KeptBuffers, type TrainState } from './checkpoint.js';
import { clipCoefficient } from './clipping.js';
import type { Objective, ObjectiveTotals } from './objective.js';
import { createOptimizer, type Optimizer, type OptimizerSettings } from './optimizer.js';
import { createSchedule, type ScheduleSettings } from './schedules.js';
import type { BatchSource, Floats, OwnTerm, ParameterSet, StepRecord, Student } from './types.js';

/** Steps with a gradient that is not finite, one behind the other, before a run stops. */
export const MOST_SKIPPED_IN_A_ROW = 10;

export interface TrainSettings {
  /** Optimiser steps of the whole run. */
  readonly steps: number;
  readonly optimizer: OptimizerSettings;
  /** `totalSteps` defaults to `steps`. */
  readonly schedule: ScheduleSettings;
  /** Micro-batches of a step; default 1. */
  readonly accumulate?: number;
  /** Greatest norm of the gradient; longer ones are shortened to it. Default: no limit. */
  readonly clipNorm?: number;
  /** Steps between two evaluations; also behind the last step. Default: none. */
  readonly evaluateEvery?: number;
  /**
   * Steps between two checkpoints; also behind the last step. Default: the last step alone. One is written in the step
   * behind it, when its values have given a finite loss and gradient.
   */
  readonly checkpointEvery?: number;
  /** Leaves the values of the best evaluation in the student. Default: those of the last step. */
  readonly restoreBest?: boolean;
  readonly threads?: number;
}

/** What an evaluation found. */
export interface Evaluation {
  /** Lower is better; the least one makes the best checkpoint. */
  readonly loss: number;
  /** Further figures for the metrics. */
  readonly figures?: Readonly<Record<string, number>>;
}

/** What changes values behind every step of the optimiser, such as a pruner. */
export interface StepFollower {
  /** Flat buffers beside the values: checkpoints hold them, and a resumed run finds them filled. */
  readonly state: Readonly<Record<string, Floats>>;
  /**
   * Behind step `step`, 1-based, which moved the values; the sums of the gradients are still there, and `gradientScale` turns
   * them into what the optimiser saw. Steps that are left out are not told.
   */
  moved(step: number, gradientScale: number): void;
}

export interface TrainHooks {
  /** Behind each step, with the evaluation that was made after it. */
  onStep?(record: StepRecord, evaluation?: Evaluation): void | Promise<void>;
  /** Needed with `evaluateEvery`. `step` steps have been made. */
  evaluate?(step: number): Evaluation | Promise<Evaluation>;
  warn?(message: string): void;
  /** Asked behind each step: true ends the run after a checkpoint. */
  stop?(): boolean;
  /** Where checkpoints go; a run that finds one there goes on behind it. */
  readonly checkpoints?: CheckpointStore;
  readonly follower?: StepFollower;
}

export interface TrainResult {
  /** Steps made, those of earlier parts of the run included. */
  readonly steps: number;
  /** Step at which this part of the run began: 0, or that of the checkpoint. */
  readonly resumedFrom: number;
  /** Steps left out because their gradient was not finite. */
  readonly skipped: number;
  readonly best?: { readonly step: number; readonly loss: number };
  /** The hook asked for an end before the last step. */
  readonly stopped: boolean;
}

interface Sums {
  sum: number;
  validRows: number;
  readonly terms: Record<string, number>;
}

function checkCount(name: string, value: number | undefined): void {
  if (value !== undefined && !(Number.isInteger(value) && value >= 1))
    throw new InputError(`${name} ${value}: must be a whole number from 1 on`);
}

function checkSettings(settings: TrainSettings, hooks: TrainHooks): void {
  checkCount('steps', settings.steps);
  checkCount('accumulation', settings.accumulate);
  checkCount('evaluation every', settings.evaluateEvery);
  checkCount('checkpoint every', settings.checkpointEvery);
  const { clipNorm } = settings;
  if (clipNorm !== undefined && !(clipNorm > 0)) throw new InputError(`clipping at norm ${clipNorm}: must be above 0`);
  if (settings.evaluateEvery !== undefined && hooks.evaluate === undefined)
    throw new InputError('evaluations are asked for, but there is nothing to evaluate on');
}

/** Name of the first tensor with an entry of `buffer` that is not finite. */
function firstNonFinite(set: ParameterSet, buffer: Floats): string {
  for (const { name, offset, length } of set.parameters) {
    for (let i = offset; i < offset + length; i++) if (!Number.isFinite(buffer[i])) return name;
  }
  return 'none';
}

function addTotals(sums: Sums, totals: ObjectiveTotals, ownTerms: readonly OwnTerm[]): void {
  sums.sum += totals.sum;
  sums.validRows += totals.validRows;
  for (const [label, value] of Object.entries(totals.terms)) sums.terms[label] = (sums.terms[label] ?? 0) + value;
  // A term of the student is a mean over its micro-batch: it stands for the rows of that.
  for (const { name, value } of ownTerms) {
    sums.sum += value * totals.validRows;
    sums.terms[name] = (sums.terms[name] ?? 0) + value * totals.validRows;
  }
}

/** Words on the checkpoint from which a stopped run may go on. */
function keptWords(checkpoints: CheckpointStore | undefined): string {
  if (checkpoints?.last === undefined) return 'no checkpoint had been written yet';
  return `the checkpoint of step ${checkpoints.last} in ${checkpoints.directory} is kept`;
}

/** An error with the step before its words; the kind is kept. */
function atStep(error: unknown, step: number, checkpoints: CheckpointStore | undefined): unknown {
  if (error instanceof InputError) return new InputError(`step ${step}: ${error.message}`);
  if (error instanceof RunError) return new RunError(`step ${step}: ${error.message}; ${keptWords(checkpoints)}`);
  return error;
}

/** The parts of a run that its steps share. */
interface Run<Batch> {
  readonly student: Student<Batch>;
  readonly source: BatchSource<Batch>;
  readonly objective: Objective<Batch>;
  readonly settings: TrainSettings;
  readonly hooks: TrainHooks;
  readonly optimizer: Optimizer;
}

/** Gradients of all micro-batches of a step, summed; and the sums of the losses. */
async function accumulateStep<Batch>(run: Run<Batch>, step: number): Promise<Sums> {
  const { student, source, objective, settings } = run;
  const { accumulate = 1 } = settings;
  const sums: Sums = { sum: 0, validRows: 0, terms: Object.fromEntries(objective.terms.map((label) => [label, 0])) };
  for (let micro = 0; micro < accumulate; micro++) {
    const index = (step - 1) * accumulate + micro;
    const batch = await source.batch(index);
    const ownTermScale = objective.validRows(batch, student.rowsOf(batch));
    if (ownTermScale === 0) continue;
    const visit = objective.begin(batch, { step, epoch: index / source.perEpoch });
    const ownTerms = await student.accumulate(batch, visit.visit, { wholeBatch: objective.wholeBatch, ownTermScale });
    addTotals(sums, visit.totals(), ownTerms);
  }
  return sums;
}

/** Accumulates, clips and moves. Gradients are zero before and behind. */
async function makeStep<Batch>(
  run: Run<Batch>,
  course: Course,
  step: number,
  learningRate: number,
): Promise<StepRecord> {
  const { student, settings, hooks, optimizer } = run;
  const { gradients } = student.parameters;
  const sums = await accumulateStep(run, step);
  const { validRows } = sums;
  const loss = validRows === 0 ? 0 : sums.sum / validRows;
  const terms: Record<string, number> = {};
  for (const [label, sum] of Object.entries(sums.terms)) terms[label] = validRows === 0 ? 0 : sum / validRows;
  if (!Number.isFinite(loss)) {
    const worst = Object.keys(terms).find((label) => !Number.isFinite(terms[label])) ?? 'the sum of the terms';
    throw new RunError(`the loss is ${loss} (${worst})`);
  }
  const record = { step, loss, terms, learningRate, validRows };
  if (validRows === 0) {
    hooks.warn?.(`step ${step}: no row of the batch has a label that counts: nothing was learnt from it`);
    return { ...record, gradientNorm: 0, skipped: false };
  }
  const gradientNorm = Math.sqrt(sumOfSquares(gradients, settings.threads)) / validRows;
  if (!Number.isFinite(gradientNorm)) return { ...record, gradientNorm, skipped: true };
  // The values of the step before have just proved good: before that, a checkpoint could hold a run that has diverged.
  if (course.checkpointDue) saveState(run, course, step - 1);
  const gradientScale = clipCoefficient(gradientNorm, settings.clipNorm) / validRows;
  const { follower } = hooks;
  optimizer.step({ learningRate, gradientScale, clear: follower === undefined, threads: settings.threads });
  if (follower) {
    follower.moved(step, gradientScale);
    gradients.fill(0);
  }
  return { ...record, gradientNorm, skipped: false };
}

/** What changes from step to step. */
interface Course {
  skipped: number;
  skippedInARow: number;
  /** The checkpoint of the step before is to be written when its values have given a finite loss and gradient. */
  checkpointDue: boolean;
  best?: { readonly step: number; readonly loss: number };
  bestValues?: Floats;
}

/** Leaves a step out, or stops when too many were. */
function skipStep<Batch>(run: Run<Batch>, course: Course, step: number): void {
  const { parameters } = run.student;
  const name = firstNonFinite(parameters, parameters.gradients);
  course.skipped++;
  course.skippedInARow++;
  parameters.gradients.fill(0);
  if (course.skippedInARow >= MOST_SKIPPED_IN_A_ROW)
    throw new RunError(
      `the gradient of ${name} is not finite, as in the ${MOST_SKIPPED_IN_A_ROW - 1} steps before: the run has diverged`,
    );
  run.hooks.warn?.(`step ${step}: the gradient of ${name} is not finite: the step was left out`);
}

async function evaluateStep<Batch>(run: Run<Batch>, course: Course, step: number): Promise<Evaluation | undefined> {
  const { settings, hooks, student } = run;
  const { evaluateEvery, steps } = settings;
  if (evaluateEvery === undefined || hooks.evaluate === undefined) return undefined;
  if (step % evaluateEvery !== 0 && step !== steps) return undefined;
  const evaluation = await hooks.evaluate(step);
  if (evaluation.loss < (course.best?.loss ?? Number.POSITIVE_INFINITY)) {
    course.best = { step, loss: evaluation.loss };
    if (settings.restoreBest) course.bestValues = student.parameters.values.slice();
    hooks.checkpoints?.saveBest(student.parameters, course.best);
  }
  return evaluation;
}

/** What a checkpoint holds beside the values. */
const keptBuffers = <Batch>({ optimizer, hooks }: Run<Batch>): KeptBuffers => ({
  state: { ...optimizer.state, ...hooks.follower?.state },
});

function saveState<Batch>(run: Run<Batch>, course: Course, step: number): void {
  const { skipped, skippedInARow, best } = course;
  const settings = decidingSettings(run.settings);
  const state: TrainState = { step, optimizerSteps: run.optimizer.steps, skipped, skippedInARow, best, settings };
  run.hooks.checkpoints?.save(run.student.parameters, keptBuffers(run), state);
  course.checkpointDue = false;
}

/** The checkpoint behind the last step, whose values no step has tried. */
function saveLast<Batch>(run: Run<Batch>, course: Course, step: number): void {
  const { values } = run.student.parameters;
  if (!Number.isFinite(sumOfSquares(values, run.settings.threads)))
    throw new RunError(`the values of ${firstNonFinite(run.student.parameters, values)} are not finite any more`);
  saveState(run, course, step);
}

/** The settings that decide the numbers of every step, as JSON. A constant rate does not depend on the length of the run. */
function decidingSettings({ optimizer, schedule, steps, accumulate = 1, clipNorm }: TrainSettings): unknown {
  const { schedule: name = 'constant', totalSteps = steps, ...rest } = schedule;
  const course = name === 'constant' ? { ...rest, schedule: name } : { ...rest, schedule: name, totalSteps };
  return JSON.parse(JSON.stringify({ optimizer, schedule: course, accumulate, clipNorm: clipNorm ?? null }));
}

/** The course of a run from its checkpoint, whose values and moments are read; or from the start. */
function openCourse<Batch>(run: Run<Batch>): Course & { readonly step: number } {
  const { checkpoints } = run.hooks;
  const { parameters } = run.student;
  const state = checkpoints?.load(parameters, keptBuffers(run));
  const fresh = { step: 0, skipped: 0, skippedInARow: 0, checkpointDue: false };
  if (checkpoints === undefined || state === undefined) return fresh;
  if (state.step > run.settings.steps)
    throw new InputError(
      `${checkpoints.directory}: a checkpoint of step ${state.step} in a run of ${run.settings.steps} steps`,
    );
  const differs = difference(state.settings, decidingSettings(run.settings));
  if (differs !== undefined)
    throw new InputError(
      `${checkpoints.directory}: a checkpoint of step ${state.step} made with other settings: ${differs}; use the same, or another output`,
    );
  run.optimizer.resumeAt(state.optimizerSteps);
  const bestValues =
    run.settings.restoreBest && state.best !== undefined ? checkpoints.loadBest(parameters, state.best) : undefined;
  return { ...state, checkpointDue: false, bestValues };
}

/**
 * Trains a student: every step sums the gradients of `accumulate` micro-batches, divides once by the number of rows that
 * count in all of them, clips, and moves the parameters. Step s reads the micro-batches (s - 1) accumulate and on, so that a
 * run that finds a checkpoint goes on as if it had never stopped.
 *
 * A gradient that is not finite leaves its step out; ten in a row end the run, as does a loss that is not finite. Rows that
 * count nowhere teach nothing: a step of such rows moves nothing and warns.
 * @throws InputError for settings out of range, and for what the losses and the checkpoint object to
 * @throws RunError when the run diverges or a checkpoint cannot be written; the last checkpoint is kept and named
 */
export async function train<Batch>(
  student: Student<Batch>,
  source: BatchSource<Batch>,
  objective: Objective<Batch>,
  settings: TrainSettings,
  hooks: TrainHooks = {},
): Promise<TrainResult> {
  checkSettings(settings, hooks);
  const { parameters } = student;
  const { steps, checkpointEvery = steps } = settings;
  const schedule = createSchedule({ totalSteps: steps, ...settings.schedule });
  const optimizer = createOptimizer(parameters, settings.optimizer);
  const run: Run<Batch> = { student, source, objective, settings, hooks, optimizer };
  const course = openCourse(run);
  const resumedFrom = course.step;
  parameters.gradients.fill(0);
  let made = resumedFrom;
  let stopped = false;
  for (let step = resumedFrom + 1; step <= steps && !stopped; step++) {
    try {
      const record = await makeStep(run, course, step, schedule(step - 1));
      if (record.skipped) skipStep(run, course, step);
      else course.skippedInARow = 0;
      const evaluation = await evaluateStep(run, course, step);
      await hooks.onStep?.(record, evaluation);
      made = step;
      stopped = step < steps && hooks.stop?.() === true;
      if (step === steps || stopped) saveLast(run, course, step);
      else if (step % checkpointEvery === 0) course.checkpointDue = true;
    } catch (error) {
      throw atStep(error, step, hooks.checkpoints);
    }
  }
  if (settings.restoreBest && course.bestValues !== undefined) parameters.values.set(course.bestValues);
  return { steps: made, resumedFrom, skipped: course.skipped, best: course.best, stopped };
}
