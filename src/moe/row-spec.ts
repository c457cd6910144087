import { InputError } from '../errors.js';

/** A row of a comparison as the user asks for it: `m-smoe:align=none,refit`. */
export interface RowSpec {
  /** As written. */
  readonly name: string;
  readonly method: string;
  /** Options of the method, by the name of their flag without dashes; true for a flag without a value. */
  readonly options: ReadonlyMap<string, string | true>;
}

/** @throws InputError for an empty name, an option without a name, or one that stands twice */
export function parseRowSpec(name: string): RowSpec {
  const [method, list, ...rest] = name.split(':');
  if (method === '' || rest.length > 0) {
    throw new InputError(`--methods ${name}: expected method or method:option=value,flag`);
  }
  const options = new Map<string, string | true>();
  for (const part of list === undefined ? [] : list.split(',')) {
    const equals = part.indexOf('=');
    const key = equals < 0 ? part : part.slice(0, equals);
    if (key === '') throw new InputError(`--methods ${name}: an option has no name`);
    if (options.has(key)) throw new InputError(`--methods ${name}: ${key} stands twice`);
    options.set(key, equals < 0 ? true : part.slice(equals + 1));
  }
  return { name, method, options };
}
