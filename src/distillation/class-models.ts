import { InputError } from '../errors.js';
import { openFeatures } from '../features/open-features.js';
import { loadMatrix } from '../formats/feature-matrix.js';
import type { ModelProto } from '../formats/onnx_pb.js';
import { selectNames } from '../training/name-patterns.js';
import { parseNetwork } from '../training/network-text.js';
import { composeNetwork, NETWORK_HIDDEN, NETWORK_LOGITS } from '../training/networks.js';
import { type OnnxStudent, type OnnxStudentSettings, openOnnxStudent } from '../training/onnx-student.js';
import type { FeatureBatch, Precision } from '../training/types.js';
import { type ClassData, featureScale } from './class-data.js';
import { type ClassOutputs, type ClassTraining, classOutputs, trainOnRows } from './classifier-training.js';

/** A classifier as the user names it. */
export type ClassModel =
  | {
      readonly kind: 'network';
      /** What `parseNetwork` reads. */
      readonly text: string;
      readonly standardize: 'none' | 'columns' | 'all';
    }
  | {
      readonly kind: 'onnx';
      readonly path: string;
      /** Its only output, or the one called `logits`, when absent. */
      readonly logitsOutput?: string;
      readonly featuresOutput?: string;
    };

/** Where a teacher's logits come from. */
export type ClassTeacher =
  | { readonly kind: 'logits'; readonly path: string; readonly tensor?: string; readonly evalPath?: string }
  | { readonly kind: 'model'; readonly model: ClassModel }
  | { readonly kind: 'trained'; readonly model: ClassModel; readonly training: ClassTraining };

export interface ClassModelOptions {
  readonly seed: number;
  readonly precision: Precision;
  readonly threads: number;
  /** Patterns of parameters that are trained, or are not; all are when absent. */
  readonly train?: readonly string[];
  readonly freeze?: readonly string[];
}

/** What `openOnnxStudent` takes to open a classifier. */
export interface ClassModelPlan {
  readonly source: ModelProto | string;
  readonly settings: OnnxStudentSettings;
}

/**
 * The graph of a classifier for rows such as those of `data`, whose scale a network takes when it is told to standardise.
 * @throws InputError for a network that does not fit the rows
 */
export function planClassModel(
  model: ClassModel,
  data: ClassData,
  classes: number,
  options: ClassModelOptions,
): ClassModelPlan {
  const { seed, precision, threads, train, freeze } = options;
  const shared = { precision, threads, seed, dims: data.dims };
  const patterns = { ...(train && { train }), ...(freeze && { freeze }) };
  if (model.kind === 'onnx') {
    const { path, logitsOutput, featuresOutput } = model;
    const outputs = {
      ...(logitsOutput !== undefined && { logits: logitsOutput }),
      ...(featuresOutput !== undefined && { features: featuresOutput }),
    };
    return { source: path, settings: { ...shared, ...patterns, ...outputs } };
  }
  const network = composeNetwork(parseNetwork(model.text), {
    dims: data.dims,
    classes,
    seed,
    precision,
    ...(model.standardize !== 'none' && { scale: featureScale(data, model.standardize) }),
  });
  const trained = selectNames(network.parameters, patterns);
  return {
    source: network.model,
    settings: { ...shared, train: trained, logits: NETWORK_LOGITS, features: NETWORK_HIDDEN },
  };
}

/**
 * Opens a classifier for rows such as those of `data`.
 * @throws InputError for a network or file that does not fit the rows
 */
export function openClassModel(
  model: ClassModel,
  data: ClassData,
  classes: number,
  options: ClassModelOptions,
): Promise<OnnxStudent<FeatureBatch>> {
  const { source, settings } = planClassModel(model, data, classes, options);
  return openOnnxStudent<FeatureBatch>(source, settings);
}

/** Logits of a file, a row for each of `data`. */
async function storedLogits(
  path: string,
  tensor: string | undefined,
  data: ClassData,
): Promise<ClassOutputs & { classes: number }> {
  const matrix = await openFeatures({ kind: 'file', path, ...(tensor !== undefined && { tensor }) });
  try {
    if (matrix.rows !== data.rows) {
      throw new InputError(
        `${path}: ${matrix.rows} rows of logits, but ${data.name} has ${data.rows} rows; give one a row`,
      );
    }
    const { columns: classes } = matrix;
    if (data.classes.length > classes) {
      throw new InputError(
        `${path}: logits of ${classes} classes, but the labels of ${data.name} have ${data.classes.length} (the greatest is ${data.classes.length - 1})`,
      );
    }
    return { logits: loadMatrix(matrix), classes };
  } finally {
    matrix.close();
  }
}

/** A teacher's outputs on several sets of rows. */
export interface TeacherOutputs {
  /** Columns of its logits. */
  readonly classes: number;
  /** Of each set, in their order. */
  readonly outputs: readonly ClassOutputs[];
}

export interface TeacherRun {
  readonly seed: number;
  readonly threads: number;
  readonly precision: Precision;
  /** Told of the steps of a teacher that is trained. */
  onStep?(step: number, steps: number): void;
  warn?(message: string): void;
}

/**
 * Outputs of a teacher on rows: read from files, computed by a model, or by a network that is first trained on the rows
 * `training` by its own loss.
 * @param sets rows whose outputs are wanted
 * @param stored for a file of logits: those of the first set lie in `path`, of the second in `evalPath`
 * @throws InputError for logits that do not fit the rows, or models that do not fit the data
 */
export async function teacherOutputs(
  teacher: ClassTeacher,
  training: ClassData,
  sets: readonly ClassData[],
  run: TeacherRun,
): Promise<TeacherOutputs> {
  if (teacher.kind === 'logits') {
    const paths = [teacher.path, teacher.evalPath];
    const outputs: ClassOutputs[] = [];
    let classes = 0;
    for (let s = 0; s < sets.length; s++) {
      const path = paths[s];
      if (path === undefined) break;
      const read = await storedLogits(path, teacher.tensor, sets[s]);
      if (s > 0 && read.classes !== classes) {
        throw new InputError(`${path}: logits of ${read.classes} classes, those of ${teacher.path} have ${classes}`);
      }
      classes = read.classes;
      outputs.push(read);
    }
    return { classes, outputs };
  }
  const { seed, threads, precision } = run;
  const model = await openClassModel(teacher.model, training, training.classes.length, { seed, threads, precision });
  try {
    if (teacher.kind === 'trained') {
      await trainOnRows({
        student: model,
        data: training,
        training: teacher.training,
        seed,
        threads,
        hooks: {
          onStep: ({ step }) => run.onStep?.(step, teacher.training.steps ?? 0),
          ...(run.warn && { warn: run.warn }),
        },
      });
    }
    checkClasses(model.classes, training, 'teacher');
    const outputs: ClassOutputs[] = [];
    for (const set of sets) outputs.push(await classOutputs(model, set));
    return { classes: model.classes, outputs };
  } finally {
    await model.close();
  }
}

/** @throws InputError when labels go beyond the classes of a model */
export function checkClasses(classes: number, data: ClassData, what: string): void {
  if (data.classes.length <= classes) return;
  throw new InputError(
    `the ${what} has ${classes} classes, but the labels of ${data.name} have ${data.classes.length} (the greatest is ${data.classes.length - 1})`,
  );
}
