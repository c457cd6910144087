import type { Command } from 'commander';
import type { LangevinArguments, LangevinPlan } from '../src/distillation/langevin-ensemble.js';
import { InputError } from '../src/errors.js';
import { expandSources } from '../src/formats/inputs.js';
import {
  addClassRowOptions,
  type ClassRowOptions,
  type ClassTaskOptions,
  classSource,
  modelFiles,
  parseClassModel,
  parseShare,
  refuseModelOptions,
} from './distill-classifier-options.js';
import { parseInteger, parseNumber } from './edge-values.js';
import { PRECISION_OPTION, parsePrecision } from './model-session.js';
import { requireOption, type SharedOptions } from './shared-options.js';

/** Options of an ensemble that is sampled, as commander gives them. */
export interface LangevinOptions extends ClassRowOptions, Pick<ClassTaskOptions, 'logitsOutput'> {
  readonly langevin?: string;
  readonly student?: string;
  readonly stepSize?: string;
  readonly temperature?: string;
  readonly priorPrecision?: string;
  readonly burnIn?: string;
  readonly thinning?: string;
  readonly batchSize?: string;
  readonly precision?: string;
  readonly evalData?: string[];
  readonly evalLabels?: string;
  readonly evalShare?: string;
  /** As it was given: shared options hold its value. */
  readonly seed?: string;
}

/** Options that nothing but `--langevin` reads. */
export const LANGEVIN_ONLY = [
  ...(['student', 'stepSize', 'temperature', 'priorPrecision', 'burnIn', 'thinning', 'batchSize'] as const),
  ...(['precision', 'evalData', 'evalLabels', 'evalShare', 'columns', 'image', 'channels'] as const),
  ...(['standardize', 'logitsOutput', 'seed'] as const),
] as const;

const DEFAULTS = {
  stepSize: '1e-4',
  temperature: '1',
  priorPrecision: '1',
  burnIn: '1000',
  thinning: '100',
  batchSize: '64',
  evalShare: '0.2',
} as const;

/** Declares the options of `LangevinOptions`. */
export function addLangevinOptions(command: Command): void {
  const mark = 'langevin: ';
  command
    .option('--langevin <n>', 'in place of files: n networks sampled from their posterior given the rows of --data')
    .option('--student <network>', `${mark}the network, such as mlp:24, or an .onnx classifier`)
    .option('--step-size <x>', `${mark}eta of a step (default ${DEFAULTS.stepSize})`)
    .option('--temperature <x>', `${mark}the posterior to the power 1 / x (default ${DEFAULTS.temperature})`)
    .option('--prior-precision <x>', `${mark}of the normal prior of every weight (default ${DEFAULTS.priorPrecision})`)
    .option('--burn-in <n>', `${mark}steps before the first network is kept (default ${DEFAULTS.burnIn})`)
    .option('--thinning <n>', `${mark}steps from one to the next (default ${DEFAULTS.thinning})`)
    .option('--batch-size <n>', `${mark}rows of a step (default ${DEFAULTS.batchSize})`)
    .option(PRECISION_OPTION[0], `${mark}arithmetic of the steps: f32 or f64 (default f32)`)
    .option('--eval-data <file...>', `${mark}rows that the networks are judged on`)
    .option('--eval-labels <file>', `${mark}labels of --eval-data`)
    .option('--eval-share <share>', `${mark}share of --data that is held out instead (default ${DEFAULTS.evalShare})`)
    .option('--logits-output <name>', `${mark}output of an .onnx classifier that holds the logits`);
  addClassRowOptions(command);
}

function planOf(own: LangevinOptions): LangevinPlan {
  const text = (name: Exclude<keyof typeof DEFAULTS, 'evalShare'>): string => own[name] ?? DEFAULTS[name];
  const stepSize = parseNumber('--step-size', text('stepSize'), 0);
  if (stepSize === 0) throw new InputError('--step-size 0: a number above 0 is needed');
  return {
    snapshots: parseInteger('--langevin', own.langevin ?? '', 1),
    stepSize,
    temperature: parseNumber('--temperature', text('temperature'), 0),
    priorPrecision: parseNumber('--prior-precision', text('priorPrecision'), 0),
    burnIn: parseInteger('--burn-in', text('burnIn'), 0),
    thinning: parseInteger('--thinning', text('thinning'), 1),
    batchSize: parseInteger('--batch-size', text('batchSize'), 1),
    precision: parsePrecision(own.precision),
  };
}

/**
 * What `--langevin` and its options ask for.
 * @throws InputError for a missing student or data, values out of range, two kinds of held-out rows
 */
export async function langevinArguments(
  own: LangevinOptions,
  shared: Pick<SharedOptions, 'data' | 'limit' | 'seed' | 'threads'>,
): Promise<LangevinArguments> {
  const plan = planOf(own);
  const student = requireOption(own.student, '--student', 'the network that is sampled, such as mlp:24');
  const data = await expandSources(requireOption(shared.data, '--data', 'rows of features with labels'));
  refuseModelOptions(own, [student]);
  const held = own.evalData ? await expandSources([...own.evalData]) : undefined;
  if (held && own.evalShare !== undefined)
    throw new InputError('--eval-share: the held-out rows are those of --eval-data');
  if (!held && own.evalLabels !== undefined) throw new InputError('--eval-labels needs --eval-data');
  return {
    data: data.map((path) => classSource(path, own, own.labels, shared.limit)),
    heldOut:
      held?.map((path) => classSource(path, own, own.evalLabels, undefined)) ??
      parseShare('--eval-share', own.evalShare ?? DEFAULTS.evalShare),
    student: parseClassModel('--student', student, own),
    plan,
    seed: shared.seed,
    threads: shared.threads,
  };
}

/** Files that a sampled ensemble is read from. */
export function langevinFiles({ data, heldOut, student }: LangevinArguments): string[] {
  const sources = typeof heldOut === 'number' ? data : [...data, ...heldOut];
  const files = sources.flatMap(({ path, labels }) => (labels === undefined ? [path] : [path, labels]));
  return [...new Set([...files, ...modelFiles(student)])];
}
