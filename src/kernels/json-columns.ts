import { parseJsonLine, parsePythonJson } from './json-columns-reference.js';
import { kernelThreads, nativeKernels } from './native.js';

/** A list of numbers, or of lists of numbers of one length, row-major. */
export interface JsonNumbers {
  readonly values: Float64Array;
  readonly shape: readonly number[];
}

/**
 * One line, `line` counted from 0 in its block: an object with its fields, nothing, or what is no JSON object. Fields that are not
 * wanted are named, and undefined unless they are numbers or truth values.
 */
export type JsonLine =
  | { readonly line: number; readonly kind: 'record'; readonly fields: ReadonlyMap<string, unknown> }
  | { readonly line: number; readonly kind: 'blank' }
  | { readonly line: number; readonly kind: 'refused'; readonly text: string };

const LINE_INTEGERS = 4;
const FIELD_INTEGERS = 9;
const STATUS = { read: 0, blank: 1 } as const;
const KIND = { null: 0, false: 1, true: 2, number: 3, string: 4, numbers: 5 } as const;

/** Offsets of the scanner are 32-bit integers. */
export const MOST_BLOCK_BYTES = 2 ** 31 - 1;

/** Names of keys by their bytes: a dump has the same few on every line. */
function createKeys(): (bytes: Buffer, start: number, end: number) => string {
  const names = new Map<string, string>();
  return (bytes, start, end) => {
    const stored = bytes.toString('latin1', start, end);
    let name = names.get(stored);
    if (name === undefined) {
      name = JSON.parse(`"${bytes.toString('utf8', start, end)}"`) as string;
      if (names.size < 1024) names.set(stored, name);
    }
    return name;
  };
}

/** A field of the scanner's table. */
function valueAt(bytes: Buffer, fields: Int32Array, at: number, numbers: Float64Array, wanted: boolean): unknown {
  const kind = fields[at + 2];
  const first = fields[at + 5];
  if (kind === KIND.null) return null;
  if (kind === KIND.false || kind === KIND.true) return kind === KIND.true;
  if (kind === KIND.number) return numbers[first];
  if (!wanted) return undefined;
  if (kind !== KIND.numbers) return parsePythonJson(bytes.toString('utf8', fields[at + 3], fields[at + 4]));
  const shape: number[] = [];
  let count = 1;
  for (let d = 6; d < FIELD_INTEGERS && fields[at + d] >= 0; d++) {
    shape.push(fields[at + d]);
    count *= fields[at + d];
  }
  return { values: numbers.subarray(first, first + count), shape } satisfies JsonNumbers;
}

function* scanned(
  bytes: Buffer,
  { lines, fields, numbers }: ReturnType<NonNullable<ReturnType<typeof nativeKernels>>['scanJsonLines']>,
  isWanted: (key: string) => boolean,
): Generator<JsonLine, void, undefined> {
  const keyOf = createKeys();
  const count = lines.length / LINE_INTEGERS;
  for (let line = 0; line < count; line++) {
    const at = line * LINE_INTEGERS;
    const status = lines[at + 3];
    if (status === STATUS.blank) yield { line, kind: 'blank' };
    else if (status !== STATUS.read)
      yield parseJsonLine(bytes.toString('utf8', lines[at], lines[at + 1]), line, isWanted);
    else {
      const record = new Map<string, unknown>();
      const last = line + 1 < count ? lines[at + LINE_INTEGERS + 2] * FIELD_INTEGERS : fields.length;
      for (let field = lines[at + 2] * FIELD_INTEGERS; field < last; field += FIELD_INTEGERS) {
        const key = keyOf(bytes, fields[field], fields[field + 1]);
        record.set(key, valueAt(bytes, fields, field, numbers, isWanted(key)));
      }
      yield { line, kind: 'record', fields: record };
    }
  }
}

function* parsed(bytes: Buffer, isWanted: (key: string) => boolean): Generator<JsonLine, void, undefined> {
  let line = 0;
  for (let start = 0; start < bytes.length; line++) {
    const found = bytes.indexOf(0x0a, start);
    const end = found < 0 ? bytes.length : found;
    yield parseJsonLine(bytes.toString('utf8', start, end), line, isWanted);
    start = end + 1;
  }
}

/**
 * Reads a block of whole lines of UTF-8, each one JSON object (RFC 8259; also NaN, Infinity and -Infinity, as Python's json writes them).
 * Lists of numbers become typed arrays, each number the nearest double; true, false and null in such lists are 1, 0 and NaN. The
 * scanner is native and takes lines in parallel; what it refuses, and everything where it is missing, goes through JSON.parse, with
 * the same result.
 * @param isWanted keys of texts, lists and objects that are decoded; others are only checked
 * @throws RangeError for a block of 2 GiB or more
 */
export function readJsonLines(
  block: Uint8Array,
  isWanted: (key: string) => boolean,
  threads?: number,
): Generator<JsonLine, void, undefined> {
  if (block.length > MOST_BLOCK_BYTES) throw new RangeError(`a block of ${block.length} bytes`);
  const bytes = Buffer.from(block.buffer, block.byteOffset, block.byteLength);
  const native = nativeKernels();
  if (native === undefined) return parsed(bytes, isWanted);
  return scanned(bytes, native.scanJsonLines(block, block.length, kernelThreads(threads)), isWanted);
}
