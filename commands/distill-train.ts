import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { isNetworkText } from '../src/training/network-text.js';
import { addClassifierOptions, type ClassifierOptions } from './distill-classifier-options.js';
import { addLanguageOptions, type LanguageOptions } from './distill-language-options.js';
import { addTrainOptions, TRAIN_SHARED, type TrainOptions } from './distill-options.js';
import { flagOf, parseChoice } from './edge-values.js';
import { attachShared, requireOption } from './shared-options.js';

const TASKS = ['language', 'classes'] as const;
type Task = (typeof TASKS)[number];

/** Shared options that only language models read: classifiers hold their rows. */
const TEXT_ONLY = ['dataFormat', 'textSplit', 'textField', 'context', 'maxMemory'];

/** Declares `surprisal distill-pld train`. */
export function configure(command: Command): void {
  const read = attachShared(command, TRAIN_SHARED);
  addTrainOptions(command);
  const owned: Record<Task, Set<string>> = {
    language: namesOf(command, () => addLanguageOptions(command)),
    classes: namesOf(command, () => addClassifierOptions(command)),
  };
  for (const name of TEXT_ONLY) owned.language.add(name);
  command.action(async () => {
    const options = await read();
    const own = command.opts<TrainOptions & LanguageOptions & ClassifierOptions>();
    const task = taskOf(own, requireOption(own.student, '--student', 'what is to be trained'));
    refuseOthers(command, task, owned[task === 'language' ? 'classes' : 'language']);
    if (task === 'language') {
      const { trainLanguage } = await import('./distill-train-language.js');
      process.exitCode = await trainLanguage(options, own);
    } else {
      const { trainClassifier } = await import('./distill-train-classifier.js');
      process.exitCode = await trainClassifier(options, own);
    }
  });
}

/** Names of the options that `declare` adds. */
function namesOf(command: Command, declare: () => void): Set<string> {
  const before = command.options.length;
  declare();
  return new Set(command.options.slice(before).map((option) => option.attributeName()));
}

/** A network in words or an ONNX file with features classifies; anything else is a language model. */
function taskOf(own: TrainOptions, student: string): Task {
  if (own.task !== undefined) return parseChoice('--task', own.task, TASKS);
  return isNetworkText(student) || student.toLowerCase().endsWith('.onnx') ? 'classes' : 'language';
}

/** @throws InputError for an option that was given and that this task does not read */
function refuseOthers(command: Command, task: Task, foreign: ReadonlySet<string>): void {
  for (const name of foreign) {
    if (command.getOptionValueSource(name) !== 'default' && command.getOptionValue(name) !== undefined) {
      throw new InputError(`${flagOf(name)} has no meaning for the task ${task}; --task says which it is`);
    }
  }
}
