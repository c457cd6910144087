import type { Command } from 'commander';
import type { ClassDataSource } from '../src/distillation/class-data.js';
import type { ClassModel, ClassTeacher } from '../src/distillation/class-models.js';
import { InputError } from '../src/errors.js';
import { isNetworkText, NETWORK_GRAMMAR, parseNetwork } from '../src/training/network-text.js';
import type { StepSettings } from './distill-options.js';
import { flagOf, parseChoice, parseInteger, parseList, parseNumber } from './edge-values.js';

/** Options of rows of features with class labels, as commander gives them. */
export interface ClassRowOptions {
  readonly labels?: string;
  readonly labelColumn?: string;
  readonly tensor?: string;
  readonly columns?: string;
  readonly image?: string;
  readonly channels?: string;
  readonly standardize?: string;
}

/** Options of such rows, of a student of them and its teacher. */
export interface ClassTaskOptions extends ClassRowOptions {
  readonly studentRows?: string;
  readonly teacherLoss?: string;
  readonly teacherEpochs?: string;
  readonly teacherBatchSize?: string;
  readonly teacherLearningRate?: string;
  readonly logitsOutput?: string;
  readonly featuresOutput?: string;
}

/** Options of `train` that only classifiers read, as commander gives them. */
export interface ClassifierOptions extends ClassTaskOptions {
  readonly evalLabels?: string;
  readonly evalShare?: string;
  readonly evalTeacher?: string;
}

/**
 * Declares the options of `ClassRowOptions`.
 * @param mark stands before their descriptions, where other tasks share the command
 */
export function addClassRowOptions(command: Command, mark = ''): Command {
  return command
    .option('--labels <file>', `${mark}labels of the rows: .npy .npz .safetensors, .txt by line, or a table`)
    .option('--label-column <name>', `${mark}column or array that holds the labels (default label, class, target, y)`)
    .option('--tensor <name>', `${mark}array of an .npz or .safetensors file that holds the features`)
    .option('--columns <names>', `${mark}columns that are features, separated by commas (default all but the labels)`)
    .option('--image <extents>', `${mark}a row is an image of these extents, such as 28x28 or 3x32x32`)
    .option('--channels <where>', `${mark}first or last, in arrays of images (default by their extents)`)
    .option(
      '--standardize <how>',
      `${mark}none, columns or all: mean 0 and variance 1 of each feature, or of all together, inside the network (default none)`,
    );
}

/**
 * Declares the options of `ClassTaskOptions`.
 * @param mark stands before their descriptions, where other tasks share the command
 */
export function addClassTaskOptions(command: Command, mark = ''): Command {
  return addClassRowOptions(command, mark)
    .option('--student-rows <n>', `${mark}the student learns from n of the training rows; a teacher reads all`)
    .option('--teacher-loss <terms>', `${mark}what a teacher train:<network> learns by (default ce)`)
    .option('--teacher-epochs <n>', `${mark}its passes over the data (default those of the student)`)
    .option('--teacher-batch-size <n>', `${mark}rows of its batches (default those of the student)`)
    .option('--teacher-learning-rate <x>', `${mark}its learning rate (default that of the student)`)
    .option('--logits-output <name>', `${mark}output of an .onnx student or teacher that holds the logits`)
    .option('--features-output <name>', `${mark}its output that the head reads, for losses on features`);
}

/** Declares the options of `ClassifierOptions`. */
export function addClassifierOptions(command: Command): Command {
  return addClassTaskOptions(command, 'classes: ')
    .option('--eval-labels <file>', 'classes: labels of --eval-data')
    .option('--eval-share <share>', 'classes: share of --data that is held out where there is no --eval-data')
    .option('--eval-teacher <file>', "classes: a teacher's logits of --eval-data, where --teacher is a file of logits");
}

function parseImage(text: string): number[] {
  const parts = text.split(/[x,]/);
  if (parts.length !== 2 && parts.length !== 3) {
    throw new InputError(`--image ${text}: write height x width or channels x height x width, such as 28x28`);
  }
  return parts.map((part) => parseInteger('--image', part.trim(), 1));
}

/**
 * @param models what `--student` and `--teacher` say
 * @throws InputError for options of networks in words without one, and of ONNX files without one
 */
export function refuseModelOptions(
  own: Pick<ClassTaskOptions, 'standardize' | 'logitsOutput' | 'featuresOutput'>,
  models: readonly (string | undefined)[],
): void {
  const texts = models.map((text) => text?.replace(/^train:/, '') ?? '');
  if (own.standardize !== undefined && !texts.some(isNetworkText)) {
    throw new InputError('--standardize is for networks in words, such as mlp:24; an .onnx file has its own scale');
  }
  const ofFiles = (['logitsOutput', 'featuresOutput'] as const).find((name) => own[name] !== undefined);
  if (ofFiles && !texts.some((text) => text.toLowerCase().endsWith('.onnx'))) {
    throw new InputError(`${flagOf(ofFiles)} is for .onnx files`);
  }
}

/** Where one file of rows and its labels are. */
export function classSource(
  path: string,
  own: ClassRowOptions,
  labels: string | undefined,
  limit: number | undefined,
): ClassDataSource {
  return {
    path,
    ...(own.tensor !== undefined && { tensor: own.tensor }),
    ...(own.columns !== undefined && { columns: parseList(own.columns) }),
    ...(labels !== undefined && { labels }),
    ...(own.labelColumn !== undefined && { labelColumn: own.labelColumn }),
    ...(own.image !== undefined && { image: parseImage(own.image) }),
    ...(own.channels !== undefined && {
      channels: parseChoice('--channels', own.channels, ['first', 'last'] as const),
    }),
    ...(limit !== undefined && { limit }),
  };
}

/** A share of rows that are held out. */
export function parseShare(flag: string, text: string): number {
  const share = parseNumber(flag, text);
  if (share > 0 && share < 1) return share;
  throw new InputError(`${flag} ${text}: give a share above 0 and below 1`);
}

const STANDARDIZATIONS = ['none', 'columns', 'all'] as const;

/** A classifier by what `--student` or `--teacher` says of it. */
export function parseClassModel(
  flag: string,
  text: string,
  own: Pick<ClassTaskOptions, 'standardize' | 'logitsOutput' | 'featuresOutput'>,
): ClassModel {
  if (isNetworkText(text)) {
    const standardize = parseChoice('--standardize', own.standardize ?? 'none', STANDARDIZATIONS);
    parseNetwork(text);
    return { kind: 'network', text, standardize };
  }
  if (text.toLowerCase().endsWith('.onnx')) {
    return {
      kind: 'onnx',
      path: text,
      ...(own.logitsOutput !== undefined && { logitsOutput: own.logitsOutput }),
      ...(own.featuresOutput !== undefined && { featuresOutput: own.featuresOutput }),
    };
  }
  throw new InputError(`${flag} ${text}: no network and no .onnx file; write ${NETWORK_GRAMMAR}, or name a file`);
}

/** What a teacher is, beside its own training: `train:<network>`, an .onnx file, or a file of logits. */
export function parseClassTeacher(
  text: string,
  own: ClassTaskOptions,
  student: StepSettings,
  evalPath: string | undefined,
): ClassTeacher {
  const trained = text.startsWith('train:');
  const stray = (['teacherLoss', 'teacherEpochs', 'teacherBatchSize', 'teacherLearningRate'] as const).find(
    (name) => own[name] !== undefined,
  );
  if (!trained && stray) throw new InputError(`${flagOf(stray)} is for a teacher train:<network>`);
  if (/\.(npy|npz|safetensors)$/i.test(text)) {
    return { kind: 'logits', path: text, ...(evalPath !== undefined && { evalPath }) };
  }
  if (evalPath !== undefined) throw new InputError(`logits of other rows are for a --teacher that is a file of logits`);
  if (!trained) return { kind: 'model', model: parseClassModel('--teacher', text, own) };
  const { steps, epochs = 1, ...shared } = student;
  const plan = own.teacherEpochs === undefined && steps !== undefined ? { steps } : { epochs };
  return {
    kind: 'trained',
    model: parseClassModel('--teacher', text.slice('train:'.length), own),
    training: {
      ...shared,
      ...plan,
      ...(own.teacherEpochs !== undefined && { epochs: parseNumber('--teacher-epochs', own.teacherEpochs, 0) }),
      loss: own.teacherLoss ?? 'ce',
      ...(own.teacherBatchSize !== undefined && {
        batchSize: parseInteger('--teacher-batch-size', own.teacherBatchSize, 1),
      }),
      ...(own.teacherLearningRate !== undefined && {
        learningRate: parseNumber('--teacher-learning-rate', own.teacherLearningRate, 0),
      }),
    },
  };
}

/** Files that a teacher or student is read from. */
export function modelFiles(model: ClassModel): string[] {
  return model.kind === 'onnx' ? [model.path] : [];
}

export function teacherFiles(teacher: ClassTeacher): string[] {
  if (teacher.kind !== 'logits') return modelFiles(teacher.model);
  return teacher.evalPath === undefined ? [teacher.path] : [teacher.path, teacher.evalPath];
}

/** What a report says of the task and its models. */
export function classTaskParameters(own: ClassTaskOptions): Record<string, string | number | null> {
  return {
    labels: own.labels ?? null,
    label_column: own.labelColumn ?? null,
    tensor: own.tensor ?? null,
    columns: own.columns ?? null,
    image: own.image ?? null,
    channels: own.channels ?? null,
    student_rows: own.studentRows ?? null,
    standardize: own.standardize ?? 'none',
    teacher_loss: own.teacherLoss ?? null,
    teacher_epochs: own.teacherEpochs ?? null,
    teacher_batch_size: own.teacherBatchSize ?? null,
    teacher_learning_rate: own.teacherLearningRate ?? null,
    logits_output: own.logitsOutput ?? null,
    features_output: own.featuresOutput ?? null,
  };
}
