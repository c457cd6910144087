import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { fileError } from './files.js';

const STEP = 1 << 20;

async function hashFrom(hash: ReturnType<typeof createHash>, file: string, start: number): Promise<string> {
  try {
    const stream = fs.createReadStream(file, { start, highWaterMark: STEP });
    for await (const chunk of stream) hash.update(chunk as Buffer);
  } catch (error) {
    throw fileError(error, file, 'read');
  }
  return hash.digest('hex');
}

/** SHA-256 of a file in lower-case hexadecimal, streamed. @throws InputError when it cannot be read. */
export function sha256File(file: string): Promise<string> {
  return hashFrom(createHash('sha256'), file, 0);
}

/** Hashes a file while somebody else reads it. */
export interface ReadingHash {
  /**
   * Tells that `bytes` of the file at `position` were read. What continues the hashed beginning is hashed, all else is
   * ignored, so readers in order pay no second pass and readers out of order stay right.
   */
  observe(position: number, bytes: Uint8Array): void;
  /** The hash of the whole file; what was not observed in order is read now. Call once. */
  hex(): Promise<string>;
}

/** @see ReadingHash */
export function hashWhileReading(file: string): ReadingHash {
  const hash = createHash('sha256');
  let hashed = 0;
  return {
    observe(position, bytes): void {
      if (position > hashed || position + bytes.length <= hashed) return;
      hash.update(bytes.subarray(hashed - position));
      hashed = position + bytes.length;
    },
    hex: () => hashFrom(hash, file, hashed),
  };
}

/** One hashed file of a model; `name` is relative to what was asked for, with forward slashes. */
export interface HashedFile {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
}

/** Files of a model directory that say what it computes; READMEs, images and hidden files do not. */
const MODEL_FILE = /\.(safetensors|gguf|onnx|onnx_data|data|json|jinja|model|txt)$/;

/**
 * Hashes of a file, or of the model files at the top of a directory in the order of their names. Symbolic links are
 * followed.
 */
export async function sha256Files(location: string): Promise<HashedFile[]> {
  let names: string[];
  try {
    const isDirectory = fs.statSync(location).isDirectory();
    names = isDirectory
      ? fs
          .readdirSync(location)
          .filter(
            (name) => MODEL_FILE.test(name) && !name.startsWith('.') && fs.statSync(path.join(location, name)).isFile(),
          )
          .sort()
      : [''];
  } catch (error) {
    throw fileError(error, location, 'read');
  }
  const hashed: HashedFile[] = [];
  for (const name of names) {
    const file = name === '' ? location : path.join(location, name);
    const sha256 = await sha256File(file);
    hashed.push({ name: name === '' ? path.basename(location) : name, bytes: fs.statSync(file).size, sha256 });
  }
  return hashed;
}
