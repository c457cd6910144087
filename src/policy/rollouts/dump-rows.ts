import { InputError } from '../../errors.js';

/** Numbers of a nested list that is regular, row-major. */
export interface NumberArray {
  readonly values: Float64Array;
  readonly shape: readonly number[];
}

/**
 * One record of a dump, whatever the file: numbers, text, booleans and null as they are, lists of numbers as `NumberArray` or
 * typed arrays, all else as JSON has it. Arrays belong to the row and may be changed.
 */
export interface DumpRow {
  /** Number of the file. */
  readonly source: number;
  /** 1-based line of the file, or row where the format has no lines. */
  readonly line: number;
  readonly fields: ReadonlyMap<string, unknown>;
}

export const isNumberArray = (value: unknown): value is NumberArray =>
  typeof value === 'object' && value !== null && (value as Partial<NumberArray>).values instanceof Float64Array;

const SPELLED: Readonly<Record<string, number>> = {
  NaN: Number.NaN,
  nan: Number.NaN,
  Infinity: Number.POSITIVE_INFINITY,
  inf: Number.POSITIVE_INFINITY,
  '-Infinity': Number.NEGATIVE_INFINITY,
  '-inf': Number.NEGATIVE_INFINITY,
};

/** A number, a truth value as 1 or 0, null as NaN, a spelled NaN or infinity; undefined for anything else. */
export function numberOf(value: unknown): number | undefined {
  if (typeof value === 'number') return value;
  if (typeof value === 'boolean') return value ? 1 : 0;
  if (typeof value === 'bigint') return Number(value);
  if (value === null) return Number.NaN;
  return typeof value === 'string' ? SPELLED[value] : undefined;
}

/** A list of numbers; undefined when the value is no list, or holds something else. */
export function numberList(value: unknown): Float64Array | undefined {
  if (value instanceof Float64Array) return value;
  if (isNumberArray(value)) return value.shape.length === 1 ? value.values : undefined;
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
    if (value instanceof BigInt64Array || value instanceof BigUint64Array) return Float64Array.from(value, Number);
    return Float64Array.from(value as Float32Array);
  }
  if (!Array.isArray(value)) return undefined;
  const list = new Float64Array(value.length);
  for (let i = 0; i < value.length; i++) {
    const number = numberOf(value[i]);
    if (number === undefined) return undefined;
    list[i] = number;
  }
  return list;
}

/** A list of lists of numbers of one length each; undefined otherwise. */
export function numberTable(value: unknown): NumberArray | undefined {
  if (isNumberArray(value)) return value;
  if (!Array.isArray(value) || value.length === 0) return undefined;
  const rows: Float64Array[] = [];
  let inner: readonly number[] | undefined;
  for (const entry of value) {
    const nested = Array.isArray(entry) && Array.isArray(entry[0]) ? numberTable(entry) : undefined;
    const row = nested?.values ?? numberList(entry);
    const shape = nested?.shape ?? (row && [row.length]);
    if (row === undefined || shape === undefined) return undefined;
    if (inner !== undefined && shape.join() !== inner.join()) return undefined;
    inner = shape;
    rows.push(row);
  }
  const width = rows[0].length;
  const values = new Float64Array(width * rows.length);
  rows.forEach((row, i) => {
    values.set(row, i * width);
  });
  return { values, shape: [rows.length, ...(inner ?? [])] };
}

/** A text or a number as a name; undefined for anything else. */
export function nameOf(value: unknown): string | undefined {
  return typeof value === 'string'
    ? value
    : typeof value === 'number' || typeof value === 'bigint'
      ? String(value)
      : undefined;
}

/** What a value is, for messages. */
export function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (typeof value === 'string') return 'a text';
  if (isNumberArray(value)) return `numbers [${value.shape.join(', ')}]`;
  if (Array.isArray(value) || ArrayBuffer.isView(value)) return 'a list';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

/** A number of a field. @throws InputError */
export function requireNumber(value: unknown, column: string, place: string): number {
  const number = Array.isArray(value) && value.length === 1 ? numberOf(value[0]) : numberOf(value);
  if (number === undefined) throw new InputError(`${place}: "${column}" holds ${kindOf(value)}, a number is needed`);
  return number;
}

/** A list of numbers of a field. @throws InputError */
export function requireNumbers(value: unknown, column: string, place: string): Float64Array {
  const list = numberList(value);
  if (list === undefined)
    throw new InputError(`${place}: "${column}" holds ${kindOf(value)}, a list of numbers, one a token, is needed`);
  return list;
}
