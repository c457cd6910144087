import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { addClassifierOptions, type ClassifierOptions } from './distill-classifier-options.js';
import { addLanguageOptions, type LanguageOptions } from './distill-language-options.js';
import { addTrainOptions, TRAIN_SHARED, type TrainOptions } from './distill-options.js';
import { parseChoice } from './edge-values.js';
import { attachShared, requireOption } from './shared-options.js';

const TASKS = ['language', 'classes'] as const;
export type TrainTask = (typeof TASKS)[number];

/** Declares `surprisal distill-pld train`. */
export function configure(command: Command): void {
  const read = attachShared(command, TRAIN_SHARED);
  addTrainOptions(command);
  addLanguageOptions(command);
  addClassifierOptions(command);
  command.action(async () => {
    const options = await read();
    const own = command.opts<TrainOptions & LanguageOptions & ClassifierOptions>();
    const student = requireOption(own.student, '--student', 'what is to be trained');
    if (taskOf(own, student) === 'language') {
      const { trainLanguage } = await import('./distill-train-language.js');
      process.exitCode = await trainLanguage(options, own);
    } else {
      const { trainClassifier } = await import('./distill-train-classifier.js');
      process.exitCode = await trainClassifier(options, own);
    }
  });
}

/** A network in words or an ONNX file with features classifies; anything else is a language model. */
function taskOf(own: TrainOptions, student: string): TrainTask {
  if (own.task !== undefined) return parseChoice('--task', own.task, TASKS);
  if (/^(mlp|cnn|linear):/.test(student) || student === 'linear') return 'classes';
  return student.toLowerCase().endsWith('.onnx') ? 'classes' : 'language';
}
