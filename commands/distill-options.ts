import { basename, dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import type { ClassTraining } from '../src/distillation/classifier-training.js';
import { InputError } from '../src/errors.js';
import { OPTIMIZERS, type OptimizerName, type OptimizerSettings } from '../src/training/optimizer.js';
import { SCHEDULES, type ScheduleName } from '../src/training/schedules.js';
import { parseChoice, parseInteger, parseNumber } from './edge-values.js';
import type { SharedOptions } from './shared-options.js';

/** Shared options of everything that trains. */
export const TRAIN_SHARED = [
  'data',
  'dataFormat',
  'textSplit',
  'textField',
  'limit',
  'context',
  'out',
  'report',
  'plot',
  'seed',
  'threads',
  'maxMemory',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
  'resume',
] as const;

export type TrainShared = Pick<SharedOptions, (typeof TRAIN_SHARED)[number] | 'config' | 'debug'>;

/** Names what a run wrote: the last file of its directory. */
export const MANIFEST_SCHEMA = 'distill-manifest';

/** The folder of the checkpoints of a run, beside its output. */
export const checkpointFolder = (out: string): string => join(dirname(resolve(out)), `.${basename(out)}.training`);

/** How the optimiser goes over the data, as commander gives it. */
export interface StepOptions {
  readonly loss?: string;
  readonly epochs?: string;
  readonly steps?: string;
  readonly batchSize?: string;
  readonly accumulate?: string;
  readonly optimizer?: string;
  readonly learningRate?: string;
  readonly weightDecay?: string;
  readonly betas?: string;
  readonly epsilon?: string;
  readonly momentum?: string;
  readonly nesterov?: boolean;
  readonly exemptVectors?: boolean;
  readonly schedule?: string;
  readonly warmup?: string;
  readonly finalRate?: string;
  readonly clip?: string;
  readonly precision?: string;
}

/** Optimisers that look for a minimum; sgld samples, as `distill-pld ensemble --langevin` does. */
const TRAINERS = OPTIMIZERS.filter((name) => name !== 'sgld');

/** What a training run is, whatever is trained. */
export type StepSettings = ClassTraining;

/** Defaults that differ between tasks. */
export interface StepDefaults {
  readonly loss: string;
  readonly epochs: number;
  readonly batchSize: number;
  readonly learningRate: number;
  readonly schedule: ScheduleName;
  readonly clipNorm: number;
  readonly warmupSteps?: number;
  /** Settings of this optimiser that differ from its own defaults. */
  readonly optimizer?: OptimizerSettings;
}

/** Declares the options of `parseSteps`. */
export function addStepOptions(command: Command): Command {
  return command
    .option('--epochs <n>', 'passes over the data')
    .option('--steps <n>', 'steps of the optimiser, in place of --epochs')
    .option('--batch-size <n>', 'rows or windows of a micro-batch')
    .option('--accumulate <n>', 'micro-batches of a step (default 1)')
    .option('--optimizer <name>', `${TRAINERS.join(', ')} (default adamw)`)
    .option('--learning-rate <x>', 'greatest learning rate')
    .option('--weight-decay <x>', 'adamw: default 0.01; others 0')
    .option('--betas <b1,b2>', 'adamw, adam: default 0.9,0.999; lion: 0.9,0.99')
    .option('--epsilon <x>', 'adamw, adam: default 1e-8')
    .option('--momentum <x>', 'sgd: default 0')
    .option('--nesterov', 'sgd: look ahead')
    .option('--exempt-vectors', 'no weight decay for biases and norms')
    .option('--schedule <name>', `${SCHEDULES.join(', ')}: the learning rate over the steps`)
    .option('--warmup <steps>', 'steps of linear warm-up (default 0)')
    .option('--final-rate <share>', 'share of the learning rate at which cosine and linear end (default 0)')
    .option('--clip <norm>', 'greatest norm of the gradient, inf for none')
    .option('--precision <type>', 'arithmetic of training (f32, f64) (default f32)');
}

const optionalNumber = (flag: string, text: string | undefined, least: number): number | undefined =>
  text === undefined ? undefined : parseNumber(flag, text, least);

function parseBetas(text: string): { beta1: number; beta2: number } {
  const parts = text.split(',');
  if (parts.length !== 2) throw new InputError(`--betas ${text}: write two numbers, such as 0.9,0.95`);
  const [beta1, beta2] = parts.map((part) => parseNumber('--betas', part.trim(), 0, 1));
  return { beta1, beta2 };
}

function parseClip(text: string | undefined, fallback: number): number {
  if (text === undefined) return fallback;
  return text === 'inf' ? Number.POSITIVE_INFINITY : parseNumber('--clip', text, 0);
}

/** @throws InputError for options that are no numbers, or that the optimiser does not read */
export function parseSteps(own: StepOptions, defaults: StepDefaults): StepSettings {
  if (own.epochs !== undefined && own.steps !== undefined) {
    throw new InputError('--epochs and --steps both say how long to train: pass one of them');
  }
  const method: OptimizerName = parseChoice('--optimizer', own.optimizer ?? 'adamw', TRAINERS);
  const weightDecay = optionalNumber('--weight-decay', own.weightDecay, 0);
  const epsilon = optionalNumber('--epsilon', own.epsilon, 0);
  const momentum = optionalNumber('--momentum', own.momentum, 0);
  const optimizer: OptimizerSettings = {
    ...(defaults.optimizer?.method === method && defaults.optimizer),
    method,
    ...(own.betas !== undefined && parseBetas(own.betas)),
    ...(weightDecay !== undefined && { weightDecay }),
    ...(epsilon !== undefined && { epsilon }),
    ...(momentum !== undefined && { momentum }),
    ...(own.nesterov === true && { nesterov: true }),
    ...(own.exemptVectors === true && { exemptVectors: true }),
  };
  const schedule = parseChoice('--schedule', own.schedule ?? defaults.schedule, SCHEDULES);
  if (schedule === 'constant' && own.finalRate !== undefined) {
    throw new InputError('--final-rate has no meaning with --schedule constant');
  }
  return {
    loss: own.loss ?? defaults.loss,
    ...(own.steps === undefined
      ? { epochs: parseNumber('--epochs', own.epochs ?? String(defaults.epochs), 0) }
      : { steps: parseInteger('--steps', own.steps, 1) }),
    batchSize: parseInteger('--batch-size', own.batchSize ?? String(defaults.batchSize), 1),
    accumulate: parseInteger('--accumulate', own.accumulate ?? '1', 1),
    optimizer,
    learningRate: parseNumber('--learning-rate', own.learningRate ?? String(defaults.learningRate), 0),
    schedule,
    warmupSteps: parseInteger('--warmup', own.warmup ?? String(defaults.warmupSteps ?? 0)),
    finalShare: parseNumber('--final-rate', own.finalRate ?? '0', 0, 1),
    clipNorm: parseClip(own.clip, defaults.clipNorm),
    precision: parseChoice('--precision', own.precision ?? 'f32', ['f32', 'f64'] as const),
  };
}

/** Steps of a run over `perEpoch` micro-batches an epoch; at least one. */
export function totalSteps({ epochs, steps, accumulate }: StepSettings, perEpoch: number): number {
  return steps ?? Math.max(1, Math.ceil(((epochs ?? 1) * perEpoch) / accumulate));
}

/** What the report says of them. */
export function stepParameters(settings: StepSettings): Record<string, number | string | boolean | null> {
  const { optimizer } = settings;
  return {
    loss: settings.loss,
    epochs: settings.epochs ?? null,
    steps: settings.steps ?? null,
    batch_size: settings.batchSize,
    accumulate: settings.accumulate,
    optimizer: optimizer.method,
    learning_rate: settings.learningRate,
    weight_decay: optimizer.weightDecay ?? null,
    beta1: optimizer.beta1 ?? null,
    beta2: optimizer.beta2 ?? null,
    epsilon: optimizer.epsilon ?? null,
    momentum: optimizer.momentum ?? null,
    nesterov: optimizer.nesterov ?? false,
    exempt_vectors: optimizer.exemptVectors ?? false,
    schedule: settings.schedule,
    warmup_steps: settings.warmupSteps,
    final_rate_share: settings.finalShare,
    clip_norm: Number.isFinite(settings.clipNorm) ? settings.clipNorm : 'inf',
    precision: settings.precision,
  };
}

/** Options of `distill-pld train` that both tasks read, beside those of steps. */
export interface TrainOptions extends StepOptions {
  readonly teacher?: string;
  readonly student?: string;
  readonly task?: string;
  readonly train?: readonly string[];
  readonly freeze?: readonly string[];
  readonly evalData?: readonly string[];
  readonly evalEvery?: string;
  readonly checkpointEvery?: string;
  readonly metrics?: string;
  readonly keep?: string;
  readonly saveGradientGraph?: string;
  readonly gradCheck?: boolean;
}

/** Declares the options of `TrainOptions`. */
export function addTrainOptions(command: Command): Command {
  addStepOptions(command)
    .option('--loss <terms>', "losses by name and weight, such as pld(tau=2) or '0.1*ce + 0.9*kd(T=4)' (default pld)")
    .option('--student <what>', 'what is trained; see docs/distill-pld.md')
    .option('--teacher <what>', 'model, capture or logits that are learnt from')
    .option('--task <task>', 'language or classes (default: what the student is)');
  return addCourseOptions(command).option(
    '--save-gradient-graph <file.onnx>',
    'write the graph of loss and gradients as an ordinary ONNX file',
  );
}

/** Declares what is trained of a model, and how a run is watched. */
export function addCourseOptions(command: Command): Command {
  return command
    .option('--train <pattern...>', 'parameters that are trained, by name with * and ? (default all)')
    .option('--freeze <pattern...>', 'parameters that stay as they are')
    .option('--eval-data <file...>', 'held-out data that the student is judged by')
    .option('--eval-every <steps>', 'steps between evaluations (default: at the end of every epoch)')
    .option('--keep <which>', 'weights that are written: best (on --eval-data) or last (default best)')
    .option('--checkpoint-every <steps>', 'steps between checkpoints (default: at every evaluation)')
    .option('--metrics <file.csv>', 'a row a step, written while the run lasts')
    .option('--grad-check', 'compare gradients with finite differences before training');
}

/** When a run looks up from its steps. */
export interface RunCadence {
  readonly evalEvery: number | undefined;
  readonly checkpointEvery: number | undefined;
  readonly keep: 'best' | 'last';
}

/** @throws InputError when the best is to be kept and nothing says what is best */
export function parseCadence(own: TrainOptions): RunCadence {
  const hasEval = (own.evalData ?? []).length > 0;
  const keep = parseChoice('--keep', own.keep ?? (hasEval ? 'best' : 'last'), ['best', 'last'] as const);
  if (keep === 'best' && !hasEval) throw new InputError('--keep best needs --eval-data to judge by');
  if (own.evalEvery !== undefined && !hasEval) throw new InputError('--eval-every needs --eval-data');
  return {
    evalEvery: own.evalEvery === undefined ? undefined : parseInteger('--eval-every', own.evalEvery, 1),
    checkpointEvery:
      own.checkpointEvery === undefined ? undefined : parseInteger('--checkpoint-every', own.checkpointEvery, 1),
    keep,
  };
}
