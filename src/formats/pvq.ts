import { InputError } from '../errors.js';
import { quoted } from './files.js';
import { byteLengthOf } from './ggml-blocks.js';
import { GGML_TYPE_NUMBERS } from './ggml-types.js';
import { duplicateKey } from './json-keys.js';
import { headerEntry, type PlannedTensor } from './safetensors-writer.js';
import { DTYPE_BYTES, type DType, elementCount, type GgmlBlockType } from './tensor.js';

/** The version of the format that is written, and the only one that is read. */
export const PVQ_VERSION = 'pvq-1';
/** The key of `__metadata__` that holds the description of a file's quantised tensors. */
export const PVQ_KEY = 'pvq';

/** Stored parts of a quantised tensor, in the order in which their checksum runs over them. */
export const PVQ_PARTS = ['index', 'gain', 'scale', 'levels', 'sign', 'zero'] as const;
export type PvqPart = (typeof PVQ_PARTS)[number];

/** Name of the stored tensor that holds one part of tensor `name`. */
export function payloadName(name: string, part: PvqPart): string {
  return `${name}.pvq_${part}`;
}

/** The quantised tensor and the part that a stored name stands for, if it has the form of a payload's name. */
export function parsePayloadName(stored: string): { readonly tensor: string; readonly part: PvqPart } | undefined {
  const match = /^(.+)\.pvq_(index|gain|scale|levels|sign|zero)$/s.exec(stored);
  return match === null ? undefined : { tensor: match[1], part: match[2] as PvqPart };
}

/** D, K, groups a word, bits of a gain code. */
export interface PvqCode {
  readonly groupLength: number;
  readonly pulses: number;
  readonly superGroup: number;
  readonly gainBits: number;
}

/** The rotation of a tensor's rows; its signs are stored beside it. */
export interface PvqRotation {
  readonly kind: 'sylvester' | 'paley1' | 'paley2' | 'blocks';
  readonly core: number;
  readonly blocks: number;
  /** Decimal. What only a permutation needs (`blocks`), since signs are stored; "0" for all other kinds. */
  readonly seed: string;
}

/** What the metadata say of one quantised tensor. */
export interface PvqTensor {
  readonly name: string;
  /** As in the source, slowest axis first: a matrix, or a stack of matrices along the leading axes. */
  readonly shape: readonly number[];
  /** Type of the source's elements. */
  readonly dtype: DType | GgmlBlockType;
  /** The source stores each matrix [in, out]; its rows are the columns of what is stored. */
  readonly transposed: boolean;
  readonly code: PvqCode;
  /** Bits of the word of a full super-group. */
  readonly wordBits: number;
  readonly gainPolicy: string;
  readonly levelPolicy: string;
  /** null where rows are stored as they are. */
  readonly rotation: PvqRotation | null;
  /** CRC-32 of the parts, one after another in the order of {@link PVQ_PARTS}. */
  readonly crc32: number;
  /** SHA-256 of the bytes of the source tensor, hexadecimal. */
  readonly sourceSha256: string;
}

/** The metadata of one file. */
export interface PvqMetadata {
  /** Seed of the run, decimal; rotations and signs follow from it and from the names. */
  readonly seed: string;
  readonly tensors: readonly PvqTensor[];
}

/** Rows [rows = out, columns = in] that a tensor is stored as, those of all its matrices. */
export interface PvqMatrix {
  readonly matrices: number;
  readonly rows: number;
  readonly columns: number;
}

/** @throws RangeError for fewer than two axes. */
export function matrixOf(shape: readonly number[], transposed: boolean): PvqMatrix {
  if (shape.length < 2) throw new RangeError(`shape [${shape.join(', ')}] is no matrix`);
  const matrices = elementCount(shape.slice(0, -2));
  const [first, second] = shape.slice(-2);
  return transposed
    ? { matrices, rows: matrices * second, columns: first }
    : { matrices, rows: matrices * first, columns: second };
}

/** What the size of a tensor's parts depends on, beside its shape. */
export interface PayloadSizes {
  /** Bytes that the packed indices of one row take. */
  readonly indexRowBytes: number;
  readonly gainRowBytes: number;
  /** A row scale does not fit F16: all are F32. */
  readonly wideScales: boolean;
  /** A bitmap of zero groups is stored. */
  readonly zeroGroups: boolean;
}

/** The stored tensors of a quantised one. */
export function payloadPlan(
  tensor: Pick<PvqTensor, 'name' | 'shape' | 'transposed' | 'code' | 'rotation'>,
  sizes: PayloadSizes,
): PlannedTensor[] {
  const { rows, columns } = matrixOf(tensor.shape, tensor.transposed);
  const { groupLength, gainBits } = tensor.code;
  const plan: PlannedTensor[] = [];
  const add = (part: PvqPart, dtype: DType, shape: number[]): void => {
    plan.push({ name: payloadName(tensor.name, part), dtype, shape });
  };
  add('index', 'U8', [rows, sizes.indexRowBytes]);
  if (gainBits > 0) add('gain', 'U8', [rows, sizes.gainRowBytes]);
  add('scale', sizes.wideScales ? 'F32' : 'F16', [rows]);
  add('levels', 'F32', [2 ** gainBits]);
  if (tensor.rotation !== null) add('sign', 'U8', [Math.ceil(columns / 8)]);
  if (sizes.zeroGroups) add('zero', 'U8', [rows, Math.ceil(Math.ceil(columns / groupLength) / 8)]);
  return plan;
}

/** Columns of the table of tensors, in the order of a row. `seed` stands only where a permutation needs it. */
const COLUMNS = [
  'shape',
  'kind',
  'D',
  'K',
  'super_group',
  'bits',
  'gain_bits',
  'rotation',
  'crc32',
  'sha256',
  'seed',
] as const;

/** What tensors of a run have in common, written once in every file: see docs/pvq-format.md. */
export interface PvqTables {
  readonly kinds: object[];
  readonly rotations: object[];
}

type TableFields = Pick<PvqTensor, 'dtype' | 'transposed' | 'gainPolicy' | 'levelPolicy' | 'rotation'>;

function kindOf({ dtype, transposed, gainPolicy, levelPolicy }: TableFields): object {
  return { dtype, transposed, policy: gainPolicy, levels: levelPolicy };
}

function rotationOf({ kind, core, blocks }: PvqRotation): object {
  return { kind, core, blocks };
}

/** Position of `entry` in `list`, to which it is added where it is new. */
function enter(list: object[], entry: object): number {
  const text = JSON.stringify(entry);
  const found = list.findIndex((other) => JSON.stringify(other) === text);
  return found >= 0 ? found : list.push(entry) - 1;
}

/** The tables of a run over all of its quantised tensors, in their order. */
export function pvqTables(tensors: readonly TableFields[]): PvqTables {
  const tables: PvqTables = { kinds: [], rotations: [] };
  for (const tensor of tensors) {
    enter(tables.kinds, kindOf(tensor));
    if (tensor.rotation !== null) enter(tables.rotations, rotationOf(tensor.rotation));
  }
  return tables;
}

function rowOf(tensor: PvqTensor, tables: PvqTables): unknown[] {
  const { code, rotation } = tensor;
  const row: unknown[] = [
    tensor.shape,
    enter(tables.kinds, kindOf(tensor)),
    code.groupLength,
    code.pulses,
    code.superGroup,
    tensor.wordBits,
    code.gainBits,
    rotation === null ? null : enter(tables.rotations, rotationOf(rotation)),
    tensor.crc32.toString(16).padStart(8, '0'),
    Buffer.from(tensor.sourceSha256, 'hex').toString('base64url'),
  ];
  if (rotation?.kind === 'blocks') row.push(rotation.seed);
  return row;
}

function encodeHead(seed: string, tables: PvqTables): string {
  const { kinds, rotations } = tables;
  return `{"version":${JSON.stringify(PVQ_VERSION)},"seed":${JSON.stringify(seed)},"kinds":${JSON.stringify(kinds)},"rotations":${JSON.stringify(rotations)},"columns":${JSON.stringify(COLUMNS)},"tensors":{`;
}

function encodeRow(tensor: PvqTensor, tables: PvqTables): string {
  return `${JSON.stringify(tensor.name)}:${JSON.stringify(rowOf(tensor, tables))}`;
}

/** The value of `__metadata__.pvq`, a JSON text. `tables` are those of the run where a file holds a part of it. */
export function encodePvqMetadata({ seed, tensors }: PvqMetadata, tables = pvqTables(tensors)): string {
  return `${encodeHead(seed, tables)}${tensors.map((tensor) => encodeRow(tensor, tables)).join(',')}}}`;
}

/** Bytes of a text as part of a string in JSON, without the quotes. */
function escapedBytes(text: string): number {
  return Buffer.byteLength(JSON.stringify(text)) - 2;
}

/** Digits that offsets take in a file of at most `bytes` bytes. */
export function offsetDigits(bytes: number): number {
  return String(Math.ceil(bytes)).length;
}

/** Where the tensors of a file are listed a second time: the index of a checkpoint of several files. */
export interface IndexLine {
  readonly fileName: string;
}

/** Bytes of the line of an index that says where one stored tensor lies. */
function indexLineBytes(stored: string, { fileName }: IndexLine): number {
  return Buffer.byteLength(`    ${JSON.stringify(stored)}: ${JSON.stringify(fileName)},\n`);
}

/**
 * Bytes that one quantised tensor takes in its file: its parts, their entries in the header, and its row in the
 * metadata; with `index` also its lines there. They depend neither on what is stored (checksums are of fixed length) nor on the other
 * tensors, so they are known before anything is encoded.
 */
export function tensorFileBytes(
  tensor: Omit<PvqTensor, 'crc32' | 'sourceSha256'>,
  sizes: PayloadSizes,
  digits: number,
  tables: PvqTables,
  index?: IndexLine,
): { readonly payload: number; readonly metadata: number } {
  const plan = payloadPlan(tensor, sizes);
  let payload = 0;
  const row = encodeRow({ ...tensor, crc32: 0, sourceSha256: '0'.repeat(64) }, tables);
  // Commas: one before each entry of the header (the metadata stand first), one between rows.
  let metadata = escapedBytes(`${row},`);
  for (const part of plan) {
    payload += byteLengthOf(part.dtype, part.shape);
    metadata += Buffer.byteLength(headerEntry(part, 0, 0, digits)) + 1;
    if (index !== undefined) metadata += indexLineBytes(part.name, index);
  }
  return { payload, metadata };
}

/** Bytes that the metadata take in one file that holds quantised tensors, whatever their number. */
export function fixedFileBytes(seed: string, tables: PvqTables): number {
  // The last row has no comma after it, which is counted with every row.
  return Buffer.byteLength(`,"${PVQ_KEY}":""`) + escapedBytes(`${encodeHead(seed, tables)}}}`) - 1;
}

/**
 * Bits of the files per weight: all bytes of quantised tensors (parts, header entries, metadata) and of the files'
 * common metadata, over their weights.
 */
export function fileBitsPerWeight(
  tensors: readonly { readonly bytes: number; readonly weights: number }[],
  fixedBytes: number,
): number {
  let bytes = fixedBytes;
  let weights = 0;
  for (const tensor of tensors) {
    bytes += tensor.bytes;
    weights += tensor.weights;
  }
  return (8 * bytes) / weights;
}

type Fields = Readonly<Record<string, unknown>>;

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const isInteger = (value: unknown, least: number, most = Number.MAX_SAFE_INTEGER): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= least && value <= most;

const isWord = (value: unknown): value is string => typeof value === 'string' && /^[a-z][a-z0-9-]{0,31}$/.test(value);

const isSeed = (value: unknown): value is string => typeof value === 'string' && /^\d{1,20}$/.test(value);

function onlyKeys(value: Fields, keys: readonly string[], where: string): void {
  const odd = Object.keys(value).find((key) => !keys.includes(key));
  if (odd !== undefined) throw new InputError(`${where}: unknown key ${quoted(odd)}: written by a newer version?`);
}

function parseKind(value: unknown, where: string): Omit<TableFields, 'rotation'> {
  if (!isFields(value)) throw new InputError(`${where} is not an object`);
  onlyKeys(value, ['dtype', 'transposed', 'policy', 'levels'], where);
  const { dtype, transposed, policy, levels } = value;
  const known =
    typeof dtype === 'string' && (Object.hasOwn(DTYPE_BYTES, dtype) || Object.hasOwn(GGML_TYPE_NUMBERS, dtype));
  if (!known) throw new InputError(`${where}: unknown dtype ${quoted(String(dtype))}`);
  if (typeof transposed !== 'boolean') throw new InputError(`${where}: "transposed" is neither true nor false`);
  if (!isWord(policy)) throw new InputError(`${where}: ${quoted(String(policy))} is no gain policy`);
  if (!isWord(levels)) throw new InputError(`${where}: ${quoted(String(levels))} is no level policy`);
  return { dtype: dtype as DType | GgmlBlockType, transposed, gainPolicy: policy, levelPolicy: levels };
}

const ROTATION_KINDS: readonly string[] = ['sylvester', 'paley1', 'paley2', 'blocks'];

function parseRotation(value: unknown, where: string): Omit<PvqRotation, 'seed'> {
  if (!isFields(value)) throw new InputError(`${where} is not an object`);
  onlyKeys(value, ['kind', 'core', 'blocks'], where);
  const { kind, core, blocks } = value;
  if (typeof kind !== 'string' || !ROTATION_KINDS.includes(kind))
    throw new InputError(`${where}: unknown kind ${quoted(String(kind))}; known: ${ROTATION_KINDS.join(' ')}`);
  if (!isInteger(core, 1) || !isInteger(blocks, 1))
    throw new InputError(`${where}: core and blocks are not whole numbers from 1 on`);
  return { kind: kind as PvqRotation['kind'], core, blocks };
}

interface ParsedTables {
  readonly kinds: readonly Omit<TableFields, 'rotation'>[];
  readonly rotations: readonly Omit<PvqRotation, 'seed'>[];
  readonly columns: readonly string[];
}

function parseRow(name: string, value: unknown, tables: ParsedTables, where: string): PvqTensor {
  const { columns, kinds, rotations } = tables;
  if (!Array.isArray(value) || value.length > columns.length)
    throw new InputError(`${where}: its metadata are not a row of ${columns.length} columns`);
  const row: Fields = Object.fromEntries(value.map((cell, i) => [columns[i], cell]));
  const integer = (key: string, least: number, most: number): number => {
    const cell = row[key];
    if (isInteger(cell, least, most)) return cell;
    throw new InputError(
      `${where}: "${key}" is ${JSON.stringify(cell) ?? 'missing'}, not a whole number of ${least} to ${most}`,
    );
  };
  const { shape, crc32, sha256 } = row;
  if (!Array.isArray(shape) || shape.length < 2 || !shape.every((extent) => isInteger(extent, 1)))
    throw new InputError(
      `${where}: its shape ${JSON.stringify(shape) ?? ''} is not that of a matrix or a stack of them`,
    );
  if (!Number.isSafeInteger(elementCount(shape)))
    throw new InputError(`${where}: a shape of ${elementCount(shape)} elements: damaged`);
  if (typeof crc32 !== 'string' || !/^[0-9a-f]{8}$/.test(crc32))
    throw new InputError(`${where}: "crc32" is not 8 hexadecimal digits`);
  if (typeof sha256 !== 'string' || !/^[\w-]{43}$/.test(sha256))
    throw new InputError(`${where}: "sha256" is not 43 digits of base64url`);
  const kind = kinds[integer('kind', 0, kinds.length - 1)];
  return {
    name,
    shape: shape as number[],
    ...kind,
    code: {
      groupLength: integer('D', 1, 65_536),
      pulses: integer('K', 1, 32_767),
      superGroup: integer('super_group', 1, 65_536),
      gainBits: integer('gain_bits', 0, 8),
    },
    wordBits: integer('bits', 1, 1 << 20),
    rotation:
      row.rotation === null ? null : rowRotation(row, rotations[integer('rotation', 0, rotations.length - 1)], where),
    crc32: Number.parseInt(crc32, 16),
    sourceSha256: Buffer.from(sha256, 'base64url').toString('hex'),
  };
}

function rowRotation(row: Fields, rotation: Omit<PvqRotation, 'seed'>, where: string): PvqRotation {
  if (rotation.kind !== 'blocks') {
    if (row.seed !== undefined) throw new InputError(`${where}: a seed, which only rotations in blocks have`);
    return { ...rotation, seed: '0' };
  }
  if (!isSeed(row.seed)) throw new InputError(`${where}: a rotation in blocks without its seed`);
  return { ...rotation, seed: row.seed };
}

function parseColumns(value: unknown, where: string): readonly string[] {
  const fits = Array.isArray(value) && value.length === COLUMNS.length && COLUMNS.every((name, i) => value[i] === name);
  if (!fits) throw new InputError(`${where}: its columns are not ${COLUMNS.join(' ')}: written by a newer version?`);
  return COLUMNS;
}

/**
 * Reads `__metadata__.pvq` of one file. Whether the parts are there and fit is for the reader of the parts to check.
 * @param file its path, for messages
 * @throws InputError naming the file and the tensor: not JSON, another version, an unknown key, a value out of range.
 */
export function parsePvqMetadata(text: string, file: string): PvqMetadata {
  const where = `${file}: __metadata__.${PVQ_KEY}`;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new InputError(`${where} is not JSON: damaged, quantise the model again`);
  }
  if (!isFields(value)) throw new InputError(`${where} is not an object: damaged, quantise the model again`);
  if (value.version !== PVQ_VERSION)
    throw new InputError(
      `${where}: version ${quoted(String(value.version))} is not read, only ${PVQ_VERSION}: use the surprisal that wrote it`,
    );
  const twice = duplicateKey(text);
  if (twice !== undefined) throw new InputError(`${where} holds the name ${quoted(twice)} twice`);
  onlyKeys(value, ['version', 'seed', 'kinds', 'rotations', 'columns', 'tensors'], where);
  const { seed, kinds, rotations, tensors } = value;
  if (!isSeed(seed)) throw new InputError(`${where}: the seed is not a decimal number`);
  if (!Array.isArray(kinds) || !Array.isArray(rotations) || !isFields(tensors))
    throw new InputError(`${where}: lacks kinds, rotations or tensors: damaged, quantise the model again`);
  const tables: ParsedTables = {
    kinds: kinds.map((kind, i) => parseKind(kind, `${where}: kind ${i}`)),
    rotations: rotations.map((rotation, i) => parseRotation(rotation, `${where}: rotation ${i}`)),
    columns: parseColumns(value.columns, where),
  };
  const parsed = Object.entries(tensors).map(([name, row]) =>
    parseRow(name, row, tables, `${file}: tensor ${quoted(name)}`),
  );
  return { seed, tensors: parsed };
}
