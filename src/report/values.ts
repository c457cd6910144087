/** What a report or a table row may hold. `undefined` entries of an object are left out. */
export type ReportValue =
  | null
  | undefined
  | boolean
  | number
  | bigint
  | string
  | readonly ReportValue[]
  | NumericArray
  | { readonly [key: string]: ReportValue };

export type NumericArray =
  | Float64Array
  | Float32Array
  | Int32Array
  | Uint32Array
  | Int16Array
  | Uint16Array
  | Int8Array
  | Uint8Array;

/** `inf`, `-inf` and `nan` for what JSON has no number for; every other number as itself. */
export function finiteOrName(value: number): number | 'inf' | '-inf' | 'nan' {
  if (Number.isFinite(value)) return value;
  return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf';
}

/** The number that `finiteOrName` wrote, or undefined for another value. */
export function numberOfReport(value: unknown): number | undefined {
  if (typeof value === 'number') return value;
  if (value === 'inf') return Number.POSITIVE_INFINITY;
  if (value === '-inf') return Number.NEGATIVE_INFINITY;
  return value === 'nan' ? Number.NaN : undefined;
}

export function isNumericArray(value: unknown): value is NumericArray {
  return ArrayBuffer.isView(value) && !(value instanceof DataView);
}

/** The value as JSON knows it: typed arrays as lists, integers beyond 2^53 as strings, non-finite numbers by name. */
export function toJsonValue(value: ReportValue): unknown {
  if (typeof value === 'number') return finiteOrName(value);
  if (typeof value === 'bigint') {
    const plain = Number(value);
    return Number.isSafeInteger(plain) ? plain : value.toString();
  }
  if (value === null || typeof value !== 'object') return value;
  if (isNumericArray(value)) return Array.from(value, finiteOrName);
  if (Array.isArray(value)) return value.map((entry: ReportValue) => toJsonValue(entry) ?? null);
  const result: Record<string, unknown> = {};
  for (const [key, entry] of Object.entries(value as { readonly [key: string]: ReportValue })) {
    const converted = toJsonValue(entry);
    if (converted !== undefined)
      Object.defineProperty(result, key, { value: converted, enumerable: true, writable: true, configurable: true });
  }
  return result;
}

/** Prints JSON with two spaces of indent; lists of numbers or strings stay on one line. Ends without a newline. */
export function printJson(value: unknown, indent = ''): string {
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const inner = `${indent}  `;
  if (Array.isArray(value)) {
    if (value.length === 0) return '[]';
    if (value.every((entry) => entry === null || typeof entry !== 'object')) {
      return `[${value.map((entry) => JSON.stringify(entry)).join(', ')}]`;
    }
    return `[\n${value.map((entry) => inner + printJson(entry, inner)).join(',\n')}\n${indent}]`;
  }
  const entries = Object.entries(value);
  if (entries.length === 0) return '{}';
  const lines = entries.map(([key, entry]) => `${inner}${JSON.stringify(key)}: ${printJson(entry, inner)}`);
  return `{\n${lines.join(',\n')}\n${indent}}`;
}

/** An object of report values. */
export type ReportObject = { readonly [key: string]: ReportValue };

/** Tells the compiler that an object, whose type is an interface, holds report values only. */
export function reportObject(value: object): ReportObject {
  return value as ReportObject;
}
