import fs from 'node:fs';
import path from 'node:path';
import { InputError } from '../errors.js';
import { type AtomicOptions, createAtomicDirectory } from '../formats/atomic.js';
import { fileError, quoted } from '../formats/files.js';
import type { HashedFile } from '../formats/hash.js';
import { openSafetensors } from '../formats/safetensors.js';
import { createSafetensorsWriter, encodeSafetensors } from '../formats/safetensors-writer.js';
import type { TensorStore } from '../formats/tensor.js';
import { hashedFile, sha256Sync, tensorBytes, writeHashed } from '../models/model-directory.js';
import { readJson } from '../models/model-files.js';
import { addExpertStatistics } from './expert-statistics.js';
import { addRoutingStatistics } from './routing-statistics.js';
import { decodeLayer, encodeLayer, type LayerRecord, plannedTensors, readLayerRecord } from './statistics-tensors.js';
import type { LayerStatistics } from './types.js';

/** Schema of `manifest.json` and of the header in `statistics.safetensors`. */
export const STATISTICS_SCHEMA = 'surprisal/moe-statistics';
export const STATISTICS_VERSION = 1;
export const STATISTICS_FILE = 'statistics.safetensors';
const MANIFEST_FILE = 'manifest.json';
const RUN_FILE = 'run.json';
const METADATA_KEY = 'surprisal_moe_statistics';

/**
 * What was watched beside the router. `none`: nothing. `routed`: inputs, inner activations and outputs of the tokens
 * routed to each expert. `all`: also every expert's output on every token.
 */
export type WatchedOutputs = 'none' | 'routed' | 'all';

/** A text, or the part of it that one run saw. */
export interface StatisticsPart {
  /** SHA-256 of the token ids of all windows of the text, see `hashWindows`; equal for all parts of one text. */
  readonly textSha256: string;
  /** Tokens of this part. */
  readonly tokens: number;
  /** Tokens of a window. */
  readonly windowTokens: number;
  /** Part `index` of `count`: windows w with w mod count = index. */
  readonly shard: { readonly index: number; readonly count: number };
}

/** What a folder of statistics says of itself; that of united folders lists the parts of all. */
export interface StatisticsHeader {
  readonly modelType: string;
  /** Of the weights and the configuration, see `hashModel`. */
  readonly modelSha256: string;
  /** Arithmetic of the forward pass. */
  readonly precision: 'f32' | 'f64';
  readonly outputs: WatchedOutputs;
  /** Tokens of all parts. */
  readonly tokens: number;
  readonly parts: readonly StatisticsPart[];
}

/** Statistics of a model's layers with experts, in the order of the layers. */
export interface MoeStatistics {
  readonly header: StatisticsHeader;
  readonly layers: readonly LayerStatistics[];
}

/** Writes a folder of statistics layer by layer. A run that was killed resumes with the layers that it has finished. */
export interface StatisticsWriter {
  /** Layers that an interrupted run left. */
  readonly done: readonly LayerStatistics[];
  write(layer: LayerStatistics): void;
  /** Gives the folder its name; `manifest.json` is written last. @returns files with their hashes */
  commit(): readonly HashedFile[];
  abort(): void;
}

/**
 * Opens a folder for statistics: `statistics.safetensors` and `manifest.json`. The safetensors file carries the header as
 * JSON in `__metadata__.surprisal_moe_statistics`; its tensors are F64, see `statistics-tensors.ts`.
 * @throws InputError when the folder exists and neither `force` nor `resume` is given, or an interrupted run there had
 * another model, text or options
 */
export function createStatisticsWriter(
  target: string,
  header: StatisticsHeader,
  options: AtomicOptions = {},
): StatisticsWriter {
  const directory = createAtomicDirectory(target, { ...options, resumable: true });
  const run = path.join(directory.path, RUN_FILE);
  const text = `${JSON.stringify(header)}\n`;
  const done = new Map<number, LayerStatistics>();
  try {
    if (directory.resumed && fs.existsSync(run)) {
      if (fs.readFileSync(run, 'utf8') !== text) {
        throw new InputError(
          `${target}: the interrupted run there had another model, text or other options; use those, or remove ` +
            `${directory.path}`,
        );
      }
      for (const layer of leftLayers(directory.path)) done.set(layer.routing.layer, layer);
    } else writeHashed(directory.path, RUN_FILE, text);
  } catch (error) {
    directory.abort();
    throw error;
  }
  return {
    done: [...done.values()],
    write(layer) {
      const { record, tensors } = encodeLayer(layer);
      const metadata = { [METADATA_KEY]: JSON.stringify(record) };
      writeHashed(directory.path, layerFile(record.layer), encodeSafetensors(tensors, metadata));
    },
    commit() {
      const files = assemble(directory.path, header);
      directory.commit();
      return files;
    },
    abort: () => directory.abort(),
  };
}

const LAYER_FILE = /^layer-\d+\.safetensors$/;

function layerFile(layer: number): string {
  return `layer-${String(layer).padStart(5, '0')}.safetensors`;
}

/** Names of the finished layers' files, ascending. */
function layerFiles(directory: string): string[] {
  return fs
    .readdirSync(directory)
    .filter((name) => LAYER_FILE.test(name))
    .sort();
}

function leftLayers(directory: string): LayerStatistics[] {
  return layerFiles(directory).map((name) => {
    const file = path.join(directory, name);
    return withStore(file, (store) => readLayer(file, store, layerRecord(file, store)));
  });
}

function layerRecord(file: string, store: TensorStore): LayerRecord {
  return readLayerRecord(file, parseMetadata(file, store));
}

/** Puts the layers into one file and the manifest beside it; the layers' own files go. */
function assemble(directory: string, header: StatisticsHeader): readonly HashedFile[] {
  const names = layerFiles(directory);
  const records = names.map((name) => withStore(path.join(directory, name), (s) => layerRecord(name, s)));
  const described = { schema: STATISTICS_SCHEMA, version: STATISTICS_VERSION, ...header, layers: records };
  const writer = createSafetensorsWriter(path.join(directory, STATISTICS_FILE), {
    plan: records.flatMap(plannedTensors),
    metadata: { [METADATA_KEY]: JSON.stringify(described) },
    force: true,
  });
  try {
    for (const name of names) {
      withStore(path.join(directory, name), (store) => {
        for (const tensor of store.tensors.values()) {
          for (const bytes of tensorBytes(store, tensor)) writer.write(tensor.name, bytes);
        }
      });
    }
    writer.commit();
  } catch (error) {
    writer.abort();
    throw error;
  }
  const files = [hashedFile(directory, STATISTICS_FILE)];
  for (const name of [...names, RUN_FILE]) fs.rmSync(path.join(directory, name), { force: true });
  const manifest = { schema: STATISTICS_SCHEMA, version: STATISTICS_VERSION, ...header, files };
  return [...files, writeHashed(directory, MANIFEST_FILE, `${JSON.stringify(manifest, null, 2)}\n`)];
}

function withStore<T>(file: string, body: (store: TensorStore) => T): T {
  const store = openSafetensors(file);
  try {
    return body(store);
  } finally {
    store.close();
  }
}

function parseMetadata(file: string, store: TensorStore): unknown {
  const text = store.metadata[METADATA_KEY];
  if (text === undefined)
    throw new InputError(`${file}: no statistics of experts: its metadata lack "${METADATA_KEY}"`);
  try {
    return JSON.parse(text);
  } catch {
    throw new InputError(`${file}: the header of the statistics is not valid JSON: delete the folder and make it anew`);
  }
}

function readLayer(file: string, store: TensorStore, record: LayerRecord): LayerStatistics {
  return decodeLayer(file, record, (name, length) => {
    const tensor = store.tensors.get(name);
    if (!tensor) throw new InputError(`${file}: tensor ${quoted(name)} is missing: delete the folder and make it anew`);
    if (tensor.dtype !== 'F64' || tensor.byteLength !== 8 * length) {
      throw new InputError(
        `${file}: tensor ${quoted(name)} is ${tensor.dtype} [${tensor.shape}], not F64 of ${length}`,
      );
    }
    const values = new Float64Array(length);
    store.readInto(tensor, 0, tensor.byteLength, new Uint8Array(values.buffer));
    return values;
  });
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isCount = (value: unknown): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;

function readHeader(file: string, value: unknown): StatisticsHeader {
  const bad = (what: string): never => {
    throw new InputError(`${file}: the statistics have a wrong "${what}": delete the folder and make it anew`);
  };
  if (!isRecord(value) || value.schema !== STATISTICS_SCHEMA) return bad('schema');
  if (value.version !== STATISTICS_VERSION) {
    throw new InputError(`${file}: statistics of version ${value.version}; this version reads ${STATISTICS_VERSION}`);
  }
  const { modelType, modelSha256, precision, outputs, tokens, parts } = value;
  if (typeof modelType !== 'string') return bad('modelType');
  if (typeof modelSha256 !== 'string') return bad('modelSha256');
  if (precision !== 'f32' && precision !== 'f64') return bad('precision');
  if (outputs !== 'none' && outputs !== 'routed' && outputs !== 'all') return bad('outputs');
  if (!isCount(tokens)) return bad('tokens');
  if (!Array.isArray(parts)) return bad('parts');
  const read = parts.map((part: unknown): StatisticsPart => {
    if (!isRecord(part) || !isRecord(part.shard)) return bad('parts');
    const { textSha256, tokens: own, windowTokens, shard } = part;
    if (typeof textSha256 !== 'string' || !isCount(own) || !isCount(windowTokens)) return bad('parts');
    if (!isCount(shard.index) || !isCount(shard.count) || shard.index >= shard.count) return bad('parts');
    return { textSha256, tokens: own, windowTokens, shard: { index: shard.index, count: shard.count } };
  });
  return { modelType, modelSha256, precision, outputs, tokens, parts: read };
}

/** The file of statistics of a folder, after its manifest was checked. */
function checkFolder(folder: string): string {
  const manifestFile = path.join(folder, MANIFEST_FILE);
  if (!fs.existsSync(manifestFile)) {
    throw new InputError(
      `${folder}: no ${MANIFEST_FILE}: not a folder of merge-moe calibrate, or one that was not finished`,
    );
  }
  const manifest = readJson(manifestFile);
  if (manifest.schema !== STATISTICS_SCHEMA || !Array.isArray(manifest.files)) {
    throw new InputError(`${manifestFile}: not the manifest of routing statistics (${STATISTICS_SCHEMA})`);
  }
  const file = path.join(folder, STATISTICS_FILE);
  const listed = manifest.files.find((entry: unknown) => isRecord(entry) && entry.name === STATISTICS_FILE) as unknown;
  const size = fs.statSync(file, { throwIfNoEntry: false })?.size;
  if (!isRecord(listed) || size !== listed.bytes || sha256Sync(file) !== listed.sha256) {
    throw new InputError(`${file}: truncated or changed since it was written: make the statistics anew`);
  }
  return file;
}

function readFolder(folder: string): MoeStatistics {
  let file: string;
  try {
    file = checkFolder(folder);
  } catch (error) {
    throw fileError(error, folder, 'read');
  }
  return withStore(file, (store) => {
    const described = parseMetadata(file, store);
    const header = readHeader(file, described);
    const records = isRecord(described) && Array.isArray(described.layers) ? described.layers : [];
    const layers = records.map((record: unknown) => readLayer(file, store, readLayerRecord(file, record)));
    for (const { routing } of layers) {
      if (routing.tokens !== header.tokens) {
        throw new InputError(`${file}: layer ${routing.layer} has ${routing.tokens} of ${header.tokens} tokens`);
      }
    }
    return { header, layers };
  });
}

/** Refuses parts of one text that share tokens. */
function checkOverlap(parts: readonly StatisticsPart[]): void {
  parts.forEach((part, i) => {
    const other = parts.slice(0, i).find(({ textSha256, shard }) => {
      const { index, count } = part.shard;
      return textSha256 === part.textSha256 && (shard.count !== count || shard.index === index);
    });
    if (!other) return;
    const name = ({ shard }: StatisticsPart): string => `${shard.index}/${shard.count}`;
    throw new InputError(
      `statistics of shards ${name(other)} and ${name(part)} of one text overlap: give each shard of one division once`,
    );
  });
}

/**
 * Statistics of the tokens of both.
 * @throws InputError when they are of different models, precisions or watched outputs, or share tokens
 */
export function addStatistics(a: MoeStatistics, b: MoeStatistics): MoeStatistics {
  for (const key of ['modelSha256', 'precision', 'outputs'] as const) {
    if (a.header[key] !== b.header[key]) {
      throw new InputError(
        `statistics do not unite: ${key} is ${a.header[key]} in one and ${b.header[key]} in another`,
      );
    }
  }
  const parts = [...a.header.parts, ...b.header.parts];
  checkOverlap(parts);
  if (a.layers.length !== b.layers.length) {
    throw new InputError(`statistics do not unite: ${a.layers.length} and ${b.layers.length} layers with experts`);
  }
  return {
    header: { ...a.header, tokens: a.header.tokens + b.header.tokens, parts },
    layers: a.layers.map((layer, i) => {
      const other = b.layers[i];
      return {
        routing: addRoutingStatistics(layer.routing, other.routing),
        ...(layer.outputs && other.outputs && { outputs: addExpertStatistics(layer.outputs, other.outputs) }),
      };
    }),
  };
}

/**
 * Reads folders of statistics and adds them up: shards of one text, or several texts.
 * @param modelSha256 refuses statistics of a model with another hash
 * @throws InputError for a folder that is not complete, damaged or of another model, and for folders that share tokens
 */
export function readStatistics(folders: readonly string[], modelSha256?: string): MoeStatistics {
  let all: MoeStatistics | undefined;
  for (const folder of folders) {
    const read = readFolder(folder);
    if (modelSha256 !== undefined && read.header.modelSha256 !== modelSha256) {
      const [theirs, ours] = [read.header.modelSha256, modelSha256].map((hash) => hash.slice(0, 12));
      throw new InputError(
        `${folder}: statistics of another model (${read.header.modelType}, sha256 ${theirs}, not ${ours}): calibrate this one`,
      );
    }
    try {
      all = all === undefined ? read : addStatistics(all, read);
    } catch (error) {
      if (error instanceof InputError) throw new InputError(`${folder}: ${error.message}`);
      throw error;
    }
  }
  if (all === undefined) throw new InputError('no folder of statistics was given');
  return all;
}

/** Shards that are missing from texts of which some are there, as `index/count`; empty when every text is whole. */
export function missingShards({ parts }: StatisticsHeader): string[] {
  const missing: string[] = [];
  const texts = new Map(parts.map(({ textSha256, shard }) => [textSha256, shard.count]));
  for (const [text, count] of texts) {
    for (let index = 0; index < count; index++) {
      if (!parts.some((part) => part.textSha256 === text && part.shard.index === index))
        missing.push(`${index}/${count}`);
    }
  }
  return missing;
}
