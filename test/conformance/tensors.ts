import { type GoldenTensor, isTensor, type Json } from './harness.js';

function valuesOf(value: Json, name: string): (number | string)[] {
  if (!isTensor(value)) throw new TypeError(`${name} is not a tensor`);
  return value.data;
}

const spelled: Readonly<Record<string, number>> = {
  inf: Number.POSITIVE_INFINITY,
  '-inf': Number.NEGATIVE_INFINITY,
  nan: Number.NaN,
};

/** A tensor's entries as float64. */
export function float64(value: Json, name: string): Float64Array {
  return Float64Array.from(valuesOf(value, name), (entry) => (typeof entry === 'string' ? spelled[entry] : entry));
}

/** A tensor's entries as int32. */
export function int32(value: Json, name: string): Int32Array {
  return Int32Array.from(valuesOf(value, name), Number);
}

export function shapeOf(value: Json, name: string): number[] {
  if (!isTensor(value)) throw new TypeError(`${name} is not a tensor`);
  return value.shape;
}

export function tensor(shape: readonly number[], data: ArrayLike<number>, dtype = 'float64'): unknown {
  const result: { shape: number[]; dtype: string; data: ArrayLike<number> } = { shape: [...shape], dtype, data };
  return result satisfies Omit<GoldenTensor, 'data'>;
}

export function number(value: Json, name: string): number {
  if (typeof value !== 'number') throw new TypeError(`${name} is not a number`);
  return value;
}

export function numbers(value: Json, name: string): number[] {
  if (!Array.isArray(value)) throw new TypeError(`${name} is not a list`);
  return value.map((entry) => number(entry, name));
}

/** A plain list of numbers, infinite ones spelled. */
export function listed(value: Json, name: string): number[] {
  if (!Array.isArray(value)) throw new TypeError(`${name} is not a list`);
  return value.map((entry) => (typeof entry === 'string' ? spelled[entry] : number(entry, name)));
}

export function keysOf(value: Json): string[] {
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    throw new TypeError('expected is not an object');
  return Object.keys(value);
}
