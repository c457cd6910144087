import { InputError, RunError } from '../errors.js';

/** An error as it crosses between threads: classes are lost on the way, names stay. */
export interface ThreadError {
  readonly name: string;
  readonly message: string;
  readonly stack?: string;
}

export function describeError(error: unknown): ThreadError {
  if (error instanceof Error) {
    return { name: error.name, message: error.message, ...(error.stack !== undefined && { stack: error.stack }) };
  }
  return { name: 'Error', message: String(error) };
}

/** The error with its class again. */
export function reviveError(error: ThreadError): Error {
  if (error.name === 'InputError') return new InputError(error.message);
  if (error.name === 'RunError') return new RunError(error.message);
  const revived = new Error(error.message);
  revived.name = error.name;
  if (error.stack !== undefined) revived.stack = error.stack;
  return revived;
}

/** Buffers of the typed arrays in a value, so that they move instead of being copied. */
export function transferables(value: unknown, found: Set<ArrayBuffer> = new Set()): ArrayBuffer[] {
  if (ArrayBuffer.isView(value)) {
    if (value.buffer instanceof ArrayBuffer && value.byteLength === value.buffer.byteLength) found.add(value.buffer);
  } else if (Array.isArray(value)) {
    for (const item of value) transferables(item, found);
  } else if (typeof value === 'object' && value !== null) {
    for (const item of Object.values(value)) transferables(item, found);
  }
  return [...found];
}
