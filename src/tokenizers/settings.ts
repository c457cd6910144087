import { InputError } from '../errors.js';

/** A JSON object of a tokenizer's settings. */
export type Settings = Readonly<Record<string, unknown>>;

/** Whether `value` is a JSON object. */
export function isSettings(value: unknown): value is Settings {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** `value` as a JSON object; throws InputError that names `what`. */
export function asSettings(value: unknown, what: string): Settings {
  if (!isSettings(value)) throw new InputError(`${what} is not a JSON object; save the tokenizer again`);
  return value;
}

/** The `type` of a component; throws InputError that names `what`. */
export function typeOf(value: Settings, what: string): string {
  if (typeof value.type !== 'string') throw new InputError(`${what} has no "type"; save the tokenizer again`);
  return value.type;
}

/** The list of components under `key`, each a JSON object. */
export function listOf(value: Settings, key: string, what: string): Settings[] {
  const list = value[key];
  if (!Array.isArray(list)) throw new InputError(`${what} has no list "${key}"; save the tokenizer again`);
  return list.map((item, i) => asSettings(item, `${what}.${key}[${i}]`));
}

/** The string under `key`; throws InputError that names `what`. */
export function stringOf(value: Settings, key: string, what: string): string {
  const text = value[key];
  if (typeof text !== 'string') throw new InputError(`${what} has no text "${key}"; save the tokenizer again`);
  return text;
}

/** A component and, where it is a Sequence, its parts, depth first. */
export function flatten(value: unknown, listKey: string): Settings[] {
  if (!isSettings(value)) return [];
  if (value.type !== 'Sequence' || !Array.isArray(value[listKey])) return [value];
  return (value[listKey] as unknown[]).flatMap((part) => flatten(part, listKey));
}
