import type { Command } from 'commander';
import type { HeadValues, RegulariserSettings } from '../src/entropy/attention-settings.js';
import { checkHeadFile, readHeadValues } from '../src/entropy/head-values.js';
import { InputError } from '../src/errors.js';
import type { ReportValue } from '../src/report/values.js';
import { LEAST_TEMPERATURE, type RegulariserReduction } from '../src/training/attention-entropy.js';
import { parseChoice, parseInteger, parseNumber } from './edge-values.js';
import type { WindowOwnOptions, WindowViewOptions } from './window-view.js';

/** Options of `analyze-entropy attention` beside those of every view over windows, as commander gives them. */
export interface AttentionOwnOptions extends WindowOwnOptions {
  targetSe?: string;
  thresholds?: string;
  variant?: string;
  gamma?: string;
  lambda?: string;
  contextSize?: string;
  temperatures?: string;
  temperaturePer?: string;
  fitTemperatures?: true;
  passes?: string;
  temperaturesOut?: string;
  gradients?: string;
  attention?: string;
  tensor?: string;
  fromScores?: true;
  bidirectional?: true;
  rowTolerance?: string;
  compat?: true;
}

export function configureAttention(command: Command): void {
  command
    .option('--target-se <nats>', 'stop reading once every head is known to this standard error, such as 0.01')
    .option(
      '--thresholds <share>',
      'entropy regulariser: wanted share of log(context size) for every head, a file of [heads] or [layers,heads], ' +
        'or learn with --fit-temperatures',
    )
    .option('--variant <reduction>', 'of the regulariser: code (sum over queries, default) or algorithm1 (head means)')
    .option('--gamma <share>', 'tolerance of the regulariser as a share of log(context size) (default 0.2)')
    .option('--lambda <factor>', 'factor on loss and gradients (default 1e-5)')
    .option('--context-size <tokens>', 'T of the largest entropy log T (default --context)')
    .option('--temperatures <t>', 'divide all scores by t, or by a file of [layers,heads] or [layers,heads,positions]')
    .option(
      '--temperature-per <unit>',
      'temperatures of a fit or a gradient: one per position of the query (default), or per head',
    )
    .option('--fit-temperatures', 'find temperatures at which heads meet their thresholds, over the scores as they are')
    .option('--passes <count>', 'passes of a fit over the queries of a layer, at most (default 100)')
    .option('--temperatures-out <file>', 'temperatures of the fit, .safetensors or .npy')
    .option('--gradients <file>', 'gradients of the loss by thresholds and temperatures, .safetensors')
    .option('--attention <file>', 'stored attention [layer,batch,head,query,key] in place of a model and a text')
    .option('--tensor <name>', 'of --attention, where a file holds several')
    .option('--from-scores', 'the stored values are scores before the softmax')
    .option('--bidirectional', 'stored queries see all keys')
    .option('--row-tolerance <sum>', 'how far sums of stored rows may be from 1 (default 1e-3; half precision 3e-3)')
    .option('--compat', 'log(a + 1e-9) for stored attention, as the released module');
}

export const VARIANTS: readonly RegulariserReduction[] = ['code', 'algorithm1'];

/** Numbers behind the options; the files are read later, when the shape of the model is known. */
export interface AttentionNumbers {
  readonly targetSe?: number;
  readonly variant: RegulariserReduction;
  readonly gamma: number;
  readonly lambda: number;
  readonly contextSize?: number;
  readonly perPosition: boolean;
  readonly passes: number;
}

/**
 * Checks the options against each other and gives their numbers.
 * @throws InputError naming the option
 */
export function attentionNumbers(own: AttentionOwnOptions, options: WindowViewOptions): AttentionNumbers {
  const numbers: AttentionNumbers = {
    ...(own.targetSe !== undefined && { targetSe: positive('--target-se', own.targetSe, 'such as 0.01') }),
    variant: parseChoice('--variant', own.variant ?? 'code', VARIANTS),
    gamma: parseNumber('--gamma', own.gamma ?? '0.2', 0, 1),
    lambda: positive('--lambda', own.lambda ?? '1e-5', 'such as 1e-5'),
    ...(own.contextSize !== undefined && { contextSize: parseInteger('--context-size', own.contextSize, 2) }),
    perPosition:
      parseChoice('--temperature-per', own.temperaturePer ?? 'position', ['position', 'head']) === 'position',
    passes: parseInteger('--passes', own.passes ?? '100', 1),
  };
  const exclusive = (flag: string, why: string): never => {
    throw new InputError(`${flag} and --shard exclude each other: ${why}`);
  };
  if (options.shard) {
    if (own.targetSe !== undefined) exclusive('--target-se', 'where a run stops depends on all documents');
    if (own.fitTemperatures) exclusive('--fit-temperatures', 'temperatures follow from all documents');
    if (own.gradients) exclusive('--gradients', 'the gradient is a sum over all documents');
  }
  if (own.fitTemperatures && own.targetSe !== undefined) {
    throw new InputError('--target-se and --fit-temperatures exclude each other: a fit reads all documents at once');
  }
  const needs = (flag: string, given: unknown, needed: string, there: unknown): void => {
    if (given && !there) throw new InputError(`${flag} needs ${needed}`);
  };
  needs('--fit-temperatures', own.fitTemperatures, '--thresholds, such as 0.4 or learn', own.thresholds);
  needs('--gradients', own.gradients, '--thresholds, such as 0.4', own.thresholds);
  needs('--temperatures-out', own.temperaturesOut, '--fit-temperatures', own.fitTemperatures);
  needs('--thresholds learn', own.thresholds === 'learn', '--fit-temperatures', own.fitTemperatures);
  for (const [flag, given] of [
    ['--variant', own.variant],
    ['--gamma', own.gamma],
    ['--lambda', own.lambda],
    ['--context-size', own.contextSize],
  ] as const) {
    needs(flag, given, '--thresholds, such as 0.4', own.thresholds);
  }
  needs('--passes', own.passes, '--fit-temperatures', own.fitTemperatures);
  needs(
    '--temperature-per',
    own.temperaturePer,
    '--fit-temperatures or --gradients',
    own.fitTemperatures ?? own.gradients,
  );
  needs('--tensor', own.tensor, '--attention', own.attention);
  needs('--from-scores', own.fromScores, '--attention', own.attention);
  needs('--bidirectional', own.bidirectional, '--attention', own.attention);
  needs('--row-tolerance', own.rowTolerance, '--attention', own.attention);
  needs('--compat', own.compat, '--attention', own.attention);
  if (own.temperaturesOut !== undefined) checkHeadFile('--temperatures-out', own.temperaturesOut, true);
  if (own.gradients !== undefined) checkHeadFile('--gradients', own.gradients, false);
  return numbers;
}

function positive(option: string, text: string, example: string): number {
  const value = parseNumber(option, text, 0);
  if (value > 0) return value;
  throw new InputError(`${option} ${text}: a number above 0 is needed, ${example}`);
}

/** The options that decide the result, for the report. */
export function attentionParameters(own: AttentionOwnOptions, numbers: AttentionNumbers): Record<string, ReportValue> {
  const regulariser = own.thresholds !== undefined;
  return {
    target_se_nats: numbers.targetSe ?? null,
    temperatures: own.temperatures ?? null,
    thresholds: own.thresholds ?? null,
    variant: regulariser ? numbers.variant : null,
    gamma: regulariser ? numbers.gamma : null,
    lambda: regulariser ? numbers.lambda : null,
    context_size: numbers.contextSize ?? null,
    fit_temperatures: own.fitTemperatures === true,
    temperature_per: own.fitTemperatures || own.gradients ? (numbers.perPosition ? 'position' : 'head') : null,
    passes: own.fitTemperatures ? numbers.passes : null,
  };
}

function isNumber(text: string): boolean {
  return text.trim() !== '' && !Number.isNaN(Number(text));
}

/** Files that the options name. */
export function attentionFiles(own: AttentionOwnOptions) {
  const read = [own.thresholds, own.temperatures].filter(
    (text): text is string => text !== undefined && text !== 'learn' && !isNumber(text),
  );
  const written = new Map<string, string>();
  if (own.temperaturesOut !== undefined) written.set('--temperatures-out', own.temperaturesOut);
  if (own.gradients !== undefined) written.set('--gradients', own.gradients);
  return { read, written };
}

/** Values of an option that is a number for all heads or a file. */
function headValues(
  flag: string,
  text: string,
  shape: { layers: number; heads: number; positions?: number },
  range: { least: number; greatest: number },
): HeadValues {
  if (!isNumber(text)) return readHeadValues(text, flag.slice(2), shape, range);
  const value = parseNumber(flag, text, range.least, range.greatest);
  return { values: new Float64Array(shape.layers * shape.heads).fill(value), positions: 1 };
}

/** Temperatures at which attention is measured, where the option is given. */
export function temperaturesOption(
  own: AttentionOwnOptions,
  shape: { layers: number; heads: number; positions: number },
): HeadValues | undefined {
  if (own.temperatures === undefined) return undefined;
  const range = { least: LEAST_TEMPERATURE, greatest: 1 / LEAST_TEMPERATURE };
  return headValues('--temperatures', own.temperatures, shape, range);
}

/** The regulariser, where thresholds are given; those that are learnt stand at 0 until they are. */
export function regulariserOption(
  own: AttentionOwnOptions,
  numbers: AttentionNumbers,
  shape: { layers: number; heads: number },
  context: number,
): RegulariserSettings | undefined {
  if (own.thresholds === undefined) return undefined;
  const { values } =
    own.thresholds === 'learn'
      ? { values: new Float64Array(shape.layers * shape.heads) }
      : headValues('--thresholds', own.thresholds, shape, { least: 0, greatest: 1 });
  const { variant, gamma, lambda, contextSize = context } = numbers;
  return { reduction: variant, gamma, lambda, contextSize, thresholds: values };
}
