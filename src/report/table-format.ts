import { InputError } from '../errors.js';

/** How a table is written: RFC 4180 with a header, one JSON list of objects, or one JSON object a line. */
export type TableFormat = 'csv' | 'json' | 'jsonl';

export const TABLE_FORMATS: readonly TableFormat[] = ['csv', 'json', 'jsonl'];

/** The format of a table: as asked for, else by extension. Throws InputError when neither says. */
export function tableFormatOf(target: string, format?: TableFormat): TableFormat {
  if (format) return format;
  const extension = /\.([^./\\]+)$/.exec(target)?.[1]?.toLowerCase();
  const found = TABLE_FORMATS.find((name) => name === extension);
  if (found) return found;
  throw new InputError(`${target}: the extension names no table format; use .csv, .json or .jsonl, or --format`);
}
