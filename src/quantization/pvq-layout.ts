import { basename, relative, resolve } from 'node:path';
import { InputError } from '../errors.js';
import {
  fileBitsPerWeight,
  fixedFileBytes,
  matrixOf,
  offsetDigits,
  type PvqRotation,
  type PvqTables,
  type PvqTensor,
  parsePayloadName,
  pvqTables,
  tensorFileBytes,
} from '../formats/pvq.js';
import { SAFETENSORS_FILE } from '../formats/safetensors.js';
import { elementCount, type TensorInfo, type TensorStore } from '../formats/tensor.js';
import { type PyramidCode, rowCodeBytes, rowGroups, rowIndexBytes, wordBits } from '../kernels/pyramid.js';
import type { Rotation } from '../linalg/hadamard.js';

/** What is fixed of a tensor before its code is chosen. */
export interface QuantisedTensor {
  readonly name: string;
  /** The source stores each matrix [in, out]. */
  readonly transposed: boolean;
  readonly gainPolicy: string;
  readonly levelPolicy: string;
  /** undefined: rows are stored as they are. */
  readonly rotation: Rotation | undefined;
}

/** One safetensors file of the output. */
export interface PvqFilePlan {
  /** Relative to the directory, as in the source. */
  readonly fileName: string;
  /** All of its tensors in the order of the source: those that are quantised, and those that are copied. */
  readonly tensors: readonly TensorInfo[];
  readonly metadata: Readonly<Record<string, string>>;
  /** Width of the offsets in its header. */
  readonly digits: number;
}

/** What may differ between two codings of a tensor, beside its code. */
export interface CodingOptions {
  readonly wideScales?: boolean;
  readonly zeroGroups?: boolean;
}

/** Bytes of one tensor in the files, exact. */
export interface TensorBytes {
  /** Packed indices, gain codes, scales, levels, signs, zero bitmap. */
  readonly payload: number;
  /** Its entries in the header, in the metadata and in the index. */
  readonly metadata: number;
  readonly total: number;
}

/** Which file each tensor goes to, and what it will take there. */
export interface PvqLayout {
  readonly format: 'huggingface' | 'gguf';
  /** Seed of the run, decimal. */
  readonly seed: string;
  readonly quantised: ReadonlyMap<string, QuantisedTensor>;
  /** Position of each quantised tensor in the plan. */
  readonly ordinals: ReadonlyMap<string, number>;
  readonly tables: PvqTables;
  readonly files: readonly PvqFilePlan[];
  /** Tensors of a GGUF source that stay in `model.gguf`. */
  readonly kept: readonly TensorInfo[];
  /** An index is written: several files, or one whose name readers would not find. */
  readonly indexed: boolean;
  /** Bytes of metadata that the files take whatever the number and codes of their tensors. */
  readonly fixedBytes: number;
  /** The metadata of a tensor under a code, checksums aside. */
  describe(name: string, code: PyramidCode): Omit<PvqTensor, 'crc32' | 'sourceSha256'>;
  /** Bytes of a tensor under a code; equal to what is written. Known before anything is encoded. */
  tensorBytes(name: string, code: PyramidCode, options?: CodingOptions): TensorBytes;
  /** Bits of all that is stored for quantised tensors, per weight of them. */
  bitsPerWeight(codes: ReadonlyMap<string, PyramidCode>): number;
}

/** What the format keeps of a rotation; null for none. */
export function storedRotation(rotation: Rotation | undefined): PvqRotation | null {
  if (rotation === undefined || rotation.kind === 'none') return null;
  const { kind, core, blocks, seed } = rotation;
  return { kind, core, blocks, seed: kind === 'blocks' ? seed : '0' };
}

/** Bytes that no coding of a tensor exceeds: 32 bits a weight and 8 bytes a row, levels and signs. */
function mostBytes(info: TensorInfo, quantised: QuantisedTensor | undefined): number {
  if (quantised === undefined) return info.byteLength;
  const { rows, columns } = matrixOf(info.shape, quantised.transposed);
  return 4 * rows * columns + 8 * rows + 1024 + columns;
}

/** Where a file of the source lies below its directory. */
function nameWithin(store: TensorStore, file: string): string {
  const below = relative(resolve(store.path), resolve(file));
  const name = below === '' || below.startsWith('..') ? basename(file) : below.replaceAll('\\', '/');
  return name.endsWith('.safetensors') ? name : SAFETENSORS_FILE;
}

function groupByFile(store: TensorStore, quantised: ReadonlyMap<string, QuantisedTensor>): PvqFilePlan[] {
  const groups = new Map<string, TensorInfo[]>();
  for (const info of store.tensors.values()) {
    const name = nameWithin(store, info.file);
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [info]);
    else group.push(info);
  }
  return [...groups].map(([fileName, tensors]) => {
    const { pvq: _, ...metadata } = store.fileMetadata?.get(tensors[0].file) ?? store.metadata;
    const most = tensors.reduce((sum, info) => sum + mostBytes(info, quantised.get(info.name)), 0);
    return { fileName, tensors, metadata: withFormat(metadata), digits: offsetDigits(most) };
  });
}

/** transformers asks for a `format` in every file. */
function withFormat(metadata: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.hasOwn(metadata, 'format') ? metadata : { format: 'pt', ...metadata };
}

/**
 * Lays out the files of a quantised model: those of the source with the same names, and for a GGUF source
 * `model.safetensors` with what is quantised beside `model.gguf` with all else.
 * @param store the source; its tensors may be decoded or transformed as they are read
 * @param seed of the run
 * @throws InputError for a name that the source lacks, that is no matrix, or that collides with a payload's name
 */
export function planPvqLayout(
  store: TensorStore,
  format: 'huggingface' | 'gguf',
  tensors: readonly QuantisedTensor[],
  seed: bigint,
): PvqLayout {
  const quantised = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const infos = new Map<string, TensorInfo>();
  for (const { name } of tensors) {
    const info = store.tensors.get(name);
    if (info === undefined) throw new InputError(`${store.path}: tensor "${name}" does not exist`);
    if (info.shape.length < 2 || elementCount(info.shape) === 0)
      throw new InputError(
        `${info.file}: tensor "${name}" of shape [${info.shape.join(', ')}] is no matrix: leave it out`,
      );
    infos.set(name, info);
  }
  for (const { name, file } of store.tensors.values()) {
    const payload = parsePayloadName(name);
    if (payload !== undefined && quantised.has(payload.tensor))
      throw new InputError(`${file}: tensor "${name}" has the name of a part of "${payload.tensor}": rename it`);
  }
  const kept = format === 'gguf' ? [...store.tensors.values()].filter(({ name }) => !quantised.has(name)) : [];
  const files = format === 'gguf' ? [ggufCompanion([...infos.values()], quantised)] : groupByFile(store, quantised);
  const indexed = files.length > 1 || files[0].fileName !== SAFETENSORS_FILE;
  const fileOf = new Map(files.flatMap((file) => file.tensors.map((info) => [info.name, file] as const)));

  const decimal = BigInt.asUintN(64, seed).toString();
  const fieldsOf = ({ name, transposed, gainPolicy, levelPolicy, rotation }: QuantisedTensor) => {
    const dtype = infos.get(name)?.dtype ?? 'F32';
    return { dtype, transposed, gainPolicy, levelPolicy, rotation: storedRotation(rotation) };
  };
  const tables = pvqTables(tensors.map(fieldsOf));
  const withQuantised = files.filter((file) => file.tensors.some(({ name }) => quantised.has(name))).length;
  const layout: PvqLayout = {
    format,
    seed: decimal,
    quantised,
    ordinals: new Map([...quantised.keys()].map((name, i) => [name, i])),
    tables,
    files,
    kept,
    indexed,
    fixedBytes: withQuantised * fixedFileBytes(decimal, tables),
    describe(name, code) {
      const tensor = quantised.get(name);
      const info = infos.get(name);
      if (tensor === undefined || info === undefined) throw new RangeError(`tensor "${name}" is not quantised`);
      return { name, shape: info.shape, ...fieldsOf(tensor), code, wordBits: wordBits(code) };
    },
    tensorBytes(name, code, options = {}) {
      const described = layout.describe(name, code);
      const { columns } = matrixOf(described.shape, described.transposed);
      const sizes = { ...rowSizes(columns, code), wideScales: false, zeroGroups: false, ...options };
      const file = fileOf.get(name);
      const index = indexed && file !== undefined ? { fileName: file.fileName } : undefined;
      const { payload, metadata } = tensorFileBytes(described, sizes, file?.digits ?? 0, tables, index);
      return { payload, metadata, total: payload + metadata };
    },
    bitsPerWeight(codes) {
      const sizes = [...codes].map(([name, code]) => ({
        bytes: layout.tensorBytes(name, code).total,
        weights: elementCount(infos.get(name)?.shape ?? []),
      }));
      return fileBitsPerWeight(sizes, layout.fixedBytes);
    },
  };
  return layout;
}

/** Bytes that a row of a tensor takes as packed indices and as gain codes. */
export function rowSizes(columns: number, code: PyramidCode) {
  const groups = rowGroups(columns, code.groupLength);
  return { indexRowBytes: rowIndexBytes(code, groups), gainRowBytes: rowCodeBytes(code.gainBits, groups) };
}

function ggufCompanion(tensors: readonly TensorInfo[], quantised: ReadonlyMap<string, QuantisedTensor>): PvqFilePlan {
  const most = tensors.reduce((sum, info) => sum + mostBytes(info, quantised.get(info.name)), 0);
  return { fileName: SAFETENSORS_FILE, tensors, metadata: { format: 'pt' }, digits: offsetDigits(most) };
}
