import { readFileSync } from 'node:fs';
import type { Command, Option } from 'commander';
import { didYouMean, InputError } from '../src/errors.js';
import { fileError } from '../src/formats/files.js';

/** `max-memory`, `max_memory` and `maxMemory` name the same option. */
function camelCase(key: string): string {
  return key.replace(/[-_]+([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

async function readMapping(path: string): Promise<Map<string, unknown>> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw fileError(error, path, 'read');
  }
  const { parseDocument } = await import('yaml');
  // The failsafe schema keeps every scalar as it is spelt, so that an option meets the same text as on the command line.
  const document = parseDocument(text, { schema: 'failsafe', uniqueKeys: true });
  const fault = document.errors[0];
  if (fault) throw new InputError(`${path}: not readable as YAML: ${fault.message.split('\n')[0]}`);
  const value: unknown = document.toJS();
  if (value === null || value === undefined || value === '') return new Map();
  if (typeof value !== 'object' || Array.isArray(value))
    throw new InputError(`${path}: a mapping of option names to values is needed`);
  return new Map(Object.entries(value));
}

function isFlag(option: Option): boolean {
  return !option.required && !option.optional;
}

/** Sets one option from the file, through the same conversions as on the command line. */
function setFromConfig(command: Command, option: Option, key: string, value: unknown, path: string): void {
  const where = `${path}: ${key}`;
  const values = Array.isArray(value) ? value : [value];
  if (values.some((entry) => typeof entry !== 'string'))
    throw new InputError(`${where}: a value or a list of values is needed`);
  const texts = values as string[];
  const name = option.attributeName();
  if (isFlag(option)) {
    if (texts.length !== 1 || !/^(true|false)$/.test(texts[0]))
      throw new InputError(`${where}: true or false is needed`);
    command.setOptionValueWithSource(name, (texts[0] === 'true') !== option.negate, 'config');
    return;
  }
  const previous = command.getOptionValue(name) as unknown;
  let result: unknown;
  for (const text of texts) {
    if (option.argChoices && !option.argChoices.includes(text)) {
      throw new InputError(
        `${where}: ${text} is unknown${didYouMean(text, option.argChoices)}; one of ${option.argChoices.join(', ')}`,
      );
    }
    const parse = option.parseArg as ((text: string, previous: unknown) => unknown) | undefined;
    if (parse) result = parse(text, result ?? (Array.isArray(previous) ? [] : undefined));
    else if (option.variadic) result = [...((result as string[] | undefined) ?? []), text];
    else result = text;
  }
  if (texts.length > 1 && !Array.isArray(result)) throw new InputError(`${where}: takes one value, not a list`);
  command.setOptionValueWithSource(name, result, 'config');
}

/**
 * Takes option values from a YAML file. Keys are option names in kebab, snake or camel case; what the command line
 * gives wins. Throws InputError for an unknown key (with the nearest name) and for a value of the wrong kind.
 */
export async function applyConfig(command: Command, path: string): Promise<void> {
  const known = new Map<string, Option>();
  for (const option of command.options)
    if (option.attributeName() !== 'config') known.set(option.attributeName(), option);
  const seen = new Set<string>();
  for (const [key, value] of await readMapping(path)) {
    const name = camelCase(key);
    const option = known.get(name);
    if (!option) {
      const names = Array.from(known.values(), (candidate) => candidate.long?.replace(/^--/, '') ?? '');
      throw new InputError(`${path}: unknown key "${key}" for ${command.name()}${didYouMean(key, names)}`);
    }
    if (seen.has(name)) throw new InputError(`${path}: "${key}" is given twice`);
    seen.add(name);
    if (command.getOptionValueSource(name) !== 'cli') setFromConfig(command, option, key, value, path);
  }
}
