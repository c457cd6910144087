import { InputError, RunError } from '../errors.js';
import { type AtomicOptions, createAtomicFile } from './atomic.js';
import { quoted } from './files.js';
import { byteLengthOf } from './ggml-blocks.js';
import {
  GGML_TYPE_NUMBERS,
  GGUF_VALUE_TYPES,
  type GgufArray,
  type GgufEntry,
  type GgufScalarType,
  type GgufValue,
  type GgufValueType,
} from './ggml-types.js';
import type { DType, GgmlBlockType } from './tensor.js';

export interface PlannedGgufTensor {
  readonly name: string;
  readonly dtype: DType | GgmlBlockType;
  /** Row-major; written reversed, as GGML counts axes. */
  readonly shape: readonly number[];
}

export interface GgufWriterOptions extends AtomicOptions {
  /** Key-value pairs in the order in which they are written. */
  readonly kv: ReadonlyMap<string, GgufEntry>;
  readonly plan: readonly PlannedGgufTensor[];
}

export interface GgufWriter {
  readonly path: string;
  /** Appends bytes to tensor `name`, in any order of tensors. */
  write(name: string, bytes: Uint8Array): void;
  /** @throws RunError when a tensor is incomplete. */
  commit(): void;
  abort(): void;
}

const DEFAULT_ALIGNMENT = 32;

/** Header bytes in a buffer that grows: a vocabulary is a quarter of a million strings. */
interface Sink {
  bytes: Buffer;
  length: number;
}

/** Makes room for `count` more bytes and returns where they begin. */
function reserve(sink: Sink, count: number): number {
  const at = sink.length;
  if (at + count > sink.bytes.length) {
    const grown = Buffer.alloc(Math.max(2 * sink.bytes.length, at + count));
    sink.bytes.copy(grown, 0, 0, at);
    sink.bytes = grown;
  }
  sink.length = at + count;
  return at;
}

function push(sink: Sink, bytes: Uint8Array): void {
  const at = reserve(sink, bytes.length);
  sink.bytes.set(bytes, at);
}

function pushU32(sink: Sink, value: number): void {
  const at = reserve(sink, 4);
  sink.bytes.writeUInt32LE(value, at);
}

function pushU64(sink: Sink, value: number): void {
  const at = reserve(sink, 8);
  sink.bytes.writeBigUInt64LE(BigInt(value), at);
}

function pushText(sink: Sink, text: string): void {
  const length = Buffer.byteLength(text);
  pushU64(sink, length);
  const at = reserve(sink, length);
  sink.bytes.write(text, at);
}

function wrongValue(where: string, type: string, value: unknown): never {
  throw new InputError(`${where}: ${typeof value} ${quoted(String(value))} cannot be written as ${type}`);
}

const INTEGER_RANGE: Readonly<Partial<Record<GgufScalarType, readonly [bigint, bigint]>>> = {
  UINT8: [0n, 0xffn],
  INT8: [-0x80n, 0x7fn],
  UINT16: [0n, 0xffffn],
  INT16: [-0x8000n, 0x7fffn],
  UINT32: [0n, 0xffffffffn],
  INT32: [-0x80000000n, 0x7fffffffn],
  UINT64: [0n, 0xffffffffffffffffn],
  INT64: [-0x8000000000000000n, 0x7fffffffffffffffn],
};

function pushScalar(sink: Sink, type: GgufScalarType, value: unknown, where: string): void {
  if (type === 'STRING') {
    if (typeof value !== 'string') wrongValue(where, type, value);
    pushText(sink, value);
    return;
  }
  if (type === 'BOOL') {
    if (typeof value !== 'boolean') wrongValue(where, type, value);
    push(sink, Uint8Array.of(value ? 1 : 0));
    return;
  }
  const bytes = Buffer.alloc(8);
  if (type === 'FLOAT32' || type === 'FLOAT64') {
    if (typeof value !== 'number') wrongValue(where, type, value);
    const length = type === 'FLOAT32' ? bytes.writeFloatLE(value) : bytes.writeDoubleLE(value);
    push(sink, bytes.subarray(0, length));
    return;
  }
  if (typeof value !== 'bigint' && !Number.isSafeInteger(value)) wrongValue(where, type, value);
  const integer = BigInt(value as number | bigint);
  const [low, high] = INTEGER_RANGE[type] ?? [0n, 0n];
  if (integer < low || integer > high) wrongValue(where, type, value);
  // Two's complement, little-endian: the low bytes of the 64-bit value are the value of every narrower type.
  bytes.writeBigUInt64LE(BigInt.asUintN(64, integer));
  push(sink, bytes.subarray(0, high > 0xffffffffn ? 8 : high > 0xffffn ? 4 : high > 0xffn ? 2 : 1));
}

function pushValue(sink: Sink, type: GgufValueType, value: GgufValue, where: string): void {
  if (typeof type === 'string') {
    pushScalar(sink, type, value, where);
    return;
  }
  if (typeof value !== 'object') wrongValue(where, 'an array', value);
  const item = type.array;
  pushU32(sink, typeof item === 'string' ? GGUF_VALUE_TYPES[item] : GGUF_VALUE_TYPES.ARRAY);
  pushU64(sink, value.length);
  for (const entry of value as Iterable<GgufValue & GgufArray>) pushValue(sink, item, entry, where);
}

interface Placed {
  readonly offset: number;
  readonly byteLength: number;
  written: number;
}

function encodeHeader(options: Pick<GgufWriterOptions, 'kv' | 'plan'>) {
  const { kv, plan } = options;
  const alignmentEntry = kv.get('general.alignment');
  const alignment = alignmentEntry === undefined ? DEFAULT_ALIGNMENT : Number(alignmentEntry.value);
  if (!Number.isSafeInteger(alignment) || alignment < 8 || (alignment & (alignment - 1)) !== 0)
    throw new InputError(`general.alignment ${String(alignmentEntry?.value)} is not a power of two from 8 on`);
  const sink: Sink = { bytes: Buffer.alloc(1 << 16), length: 0 };
  push(sink, Buffer.from('GGUF'));
  pushU32(sink, 3);
  pushU64(sink, plan.length);
  pushU64(sink, kv.size);
  for (const [key, { type, value }] of kv) {
    pushText(sink, key);
    pushU32(sink, typeof type === 'string' ? GGUF_VALUE_TYPES[type] : GGUF_VALUE_TYPES.ARRAY);
    pushValue(sink, type, value, `key ${quoted(key)}`);
  }
  const placed = new Map<string, Placed>();
  let offset = 0;
  for (const { name, dtype, shape } of plan) {
    const where = `tensor ${quoted(name)}`;
    const number = GGML_TYPE_NUMBERS[dtype];
    if (number === undefined) throw new InputError(`${where}: GGUF has no type ${dtype}: convert it first`);
    if (shape.length > 4) throw new InputError(`${where}: GGUF holds at most 4 dimensions, not ${shape.length}`);
    if (placed.has(name)) throw new InputError(`${where} is planned twice: a name stands once in a file`);
    const byteLength = byteLengthOf(dtype, shape);
    pushText(sink, name);
    pushU32(sink, shape.length);
    for (let axis = shape.length - 1; axis >= 0; axis--) pushU64(sink, shape[axis]);
    pushU32(sink, number);
    pushU64(sink, offset);
    placed.set(name, { offset, byteLength, written: 0 });
    offset = Math.ceil((offset + byteLength) / alignment) * alignment;
  }
  const dataStart = Math.ceil(sink.length / alignment) * alignment;
  push(sink, new Uint8Array(dataStart - sink.length));
  return { header: sink.bytes.subarray(0, sink.length), placed, dataStart, fileBytes: dataStart + offset };
}

/** Bytes of a whole file of small tensors in the host's (little-endian) order, laid out as {@link createGgufWriter} does. */
export function encodeGguf(
  kv: ReadonlyMap<string, GgufEntry>,
  tensors: readonly (PlannedGgufTensor & { readonly data: ArrayBufferView })[],
): Uint8Array {
  const { header, placed, dataStart, fileBytes } = encodeHeader({ kv, plan: tensors });
  const bytes = new Uint8Array(fileBytes);
  bytes.set(header);
  for (const { name, data } of tensors) {
    const slot = placed.get(name);
    if (slot?.byteLength !== data.byteLength)
      throw new RangeError(`tensor ${quoted(name)}: ${data.byteLength} bytes do not fill ${slot?.byteLength}`);
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), dataStart + slot.offset);
  }
  return bytes;
}

/**
 * Writes a GGUF file of version 3, little-endian, as a stream: the header at once, tensors as they come, every tensor
 * (the last one too) padded to the alignment (`general.alignment`, default 32).
 * @throws InputError for values that do not fit their type, types that GGUF lacks, names that stand twice, and an
 * output that exists without `force` or `resume`.
 */
export function createGgufWriter(target: string, options: GgufWriterOptions): GgufWriter {
  const { header, placed, dataStart, fileBytes } = encodeHeader(options);
  const file = createAtomicFile(target, { force: options.force, resume: options.resume });
  file.write(header);
  return {
    path: target,
    write(name, bytes): void {
      const slot = placed.get(name);
      if (slot === undefined) throw new RangeError(`tensor ${quoted(name)} is not in the plan`);
      if (slot.written + bytes.length > slot.byteLength)
        throw new RangeError(`tensor ${quoted(name)}: more than the planned ${slot.byteLength} bytes`);
      file.writeAt(bytes, dataStart + slot.offset + slot.written);
      slot.written += bytes.length;
    },
    commit(): void {
      for (const [name, slot] of placed)
        if (slot.written !== slot.byteLength)
          throw new RunError(
            `${target}: tensor ${quoted(name)} is incomplete: ${slot.written} of ${slot.byteLength} bytes`,
          );
      // Extends with zeros to the padded end; holes between tensors are zeros already.
      file.truncate(fileBytes);
      file.commit();
    },
    abort: () => file.abort(),
  };
}
