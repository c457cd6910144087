import fs from 'node:fs';
import path from 'node:path';
import { createAtomicDirectory } from '../formats/atomic.js';
import { fileError, openRange } from '../formats/files.js';
import type { HashedFile } from '../formats/hash.js';
import { COPY_BYTES, copySmallFiles, createHashedOutput, writeHashed } from '../models/model-directory.js';
import { type Report, serializeReport } from '../report/json.js';
import type { ReportValue } from '../report/values.js';
import type { ExpertModel } from './expert-model.js';
import { finishedMerge, MANIFEST_FILE } from './merged-journal.js';
import { manifestOf } from './merged-manifest.js';
import type { MergedWriterOptions } from './merged-writer.js';

/** Names of the files that hold a model's weights, relative to its directory, and their index. */
function weightFiles(source: ExpertModel): string[] {
  const files = new Set([...source.store.tensors.values()].map(({ file }) => path.relative(source.path, file)));
  const indexes = fs.readdirSync(source.path).filter((name) => name.endsWith('.safetensors.index.json'));
  return [...files, ...indexes].sort();
}

/** One file, hashed on the way. */
function copyHashed(from: string, to: string, name: string): HashedFile {
  const output = createHashedOutput(to, name);
  const file = openRange(path.join(from, name));
  try {
    const buffer = new Uint8Array(COPY_BYTES);
    for (let at = 0; at < file.size; at += buffer.length) {
      const piece = buffer.subarray(0, Math.min(buffer.length, file.size - at));
      file.readInto(at, piece.length, piece);
      output.write(piece);
    }
    return output.commit();
  } catch (error) {
    output.abort();
    throw error;
  } finally {
    file.close();
  }
}

/**
 * Copies a model directory byte for byte, where every expert stays as it is, and writes its manifest (form `unchanged`).
 * @throws InputError when `target` exists and neither `force` nor `resume` is given
 */
export function copyUnchanged(
  source: ExpertModel,
  target: string,
  { head, force, resume }: MergedWriterOptions,
  body: { readonly [key: string]: ReportValue } = {},
): Report {
  const finished = resume === true && force !== true ? finishedMerge(target, head) : undefined;
  if (finished !== undefined) return finished;
  const directory = createAtomicDirectory(target, { force, resume });
  try {
    const written = [
      ...[...weightFiles(source), 'config.json'].map((name) => copyHashed(source.path, directory.path, name)),
      ...copySmallFiles(source.path, directory.path),
    ].sort((a, b) => (a.name < b.name ? -1 : 1));
    const bytes = [...source.store.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    const manifest = manifestOf(head, {
      source,
      form: 'unchanged',
      layers: source.layers,
      config: { form: 'standard', notes: [] },
      layout: { bytesBefore: bytes, bytesAfter: bytes },
      written,
      records: new Map(),
      body,
    });
    writeHashed(directory.path, MANIFEST_FILE, serializeReport(manifest));
    directory.commit();
    return manifest;
  } catch (error) {
    directory.abort();
    throw fileError(error, target, 'write');
  }
}
