import path from 'node:path';
import { openRange } from '../formats/files.js';
import { byteLengthOf } from '../formats/ggml-blocks.js';
import type { GgufStore } from '../formats/gguf.js';
import { createGgufWriter } from '../formats/gguf-writer.js';
import type { HashedFile } from '../formats/hash.js';
import { encodePvqMetadata, PVQ_KEY, PVQ_VERSION, type PvqTensor } from '../formats/pvq.js';
import { SAFETENSORS_INDEX } from '../formats/safetensors.js';
import { encodeIndex, layOutSafetensors, type PlannedTensor } from '../formats/safetensors-writer.js';
import type { DType, TensorInfo, TensorStore } from '../formats/tensor.js';
import {
  COPY_BYTES,
  changedConfig,
  copySmallFiles,
  createHashedOutput,
  hashedFile,
  tensorBytes,
  writeHashed,
} from '../models/model-directory.js';
import { GGUF_PVQ_KEY } from '../models/model-files.js';
import type { PvqFilePlan, PvqLayout } from './pvq-layout.js';
import { type FinishedTensor, partsOf } from './pvq-parts.js';
import { blobName } from './pvq-resume.js';

/** Bytes begin to end - 1 of a file, in pieces. */
function* fileBytes(file: string, begin: number, end: number): Generator<Uint8Array, void, undefined> {
  const range = openRange(file);
  try {
    const buffer = new Uint8Array(Math.min(COPY_BYTES, end - begin));
    for (let at = begin; at < end; at += buffer.length) {
      const piece = buffer.subarray(0, Math.min(buffer.length, end - at));
      range.readInto(at, piece.length, piece);
      yield piece;
    }
  } finally {
    range.close();
  }
}

function copied(info: TensorInfo): PlannedTensor {
  return { name: info.name, dtype: info.dtype as DType, shape: info.shape };
}

/** Writes one file: its header, parts from the working folder, copied tensors from the source. */
export function assembleFile(
  place: string,
  file: PvqFilePlan,
  layout: PvqLayout,
  store: TensorStore,
  records: ReadonlyMap<string, FinishedTensor>,
): HashedFile {
  const plan: PlannedTensor[] = [];
  const described: PvqTensor[] = [];
  const sources = new Map<string, () => Iterable<Uint8Array>>();
  for (const info of file.tensors) {
    const record = records.get(info.name);
    if (record === undefined || !layout.quantised.has(info.name)) {
      plan.push(copied(info));
      sources.set(info.name, () => tensorBytes(store, info));
      continue;
    }
    described.push(record.tensor);
    const parts = partsOf(record);
    plan.push(...parts);
    const blob = path.join(place, blobName(layout, info.name));
    let at = 0;
    for (const { name, dtype, shape } of parts) {
      const begin = at;
      const end = begin + byteLengthOf(dtype, shape);
      at = end;
      sources.set(name, () => fileBytes(blob, begin, end));
    }
  }
  const metadata =
    described.length === 0
      ? file.metadata
      : { ...file.metadata, [PVQ_KEY]: encodePvqMetadata({ seed: layout.seed, tensors: described }, layout.tables) };
  const { header, order } = layOutSafetensors(plan, metadata, described.length === 0 ? 0 : file.digits);
  const output = createHashedOutput(place, file.fileName);
  try {
    output.write(header);
    for (const { name } of order) for (const bytes of sources.get(name)?.() ?? []) output.write(bytes);
    return output.commit();
  } catch (error) {
    output.abort();
    throw error;
  }
}

/** What the files beside the weights are made of. */
export interface CompanionOptions {
  readonly layout: PvqLayout;
  readonly store: TensorStore;
  /** Where tokenizer, templates and config.json lie; for a GGUF source, the file. */
  readonly sourcePath: string;
  /** A GGUF source: its pairs are written again. */
  readonly gguf?: Pick<GgufStore, 'kv' | 'kvTypes'>;
  /** Keys of config.json that change beside `quantization_config`, such as `tie_word_embeddings`. */
  readonly config?: Readonly<Record<string, unknown>>;
}

/** Index, config, GGUF file, tokenizer and other small files. */
export function writeCompanions(
  place: string,
  options: CompanionOptions,
  records: ReadonlyMap<string, FinishedTensor>,
): HashedFile[] {
  const { layout, sourcePath } = options;
  const written: HashedFile[] = [];
  if (layout.indexed) {
    const shards = layout.files.map(({ fileName, tensors }) => ({
      fileName,
      tensors: tensors.flatMap((info): PlannedTensor[] => {
        const record = records.get(info.name);
        return record === undefined ? [copied(info)] : partsOf(record);
      }),
    }));
    const kept = layout.files.flatMap((file) => file.tensors.filter(({ name }) => !records.has(name)));
    const total =
      kept.reduce((sum, info) => sum + info.byteLength, 0) +
      [...records.values()].reduce((sum, { blob }) => sum + blob.bytes, 0);
    written.push(writeHashed(place, SAFETENSORS_INDEX, encodeIndex(shards, total)));
  }
  if (layout.format === 'gguf') {
    written.push(writeGguf(place, options));
    return written;
  }
  // Without "quant_method": transformers skips one that it does not know, and would draw the missing weights at random;
  // where there is none it refuses.
  const config = changedConfig(sourcePath, {
    ...options.config,
    quantization_config: { format: PVQ_VERSION, reader: 'surprisal' },
  });
  if (config !== undefined) written.push(writeHashed(place, 'config.json', config));
  written.push(...copySmallFiles(sourcePath, place));
  return written;
}

/** The tensors of a GGUF source that are not quantised, its metadata, and where the others lie. */
function writeGguf(place: string, { gguf, layout, store }: CompanionOptions): HashedFile {
  if (gguf === undefined) throw new RangeError('a GGUF source without its pairs');
  const kv = new Map(
    [...gguf.kv].flatMap(([key, value]) => {
      const type = gguf.kvTypes.get(key);
      // One file is written, whatever the number of files of the source.
      return type === undefined || key.startsWith('split.') ? [] : [[key, { type, value }] as const];
    }),
  );
  kv.set(GGUF_PVQ_KEY, { type: 'STRING', value: PVQ_VERSION });
  const target = path.join(place, 'model.gguf');
  const writer = createGgufWriter(target, { kv, plan: layout.kept, force: true });
  try {
    for (const info of layout.kept) for (const bytes of tensorBytes(store, info)) writer.write(info.name, bytes);
    writer.commit();
  } catch (error) {
    writer.abort();
    throw error;
  }
  return hashedFile(place, 'model.gguf');
}
