import fs from 'node:fs';
import path from 'node:path';
import { didYouMean, InputError } from '../errors.js';
import { decodeUtf8, fileError, openRange, quoted, type RangeFile, readWhole } from './files.js';
import { byteLengthOf } from './ggml-blocks.js';
import { duplicateKey } from './json-keys.js';
import { DTYPE_BYTES, type DType, type TensorInfo, type TensorStore } from './tensor.js';

/** Largest JSON header that the format allows (safetensors, `MAX_HEADER_SIZE`). */
export const MAX_HEADER_BYTES = 100_000_000;

export const SAFETENSORS_FILE = 'model.safetensors';
export const SAFETENSORS_INDEX = 'model.safetensors.index.json';

type JsonObject = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Parses a JSON object and refuses keys that stand twice. `where` begins every message. */
function parseObject(text: string, where: string, what: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InputError(`${where}: ${what} is not valid JSON (${quoted((error as Error).message)}): fetch it again`);
  }
  if (!isObject(value)) throw new InputError(`${where}: ${what} is not a JSON object`);
  const twice = duplicateKey(text);
  if (twice !== undefined) throw new InputError(`${where}: ${what} holds the name ${quoted(twice)} twice`);
  return value;
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function parseMetadata(value: unknown, where: string): Record<string, string> {
  if (!isObject(value)) throw new InputError(`${where}: __metadata__ is not an object of strings`);
  for (const [key, entry] of Object.entries(value))
    if (typeof entry !== 'string')
      throw new InputError(
        `${where}: __metadata__ entry ${quoted(key)} is not a string: the format allows strings only`,
      );
  return value as Record<string, string>;
}

/** Validates one entry of a header. `dataStart` is the first byte after the header, `dataBytes` what follows it. */
function parseEntry(name: string, entry: unknown, file: string, dataStart: number, dataBytes: number): TensorInfo {
  const where = `${file}: tensor ${quoted(name)}`;
  if (!isObject(entry)) throw new InputError(`${where}: its header entry is not an object`);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== 'string' || !Object.hasOwn(DTYPE_BYTES, dtype)) {
    const known = Object.keys(DTYPE_BYTES);
    throw new InputError(
      `${where}: unknown dtype ${quoted(String(dtype))}${didYouMean(String(dtype).slice(0, 32), known)}; known: ${known.join(' ')}`,
    );
  }
  if (!Array.isArray(shape) || !shape.every(isCount))
    throw new InputError(`${where}: its shape is not a list of whole numbers from 0 on`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount))
    throw new InputError(`${where}: data_offsets are not two whole numbers from 0 on`);
  const [begin, end] = offsets as [number, number];
  if (begin > end) throw new InputError(`${where}: data_offsets [${begin}, ${end}] run backwards`);
  if (end > dataBytes)
    throw new InputError(
      `${where}: ends at byte ${end} of the data, of which the file holds ${dataBytes}: truncated, fetch it again`,
    );
  let byteLength: number;
  try {
    byteLength = byteLengthOf(dtype as DType, shape as number[]);
  } catch (error) {
    throw error instanceof InputError ? new InputError(`${where}: ${error.message}`) : error;
  }
  if (byteLength !== end - begin)
    throw new InputError(
      `${where}: ${end - begin} bytes stored, but ${dtype} [${shape.join(', ')}] takes ${byteLength} bytes`,
    );
  return { name, dtype: dtype as DType, shape: shape as number[], file, offset: dataStart + begin, byteLength };
}

/** The tensors must cover the data without overlap, hole or rest, as the format demands. */
function checkCoverage(infos: readonly TensorInfo[], file: RangeFile, dataStart: number): void {
  const inOrder = [...infos].sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  let end = dataStart;
  let before = '';
  for (const info of inOrder) {
    if (info.offset < end)
      throw new InputError(`${file.path}: tensors ${quoted(before)} and ${quoted(info.name)} overlap: write it again`);
    if (info.offset > end)
      throw new InputError(
        `${file.path}: ${info.offset - end} bytes before tensor ${quoted(info.name)} belong to no tensor: write it again`,
      );
    end = info.offset + info.byteLength;
    before = info.name;
  }
  if (end !== file.size)
    throw new InputError(
      `${file.path}: ${file.size - end} bytes after the last tensor belong to no tensor: fetch or write it again`,
    );
}

interface Header {
  readonly infos: readonly TensorInfo[];
  readonly metadata: Readonly<Record<string, string>>;
}

/** Reads and validates the header of one open file: u64 length, JSON, then the data. */
function readHeader(file: RangeFile): Header {
  if (file.size < 8)
    throw new InputError(
      `${file.path}: ${file.size === 0 ? 'the file is empty' : 'truncated: shorter than its length field'}: fetch it again`,
    );
  const lengthField = new Uint8Array(8);
  file.readInto(0, 8, lengthField);
  const declared = new DataView(lengthField.buffer).getBigUint64(0, true);
  if (declared > BigInt(MAX_HEADER_BYTES))
    throw new InputError(
      `${file.path}: a header of ${declared} bytes is more than the ${MAX_HEADER_BYTES} allowed: not a safetensors file`,
    );
  const headerBytes = Number(declared);
  if (8 + headerBytes > file.size)
    throw new InputError(
      `${file.path}: truncated: its header takes ${headerBytes} bytes, the file holds ${file.size - 8}: fetch it again`,
    );
  const bytes = new Uint8Array(headerBytes);
  file.readInto(8, headerBytes, bytes);
  const text = decodeUtf8(bytes, `${file.path}: header`);
  if (!text.startsWith('{'))
    throw new InputError(`${file.path}: its header is not a JSON object: not a safetensors file`);
  const header = parseObject(text, file.path, 'its header');
  const dataStart = 8 + headerBytes;
  const infos: TensorInfo[] = [];
  let metadata: Record<string, string> = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') metadata = parseMetadata(entry, file.path);
    else infos.push(parseEntry(name, entry, file.path, dataStart, file.size - dataStart));
  }
  checkCoverage(infos, file, dataStart);
  return { infos, metadata };
}

/** Opens several files as one store; closes those already open when one is refused. */
function openFiles(shown: string, paths: readonly string[]): TensorStore {
  const files = new Map<string, RangeFile>();
  const tensors = new Map<string, TensorInfo>();
  const metadata = new Map<string, string>();
  const fileMetadata = new Map<string, Readonly<Record<string, string>>>();
  const close = (): void => {
    for (const file of files.values()) file.close();
  };
  try {
    for (const filePath of paths) {
      const file = openRange(filePath);
      files.set(filePath, file);
      const header = readHeader(file);
      for (const info of header.infos) {
        const other = tensors.get(info.name);
        if (other !== undefined)
          throw new InputError(`${shown}: tensor ${quoted(info.name)} is both in ${other.file} and in ${filePath}`);
        tensors.set(info.name, info);
      }
      fileMetadata.set(filePath, header.metadata);
      for (const [key, value] of Object.entries(header.metadata)) metadata.set(key, value);
    }
  } catch (error) {
    close();
    throw error;
  }
  return {
    path: shown,
    tensors,
    metadata: Object.fromEntries(metadata),
    fileMetadata,
    readInto(tensor, start, length, target): void {
      const file = files.get(tensor.file);
      if (file === undefined || start < 0 || length < 0 || start + length > tensor.byteLength)
        throw new RangeError(`${shown}: bytes ${start}..${start + length} are not in tensor ${tensor.name}`);
      file.readInto(tensor.offset + start, length, target);
    },
    close,
  };
}

/** Opens the shards that an index names. Every tensor of the index must be in the shard that it names. */
function openIndex(shown: string, indexPath: string): TensorStore {
  const text = decodeUtf8(readWhole(indexPath, MAX_HEADER_BYTES), indexPath);
  const index = parseObject(text, indexPath, 'the index');
  const weightMap = index.weight_map;
  if (!isObject(weightMap)) throw new InputError(`${indexPath}: has no "weight_map" object: not a safetensors index`);
  const directory = path.dirname(indexPath);
  const shardOf = new Map<string, string>();
  const shards = new Set<string>();
  for (const [name, shard] of Object.entries(weightMap)) {
    if (typeof shard !== 'string' || shard === '')
      throw new InputError(`${indexPath}: tensor ${quoted(name)} is mapped to something that is not a file name`);
    if (path.isAbsolute(shard) || /[\\\0]/.test(shard) || shard.split('/').includes('..'))
      throw new InputError(`${indexPath}: tensor ${quoted(name)} is mapped outside of the directory: ${quoted(shard)}`);
    shards.add(shard);
    shardOf.set(name, shard);
  }
  if (shards.size === 0) throw new InputError(`${indexPath}: its weight_map is empty`);
  for (const shard of shards)
    if (!fs.existsSync(path.join(directory, shard)))
      throw new InputError(`${indexPath}: shard ${quoted(shard)} is missing: fetch it into ${directory}`);
  const store = openFiles(
    shown,
    [...shards].map((shard) => path.join(directory, shard)),
  );
  for (const [name, shard] of shardOf) {
    const info = store.tensors.get(name);
    if (info === undefined || info.file !== path.join(directory, shard)) {
      store.close();
      throw new InputError(
        `${indexPath}: shard ${quoted(shard)} lacks tensor ${quoted(name)} that the index names: fetch both again`,
      );
    }
  }
  return store;
}

/** The safetensors file or index of a directory, in transformers' order of preference. */
function findInDirectory(directory: string): string {
  let names: string[];
  try {
    names = fs.readdirSync(directory);
  } catch (error) {
    throw fileError(error, directory, 'list');
  }
  if (names.includes(SAFETENSORS_FILE)) return path.join(directory, SAFETENSORS_FILE);
  if (names.includes(SAFETENSORS_INDEX)) return path.join(directory, SAFETENSORS_INDEX);
  const indexes = names.filter((name) => name.endsWith('.safetensors.index.json'));
  if (indexes.length === 1) return path.join(directory, indexes[0]);
  const files = names.filter((name) => name.endsWith('.safetensors')).sort();
  if (files.length === 1 && indexes.length === 0) return path.join(directory, files[0]);
  if (files.length > 1)
    throw new InputError(
      `${directory}: holds ${files.length} .safetensors files and no ${SAFETENSORS_INDEX}: fetch the index or name one file`,
    );
  const torch = names.find((name) => /^pytorch_model.*\.bin$/.test(name));
  if (torch !== undefined)
    throw new InputError(
      `${directory}: holds ${torch} and no safetensors: PyTorch pickles are not read, fetch or save it as safetensors`,
    );
  throw new InputError(`${directory}: holds no ${SAFETENSORS_FILE} and no ${SAFETENSORS_INDEX}`);
}

/**
 * Opens safetensors weights: a file, a directory (`model.safetensors`, else `model.safetensors.index.json`, else the
 * only .safetensors in it), or an index. Only headers are read; symbolic links (the hub cache) are followed.
 *
 * The whole header is validated: size limits, JSON, UTF-8, names that stand twice (within one file and across
 * shards), dtypes, shapes, offsets, overlaps, holes, byte lengths, and that every shard holds what the index says.
 * @throws InputError for everything that is wrong with the files, RunError for device errors.
 */
export function openSafetensors(location: string): TensorStore {
  let stat: fs.Stats;
  try {
    stat = fs.statSync(location);
  } catch (error) {
    throw fileError(error, location, 'open');
  }
  const found = stat.isDirectory() ? findInDirectory(location) : location;
  return found.endsWith('.json') ? openIndex(location, found) : openFiles(location, [found]);
}
