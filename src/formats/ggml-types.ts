import type { DType, GgmlBlockType } from './tensor.js';

/** Numbers of `enum ggml_type` that are read here, under the names of this project. */
export const GGML_TYPE_NUMBERS: Readonly<Partial<Record<DType | GgmlBlockType, number>>> = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q4_1: 3,
  Q5_0: 6,
  Q5_1: 7,
  Q8_0: 8,
  Q2_K: 10,
  Q3_K: 11,
  Q4_K: 12,
  Q5_K: 13,
  Q6_K: 14,
  IQ4_NL: 20,
  I8: 24,
  I16: 25,
  I32: 26,
  I64: 27,
  F64: 28,
  BF16: 30,
};

const DTYPE_OF_NUMBER: ReadonlyMap<number, DType | GgmlBlockType> = new Map(
  Object.entries(GGML_TYPE_NUMBERS).map(([name, number]) => [number, name as DType | GgmlBlockType]),
);

/** Types of ggml.h that are not read, so that an error can name them. */
const OTHER_TYPES: Readonly<Record<number, string>> = {
  4: 'Q4_2',
  5: 'Q4_3',
  9: 'Q8_1',
  15: 'Q8_K',
  16: 'IQ2_XXS',
  17: 'IQ2_XS',
  18: 'IQ3_XXS',
  19: 'IQ1_S',
  21: 'IQ3_S',
  22: 'IQ2_S',
  23: 'IQ4_XS',
  29: 'IQ1_M',
  34: 'TQ1_0',
  35: 'TQ2_0',
  39: 'MXFP4',
  40: 'NVFP4',
  41: 'Q1_0',
};

export function ggmlType(number: number): DType | GgmlBlockType | undefined {
  return DTYPE_OF_NUMBER.get(number);
}

export function ggmlTypeName(number: number): string {
  return DTYPE_OF_NUMBER.get(number) ?? OTHER_TYPES[number] ?? `number ${number}`;
}

/** `gguf_metadata_value_type` of the GGUF specification: name -> number. */
export const GGUF_VALUE_TYPES = {
  UINT8: 0,
  INT8: 1,
  UINT16: 2,
  INT16: 3,
  UINT32: 4,
  INT32: 5,
  FLOAT32: 6,
  BOOL: 7,
  STRING: 8,
  ARRAY: 9,
  UINT64: 10,
  INT64: 11,
  FLOAT64: 12,
} as const;

export type GgufScalarType = Exclude<keyof typeof GGUF_VALUE_TYPES, 'ARRAY'>;

/** The stored type of a value; an array carries the type of its elements. */
export type GgufValueType = GgufScalarType | { readonly array: GgufValueType };

/** Typed arrays for numbers, plain arrays for strings, booleans and nested arrays. */
export type GgufArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array
  | readonly string[]
  | readonly boolean[]
  | readonly GgufArray[];

/** 64-bit scalars are numbers where they are exact (up to 2^53), else bigints. */
export type GgufValue = string | number | bigint | boolean | GgufArray;

/** A value with its stored type, as the writer takes it. */
export interface GgufEntry {
  readonly type: GgufValueType;
  readonly value: GgufValue;
}

/** Bytes of one scalar; strings are of variable length. */
export const GGUF_SCALAR_BYTES: Readonly<Record<Exclude<GgufScalarType, 'STRING'>, number>> = {
  UINT8: 1,
  INT8: 1,
  UINT16: 2,
  INT16: 2,
  UINT32: 4,
  INT32: 4,
  FLOAT32: 4,
  BOOL: 1,
  UINT64: 8,
  INT64: 8,
  FLOAT64: 8,
};

const SCALAR_OF_NUMBER: ReadonlyMap<number, GgufScalarType> = new Map(
  Object.entries(GGUF_VALUE_TYPES)
    .filter(([name]) => name !== 'ARRAY')
    .map(([name, number]) => [number, name as GgufScalarType]),
);

export function ggufScalarType(number: number): GgufScalarType | undefined {
  return SCALAR_OF_NUMBER.get(number);
}
