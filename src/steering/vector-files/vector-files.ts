import { statSync } from 'node:fs';
import path from 'node:path';
import { InputError } from '../../errors.js';
import { type AtomicOptions, createAtomicFile } from '../../formats/atomic.js';
import { fileError } from '../../formats/files.js';
import type { SteeringVectors } from '../types.js';
import { CAA_VECTORS, isCaaDirectory } from './caa.js';
import {
  type EncodedVectors,
  type EncodeVectorOptions,
  type ReadVectorOptions,
  VECTOR_FORMATS,
  type VectorFormat,
  type VectorFormatName,
} from './format.js';
import { GGUF_VECTORS } from './gguf.js';
import { JSON_VECTORS } from './json.js';
import { NPY_VECTORS } from './npy.js';
import { SAFETENSORS_VECTORS } from './safetensors.js';
import { SVEC_VECTORS } from './svec.js';

export { checkVectorsFit, type FittedModel, sameArchitecture } from './fit.js';
export type {
  EncodedVectors,
  EncodeVectorOptions,
  ReadVectorOptions,
  VectorFormatName,
} from './format.js';
export { VECTOR_FORMATS, VECTOR_POINTS } from './format.js';

const FORMATS: readonly VectorFormat[] = [
  GGUF_VECTORS,
  SAFETENSORS_VECTORS,
  JSON_VECTORS,
  SVEC_VECTORS,
  CAA_VECTORS,
  NPY_VECTORS,
];

/**
 * The format of a file of vectors by its name, or the one that is named.
 * @throws InputError listing the extensions
 */
export function vectorFormat(file: string, format?: VectorFormatName): VectorFormatName {
  if (format !== undefined) return format;
  const extension = path.extname(file).toLowerCase();
  const found = FORMATS.find(({ extensions }) => extensions.includes(extension));
  if (found) return found.name;
  const known = FORMATS.flatMap(({ extensions }) => extensions).join(' ');
  throw new InputError(`${file}: its name does not say the format of a vector (${known}): rename it, or give --format`);
}

function formatNamed(name: VectorFormatName): VectorFormat {
  return FORMATS[VECTOR_FORMATS.indexOf(name)];
}

/**
 * Reads vectors of any format (a file, or CAA's directory of one file a layer) into the project's convention: 0-based
 * blocks, added at the block's output. `assumptions` says what the file left open and how it was taken.
 * @throws InputError naming the tensor, key or block that is wrong
 */
export function readSteeringVectors(file: string, options: ReadVectorOptions = {}): SteeringVectors {
  let directory: boolean;
  try {
    directory = statSync(file).isDirectory();
  } catch (error) {
    throw fileError(error, file, 'read');
  }
  if (directory && options.format === undefined) {
    if (!isCaaDirectory(file)) {
      throw new InputError(`${file}: a directory without files vec_layer_N_MODEL.pt: name a file of vectors`);
    }
    return CAA_VECTORS.read(file, options);
  }
  const format = formatNamed(vectorFormat(file, options.format));
  refuseUnread(file, format.name, options);
  return format.read(file, options);
}

/** Options that a format has no use for would be ignored silently. */
function refuseUnread(file: string, format: VectorFormatName, options: ReadVectorOptions): void {
  if (options.layer !== undefined && format !== 'caa' && format !== 'npy') {
    throw new InputError(`${file}: a ${format} file names its blocks; choose among them where they are used, or shift`);
  }
}

/**
 * Bytes of a file of vectors.
 * @param format by the name of the file when absent
 * @throws InputError for a format that is only read, and for vectors that it cannot express
 */
export function encodeSteeringVectors(
  file: string,
  vectors: SteeringVectors,
  options: EncodeVectorOptions & { readonly format?: VectorFormatName } = {},
): EncodedVectors {
  const { encode, name } = formatNamed(vectorFormat(file, options.format));
  if (!encode) {
    const written = FORMATS.filter((format) => format.encode).map((format) => format.name);
    throw new InputError(`${file}: ${name} files are read, not written; choose one of ${written.join(', ')}`);
  }
  for (const [block, vector] of vectors.directions) {
    if (vector.length !== vectors.hiddenSize) {
      throw new RangeError(`the vector of block ${block} has ${vector.length} numbers, not ${vectors.hiddenSize}`);
    }
    const bad = vector.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) throw new InputError(`${file}: the vector of block ${block} is ${vector[bad]} at ${bad}`);
  }
  if (vectors.directions.size === 0) throw new InputError(`${file}: no vector to write`);
  return encode(vectors, options);
}

/**
 * Writes vectors in the format that the name of the file says; it appears when it is complete.
 * @returns what the format could not hold
 * @throws InputError as {@link encodeSteeringVectors}, and when the file exists without `force`
 */
export function writeSteeringVectors(
  file: string,
  vectors: SteeringVectors,
  options: EncodeVectorOptions & AtomicOptions & { readonly format?: VectorFormatName } = {},
): readonly string[] {
  const { bytes, notes } = encodeSteeringVectors(file, vectors, options);
  const output = createAtomicFile(file, { force: options.force });
  try {
    output.write(bytes);
    output.commit();
  } catch (error) {
    output.abort();
    throw error;
  }
  return notes;
}
