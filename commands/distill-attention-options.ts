import type { Command } from 'commander';
import type { HeadValues } from '../src/entropy/attention-settings.js';
import { InputError } from '../src/errors.js';
import { createRandom } from '../src/random.js';
import type { ReportValue } from '../src/report/values.js';
import {
  type EntropyAttentionSettings,
  LEAST_TEMPERATURE,
  type RegulariserReduction,
} from '../src/training/attention-entropy.js';
import { parseChoice, parseInteger, parseNumber } from './edge-values.js';

/** Options of training attention with temperatures and the entropy regulariser, as commander gives them. */
export interface AttentionTrainingOptions {
  readonly attentionEntropy?: string;
  readonly attentionThresholds?: string;
  readonly attentionTemperatures?: string;
  readonly attentionTemperatureStart?: string;
  readonly attentionVariant?: string;
  readonly attentionGamma?: string;
  readonly attentionLambda?: string;
  readonly attentionContextSize?: string;
}

/** Declares them. */
export function addAttentionOptions(command: Command): Command {
  return command
    .option(
      '--attention-entropy <share>',
      'entropy regulariser: wanted share of log T for every head at the start, uniform, or a file of [heads] or ' +
        '[layers,heads]',
    )
    .option('--attention-thresholds <how>', 'these shares: learn or fixed (default learn)')
    .option(
      '--attention-temperatures <per>',
      'train temperatures per head or position; none (default head with --attention-entropy)',
    )
    .option('--attention-temperature-start <t>', 'where they begin: a number, or a file of them (default 1)')
    .option('--attention-variant <reduction>', 'of the regulariser: code (sum over queries) or algorithm1 (head means)')
    .option('--attention-gamma <share>', 'its tolerance as a share of log T (default 0.2)')
    .option('--attention-lambda <factor>', 'its factor (default 1e-5)')
    .option('--attention-context-size <tokens>', 'T (default --context)');
}

/** Stream of the random thresholds of `uniform`. */
const THRESHOLDS = 0x74686574;

const REDUCTIONS: readonly RegulariserReduction[] = ['code', 'algorithm1'];
const REGULARISER_OPTIONS = [
  ['--attention-thresholds', 'attentionThresholds'],
  ['--attention-variant', 'attentionVariant'],
  ['--attention-gamma', 'attentionGamma'],
  ['--attention-lambda', 'attentionLambda'],
  ['--attention-context-size', 'attentionContextSize'],
] as const;

/** The student that attention is trained in. */
export interface AttentionSubject {
  readonly name: string;
  readonly layers: number | null;
  /** Of every layer; null where layers differ or the files do not say. */
  readonly heads: number | null;
  readonly context: number;
}

interface HeadNumbers {
  readonly layers: number;
  readonly heads: number;
  readonly positions?: number;
}

const isNumber = (text: string): boolean => text.trim() !== '' && !Number.isNaN(Number(text));

/** A number for all heads, or what a file holds. */
async function headValues(
  flag: string,
  text: string,
  name: string,
  shape: HeadNumbers,
  range: { readonly least: number; readonly greatest: number },
): Promise<HeadValues> {
  if (isNumber(text)) {
    const value = parseNumber(flag, text, range.least, range.greatest);
    return { values: new Float64Array(shape.layers * shape.heads).fill(value), positions: 1 };
  }
  const { readHeadValues } = await import('../src/entropy/head-values.js');
  return readHeadValues(text, name, shape, range);
}

/** The same value at every position. */
function spread({ values, positions }: HeadValues, wanted: number): Float64Array {
  if (positions > 1) return values;
  const spreadOut = new Float64Array(values.length * wanted);
  values.forEach((value, head) => {
    spreadOut.fill(value, head * wanted, (head + 1) * wanted);
  });
  return spreadOut;
}

/**
 * What is trained in the attention of a student; undefined without these options.
 * @throws InputError for options without what they belong to, files of other shapes, and students without heads
 */
export async function parseAttentionTraining(
  own: AttentionTrainingOptions,
  subject: AttentionSubject,
  seed: number,
): Promise<EntropyAttentionSettings | undefined> {
  const { attentionEntropy, attentionTemperatures, attentionTemperatureStart } = own;
  const per = parseChoice(
    '--attention-temperatures',
    attentionTemperatures ?? (attentionEntropy === undefined ? 'none' : 'head'),
    ['head', 'position', 'none'] as const,
  );
  if (attentionEntropy === undefined) {
    const stray = REGULARISER_OPTIONS.find(([, key]) => own[key] !== undefined);
    if (stray) throw new InputError(`${stray[0]} needs --attention-entropy, such as 0.3`);
  }
  if (per === 'none' && attentionTemperatureStart !== undefined) {
    throw new InputError('--attention-temperature-start needs --attention-temperatures head or position');
  }
  if (attentionEntropy === undefined && per === 'none') return undefined;
  const { layers, heads, context } = subject;
  if (layers === null || heads === null) {
    throw new InputError(
      `${subject.name}: attention is trained in model directories whose layers have one number of heads`,
    );
  }
  const shape = { layers, heads };
  const settings: { -readonly [Key in keyof EntropyAttentionSettings]: EntropyAttentionSettings[Key] } = {};
  if (per !== 'none') {
    const positions = per === 'head' ? 1 : context;
    const range = { least: LEAST_TEMPERATURE, greatest: 1 / LEAST_TEMPERATURE };
    const given = { ...shape, ...(per === 'position' && { positions: context }) };
    const start = await headValues(
      '--attention-temperature-start',
      attentionTemperatureStart ?? '1',
      'temperatures',
      given,
      range,
    );
    settings.temperatures = {
      start: spread(start, positions),
      positions: start.positions > 1 ? start.positions : positions,
    };
  }
  if (attentionEntropy !== undefined) {
    settings.regulariser = {
      reduction: parseChoice('--attention-variant', own.attentionVariant ?? 'code', REDUCTIONS),
      gamma: parseNumber('--attention-gamma', own.attentionGamma ?? '0.2', 0, 1),
      lambda: parseNumber('--attention-lambda', own.attentionLambda ?? '1e-5', 0),
      contextSize: parseInteger('--attention-context-size', own.attentionContextSize ?? String(context), 2),
      thresholds: await startingThresholds(attentionEntropy, shape, seed),
      learn: parseChoice('--attention-thresholds', own.attentionThresholds ?? 'learn', ['learn', 'fixed']) === 'learn',
    };
  }
  return settings;
}

async function startingThresholds(text: string, shape: HeadNumbers, seed: number): Promise<Float64Array> {
  if (text === 'uniform') {
    const random = createRandom(seed).fork(THRESHOLDS);
    return Float64Array.from({ length: shape.layers * shape.heads }, () => random.uniform());
  }
  const range = { least: 0, greatest: 1 };
  return (await headValues('--attention-entropy', text, 'thresholds', shape, range)).values;
}

/** The options that decide the result, for the report; nothing where attention is not trained. */
export function attentionTrainingParameters(own: AttentionTrainingOptions): Record<string, ReportValue> {
  if (own.attentionEntropy === undefined && own.attentionTemperatures === undefined) return {};
  return {
    attention_entropy: own.attentionEntropy ?? null,
    attention_thresholds: own.attentionThresholds ?? null,
    attention_temperatures: own.attentionTemperatures ?? null,
    attention_temperature_start: own.attentionTemperatureStart ?? null,
    attention_variant: own.attentionVariant ?? null,
    attention_gamma: own.attentionGamma ?? null,
    attention_lambda: own.attentionLambda ?? null,
    attention_context_size: own.attentionContextSize ?? null,
  };
}

/** Files that the options name. */
export function attentionTrainingFiles({
  attentionEntropy,
  attentionTemperatureStart,
}: AttentionTrainingOptions): string[] {
  return [attentionEntropy, attentionTemperatureStart].filter(
    (text): text is string => text !== undefined && text !== 'uniform' && !isNumber(text),
  );
}
