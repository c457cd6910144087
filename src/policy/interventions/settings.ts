import { didYouMean, InputError } from '../../errors.js';
import { AGGREGATIONS } from '../aggregation.js';
import type { Aggregation, Intervention, InterventionParameter, InterventionSettings, Surrogate } from './types.js';

/** Parameters of the loss that every method puts its effect on: PPO clip, dual clip, aggregation. */
export const SURROGATE_PARAMETERS: Readonly<Record<string, InterventionParameter>> = {
  'clip-low': { kind: 'number', initial: 0.2, least: 0, help: 'the ratio is held above 1 - this' },
  'clip-high': { kind: 'number', initial: 0.2, least: 0, help: 'the ratio is held below 1 + this' },
  'dual-clip': {
    kind: 'number',
    initial: 3,
    least: 0,
    help: 'for negative advantages the loss is at most -A times this (above 1); 0: no dual clip',
  },
};

export const AGGREGATION_PARAMETER: InterventionParameter = {
  kind: 'choice',
  initial: 'token-mean',
  choices: AGGREGATIONS,
  help: 'how the losses of tokens become one number',
};

/** `SURROGATE_PARAMETERS` and the aggregation. */
export const LOSS_PARAMETERS: Readonly<Record<string, InterventionParameter>> = {
  ...SURROGATE_PARAMETERS,
  aggregation: AGGREGATION_PARAMETER,
};

/** The value of a number that the method declares. */
export function numberSetting(settings: InterventionSettings, name: string): number {
  const value = settings[name];
  if (typeof value !== 'number') throw new TypeError(`the setting ${name} is not a number`);
  return value;
}

/** The value of a choice that the method declares. */
export function choiceSetting(settings: InterventionSettings, name: string): string {
  const value = settings[name];
  if (typeof value !== 'string') throw new TypeError(`the setting ${name} is not a word`);
  return value;
}

/**
 * The surrogate of `clip-low`, `clip-high` and `dual-clip`.
 * @throws InputError for a dual clip between 0 and 1
 */
export function surrogateOf(settings: InterventionSettings): Surrogate {
  const dualClip = numberSetting(settings, 'dual-clip');
  if (dualClip !== 0 && !(dualClip > 1)) {
    throw new InputError(`dual-clip is ${dualClip}; it must be above 1, or 0 for none`);
  }
  return {
    clip: { low: numberSetting(settings, 'clip-low'), high: numberSetting(settings, 'clip-high') },
    ...(dualClip > 0 && { dualClip }),
  };
}

export function aggregationOf(settings: InterventionSettings): Aggregation {
  const mode = choiceSetting(settings, 'aggregation');
  const found = AGGREGATIONS.find((one) => one === mode);
  if (found === undefined) throw new TypeError(`no aggregation ${mode}`);
  return found;
}

function checkedSetting(
  owner: string,
  name: string,
  parameter: InterventionParameter,
  value: number | string,
): number | string {
  if (parameter.kind === 'choice') {
    const word = String(value);
    if (parameter.choices.includes(word)) return word;
    throw new InputError(
      `${owner}: ${name} is "${word}"; it is one of ${parameter.choices.join(', ')}${didYouMean(word, parameter.choices)}`,
    );
  }
  const number = typeof value === 'number' ? value : value.trim() === '' ? Number.NaN : Number(value);
  if (!Number.isFinite(number)) throw new InputError(`${owner}: ${name} is "${value}", which is not a number`);
  const { least = Number.NEGATIVE_INFINITY, most = Number.POSITIVE_INFINITY } = parameter;
  if (number < least || number > most) {
    const range = most === Number.POSITIVE_INFINITY ? `at least ${least}` : `between ${least} and ${most}`;
    throw new InputError(`${owner}: ${name} is ${number}; it must be ${range}`);
  }
  return number;
}

/**
 * All settings of a method: what is given, checked, and the initial values of the rest.
 * @throws InputError for a name that the method does not declare, a value that it cannot have, or two that exclude each other
 */
export function completeSettings(
  { name: owner, parameters, exclusive = [] }: Pick<Intervention, 'name' | 'parameters' | 'exclusive'>,
  given: InterventionSettings = {},
): InterventionSettings {
  const settings: Record<string, number | string> = {};
  for (const [name, parameter] of Object.entries(parameters)) settings[name] = parameter.initial;
  for (const [name, value] of Object.entries(given)) {
    if (!Object.hasOwn(parameters, name)) {
      const known = Object.keys(parameters);
      throw new InputError(
        `${owner} has no setting "${name}"${didYouMean(name, known)}; it has ${known.join(', ') || 'none'}`,
      );
    }
    settings[name] = checkedSetting(owner, name, parameters[name], value);
  }
  for (const [one, other] of exclusive) {
    if (Object.hasOwn(given, one) && Object.hasOwn(given, other)) {
      throw new InputError(`${owner}: ${one} and ${other} say the same thing; give one of them`);
    }
  }
  return settings;
}

/**
 * Reads `name` or `name:key=value,key=value`.
 * @throws InputError where a part is not `key=value` or a key comes twice
 */
export function parseMethod(text: string): { readonly name: string; readonly settings: InterventionSettings } {
  const colon = text.indexOf(':');
  if (colon < 0) return { name: text.trim(), settings: {} };
  const settings: Record<string, number | string> = {};
  for (const part of text.slice(colon + 1).split(',')) {
    const equals = part.indexOf('=');
    const key = part.slice(0, equals).trim();
    if (equals < 1 || key === '') {
      throw new InputError(
        `"${text}": a method is written name or name:key=value,key=value; "${part}" is not key=value`,
      );
    }
    if (Object.hasOwn(settings, key)) throw new InputError(`"${text}": ${key} is given twice`);
    settings[key] = part.slice(equals + 1).trim();
  }
  return { name: text.slice(0, colon).trim(), settings };
}
