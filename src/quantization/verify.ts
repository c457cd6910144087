import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { InputError } from '../errors.js';
import { updateCrc32 } from '../formats/crc32.js';
import { quoted } from '../formats/files.js';
import { openGguf } from '../formats/gguf.js';
import { PVQ_KEY, PVQ_VERSION } from '../formats/pvq.js';
import { SAFETENSORS_INDEX } from '../formats/safetensors.js';
import { elementCount, type TensorStore } from '../formats/tensor.js';
import { rowGroups, wordBits } from '../kernels/pyramid.js';
import { unpackPulses } from '../kernels/pyramid-index.js';
import { sha256Tensor, tensorBytes } from '../models/model-directory.js';
import { openModelFiles } from '../models/model-files.js';
import { isPvqStore, openWeights, type PvqStore } from '../models/pvq-store.js';
import { atRow, createPvqDecoder, type PvqDecoder, partsInOrder, type StoredPvqTensor } from '../models/pvq-tensors.js';
import { createWeightReader } from '../models/weights.js';
import { type Report, readReport } from '../report/json.js';
import { measureFile, measureIndexLines } from './pvq-bytes.js';
import { changedFiles, MANIFEST_FILE, MANIFEST_SCHEMA } from './pvq-manifest.js';

export const VERIFY_SCHEMA = 'quantize-pvq-verify';

/** A claim that does not hold. */
export interface Problem {
  readonly tensor: string | null;
  /** Row as stored, where one is at fault. */
  readonly row: number | null;
  readonly problem: string;
}

/** Errors of a decoded tensor against its source, in f64. */
export interface DecodingError {
  /** Mean of the squared weights of the source. */
  readonly mean_square: number;
  /** Mean squared error. */
  readonly mse: number;
  /** 10 log10(sum w^2 / sum (w - what)^2). */
  readonly sqnr_db: number;
  readonly cosine: number;
  readonly max_abs_error: number;
}

export interface VerifiedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly group_length: number;
  readonly pulses: number;
  readonly super_group: number;
  readonly gain_bits: number;
  readonly rotation: string;
  readonly weights: number;
  readonly payload_bytes: number;
  readonly metadata_bytes: number;
  readonly bits_per_weight: number;
  readonly groups: number;
  /** Groups that the bitmap marks as exactly zero. */
  readonly zero_groups: number;
  readonly crc32: string;
  /** null without the source, or where it is another one. */
  readonly error: DecodingError | null;
  /** What the manifest says, where it does. */
  readonly reported_sqnr_db: number | null;
  readonly reported_cosine: number | null;
  readonly holds: boolean;
}

export interface Verification {
  readonly format: string;
  readonly tensors: readonly VerifiedTensor[];
  readonly weights: number;
  readonly bytes: number;
  readonly bits_per_weight: number;
  readonly reported_bits_per_weight: number | null;
  /** Of all weights together; null where a tensor was not compared with its source. */
  readonly sqnr_db: number | null;
  /** Files whose hash is not that of the manifest; null without a manifest. */
  readonly changed_files: readonly string[] | null;
  readonly problems: readonly Problem[];
}

export interface VerifyOptions {
  readonly model: string;
  /** The model that was quantised. */
  readonly source?: string;
  readonly threads?: number;
  /** Called before each tensor and waited for, so that signals are served in between. */
  readonly progress?: (done: number, total: number, name: string) => Promise<void>;
}

/** Weights decoded at a time. */
const BAND = 1 << 20;
/** Differences that the order of sums and the rounding of rotations in f32 explain. */
const TOLERANCE = { sqnrDb: 1e-3, cosine: 1e-6, relative: 1e-3 };

type Complain = (problem: string, row?: number) => void;

function checkCrc(store: TensorStore, stored: StoredPvqTensor, complain: Complain): string {
  let crc = 0;
  for (const info of partsInOrder(stored)) for (const bytes of tensorBytes(store, info)) crc = updateCrc32(crc, bytes);
  const hex = (value: number): string => value.toString(16).padStart(8, '0');
  if (crc !== stored.tensor.crc32)
    complain(`its parts have CRC-32 ${hex(crc)}, the metadata say ${hex(stored.tensor.crc32)}: damaged`);
  return hex(crc);
}

/** The first row with a set bit behind its last code, or -1. */
function strayBits(bytes: Uint8Array, rows: number, bitsUsed: number): number {
  const perRow = bytes.length / rows;
  const free = 8 * perRow - bitsUsed;
  if (free <= 0 || perRow === 0) return -1;
  for (let r = 0; r < rows; r++) if (bytes[(r + 1) * perRow - 1] >> (8 - free) !== 0) return r;
  return -1;
}

/** Bits that the packed indices of one row take. */
function rowBits(stored: StoredPvqTensor, groups: number): number {
  const { code } = stored.tensor;
  const whole = Math.floor(groups / code.superGroup);
  return whole * wordBits(code) + wordBits(code, groups - whole * code.superGroup);
}

/** Decodes every index and holds the pulses of every group against K; counts groups that are marked as zero. */
function checkRows(
  decoder: PvqDecoder,
  stored: StoredPvqTensor,
  threads: number | undefined,
  complain: Complain,
): number {
  const { matrix, tensor } = stored;
  const { groupLength, pulses: K, gainBits } = tensor.code;
  const groups = rowGroups(matrix.columns, groupLength);
  const bits = rowBits(stored, groups);
  const band = Math.max(1, Math.floor(BAND / (groups * groupLength)));
  const held = new Int16Array(Math.min(band, matrix.rows) * groups * groupLength);
  let zeros = 0;
  for (let first = 0; first < matrix.rows; first += band) {
    const rows = Math.min(band, matrix.rows - first);
    const encoded = decoder.encoded(stored, first, rows);
    const pulses = held.subarray(0, rows * groups * groupLength);
    try {
      unpackPulses(encoded.index, rows, groups, tensor.code, pulses, threads);
    } catch (error) {
      throw atRow(error, stored, first);
    }
    for (let g = 0; g < rows * groups; g++) {
      let sum = 0;
      for (let i = g * groupLength; i < (g + 1) * groupLength; i++) sum += Math.abs(pulses[i]);
      if (sum !== K) complain(`group ${g % groups}: ${sum} pulses instead of ${K}`, first + Math.floor(g / groups));
    }
    const stray = [
      strayBits(encoded.index, rows, bits),
      strayBits(encoded.gain, rows, groups * gainBits),
      encoded.zeroGroups === undefined ? -1 : strayBits(encoded.zeroGroups, rows, groups),
    ].find((row) => row >= 0);
    if (stray !== undefined) complain('bits are set behind the last code of the row', first + stray);
    for (const byte of encoded.zeroGroups ?? []) for (let rest = byte; rest > 0; rest &= rest - 1) zeros++;
  }
  return zeros;
}

/** Errors of a decoded tensor, element by element in the layout of the source. */
function measureErrors(store: TensorStore, source: TensorStore, name: string): DecodingError | undefined {
  const [decoded, original] = [store.tensors.get(name), source.tensors.get(name)];
  if (decoded === undefined || original === undefined) return undefined;
  const elements = elementCount(decoded.shape);
  const width = decoded.shape.at(-1) ?? 1;
  const step = width > BAND ? BAND : BAND - (BAND % width);
  const [a, b] = [new Float32Array(Math.min(step, elements)), new Float32Array(Math.min(step, elements))];
  const reader = createWeightReader(1);
  let [energy, decodedEnergy, product, error, largest] = [0, 0, 0, 0, 0];
  const rowsOf = original.shape.at(-1) ?? 1;
  for (let at = 0; at < elements; at += step) {
    const count = Math.min(step, elements - at);
    const flat = { start: 0, shape: [elements / rowsOf, rowsOf] };
    reader.read(
      { store: source, tensor: original, byteLength: original.byteLength, ...flat },
      a.subarray(0, count),
      at / rowsOf,
      count / rowsOf,
    );
    reader.read(
      { store, tensor: decoded, byteLength: decoded.byteLength, ...flat },
      b.subarray(0, count),
      at / rowsOf,
      count / rowsOf,
    );
    for (let i = 0; i < count; i++) {
      const difference = a[i] - b[i];
      energy += a[i] * a[i];
      decodedEnergy += b[i] * b[i];
      product += a[i] * b[i];
      error += difference * difference;
      largest = Math.max(largest, Math.abs(difference));
    }
  }
  return {
    mean_square: energy / elements,
    mse: error / elements,
    sqnr_db: 10 * Math.log10(energy / error),
    cosine: product / Math.sqrt(energy * decodedEnergy),
    max_abs_error: largest,
  };
}

/** What the manifest says of one tensor. */
interface Claim {
  readonly name: string;
  readonly payload_bytes: number;
  readonly metadata_bytes: number;
  readonly source_sha256: string;
  readonly record: Readonly<Record<string, unknown>>;
}

function claimedNumber(claim: Claim | undefined, key: string): number | null {
  const value = claim?.record[key];
  return typeof value === 'number' ? value : null;
}

function compareErrors(error: DecodingError, claim: Claim | undefined, complain: Complain): void {
  const compare = (key: keyof DecodingError, tolerance: (claimed: number) => number): void => {
    const claimed = claimedNumber(claim, key);
    if (claimed !== null && !(Math.abs(error[key] - claimed) <= tolerance(claimed)))
      complain(`${key} is ${error[key]}, the manifest says ${claimed}`);
  };
  compare('sqnr_db', () => TOLERANCE.sqnrDb);
  compare('cosine', () => TOLERANCE.cosine);
  compare('mse', (claimed) => TOLERANCE.relative * claimed);
}

/** A quantised model with its directory, manifest and source opened. */
interface Opened {
  readonly store: PvqStore;
  readonly directory: string;
  readonly manifest: Report | undefined;
  readonly source: TensorStore | undefined;
}

function openStore(model: string, threads: number | undefined): TensorStore {
  const isDirectory = statSync(model, { throwIfNoEntry: false })?.isDirectory() ?? false;
  if (!isDirectory && model.toLowerCase().endsWith('.gguf')) return openModelFiles(model, threads).store;
  const gguf = join(model, 'model.gguf');
  if (isDirectory && existsSync(gguf) && !existsSync(join(model, 'config.json')))
    return openModelFiles(gguf, threads).store;
  return openWeights(model, threads);
}

function openSource(source: string | undefined): TensorStore | undefined {
  if (source === undefined) return undefined;
  return source.toLowerCase().endsWith('.gguf') ? openGguf(source) : openWeights(source);
}

function open({ model, source, threads }: VerifyOptions): Opened {
  const store = openStore(model, threads);
  if (!isPvqStore(store)) {
    store.close();
    throw new InputError(
      `${model}: holds no quantised tensor of the format ${PVQ_VERSION}: there is nothing to verify`,
    );
  }
  const isDirectory = statSync(model).isDirectory();
  const directory = isDirectory ? model : dirname(model);
  const place = join(directory, MANIFEST_FILE);
  const manifest = existsSync(place) ? readReport(place) : undefined;
  return {
    store,
    directory,
    manifest: manifest?.schema === `surprisal/${MANIFEST_SCHEMA}` ? manifest : undefined,
    source: openSource(source),
  };
}

interface Measured {
  readonly bytes: ReadonlyMap<string, { readonly payload: number; readonly metadata: number }>;
  readonly fixed: number;
}

/** Bytes of all quantised tensors, from the headers and the index as they lie there. */
function measure({ store, directory }: Opened): Measured {
  const indexFile = join(directory, SAFETENSORS_INDEX);
  const lines = measureIndexLines(existsSync(indexFile) ? readFileSync(indexFile, 'utf8') : '');
  const bytes = new Map<string, { payload: number; metadata: number }>();
  let fixed = 0;
  const byFile = new Map<string, StoredPvqTensor[]>();
  for (const stored of store.quantised.values()) {
    const list = byFile.get(stored.file);
    if (list === undefined) byFile.set(stored.file, [stored]);
    else list.push(stored);
  }
  for (const [file, list] of byFile) {
    const metadata = store.stored.fileMetadata?.get(file) ?? store.stored.metadata;
    const measured = measureFile(file, list, metadata[PVQ_KEY]);
    fixed += measured.fixed;
    for (const stored of list) {
      const { payload = 0, metadata: own = 0 } = measured.tensors.get(stored.tensor.name) ?? {};
      const inIndex = partsInOrder(stored).reduce((sum, { name }) => sum + (lines.get(name) ?? 0), 0);
      bytes.set(stored.tensor.name, { payload, metadata: own + inIndex });
    }
  }
  return { bytes, fixed };
}

/**
 * Decodes a quantised model and holds it against what it claims: checksums; every index a point of its pyramid with K
 * pulses; nothing behind the last code of a row; levels and scales finite; bytes and bits per weight as measured in the
 * files; with the source its hash, and the errors of the decoded weights; all this, and the hashes of the files,
 * against the manifest.
 * @throws InputError where the files cannot be read as this format at all
 */
export async function verifyModel(options: VerifyOptions): Promise<Verification> {
  const opened = open(options);
  try {
    return await verifyOpened(opened, options);
  } finally {
    opened.store.close();
    opened.source?.close();
  }
}

async function verifyOpened(opened: Opened, options: VerifyOptions): Promise<Verification> {
  const { store, directory, manifest } = opened;
  const { bytes: measured, fixed } = measure(opened);
  const decoder = createPvqDecoder(store.stored, options.threads);
  const claims = new Map(((manifest?.tensors ?? []) as Claim[]).map((claim) => [claim.name, claim] as const));
  const problems: Problem[] = [];
  const tensors: VerifiedTensor[] = [];
  let bytes = fixed;
  for (const [name, stored] of store.quantised) {
    await options.progress?.(tensors.length, store.quantised.size, name);
    const size = measured.get(name) ?? { payload: 0, metadata: 0 };
    bytes += size.payload + size.metadata;
    tensors.push(verifyTensor(opened, decoder, stored, size, claims.get(name), options.threads, problems));
  }
  for (const name of claims.keys())
    if (!store.quantised.has(name))
      problems.push({ tensor: name, row: null, problem: 'is in the manifest and not in the files' });
  const weights = tensors.reduce((sum, tensor) => sum + tensor.weights, 0);
  const bits = (8 * bytes) / weights;
  const reported = typeof manifest?.bits_per_weight === 'number' ? manifest.bits_per_weight : null;
  if (reported !== null && Math.abs(reported - bits) > 1e-9)
    problems.push({
      tensor: null,
      row: null,
      problem: `${bits} bits per weight are stored, the manifest says ${reported}`,
    });
  const changed = manifest === undefined ? null : await changedFiles(directory, manifest);
  for (const name of changed ?? [])
    problems.push({
      tensor: null,
      row: null,
      problem: `${name}: is missing or has another SHA-256 than in the manifest`,
    });
  return {
    format: PVQ_VERSION,
    tensors,
    weights,
    bytes,
    bits_per_weight: bits,
    reported_bits_per_weight: reported,
    sqnr_db: totalSqnr(tensors),
    changed_files: changed,
    problems,
  };
}

function totalSqnr(tensors: readonly VerifiedTensor[]): number | null {
  let [energy, error] = [0, 0];
  for (const tensor of tensors) {
    if (tensor.error === null) return null;
    energy += tensor.error.mean_square * tensor.weights;
    error += tensor.error.mse * tensor.weights;
  }
  return 10 * Math.log10(energy / error);
}

function verifyTensor(
  { store, source }: Opened,
  decoder: PvqDecoder,
  stored: StoredPvqTensor,
  size: { readonly payload: number; readonly metadata: number },
  claim: Claim | undefined,
  threads: number | undefined,
  problems: Problem[],
): VerifiedTensor {
  const { tensor, matrix } = stored;
  const before = problems.length;
  const complain: Complain = (problem, row) => {
    // One row at fault says enough of a tensor; a damaged one would fill pages.
    if (row !== undefined && problems.slice(before).some((other) => other.row !== null)) return;
    problems.push({ tensor: tensor.name, row: row ?? null, problem });
  };
  const crc32 = checkCrc(store.stored, stored, complain);
  if (claim && (claim.payload_bytes !== size.payload || claim.metadata_bytes !== size.metadata))
    complain(
      `takes ${size.payload} + ${size.metadata} bytes, the manifest says ${claim.payload_bytes} + ${claim.metadata_bytes}`,
    );
  if (claim && claim.source_sha256 !== tensor.sourceSha256)
    complain('the metadata and the manifest name different sources');
  let zeros = 0;
  let error: DecodingError | undefined;
  try {
    zeros = checkRows(decoder, stored, threads, complain);
    if (source !== undefined && isSameSource(source, stored, complain))
      error = measureErrors(store, source, tensor.name);
  } catch (fault) {
    if (!(fault instanceof InputError)) throw fault;
    const row = /, row (\d+)/.exec(fault.message)?.[1];
    complain(
      fault.message.replace(`${stored.file}: tensor ${quoted(tensor.name)}`, '').replace(/^[,:] /, ''),
      row === undefined ? undefined : Number(row),
    );
  }
  if (error !== undefined) compareErrors(error, claim, complain);
  const weights = elementCount(tensor.shape);
  return {
    name: tensor.name,
    shape: tensor.shape,
    group_length: tensor.code.groupLength,
    pulses: tensor.code.pulses,
    super_group: tensor.code.superGroup,
    gain_bits: tensor.code.gainBits,
    rotation:
      tensor.rotation === null
        ? 'none'
        : `${tensor.rotation.kind} ${tensor.rotation.kind === 'blocks' ? tensor.rotation.blocks : tensor.rotation.core}`,
    weights,
    payload_bytes: size.payload,
    metadata_bytes: size.metadata,
    bits_per_weight: (8 * (size.payload + size.metadata)) / weights,
    groups: matrix.rows * rowGroups(matrix.columns, tensor.code.groupLength),
    zero_groups: zeros,
    crc32,
    error: error ?? null,
    reported_sqnr_db: claimedNumber(claim, 'sqnr_db'),
    reported_cosine: claimedNumber(claim, 'cosine'),
    holds: problems.length === before,
  };
}

function isSameSource(source: TensorStore, stored: StoredPvqTensor, complain: Complain): boolean {
  const { name, shape, sourceSha256 } = stored.tensor;
  const info = source.tensors.get(name);
  if (info === undefined || info.shape.join() !== shape.join()) {
    complain(info === undefined ? 'is not in the source' : `has shape [${info.shape.join(', ')}] in the source`);
    return false;
  }
  if (sha256Tensor(source, info) === sourceSha256) return true;
  complain('the source has other bytes than those that were quantised: another model, or one whose weights were fused');
  return false;
}
