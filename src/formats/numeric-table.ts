import { didYouMean, InputError } from '../errors.js';
import { decodeUtf8, quoted } from './files.js';

const QUOTE = 0x22;
const NEWLINE = 0x0a;
const RETURN = 0x0d;

/** Powers of ten that f64 holds exactly. */
const POWERS = Float64Array.from({ length: 23 }, (_, k) => 10 ** k);
const LARGEST_EXACT = 2 ** 53;

const MISSING = new Set(['', 'na', 'nan', 'null', 'none', '.']);

/** What to take of a table. */
export interface NumericTableOptions {
  readonly delimiter: ',' | '\t';
  /** Columns taken as text (an outcome of classes, ids). */
  readonly text?: readonly string[];
  /** Columns taken as numbers; all others when absent. */
  readonly columns?: readonly string[];
  /** Columns left out. */
  readonly except?: readonly string[];
  /** Takes column i of those that are left only where this says so (shards). */
  readonly takes?: (index: number) => boolean;
  /** Only the first rows. */
  readonly limit?: number;
}

/** What the reader tells: `onHeader` once, then `onRow` for every row. Both arrays of `onRow` are used anew. */
export interface NumericTableSink {
  /** Names of the columns that are taken as numbers, and of all that could have been (before `takes`). */
  onHeader(names: readonly string[], all: readonly string[]): void;
  onRow(values: Float64Array, texts: readonly string[], row: number): void;
}

/**
 * A field as a number, where it is a plain decimal of at most 2^53 with a small exponent: the division or product of two
 * exact numbers is correctly rounded (Clinger 1990). Undefined where the slow way must decide.
 */
function quickNumber(bytes: Uint8Array, start: number, end: number): number | undefined {
  let at = start;
  const negative = bytes[at] === 0x2d;
  if (negative || bytes[at] === 0x2b) at++;
  let mantissa = 0;
  let digits = 0;
  let scale = 0;
  let point = false;
  for (; at < end; at++) {
    const byte = bytes[at];
    if (byte >= 0x30 && byte <= 0x39) {
      mantissa = mantissa * 10 + (byte - 0x30);
      digits++;
      if (point) scale--;
    } else if (byte === 0x2e && !point) point = true;
    else break;
  }
  if (digits === 0 || digits > 19 || mantissa > LARGEST_EXACT) return undefined;
  if (at < end) {
    if ((bytes[at] | 0x20) !== 0x65) return undefined;
    at++;
    const down = bytes[at] === 0x2d;
    if (down || bytes[at] === 0x2b) at++;
    if (at === end || end - at > 3) return undefined;
    let exponent = 0;
    for (; at < end; at++) {
      const byte = bytes[at];
      if (byte < 0x30 || byte > 0x39) return undefined;
      exponent = exponent * 10 + (byte - 0x30);
    }
    scale += down ? -exponent : exponent;
  }
  if (scale < -22 || scale > 22) return undefined;
  const value = scale < 0 ? mantissa / POWERS[-scale] : mantissa * POWERS[scale];
  return negative ? -value : value;
}

/** A field by its text: missing values are NaN; undefined where it is no number. */
function slowNumber(text: string): number | undefined {
  const trimmed = text.trim();
  if (MISSING.has(trimmed.toLowerCase())) return Number.NaN;
  if (/^[+-]?inf(inity)?$/i.test(trimmed)) return trimmed.startsWith('-') ? -Infinity : Infinity;
  const value = Number(trimmed);
  return Number.isNaN(value) ? undefined : value;
}

/** What each column of the file is for: place among the numbers, or among the texts, or nothing. */
interface Layout {
  readonly names: readonly string[];
  /** -1: nothing; -2 - k: text k; k: number k. */
  readonly place: Int32Array;
  readonly numbers: number;
}

function layoutOf(
  names: readonly string[],
  source: string,
  options: NumericTableOptions,
  sink: NumericTableSink,
): Layout {
  const index = new Map<string, number>();
  names.forEach((name, i) => {
    if (index.has(name)) throw new InputError(`${source}:1: two columns are named "${name}"; rename one`);
    index.set(name, i);
  });
  const find = (name: string): number => {
    const at = index.get(name);
    if (at === undefined) throw new InputError(`${source}: no column "${name}"${didYouMean(name, names)}`);
    return at;
  };
  const place = new Int32Array(names.length).fill(-1);
  const texts = options.text ?? [];
  const left = new Set([...texts, ...(options.except ?? [])].map(find));
  const wanted = (options.columns?.map(find) ?? Array.from(names, (_, i) => i)).filter((i) => !left.has(i));
  let numbers = 0;
  const taken: string[] = [];
  wanted.forEach((i, k) => {
    if (options.takes && !options.takes(k)) return;
    place[i] = numbers++;
    taken.push(names[i]);
  });
  texts.forEach((name, k) => {
    place[find(name)] = -2 - k;
  });
  sink.onHeader(
    taken,
    wanted.map((i) => names[i]),
  );
  return { names, place, numbers };
}

/** End of the field that starts at `start`: its delimiter or line end; -1 when the bytes end before. */
function fieldEnd(bytes: Uint8Array, start: number, delimiter: number, last: boolean): number {
  let at = start;
  if (bytes[at] === QUOTE) {
    at++;
    for (;;) {
      at = bytes.indexOf(QUOTE, at);
      // A quote at the very end may be the first of two.
      if (at < 0 || (at + 1 >= bytes.length && !last)) return -1;
      if (bytes[at + 1] !== QUOTE) break;
      at += 2;
    }
    at++;
  }
  while (at < bytes.length && bytes[at] !== delimiter && bytes[at] !== NEWLINE) at++;
  return at < bytes.length || last ? at : -1;
}

/** Text of a field, quotes and the return of a line's end taken away. */
function fieldText(bytes: Uint8Array, start: number, end: number, where: () => string): string {
  let stop = end;
  if (stop > start && bytes[stop - 1] === RETURN && (bytes[stop] === NEWLINE || stop === bytes.length)) stop--;
  const text = decodeUtf8(bytes.subarray(start, stop), where());
  return text.startsWith('"') && text.endsWith('"') && text.length > 1 ? text.slice(1, -1).replaceAll('""', '"') : text;
}

/**
 * Reads a delimited table of numbers, RFC 4180 with a header, as a stream: no record is held, so that rows of 100,000
 * columns cost no more than their numbers. Empty cells, `NA`, `nan`, `null` and `.` become NaN. Gives the number of rows.
 * @throws InputError naming line and column for a cell that is no number, a row of another length, an unknown or doubled
 *   column
 */
export async function readNumericTable(
  chunks: AsyncIterable<Uint8Array>,
  source: string,
  options: NumericTableOptions,
  sink: NumericTableSink,
): Promise<number> {
  const delimiter = options.delimiter.charCodeAt(0);
  const texts: string[] = (options.text ?? []).map(() => '');
  const header: string[] = [];
  let layout: Layout | undefined;
  let values = new Float64Array(0);
  let column = 0;
  let line = 1;
  let row = 0;
  let atRowStart = true;
  let marked = true;
  let rest: Uint8Array = new Uint8Array(0);
  const limit = options.limit ?? Number.POSITIVE_INFINITY;

  const endOfRow = (): void => {
    if (layout === undefined) {
      layout = layoutOf(header, source, options, sink);
      values = new Float64Array(layout.numbers);
    } else {
      if (column !== layout.names.length) {
        throw new InputError(`${source}:${line}: ${column} cells, the header names ${layout.names.length} columns`);
      }
      sink.onRow(values, texts, row++);
    }
    column = 0;
    line++;
  };
  const field = (bytes: Uint8Array, start: number, end: number): void => {
    if (layout === undefined) {
      header.push(fieldText(bytes, start, end, () => `${source}:1`));
      return;
    }
    if (column >= layout.names.length) {
      column++;
      return;
    }
    const place = layout.place[column++];
    if (place === -1) return;
    let stop = end;
    if (stop > start && bytes[stop - 1] === RETURN) stop--;
    const quick = place >= 0 ? quickNumber(bytes, start, stop) : undefined;
    if (quick !== undefined) {
      values[place] = quick;
      return;
    }
    const where = (): string => `${source}:${line}`;
    const text = fieldText(bytes, start, end, where);
    if (place <= -2) {
      texts[-2 - place] = text;
      return;
    }
    const value = slowNumber(text);
    if (value === undefined) {
      throw new InputError(
        `${source}:${line}: column "${layout.names[column - 1]}" holds ${quoted(text)}, which is no number; ` +
          'leave it out with --except, or name the columns of numbers with --columns',
      );
    }
    values[place] = value;
  };
  /** Takes all whole fields; gives where the first unfinished one begins, or -1 when the limit is reached. */
  const consume = (bytes: Uint8Array, last: boolean): number => {
    let start = 0;
    while (start < bytes.length) {
      if (atRowStart && (bytes[start] === NEWLINE || bytes[start] === RETURN)) {
        if (bytes[start] === NEWLINE) line++;
        start++;
        continue;
      }
      const end = fieldEnd(bytes, start, delimiter, last);
      if (end < 0) return start;
      field(bytes, start, end);
      atRowStart = end === bytes.length || bytes[end] === NEWLINE;
      if (atRowStart) endOfRow();
      if (row >= limit) return -1;
      start = end + 1;
    }
    return Math.min(start, bytes.length);
  };

  for await (const chunk of chunks) {
    let bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    if (marked && bytes.length < 3) {
      rest = bytes;
      continue;
    }
    if (marked && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) bytes = bytes.subarray(3);
    marked = false;
    const done = consume(bytes, false);
    if (done < 0) return row;
    rest = bytes.subarray(done);
  }
  if (rest.length > 0) consume(rest, true);
  // The table ends with a delimiter: one more field, which is empty.
  if (!atRowStart) {
    field(new Uint8Array(0), 0, 0);
    endOfRow();
  }
  if (layout === undefined) throw new InputError(`${source}: is empty; a table with a header is needed`);
  return row;
}
