import fs from 'node:fs';
import path from 'node:path';
import { InputError, RunError } from '../errors.js';
import { type AtomicFile, type AtomicOptions, createAtomicFile } from './atomic.js';
import { fileError, quoted } from './files.js';
import { byteLengthOf } from './ggml-blocks.js';
import { MAX_HEADER_BYTES, SAFETENSORS_FILE, SAFETENSORS_INDEX } from './safetensors.js';
import { DTYPE_BYTES, type DType } from './tensor.js';

/** What will be written; the plan must be complete before the first byte. */
export interface PlannedTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

export interface SafetensorsWriterOptions extends AtomicOptions {
  readonly plan: readonly PlannedTensor[];
  /** Largest number of tensor bytes in a shard; a single larger tensor gets a shard of its own. Default: no limit. */
  readonly maxShardBytes?: number;
  /** `__metadata__` of every file. Default `{ format: 'pt' }`, which transformers asks for. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** One file of a checkpoint and the tensors in it, in plan order. */
export interface PlannedShard {
  readonly fileName: string;
  readonly tensors: readonly PlannedTensor[];
}

export interface SafetensorsWriter {
  /** Final paths in order, the index (if any) last. */
  readonly files: readonly string[];
  /** Bytes of all tensors: `metadata.total_size` of the index. */
  readonly totalBytes: number;
  /**
   * Appends bytes to tensor `name`. Tensors may be served in any order, also interleaved; plan order writes the
   * files front to back. @throws RunError when the disk is full, RangeError for bytes that the plan does not have.
   */
  write(name: string, bytes: Uint8Array): void;
  /** Renames all files, the index last. @throws RunError when a tensor is incomplete. */
  commit(): void;
  abort(): void;
}

/** Refuses a plan that the format cannot hold. @throws InputError naming the tensor. */
export function checkPlan(plan: readonly PlannedTensor[]): void {
  const names = new Set<string>();
  for (const { name, dtype, shape } of plan) {
    if (name === '__metadata__')
      throw new InputError('a tensor cannot be named "__metadata__" in safetensors: rename it');
    if (names.has(name))
      throw new InputError(`tensor ${quoted(name)} is planned twice: a name stands once in a checkpoint`);
    names.add(name);
    if (!Object.hasOwn(DTYPE_BYTES, dtype))
      throw new InputError(`tensor ${quoted(name)}: safetensors has no dtype ${dtype}`);
    if (!shape.every((extent) => Number.isSafeInteger(extent) && extent >= 0))
      throw new InputError(`tensor ${quoted(name)}: shape [${shape.join(', ')}] is not made of whole numbers`);
  }
}

/**
 * Cuts a plan into shards greedily in plan order, as transformers does, and names them: `model.safetensors` when one
 * suffices, else `model-00001-of-0000N.safetensors`.
 */
export function planShards(plan: readonly PlannedTensor[], maxShardBytes = Number.POSITIVE_INFINITY): PlannedShard[] {
  const groups: PlannedTensor[][] = [];
  let current: PlannedTensor[] = [];
  let currentBytes = 0;
  for (const tensor of plan) {
    const bytes = byteLengthOf(tensor.dtype, tensor.shape);
    if (bytes > maxShardBytes) {
      groups.push([tensor]);
      continue;
    }
    if (current.length > 0 && currentBytes + bytes > maxShardBytes) {
      groups.push(current);
      current = [];
      currentBytes = 0;
    }
    current.push(tensor);
    currentBytes += bytes;
  }
  if (current.length > 0 || groups.length === 0) groups.push(current);
  const total = String(groups.length).padStart(5, '0');
  return groups.map((tensors, i) => ({
    fileName:
      groups.length === 1 ? SAFETENSORS_FILE : `model-${String(i + 1).padStart(5, '0')}-of-${total}.safetensors`,
    tensors,
  }));
}

interface Slot {
  readonly shard: OpenShard;
  readonly offset: number;
  readonly byteLength: number;
  written: number;
}

interface OpenShard {
  readonly path: string;
  readonly header: Uint8Array;
  readonly slots: Slot[];
  readonly byteLength: number;
  missing: number;
  file: AtomicFile | undefined;
}

/**
 * One tensor's entry in a header. With `offsetDigits` both offsets are padded by spaces to that width, so that the
 * entry's length does not depend on where the tensor lies.
 */
export function headerEntry(tensor: PlannedTensor, begin: number, end: number, offsetDigits = 0): string {
  const { name, dtype, shape } = tensor;
  const [from, to] = [begin, end].map((offset) => String(offset).padStart(offsetDigits));
  return `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":${JSON.stringify(shape)},"data_offsets":[${from},${to}]}`;
}

/** Where everything lies in one file. */
export interface SafetensorsLayout {
  /** Length field and JSON, padded by spaces to a multiple of 8 or of what is asked for. */
  readonly header: Uint8Array;
  /** The tensors as they lie behind the header. */
  readonly order: readonly PlannedTensor[];
  /** First byte of each tensor, counted from the end of the header. */
  readonly offsets: ReadonlyMap<string, number>;
  /** Bytes of the file. */
  readonly byteLength: number;
}

/**
 * The header of one file and the offset of every tensor. Wider types come first, so that every tensor is aligned to
 * its element size, as the safetensors library lays them out; equal widths keep the plan's order.
 */
export function layOutSafetensors(
  tensors: readonly PlannedTensor[],
  metadata: Readonly<Record<string, string>>,
  offsetDigits = 0,
  headerMultiple = 8,
): SafetensorsLayout {
  const order = [...tensors].sort((a, b) => DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype]);
  const parts = Object.keys(metadata).length > 0 ? [`"__metadata__":${JSON.stringify(metadata)}`] : [];
  const offsets = new Map<string, number>();
  let end = 0;
  for (const tensor of order) {
    const begin = end;
    end += byteLengthOf(tensor.dtype, tensor.shape);
    offsets.set(tensor.name, begin);
    parts.push(headerEntry(tensor, begin, end, offsetDigits));
  }
  const json = Buffer.from(`{${parts.join(',')}}`);
  const padded = Math.ceil((8 + json.length) / headerMultiple) * headerMultiple - 8;
  if (padded > MAX_HEADER_BYTES)
    throw new InputError(`a safetensors header of ${padded} bytes is over the limit: write more shards`);
  const header = Buffer.alloc(8 + padded, ' ');
  header.writeBigUInt64LE(BigInt(padded), 0);
  json.copy(header, 8);
  return { header, order, offsets, byteLength: header.length + end };
}

/** Bytes of a whole file of small tensors, `data` row-major and little-endian. */
export function encodeSafetensors(
  tensors: readonly (PlannedTensor & { readonly data: Float32Array | Float64Array | Int32Array | Uint8Array })[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  checkPlan(tensors);
  const { header, offsets, byteLength } = layOutSafetensors(tensors, metadata);
  const bytes = new Uint8Array(byteLength);
  bytes.set(header);
  for (const { name, dtype, shape, data } of tensors) {
    if (data.byteLength !== byteLengthOf(dtype, shape)) {
      throw new RangeError(`tensor ${quoted(name)}: ${data.length} values do not fit [${shape.join(', ')}] ${dtype}`);
    }
    const view = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    bytes.set(view, header.length + (offsets.get(name) ?? 0));
  }
  return bytes;
}

/** The index as transformers writes it: two-space indentation, sorted names, a final newline. */
export function encodeIndex(shards: readonly PlannedShard[], totalBytes: number): string {
  const entries = shards.flatMap(({ fileName, tensors }) => tensors.map(({ name }) => [name, fileName] as const));
  entries.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const index = { metadata: { total_size: totalBytes }, weight_map: Object.fromEntries(entries) };
  return `${JSON.stringify(index, null, 2)}\n`;
}

/**
 * Writes a checkpoint as a stream: headers first, tensor bytes as they come, nothing held in memory. `target` is a
 * file name ending in `.safetensors` (always one file) or an existing directory, which gets `model.safetensors`, or
 * shards and `model.safetensors.index.json`. Nothing has its final name before `commit`.
 * @throws InputError when the plan is inconsistent or an output exists and neither `force` nor `resume` is given.
 */
export function createSafetensorsWriter(target: string, options: SafetensorsWriterOptions): SafetensorsWriter {
  const { plan, metadata = { format: 'pt' } } = options;
  checkPlan(plan);
  const single = target.endsWith('.safetensors');
  const planned = single ? [{ fileName: '', tensors: plan }] : planShards(plan, options.maxShardBytes);
  const slots = new Map<string, Slot>();
  const shards: OpenShard[] = planned.map(({ fileName, tensors }) => {
    const { header, offsets, byteLength } = layOutSafetensors(tensors, metadata);
    const shard: OpenShard = {
      path: single ? target : path.join(target, fileName),
      header,
      slots: [],
      byteLength,
      missing: 0,
      file: undefined,
    };
    for (const { name, dtype, shape } of tensors) {
      const offset = header.length + (offsets.get(name) ?? 0);
      const slot = { shard, offset, byteLength: byteLengthOf(dtype, shape), written: 0 };
      shard.missing += slot.byteLength;
      shard.slots.push(slot);
      slots.set(name, slot);
    }
    return shard;
  });
  const totalBytes = shards.reduce((sum, shard) => sum + shard.byteLength - shard.header.length, 0);
  const indexPath = shards.length > 1 ? path.join(target, SAFETENSORS_INDEX) : undefined;
  const files = shards.map((shard) => shard.path);
  if (indexPath !== undefined) files.push(indexPath);

  const opened: AtomicFile[] = [];
  const create = (filePath: string): AtomicFile => {
    const file = createAtomicFile(filePath, { force: options.force, resume: options.resume });
    opened.push(file);
    return file;
  };
  const open = (shard: OpenShard): AtomicFile => {
    if (shard.file === undefined) {
      shard.file = create(shard.path);
      shard.file.write(shard.header);
    }
    return shard.file;
  };
  const abort = (): void => {
    for (const file of opened) file.abort();
  };
  // What cannot be written must be said before hours of work, not at the first byte of the last shard.
  if (!options.force && !options.resume)
    for (const filePath of files)
      if (fs.existsSync(filePath))
        throw new InputError(`${filePath}: already exists: pass --force to replace it, or choose another path`);
  open(shards[0]);

  return {
    files,
    totalBytes,
    write(name, bytes): void {
      const slot = slots.get(name);
      if (slot === undefined) throw new RangeError(`tensor ${quoted(name)} is not in the plan`);
      if (slot.written + bytes.length > slot.byteLength)
        throw new RangeError(`tensor ${quoted(name)}: more than the planned ${slot.byteLength} bytes`);
      const file = open(slot.shard);
      file.writeAt(bytes, slot.offset + slot.written);
      slot.written += bytes.length;
      slot.shard.missing -= bytes.length;
      // A complete shard is synced and closed at once: few files stay open, and commit has little left to do.
      if (slot.shard.missing === 0) file.finish();
    },
    commit(): void {
      for (const [name, slot] of slots)
        if (slot.written !== slot.byteLength)
          throw new RunError(
            `${slot.shard.path}: tensor ${quoted(name)} is incomplete: ${slot.written} of ${slot.byteLength} bytes`,
          );
      for (const shard of shards) open(shard).finish();
      if (indexPath !== undefined) {
        const index = create(indexPath);
        index.write(encodeIndex(planned, totalBytes));
        index.finish();
      }
      for (const file of opened) file.commit();
      // A stale single file or index of an earlier checkpoint would be preferred over the new one by readers.
      if (!single && (options.force || options.resume)) removeStale(target, new Set(files));
    },
    abort,
  };
}

/** Removes weights of an earlier checkpoint in `directory` that the new one does not replace. */
function removeStale(directory: string, kept: ReadonlySet<string>): void {
  try {
    for (const name of fs.readdirSync(directory)) {
      const found = path.join(directory, name);
      const ours =
        name === SAFETENSORS_FILE || name === SAFETENSORS_INDEX || /^model-\d{5}-of-\d{5}\.safetensors$/.test(name);
      if (ours && !kept.has(found)) fs.rmSync(found);
    }
  } catch (error) {
    throw fileError(error, directory, 'write');
  }
}
