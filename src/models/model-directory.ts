import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { type AtomicFile, createAtomicFile } from '../formats/atomic.js';
import { fileError } from '../formats/files.js';
import type { HashedFile } from '../formats/hash.js';
import { editJson, type JsonChanges } from '../formats/json-edit.js';
import type { TensorInfo, TensorStore } from '../formats/tensor.js';
import { readJson } from './model-files.js';

/** Bytes copied at a time. */
export const COPY_BYTES = 8 << 20;

/** A file below a directory that is written front to back and hashed on the way. */
export interface HashedOutput {
  write(bytes: Uint8Array): void;
  /** Gives it its name. */
  commit(): HashedFile;
  abort(): void;
}

/** @param name relative to `directory`; folders are made. @throws RunError when the disk is full */
export function createHashedOutput(directory: string, name: string): HashedOutput {
  const target = path.join(directory, name);
  let file: AtomicFile;
  try {
    fs.mkdirSync(path.dirname(target), { recursive: true });
    file = createAtomicFile(target, { force: true });
  } catch (error) {
    throw fileError(error, target, 'write');
  }
  const hash = createHash('sha256');
  return {
    write(bytes): void {
      file.write(bytes);
      hash.update(bytes);
    },
    commit(): HashedFile {
      const bytes = file.position;
      file.commit();
      return { name, bytes, sha256: hash.digest('hex') };
    },
    abort: () => file.abort(),
  };
}

/** Writes a whole small file. */
export function writeHashed(directory: string, name: string, text: string | Uint8Array): HashedFile {
  const output = createHashedOutput(directory, name);
  output.write(typeof text === 'string' ? Buffer.from(text) : text);
  return output.commit();
}

/** SHA-256 of a file, hexadecimal. */
export function sha256Sync(file: string): string {
  const hash = createHash('sha256');
  try {
    const fd = fs.openSync(file, 'r');
    try {
      const buffer = new Uint8Array(COPY_BYTES);
      for (let length = fs.readSync(fd, buffer); length > 0; length = fs.readSync(fd, buffer))
        hash.update(buffer.subarray(0, length));
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    throw fileError(error, file, 'read');
  }
  return hash.digest('hex');
}

/** A file that another writer made below `directory`. */
export function hashedFile(directory: string, name: string): HashedFile {
  const file = path.join(directory, name);
  return { name, bytes: fs.statSync(file).size, sha256: sha256Sync(file) };
}

/** The bytes of a stored tensor in pieces; each is valid until the next. */
export function* tensorBytes(store: TensorStore, info: TensorInfo): Generator<Uint8Array, void, undefined> {
  const buffer = new Uint8Array(Math.min(COPY_BYTES, info.byteLength));
  for (let at = 0; at < info.byteLength; at += buffer.length) {
    const length = Math.min(buffer.length, info.byteLength - at);
    const piece = buffer.subarray(0, length);
    store.readInto(info, at, length, piece);
    yield piece;
  }
}

/** SHA-256 of the bytes of a tensor as the store gives them, hexadecimal. */
export function sha256Tensor(store: TensorStore, info: TensorInfo): string {
  const hash = createHash('sha256');
  for (const bytes of tensorBytes(store, info)) hash.update(bytes);
  return hash.digest('hex');
}

/** Weights, and what is written anew; hidden files are the business of other tools. */
const NOT_COPIED =
  /^\.|\.(safetensors|gguf|bin|pt|pth|ckpt|h5|msgpack|ot|onnx|onnx_data|tflite)$|\.index\.json$|^(config|manifest)\.json$/;

/** Folders of a sentence-transformers model that `modules.json` names; their weights are copied too. */
function moduleFolders(source: string): string[] {
  const list = path.join(source, 'modules.json');
  if (!fs.existsSync(list)) return [];
  const modules: unknown = JSON.parse(fs.readFileSync(list, 'utf8'));
  if (!Array.isArray(modules)) return [];
  return modules.flatMap((entry: { readonly path?: unknown }) => {
    const folder = typeof entry?.path === 'string' ? path.normalize(entry.path) : '.';
    const below = folder !== '.' && !path.isAbsolute(folder) && !folder.startsWith('..');
    return below && fs.existsSync(path.join(source, folder)) ? [folder] : [];
  });
}

function filesBelow(source: string, folder: string): string[] {
  return fs
    .readdirSync(path.join(source, folder), { withFileTypes: true })
    .flatMap((entry) => {
      const name = path.join(folder, entry.name);
      return entry.isDirectory() ? filesBelow(source, name) : [name];
    })
    .sort();
}

/** Names of the files beside the weights that belong to the model: tokenizer, templates, licence, pooling. Sorted. */
export function smallFiles(source: string): string[] {
  const top = fs
    .readdirSync(source)
    .filter((name) => !NOT_COPIED.test(name) && fs.statSync(path.join(source, name)).isFile());
  return [...top, ...moduleFolders(source).flatMap((folder) => filesBelow(source, folder))].sort();
}

/** Copies those files. */
export function copySmallFiles(source: string, directory: string): HashedFile[] {
  const copied: HashedFile[] = [];
  try {
    for (const name of smallFiles(source)) {
      const output = createHashedOutput(directory, name.replaceAll('\\', '/'));
      output.write(fs.readFileSync(path.join(source, name)));
      copied.push(output.commit());
    }
  } catch (error) {
    throw fileError(error, source, 'copy');
  }
  return copied;
}

/**
 * The source's `config.json` with keys replaced, those set to undefined left out, and everything else as it is written there;
 * `nested` changes keys of objects in it. undefined where there is none.
 */
export function changedConfig(
  source: string,
  changes: JsonChanges,
  nested: Readonly<Record<string, JsonChanges>> = {},
): string | undefined {
  const file = path.join(source, 'config.json');
  if (!fs.existsSync(file)) return undefined;
  readJson(file);
  return `${editJson(fs.readFileSync(file, 'utf8'), changes, nested)}\n`;
}
