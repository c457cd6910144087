/** Element types of stored tensors, named as safetensors names them. */
export type DType =
  | 'F64'
  | 'F32'
  | 'F16'
  | 'BF16'
  | 'F8_E4M3'
  | 'F8_E5M2'
  | 'I64'
  | 'I32'
  | 'I16'
  | 'I8'
  | 'U64'
  | 'U32'
  | 'U16'
  | 'U8'
  | 'BOOL';

/** Block types of GGUF tensors that have no plain element type. F32, F16, BF16, F64 and the integers map to DType. */
export type GgmlBlockType =
  | 'Q8_0'
  | 'Q4_0'
  | 'Q4_1'
  | 'Q5_0'
  | 'Q5_1'
  | 'Q2_K'
  | 'Q3_K'
  | 'Q4_K'
  | 'Q5_K'
  | 'Q6_K'
  | 'IQ4_NL';

export const DTYPE_BYTES: Readonly<Record<DType, number>> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
};

/** Where one stored tensor lies. `shape` is row-major (slowest axis first), also for GGUF. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: DType | GgmlBlockType;
  readonly shape: readonly number[];
  /** Path of the file that holds the bytes, as the user gave it or as resolved from an index. */
  readonly file: string;
  /** First byte in that file. */
  readonly offset: number;
  readonly byteLength: number;
}

/** A set of stored tensors read by range. Only headers are held in memory. */
export interface TensorStore {
  /** What the user would call it: the directory or file. */
  readonly path: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Free-form string metadata of the file(s). */
  readonly metadata: Readonly<Record<string, string>>;
  /** The metadata of each file by its path, where the format has such and files may differ (shards of a checkpoint). */
  readonly fileMetadata?: ReadonlyMap<string, Readonly<Record<string, string>>>;
  /** Reads `length` bytes at `start` within the tensor into `target` (its first `length` bytes). Synchronous. */
  readInto(tensor: TensorInfo, start: number, length: number, target: Uint8Array): void;
  close(): void;
}

export function elementCount(shape: readonly number[]): number {
  let count = 1;
  for (const extent of shape) count *= extent;
  return count;
}
