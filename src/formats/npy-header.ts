import { InputError } from '../errors.js';
import { decodeUtf8, quoted } from './files.js';
import { byteLengthOf } from './ggml-blocks.js';
import type { DType } from './tensor.js';

/** Bytes that can be read by position: a file, or an entry of an archive. */
export interface ByteSource {
  readonly size: number;
  readInto(position: number, length: number, target: Uint8Array): void;
}

/** Where the elements of an array lie in its source, and in which order. */
export interface NpyLayout {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Stored with the first axis fastest. */
  readonly fortranOrder: boolean;
  /** Stored big-endian. */
  readonly bigEndian: boolean;
  readonly dataStart: number;
  readonly byteLength: number;
}

export interface NpyOptions {
  /**
   * Read 2-byte void (`V2`) as BF16: what numpy writes for `ml_dtypes.bfloat16`, whose name it cannot store. Without
   * it such an array is refused, since nothing in the file says that it holds bfloat16.
   */
  readonly voidAsBf16?: boolean;
}

/** An array that is well-formed but of a type that is not read here (text, objects, records, complex numbers). */
export class UnreadArrayError extends InputError {}

const DTYPE_OF_CODE: Readonly<Record<string, DType>> = {
  f2: 'F16',
  f4: 'F32',
  f8: 'F64',
  i1: 'I8',
  i2: 'I16',
  i4: 'I32',
  i8: 'I64',
  u1: 'U8',
  u2: 'U16',
  u4: 'U32',
  u8: 'U64',
  b1: 'BOOL',
};

/** A longer header is not one that numpy writes for a plain array; numpy itself stops at 10,000 characters. */
const MAX_HEADER_BYTES = 1 << 20;

type Literal = string | number | boolean | null | Literal[] | { readonly dict: ReadonlyMap<string, Literal> };

/** Parses the Python literal of a header: strings, integers, True/False/None, tuples, lists and one dictionary. */
function parseLiteral(text: string, where: string): Literal {
  const tokens = text.match(/'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?\d+L?|[A-Za-z_]+|[^\s]/g) ?? [];
  let at = 0;
  const fail = (): never => {
    throw new InputError(`${where}: its header is not what numpy writes: ${quoted(text.trim())}`);
  };
  const sequence = (close: string, depth: number): Literal[] => {
    const items: Literal[] = [];
    while (tokens[at] !== close) {
      items.push(value(depth + 1));
      if (tokens[at] === ',') at++;
      else if (tokens[at] !== close) fail();
    }
    at++;
    return items;
  };
  const value = (depth: number): Literal => {
    const token = tokens[at++];
    if (token === undefined || depth > 16) return fail();
    if (token[0] === "'" || token[0] === '"') {
      if (token.length < 2) return fail();
      return token.slice(1, -1);
    }
    if (/^-?\d+L?$/.test(token)) return Number(token.replace('L', ''));
    if (token === 'True' || token === 'False') return token === 'True';
    if (token === 'None') return null;
    if (token === '(') return sequence(')', depth);
    if (token === '[') return sequence(']', depth);
    if (token !== '{') return fail();
    const dict = new Map<string, Literal>();
    while (tokens[at] !== '}') {
      const key = value(depth + 1);
      if (typeof key !== 'string' || dict.has(key) || tokens[at++] !== ':') return fail();
      dict.set(key, value(depth + 1));
      if (tokens[at] === ',') at++;
      else if (tokens[at] !== '}') return fail();
    }
    at++;
    return { dict };
  };
  const result = value(0);
  if (at !== tokens.length) fail();
  return result;
}

function parseDescr(descr: Literal, where: string, options: NpyOptions): { dtype: DType; bigEndian: boolean } {
  if (typeof descr !== 'string')
    throw new UnreadArrayError(`${where}: a structured array is not read: save its fields as plain arrays`);
  const match = /^([<>=|]?)([A-Za-z])(\d*)$/.exec(descr);
  if (match === null) throw new InputError(`${where}: its dtype ${quoted(descr)} is not one of numpy's`);
  const code = match[2] + match[3];
  const dtype = DTYPE_OF_CODE[match[2] === '?' ? 'b1' : code];
  if (dtype !== undefined) return { dtype, bigEndian: match[1] === '>' };
  if (code === 'V2') {
    if (options.voidAsBf16) return { dtype: 'BF16', bigEndian: match[1] === '>' };
    throw new UnreadArrayError(
      `${where}: dtype ${quoted(descr)} does not say what it holds: say that it is bfloat16, or save it as float32`,
    );
  }
  if (match[2] === 'O')
    throw new UnreadArrayError(`${where}: an object array (a Python pickle) is not read: save it as numbers`);
  const kind: Readonly<Record<string, string>> = {
    U: 'text',
    S: 'bytes',
    a: 'bytes',
    c: 'complex numbers',
    V: 'records',
  };
  const what = kind[match[2]] === undefined ? '' : ` (${kind[match[2]]})`;
  const known = Object.keys(DTYPE_OF_CODE).join(' ');
  throw new UnreadArrayError(`${where}: dtype ${quoted(descr)}${what} is not read; known: ${known}`);
}

/**
 * Reads and validates the header of an NPY array, versions 1.0, 2.0 and 3.0 (numpy, `numpy.lib.format`), and checks
 * that the source holds exactly the bytes that dtype and shape ask for. `where` begins every message.
 * @throws InputError for a damaged header or length, UnreadArrayError for a type that is not read.
 */
export function readNpyHeader(source: ByteSource, where: string, options: NpyOptions = {}): NpyLayout {
  if (source.size === 0) throw new InputError(`${where}: the file is empty: write it again`);
  const start = new Uint8Array(Math.min(12, source.size));
  source.readInto(0, start.length, start);
  const magic = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
  if (!magic.every((byte, i) => start[i] === byte))
    throw new InputError(`${where}: does not begin with "\\x93NUMPY": not an .npy array`);
  if (start.length < 12) throw new InputError(`${where}: truncated in its header: write it again`);
  const [major, minor] = [start[6], start[7]];
  if (major < 1 || major > 3 || minor !== 0)
    throw new InputError(`${where}: NPY version ${major}.${minor} is not read, only 1.0, 2.0 and 3.0`);
  const view = new DataView(start.buffer);
  const headerStart = major === 1 ? 10 : 12;
  const headerBytes = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (headerBytes > source.size - headerStart)
    throw new InputError(`${where}: truncated: its header takes ${headerBytes} bytes, the file ends before`);
  if (headerBytes > MAX_HEADER_BYTES)
    throw new InputError(`${where}: a header of ${headerBytes} bytes is not that of a plain array`);
  const bytes = new Uint8Array(headerBytes);
  source.readInto(headerStart, headerBytes, bytes);
  const text = major === 3 ? decodeUtf8(bytes, where) : Buffer.from(bytes).toString('latin1');
  const literal = parseLiteral(text, where);
  if (typeof literal !== 'object' || literal === null || !('dict' in literal))
    throw new InputError(`${where}: its header is not a dictionary: write it again`);
  const { dict } = literal;
  const descr = dict.get('descr');
  const fortranOrder = dict.get('fortran_order');
  const shape = dict.get('shape');
  if (descr === undefined) throw new InputError(`${where}: its header has no "descr"`);
  if (typeof fortranOrder !== 'boolean') throw new InputError(`${where}: "fortran_order" is not True or False`);
  if (
    !Array.isArray(shape) ||
    !shape.every((extent) => typeof extent === 'number' && Number.isSafeInteger(extent) && extent >= 0)
  )
    throw new InputError(`${where}: its shape is not a tuple of whole numbers from 0 on`);
  const { dtype, bigEndian } = parseDescr(descr, where, options);
  let byteLength: number;
  try {
    byteLength = byteLengthOf(dtype, shape as number[]);
  } catch (error) {
    throw error instanceof InputError ? new InputError(`${where}: ${error.message}`) : error;
  }
  const dataStart = headerStart + headerBytes;
  const present = source.size - dataStart;
  if (present < byteLength)
    throw new InputError(
      `${where}: truncated: ${dtype} [${shape.join(', ')}] takes ${byteLength} bytes, ${present} are there: write it again`,
    );
  if (present > byteLength)
    throw new InputError(`${where}: ${present - byteLength} bytes follow the array: one array a file, save each alone`);
  return { dtype, shape: shape as number[], fortranOrder, bigEndian, dataStart, byteLength };
}
