import { parse } from 'csv-parse';
import { InputError } from '../errors.js';
import { checkedUtf8 } from './lines.js';
import type { Row, RowSelection } from './rows.js';

/** An unclosed quote must not swallow a whole file into one cell. */
const MAX_RECORD_BYTES = 1 << 28;

interface ParsedRecord {
  readonly record: Record<string, string>;
  readonly info: { readonly lines: number };
}

/** The header as it stands. Throws InputError when two columns have one name, since a record could hold only one. */
function checkedHeader(header: string[], source: string): string[] {
  const seen = new Set<string>();
  for (const name of header) {
    if (seen.has(name)) throw new InputError(`${source}:1: two columns are named "${name}"; rename one`);
    seen.add(name);
  }
  return header;
}

/** What csv-parse objects to, in words that say where; other errors pass. */
function asInputError(error: Error & { code?: string }, source: string): Error {
  if (!error.code?.startsWith('CSV_')) return error;
  const line = /line (\d+)/.exec(error.message)?.[1];
  return new InputError(`${source}${line ? `:${line}` : ''}: not readable as CSV: ${error.message}`);
}

/**
 * Rows of an RFC 4180 stream whose first row is the header; every value is a string. `line` is the row's last line.
 * `onHeader` is told the columns before the first row, also where no row follows.
 * Throws InputError with file and line at a row of another length, an unclosed quote or invalid UTF-8.
 */
export async function* readCsvRows(
  chunks: AsyncIterable<Uint8Array>,
  source: string,
  selection: RowSelection,
  delimiter = ',',
  onHeader: (columns: readonly string[]) => void = () => undefined,
): AsyncGenerator<Row, void, undefined> {
  const parser = parse({
    columns: (header: string[]) => {
      onHeader(header);
      return checkedHeader(header, source);
    },
    info: true,
    bom: true,
    delimiter,
    skip_empty_lines: true,
    max_record_size: MAX_RECORD_BYTES,
  });
  let failure: Error | undefined;
  parser.on('error', (error) => {
    failure = error;
  });
  // The parser works within write(), so rows can be taken right after it, with no buffer of rows beyond one chunk.
  const parsed = function* (): Generator<Row, boolean> {
    for (let next = parser.read() as ParsedRecord | null; next !== null; next = parser.read() as ParsedRecord | null) {
      const choice = selection.next();
      if (choice === 'stop') return true;
      if (choice === 'take') yield { record: next.record, source, index: selection.index, line: next.info.lines };
    }
    const error = failure ?? parser.errored;
    if (error) throw asInputError(error, source);
    return false;
  };
  try {
    for await (const chunk of checkedUtf8(chunks, source)) {
      parser.write(chunk);
      if (yield* parsed()) return;
    }
    const ended = new Promise<void>((resolve) => {
      parser.once('error', () => resolve());
      parser.once('readable', () => resolve());
      parser.once('end', () => resolve());
    });
    parser.end();
    await ended;
    yield* parsed();
  } finally {
    parser.destroy();
  }
}
