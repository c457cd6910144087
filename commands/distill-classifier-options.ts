import type { Command } from 'commander';
import type { ClassDataSource } from '../src/distillation/class-data.js';
import { InputError } from '../src/errors.js';
import { parseChoice, parseInteger, parseNumber } from './edge-values.js';

/** Options of rows of features with class labels, as commander gives them. */
export interface ClassifierOptions {
  readonly labels?: string;
  readonly labelColumn?: string;
  readonly tensor?: string;
  readonly columns?: string;
  readonly image?: string;
  readonly channels?: string;
  readonly evalLabels?: string;
  readonly evalShare?: string;
  readonly studentRows?: string;
  readonly standardize?: string;
  readonly teacherLoss?: string;
  readonly teacherEpochs?: string;
  readonly teacherLearningRate?: string;
  readonly evalTeacher?: string;
  readonly logitsOutput?: string;
  readonly featuresOutput?: string;
}

/** Declares the options of `ClassifierOptions`. */
export function addClassifierOptions(command: Command): Command {
  return command
    .option('--labels <file>', 'classes: labels of the rows: .npy .npz .safetensors, .txt by line, or a table')
    .option('--label-column <name>', 'classes: column or array that holds the labels (default label, class, target, y)')
    .option('--tensor <name>', 'classes: array of an .npz or .safetensors file that holds the features')
    .option('--columns <names>', 'classes: columns that are features, separated by commas (default all but the labels)')
    .option('--image <extents>', 'classes: a row is an image of these extents, such as 28x28 or 3x32x32')
    .option('--channels <where>', 'classes: first or last, in arrays of images (default by their extents)')
    .option('--eval-labels <file>', 'classes: labels of --eval-data')
    .option('--eval-share <share>', 'classes: share of --data that is held out where there is no --eval-data')
    .option('--student-rows <n>', 'classes: the student learns from n of the training rows; a teacher reads all')
    .option(
      '--standardize <how>',
      'classes: none, columns or all: mean 0 and variance 1 of each feature, or of all together, inside the network (default none)',
    )
    .option('--teacher-loss <terms>', 'classes: what a teacher train:<network> learns by (default ce)')
    .option('--teacher-epochs <n>', 'classes: its passes over the data (default those of the student)')
    .option('--teacher-learning-rate <x>', 'classes: its learning rate (default that of the student)')
    .option('--eval-teacher <file>', "classes: a teacher's logits of --eval-data, where --teacher is a file of logits")
    .option('--logits-output <name>', 'classes: output of an .onnx student or teacher that holds the logits')
    .option('--features-output <name>', 'classes: its output that the head reads, for losses on features');
}

const list = (text: string): string[] =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');

function parseImage(text: string): number[] {
  const parts = text.split(/[x,]/);
  if (parts.length !== 2 && parts.length !== 3) {
    throw new InputError(`--image ${text}: write height x width or channels x height x width, such as 28x28`);
  }
  return parts.map((part) => parseInteger('--image', part.trim(), 1));
}

/** Where one file of rows and its labels are. */
export function classSource(
  path: string,
  own: ClassifierOptions,
  labels: string | undefined,
  limit: number | undefined,
): ClassDataSource {
  return {
    path,
    ...(own.tensor !== undefined && { tensor: own.tensor }),
    ...(own.columns !== undefined && { columns: list(own.columns) }),
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

export const STANDARDIZATIONS = ['none', 'columns', 'all'] as const;
