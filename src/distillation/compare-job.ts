import { RunError } from '../errors.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import type { TrainResult } from '../training/trainer.js';
import type { ClassData, ClassDataSource } from './class-data.js';
import { type ClassMetrics, measureClassifier } from './class-metrics.js';
import { type ClassModel, type ClassTeacher, checkClasses, openClassModel, teacherOutputs } from './class-models.js';
import { allRows, drawRows, readClassFiles, rowsOfSet, splitRows } from './class-splits.js';
import {
  type ClassOutputs,
  type ClassTraining,
  evaluateClassifier,
  takeOutputs,
  trainOnRows,
} from './classifier-training.js';

/** What all cells of a comparison share. */
export interface ComparisonTask {
  readonly classes: number;
  /** Rows that the student learns from, and the teacher's outputs on them. */
  readonly training: ClassData;
  readonly trainingTeacher?: ClassOutputs;
  /** Rows on which members of a family of losses are chosen; none of them is reported. */
  readonly heldOut: ClassData;
  readonly heldOutTeacher?: ClassOutputs;
  /** Rows that are reported. */
  readonly test: ClassData;
  readonly testTeacher?: ClassOutputs;
}

export interface PrepareArguments {
  readonly sources: readonly ClassDataSource[];
  /** Test rows; taken from the others when absent. */
  readonly testSources?: readonly ClassDataSource[];
  readonly testShare: number;
  readonly heldOutShare: number;
  readonly studentRows?: number;
  readonly teacher?: ClassTeacher;
  readonly seed: number;
  readonly threads: number;
  readonly precision: 'f32' | 'f64';
}

export interface PreparedComparison {
  readonly task: ComparisonTask;
  /** Rows that a teacher could learn from. */
  readonly teacherRows: number;
  readonly teacher?: { readonly heldOut: ClassMetrics; readonly test: ClassMetrics };
  readonly warnings: readonly string[];
}

export interface PrepareProgress {
  readonly step: number;
  readonly steps: number;
}

/**
 * Reads and splits the rows and asks the teacher. Test and held-out rows are taken from `sources` by class where no other
 * rows are given; a teacher that is trained learns from all that is left, the student from `studentRows` of it.
 * @throws InputError as the readers do, and for teachers that do not fit the rows
 */
export async function prepareComparison(
  args: PrepareArguments,
  progress: (value: PrepareProgress) => void,
): Promise<PreparedComparison> {
  const warnings: string[] = [];
  const data = await readClassFiles(args.sources);
  const testData = args.testSources && (await readClassFiles(args.testSources, data.classes));
  const shares = [
    { name: 'held-out', share: args.heldOutShare },
    ...(testData ? [] : [{ name: 'test', share: args.testShare }]),
  ];
  const [rest, heldOut, carvedTest] = splitRows(data, shares, args.seed);
  const trainingRows = rest.rows ?? allRows(data.rows);
  const studentRows =
    args.studentRows === undefined ? trainingRows : drawRows(trainingRows, args.studentRows, args.seed);
  const parts = {
    training: rowsOfSet({ data, rows: studentRows }),
    heldOut: rowsOfSet(heldOut),
    test: testData ?? rowsOfSet(carvedTest),
  };
  const base = {
    warnings: [...data.warnings, ...(testData?.warnings ?? []), ...warnings],
    teacherRows: trainingRows.length,
  };
  if (!args.teacher) return { ...base, task: { ...parts, classes: data.classes.length } };
  // A stored teacher has a row for each of the files; a model is asked for the same.
  const sets = testData ? [data, testData] : [data];
  const { classes, outputs } = await teacherOutputs(args.teacher, rowsOfSet(rest), sets, {
    seed: args.seed,
    threads: args.threads,
    precision: args.precision,
    onStep: (step, steps) => progress({ step, steps }),
    warn: (message) => warnings.push(message),
  });
  checkClasses(classes, data, 'teacher');
  const [own, theirs] = outputs;
  const of = (rows: Int32Array | undefined): ClassOutputs => takeOutputs(own, rows ?? allRows(data.rows), classes);
  const task = {
    ...parts,
    classes,
    trainingTeacher: of(studentRows),
    heldOutTeacher: of(heldOut.rows),
    ...(testData ? theirs && { testTeacher: theirs } : { testTeacher: of(carvedTest.rows) }),
  };
  const measured = (rows: ClassData, teacher: ClassOutputs): ClassMetrics =>
    measureClassifier(teacher.logits, rows.labels, classes);
  return {
    ...base,
    warnings: [...base.warnings, ...warnings],
    task,
    ...(task.testTeacher && {
      teacher: { heldOut: measured(task.heldOut, task.heldOutTeacher), test: measured(task.test, task.testTeacher) },
    }),
  };
}

/** One training of a comparison: one member of a family of losses under one seed. */
export interface ComparisonCell {
  readonly index: number;
  readonly loss: string;
  readonly seed: number;
}

/** Held-out figures after a step. */
export interface HeldOutPoint {
  readonly step: number;
  readonly accuracy: number;
  readonly nllNats: number;
}

export interface CellResult {
  readonly index: number;
  readonly steps: number;
  readonly curve: readonly HeldOutPoint[];
  readonly heldOut: ClassMetrics;
  readonly test: ClassMetrics;
  /** Weights of the student. */
  readonly weights: number;
  /** Why there are no figures: the run diverged. */
  readonly failed?: string;
}

export interface CellsArguments {
  readonly task: ComparisonTask;
  readonly student: ClassModel;
  /** Its `loss` is each cell's. */
  readonly training: ClassTraining;
  readonly evalEvery?: number;
  readonly cells: readonly ComparisonCell[];
}

/**
 * Trains the cells one after another on one thread, and tells of each: a cell is a function of the task and its own seed,
 * so that threads which share the cells among them change nothing. Students of equal seeds begin with equal weights and
 * read the rows in the same order, whatever their loss.
 */
export async function runComparisonCells(
  args: CellsArguments,
  progress: (value: CellResult) => void,
): Promise<{ readonly done: number }> {
  for (const cell of args.cells) progress(await runCell(args, cell));
  return { done: args.cells.length };
}

async function runCell(
  { task, student, training, evalEvery }: CellsArguments,
  cell: ComparisonCell,
): Promise<CellResult> {
  const { index, loss, seed } = cell;
  const model = await openClassModel(student, task.training, task.classes, {
    seed,
    precision: training.precision,
    threads: 1,
  });
  const curve: HeldOutPoint[] = [];
  try {
    checkClasses(model.classes, task.training, 'student');
    const { teacher, heldOut } = { teacher: task.trainingTeacher, heldOut: task.heldOut };
    let result: TrainResult | undefined;
    let failed: string | undefined;
    try {
      result = await trainOnRows({
        student: model,
        data: task.training,
        ...(teacher && { teacher }),
        training: { ...training, loss },
        seed,
        threads: 1,
        heldOut: {
          data: heldOut,
          ...(evalEvery !== undefined && { every: evalEvery }),
          seen: (step, { accuracy, nllNats }) => {
            curve.push({ step, accuracy, nllNats });
          },
        },
      });
    } catch (error) {
      if (!(error instanceof RunError)) throw error;
      failed = error.message;
    }
    return {
      index,
      steps: result?.steps ?? curve.at(-1)?.step ?? 0,
      curve,
      heldOut: await evaluateClassifier(model, task.heldOut, task.heldOutTeacher),
      test: await evaluateClassifier(model, task.test, task.testTeacher),
      weights: model.parameters.values.length,
      ...(failed !== undefined && { failed }),
    };
  } finally {
    await model.close();
  }
}

export const PREPARE_COMPARISON: ComputeReference<PrepareArguments, PreparedComparison> = {
  module: import.meta.url,
  job: prepareComparison as (args: PrepareArguments, progress: (value: unknown) => void) => Promise<PreparedComparison>,
};

export const RUN_CELLS: ComputeReference<CellsArguments, { readonly done: number }> = {
  module: import.meta.url,
  job: runComparisonCells as (
    args: CellsArguments,
    progress: (value: unknown) => void,
  ) => Promise<{ readonly done: number }>,
};
