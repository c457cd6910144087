import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import type { InputDigest } from '../../formats/inputs.js';
import { sha256Sync } from '../../models/model-directory.js';
import { readJson } from '../../models/model-files.js';
import type { ReportValue } from '../../report/values.js';
import { withAdapter } from './adapter-source.js';
import { isHead, isVocabularyTensor } from './architecture.js';
import { type MergeDocument, referencedModels, tokenizerModels } from './document.js';
import { planMerge } from './plan.js';
import { type DirectorySource, openDirectorySource } from './source.js';
import { type UnitedTokenizers, uniteTokenizers } from './tokenizer-union.js';
import type { MergePlan, MergeSource, MergeVariant, ModelReference } from './types.js';
import type { PlaceOf } from './work-plan.js';

/** What one document merges: sources opened, vocabularies united, every tensor planned. Only headers are in memory. */
export interface MergeSubject {
  readonly plan: MergePlan;
  /** In the order of the plan's models. */
  readonly sources: readonly MergeSource[];
  readonly vocabulary: UnitedTokenizers | undefined;
  /** Directories of the models that are merged. */
  readonly directories: readonly string[];
  /** Directory whose config and small files the output takes over. */
  readonly configDirectory: string;
  readonly placeOf: PlaceOf;
  /** What decides the bytes, without reading them: names, sizes and headers of the weight files. */
  readonly identity: ReportValue;
  readonly warnings: readonly string[];
  /** SHA-256 of every file that was read, under the names that the configuration uses. */
  digests(): Promise<InputDigest[]>;
  close(): void;
}

export interface SubjectOptions {
  readonly directories: ReadonlyMap<string, string>;
  readonly keepPadding: boolean;
  readonly allowCrimes: boolean;
  readonly variant: MergeVariant;
  /** Whether input files are hashed as they are read. */
  readonly hashed: boolean;
  /** Bytes of files that the system can keep in memory: models that are larger together are read past the page cache. */
  readonly cacheBytes?: number;
}

/** What a reference says of a directory: the key of the map of directories. */
export function referenceKey(model: string, revision?: string): string {
  return revision === undefined ? model : `${model}@${revision}`;
}

interface Opened {
  readonly reference: ModelReference;
  readonly directory: string;
  readonly weights: DirectorySource;
  /** With its adapter. */
  readonly source: MergeSource;
  readonly adapter: string | undefined;
}

/** @throws InputError naming models, tensors and tokens that do not go together */
export function openMergeSubject(document: MergeDocument, options: SubjectOptions): MergeSubject {
  const references = [...referencedModels(document), ...tokenizerModels(document)];
  const merged = referencedModels(document).length;
  const opened: Opened[] = [];
  const close = (): void => {
    for (const { source } of opened) source.close();
  };
  try {
    const direct = weightBytes(references, options) > (options.cacheBytes ?? Number.POSITIVE_INFINITY);
    for (const reference of references) opened.push(openModel(reference, options, direct));
    const configs = opened.map(({ directory }) => readJson(path.join(directory, 'config.json')));
    const vocabulary = unite(document, opened, options);
    const sources = (vocabulary?.sources ?? opened.map(({ source }) => source)).slice(0, merged);
    const plan = planMerge(document, sources, configs.slice(0, merged), options);
    return {
      plan,
      sources,
      vocabulary,
      directories: opened.slice(0, merged).map(({ directory }) => directory),
      configDirectory: opened[plan.configFrom].directory,
      placeOf: (model, tensor) => opened[model].weights.place(tensor),
      identity: opened.map(({ reference, weights, adapter }) => ({
        model: reference.text,
        files: weights.files().map(fileIdentity),
        adapter: adapter === undefined ? null : adapterDigests(reference, adapter).map(({ sha256 }) => sha256),
      })),
      warnings: ignoredTensors(opened),
      digests: () => inputDigests(opened),
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

function directoryOf(model: string, revision: string | undefined, options: SubjectOptions): string {
  const found = options.directories.get(referenceKey(model, revision));
  if (found === undefined) throw new RangeError(`no directory of ${model}`);
  return found;
}

/** Bytes of the weight files of all models. */
function weightBytes(references: readonly ModelReference[], options: SubjectOptions): number {
  const directories = new Set(references.map(({ model, revision }) => directoryOf(model, revision, options)));
  let bytes = 0;
  for (const directory of directories) {
    // A file is no model that a merge can read; opening it says so.
    if (!fs.statSync(directory).isDirectory()) continue;
    for (const name of fs.readdirSync(directory))
      if (name.endsWith('.safetensors'))
        bytes += fs.statSync(path.join(directory, name), { throwIfNoEntry: false })?.size ?? 0;
  }
  return bytes;
}

function openModel(reference: ModelReference, options: SubjectOptions, direct: boolean): Opened {
  const { model, revision, lora, loraRevision } = reference;
  const directory = directoryOf(model, revision, options);
  const weights = openDirectorySource(reference, directory, { hashed: options.hashed, direct });
  if (lora === undefined) return { reference, directory, weights, source: weights, adapter: undefined };
  try {
    const adapter = directoryOf(lora, loraRevision, options);
    return { reference, directory, weights, source: withAdapter(weights, adapter), adapter };
  } catch (error) {
    weights.close();
    throw error;
  }
}

function unite(
  document: MergeDocument,
  opened: readonly Opened[],
  options: SubjectOptions,
): UnitedTokenizers | undefined {
  if (document.tokenizer === undefined) return undefined;
  const base = opened.findIndex(({ reference }) => reference.text === document.base?.text);
  return uniteTokenizers({
    settings: document.tokenizer,
    references: opened.map(({ reference }) => reference),
    merged: referencedModels(document).length,
    sources: opened.map(({ source }) => source),
    directories: opened.map(({ directory }) => directory),
    ...(base >= 0 && { base }),
    keepPadding: options.keepPadding,
    vocabularyTensors,
    variant: options.variant,
    dtype: document.dtype,
    ...(document.chatTemplate !== undefined && { chatTemplate: document.chatTemplate }),
  });
}

/** Tensors whose rows are tokens, the embedding first. */
function vocabularyTensors({ tensors }: MergeSource): string[] {
  const names = [...tensors.keys()].filter(isVocabularyTensor);
  return [...names.filter((name) => !isHead(name)), ...names.filter(isHead)];
}

function ignoredTensors(opened: readonly Opened[]): string[] {
  return opened.flatMap(({ reference, weights }) => {
    const [first, ...others] = weights.ignored;
    if (first === undefined) return [];
    const which = others.length === 0 ? first : `${first} and ${others.length} more`;
    return [`${reference.text}: ${which} hold integers, no weights, and are left out`];
  });
}

/** Size, time and header of a weight file: another file would differ in one of them. */
function fileIdentity(file: string): ReportValue {
  const { size, mtimeMs } = fs.statSync(file);
  const fd = fs.openSync(file, 'r');
  try {
    const length = new Uint8Array(8);
    fs.readSync(fd, length, 0, 8, 0);
    const header = new Uint8Array(Math.min(size, 8 + Number(new DataView(length.buffer).getBigUint64(0, true))));
    fs.readSync(fd, header, 0, header.length, 0);
    return { name: path.basename(file), bytes: size, changed: mtimeMs, header: sha256(header) };
  } finally {
    fs.closeSync(fd);
  }
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

const ADAPTER_FILES = ['adapter_config.json', 'adapter_model.safetensors'];

function adapterDigests({ lora, loraRevision }: ModelReference, directory: string): InputDigest[] {
  return ADAPTER_FILES.filter((name) => fs.existsSync(path.join(directory, name))).map((name) => {
    const file = path.join(directory, name);
    return {
      path: `${referenceKey(lora ?? '', loraRevision)}/${name}`,
      sha256: sha256Sync(file),
      bytes: fs.statSync(file).size,
    };
  });
}

const CONFIG_FILES = ['config.json', 'tokenizer.json', 'tokenizer_config.json'];

async function inputDigests(opened: readonly Opened[]): Promise<InputDigest[]> {
  const digests = new Map<string, InputDigest>();
  for (const { reference, directory, weights, adapter } of opened) {
    const at = referenceKey(reference.model, reference.revision);
    for (const { file, sha256: hash, bytes } of await weights.digests()) {
      const name = `${at}/${path.basename(file)}`;
      if (!digests.has(name)) digests.set(name, { path: name, sha256: hash, bytes });
    }
    for (const name of CONFIG_FILES) {
      const file = path.join(directory, name);
      if (!fs.existsSync(file) || digests.has(`${at}/${name}`)) continue;
      digests.set(`${at}/${name}`, { path: `${at}/${name}`, sha256: sha256Sync(file), bytes: fs.statSync(file).size });
    }
    if (adapter !== undefined)
      for (const digest of adapterDigests(reference, adapter)) digests.set(digest.path, digest);
  }
  return [...digests.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}
