import fs from 'node:fs';
import path from 'node:path';
import { InputError, RunError } from '../../errors.js';
import type { AtomicOptions } from '../../formats/atomic.js';
import type { InputDigest } from '../../formats/inputs.js';
import { DTYPE_BYTES, elementCount } from '../../formats/tensor.js';
import { differingKey, readWorkFile } from '../../formats/work-files.js';
import { buildReport, type Report, type ReportHead, validateReport } from '../../report/json.js';
import { type ReportValue, reportObject } from '../../report/values.js';
import { createBufferPool } from './buffer-pool.js';
import { parseMergeDocuments } from './config-document.js';
import { formatMergeDocument } from './config-format.js';
import { type MergeDocument, orderDocuments, referencedModels } from './document.js';
import { executeMerge } from './executor.js';
import { loadItem, shapeOfRows } from './load-item.js';
import {
  type DocumentResult,
  FUSE_MERGE_MANIFEST_SCHEMA,
  gatherWarnings,
  type MergedTensor,
  mergedTensor,
  parameterText,
  summarize,
} from './merge-report.js';
import { type MergeSubject, openMergeSubject } from './merge-subject.js';
import {
  type CompanionFile,
  createMergeTarget,
  MANIFEST_FILE,
  type MergeTarget,
  takenOverFiles,
} from './merge-target.js';
import { mergedConfigText } from './merged-config.js';
import { modelCard } from './model-card.js';
import { rowCount, rowElements } from './source.js';
import { surveyModels } from './survey.js';
import { diagnosticBytes, type TensorDiagnostics } from './tensor-record.js';
import type { UnitedTokenizers } from './tokenizer-union.js';
import type { MergePlan, MergeSource, MergeVariant, ModelReference, PlannedTensor } from './types.js';
import { planWork, type WorkPlan } from './work-plan.js';

/** What decides the bytes of a merge beside its configuration. */
export interface MergeSettings {
  readonly seed: number;
  readonly variant: MergeVariant;
  readonly maxShardBytes: number;
  /** Rows behind the vocabulary stay where the output's tokenizer is the base's. */
  readonly keepPadding: boolean;
  /** Tokenizer files of the config's model are copied where no tokenizer is written. */
  readonly copyTokenizer: boolean;
  readonly modelCard: boolean;
  /** Models of different architectures may be merged. */
  readonly allowCrimes: boolean;
  readonly allowNonFinite: boolean;
  readonly diagnostics: TensorDiagnostics;
}

/** Everything that a merge takes, structured-cloneable. */
export interface MergeArguments {
  /** Text of the configuration, and what it is called in messages. */
  readonly configuration: string;
  readonly configurationName: string;
  readonly out: string;
  /** Where named documents of a configuration of several go; beside `out` and removed at the end when absent. */
  readonly intermediate?: string;
  /** Directories of models and adapters by what the configuration writes (`path` or `path@revision`). */
  readonly directories: ReadonlyMap<string, string>;
  readonly settings: MergeSettings;
  readonly memoryBytes: number;
  readonly threads: number;
  readonly write: AtomicOptions;
  /** Whether inputs are hashed as they are read (default); what is not kept needs no provenance. */
  readonly hashed?: boolean;
  /** Heads the manifest; a run that resumes must repeat it. */
  readonly head: Omit<ReportHead, 'name' | 'inputs'>;
}

export interface MergeResult {
  /** In the order in which they were merged; the last one is the output. */
  readonly documents: readonly DocumentResult[];
  readonly inputs: readonly InputDigest[];
}

/** Progress of a merge. */
export interface MergeProgress {
  readonly document: number;
  readonly documents: number;
  /** Of the output. */
  readonly bytes: number;
  readonly totalBytes: number;
  readonly tensor: string;
}

/** What stands in the output behind all other files. */
type Manifest = Report & { readonly result: DocumentResult };

/** Memory of the program beside buffers. */
const PROGRAM_BYTES = 192 << 20;

/**
 * Merges as a configuration says, document by document, and writes the model directories.
 * @throws InputError for everything that is wrong with configuration and models; RunError for a full disk
 */
export async function mergeModels(args: MergeArguments, progress: (value: unknown) => void): Promise<MergeResult> {
  const documents = orderDocuments(parseMergeDocuments(args.configuration, args.configurationName));
  const stages = args.intermediate ?? stagesBeside(args.out);
  const directories = new Map(args.directories);
  const results: DocumentResult[] = [];
  const inputs = new Map<string, InputDigest>();
  for (const [i, document] of documents.entries()) {
    const target = targetOf(document, documents, args.out, stages);
    const report = (done: DocumentProgress): void =>
      progress({ document: i, documents: documents.length, ...done } satisfies MergeProgress);
    const { result, digests } = await mergeDocument(args, document, target, directories, report);
    results.push(result);
    const names = documents.map(({ name }) => name);
    for (const digest of digests)
      if (!names.some((name) => digest.path.startsWith(`${name}/`))) inputs.set(digest.path, digest);
    if (document.name !== undefined) directories.set(document.name, target);
  }
  if (args.intermediate === undefined) fs.rmSync(stages, { recursive: true, force: true });
  return { documents: results, inputs: [...inputs.values()] };
}

const stagesBeside = (out: string): string =>
  path.join(path.dirname(path.resolve(out)), `.${path.basename(out)}.stages`);

/** The document without a name, else the last one, is the output; others are stages. */
function targetOf(document: MergeDocument, documents: readonly MergeDocument[], out: string, stages: string): string {
  const output = documents.find(({ name }) => name === undefined) ?? documents.at(-1);
  return document === output ? out : path.join(stages, document.name ?? '');
}

interface DocumentProgress {
  readonly bytes: number;
  readonly totalBytes: number;
  readonly tensor: string;
}

interface Merged {
  readonly result: DocumentResult;
  readonly digests: readonly InputDigest[];
}

async function mergeDocument(
  args: MergeArguments,
  document: MergeDocument,
  out: string,
  directories: ReadonlyMap<string, string>,
  progress: (done: DocumentProgress) => void,
): Promise<Merged> {
  const { settings } = args;
  const subject = openMergeSubject(document, { ...settings, directories, hashed: args.hashed ?? true });
  try {
    const { plan } = subject;
    const work = workOf(args, subject);
    const complete = await completeMerge(args, document, out, subject);
    if (complete) return complete;
    const identity = { ...identityOf(args, document), inputs: subject.identity };
    const target = createMergeTarget(out, plan, identity, { ...args.write, maxShardBytes: settings.maxShardBytes });
    try {
      let bytes = 0;
      const advance = (more: number, tensor: string): void => {
        bytes += more;
        progress({ bytes, totalBytes: work.bytesWritten, tensor });
      };
      const surveyed = await surveyModels({ plan, sources: subject.sources, ...settings, threads: args.threads });
      await executeMerge({
        surveyed,
        ...{ plan, work, sources: subject.sources, files: target.files, journal: target.journal },
        ...{ memoryBytes: bufferBytes(args.memoryBytes), seed: settings.seed, threads: args.threads },
        ...{ variant: settings.variant, allowNonFinite: settings.allowNonFinite, diagnostics: settings.diagnostics },
        progress: ({ bytes: more, tensor }) => advance(more, tensor),
      });
      return await finish(args, document, subject, work, target);
    } catch (error) {
      // Wrong input gives another merge once it is mended; after all else a run may go on.
      target.abort(error instanceof InputError);
      throw error;
    }
  } finally {
    subject.close();
  }
}

const bufferBytes = (memoryBytes: number): number => Math.max(memoryBytes / 4, memoryBytes - PROGRAM_BYTES);

function workOf(args: MergeArguments, subject: MergeSubject): WorkPlan {
  const { plan, sources, placeOf } = subject;
  const beside = (tensor: (typeof plan.tensors)[number], rows: number): number =>
    diagnosticBytes(args.settings.diagnostics, tensor.shape, rows, tensor.inputs.length);
  return planWork(plan, sources, { memoryBytes: bufferBytes(args.memoryBytes), placeOf, beside });
}

/** What two runs must share beside their inputs for one to continue the other. */
function identityOf(args: MergeArguments, document: MergeDocument): Record<string, ReportValue> {
  return { parameters: args.head.parameters, configuration: formatMergeDocument(document) };
}

/** The result of a run that was complete already. @throws InputError when another run made what is there */
async function completeMerge(
  args: MergeArguments,
  document: MergeDocument,
  out: string,
  subject: MergeSubject,
): Promise<Merged | undefined> {
  if (!args.write.resume || args.write.force) return undefined;
  const manifest = readWorkFile(path.join(out, MANIFEST_FILE)) as Manifest | undefined;
  if (manifest?.schema !== `surprisal/${FUSE_MERGE_MANIFEST_SCHEMA}`) return undefined;
  const digests = await subject.digests();
  const wanted = buildReport(
    { ...args.head, name: FUSE_MERGE_MANIFEST_SCHEMA, inputs: digests },
    identityOf(args, document),
  );
  const of = ({ parameters, inputs, configuration }: Report): unknown => ({ parameters, inputs, configuration });
  const differing = differingKey(of(manifest), of(wanted));
  if (differing === undefined) return { result: manifest.result, digests };
  throw new InputError(
    `${out}: is complete, and was made with another "${differing}": pass --force to replace it, or choose another path`,
  );
}

/** Files beside the weights, and the manifest. */
async function finish(
  args: MergeArguments,
  document: MergeDocument,
  subject: MergeSubject,
  work: WorkPlan,
  target: MergeTarget,
): Promise<Merged> {
  const { plan, vocabulary } = subject;
  const { layout, journal } = target;
  const tensors = plan.tensors.map((tensor): MergedTensor => {
    const record = journal.done.get(tensor.name);
    const slot = layout.slots.get(tensor.name);
    if (record === undefined || slot === undefined) throw new RunError(`tensor ${tensor.name} was never finished`);
    return mergedTensor(plan, tensor, record, layout.files[slot.file].fileName);
  });
  const result: DocumentResult = {
    name: document.name ?? null,
    method: { name: plan.method.name, reference: plan.method.reference },
    models: plan.models.map(({ text }) => text),
    base: plan.base === undefined ? null : plan.models[plan.base].text,
    layers: plan.layers,
    tensor_bytes: layout.tensorBytes,
    bytes_read: work.bytesRead,
    files: layout.files.map(({ fileName, byteLength }) => ({ name: fileName, bytes: byteLength })),
    tensors,
    vocabulary: vocabulary ? vocabularyRecord(vocabulary) : null,
    summary: summarize(tensors),
    warnings: [...document.notes, ...subject.warnings, ...plan.warnings, ...gatherWarnings(tensors)],
  };
  const written = target.writeCompanions(companionsOf(args, document, subject));
  const digests = await subject.digests();
  const manifest = buildReport(
    { ...args.head, name: FUSE_MERGE_MANIFEST_SCHEMA, inputs: digests },
    {
      ...identityOf(args, document),
      files: written.map(({ name, bytes, sha256 }) => ({ name, bytes, sha256 })),
      result: reportObject(result),
    },
  );
  validateReport(manifest, MANIFEST_FILE);
  target.commit(manifest);
  return { result, digests };
}

function vocabularyRecord({ vocabularySize, origins, notes }: UnitedTokenizers): DocumentResult['vocabulary'] {
  return {
    tokens: vocabularySize,
    origins: origins.map(({ donors, ...origin }) => ({
      ...origin,
      donors: donors.map(({ model, id }) => `${model}#${id}`),
    })),
    notes,
  };
}

/** Config, tokenizer, generation config, configuration and model card of the output. */
function companionsOf(args: MergeArguments, document: MergeDocument, subject: MergeSubject): CompanionFile[] {
  const { plan, vocabulary, configDirectory } = subject;
  const files = new Map<string, CompanionFile>();
  const put = (file: CompanionFile): void => {
    files.set(file.name, file);
  };
  for (const file of takenOverFiles(configDirectory, args.settings.copyTokenizer && vocabulary === undefined))
    put(file);
  for (const { name, bytes } of vocabulary?.files ?? []) put({ name, data: bytes });
  put({ name: 'config.json', data: mergedConfigText(configDirectory, plan, vocabulary?.vocabularySize) });
  put({ name: 'mergekit_config.yml', data: formatMergeDocument(document) });
  if (args.settings.modelCard) put({ name: 'README.md', data: modelCard(document, plan, args.head.tool.version) });
  return [...files.values()];
}

/** What a merge would do: for `--dry-run`. */
export interface PlannedDocument {
  readonly name: string | null;
  readonly method: string;
  readonly models: readonly string[];
  readonly out: string;
  readonly tensors: readonly {
    readonly name: string;
    readonly shape: string;
    readonly dtype: string;
    readonly parameters: string;
  }[];
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly peakBytes: number;
  readonly elements: number;
  /** How many of them were read and merged between {@link SAMPLE_STARTS} and {@link SAMPLE_ENDS}. */
  readonly sampleElements: number;
  readonly warnings: readonly string[];
}

/** Plans the documents whose models exist; those that take the result of another one are left to the merge. */
export async function planModels(args: MergeArguments, progress: (value: unknown) => void): Promise<PlannedDocument[]> {
  const documents = orderDocuments(parseMergeDocuments(args.configuration, args.configurationName));
  const made = new Set(documents.map(({ name }) => name));
  const stages = args.intermediate ?? stagesBeside(args.out);
  const plans: PlannedDocument[] = [];
  for (const document of documents) {
    const models = referencedModels(document);
    const waits = models.filter(({ model }) => made.has(model)).map(({ text }) => text);
    const out = targetOf(document, documents, args.out, stages);
    if (waits.length > 0) plans.push(waitingPlan(document, models, out, waits));
    else plans.push(await planDocument(args, document, out, progress));
  }
  return plans;
}

function waitingPlan(
  document: MergeDocument,
  models: readonly ModelReference[],
  out: string,
  waits: readonly string[],
): PlannedDocument {
  return {
    ...{ name: document.name ?? null, method: document.method.name, models: models.map(({ text }) => text), out },
    ...{ tensors: [], bytesRead: 0, bytesWritten: 0, peakBytes: 0, elements: 0, sampleElements: 0 },
    warnings: [`is planned when ${waits.join(', ')} of this configuration is there`],
  };
}

async function planDocument(
  args: MergeArguments,
  document: MergeDocument,
  out: string,
  progress: (value: unknown) => void,
): Promise<PlannedDocument> {
  const subject = openMergeSubject(document, { ...args.settings, directories: args.directories, hashed: false });
  try {
    const { plan, sources, vocabulary } = subject;
    const work = workOf(args, subject);
    return {
      name: document.name ?? null,
      method: plan.method.name,
      models: plan.models.map(({ text }) => text),
      out,
      tensors: plan.tensors.map((tensor) => ({
        name: tensor.name,
        shape: tensor.shape.join('x'),
        dtype: tensor.dtype,
        parameters: plannedParameters(plan, tensor),
      })),
      bytesRead: work.bytesRead,
      bytesWritten: work.bytesWritten,
      peakBytes: work.peakBytes + PROGRAM_BYTES,
      elements: work.elements,
      sampleElements: await mergeSample(args, plan, sources, progress),
      warnings: [...document.notes, ...subject.warnings, ...plan.warnings, ...(vocabulary?.notes ?? [])],
    };
  } finally {
    subject.close();
  }
}

/** `t=0.5` of the tensor, then `model: weight=1` of each model. */
function plannedParameters({ models }: MergePlan, { parameters, inputs }: PlannedTensor): string {
  const own = inputs.map(({ model, parameters: values }): string => {
    const text = parameterText({ ...values });
    return text === '' ? '' : `${models[model].text}: ${text}`;
  });
  return [parameterText({ ...parameters }), ...own].filter((text) => text !== '').join('; ');
}

/** Elements of the sample by which `--dry-run` estimates a time. */
const SAMPLE_ELEMENTS = 1 << 22;

/** Messages of a plan around the work that a clock may measure. */
export const SAMPLE_STARTS = 'sample starts';
export const SAMPLE_ENDS = 'sample ends';

/** Reads and merges some rows of the largest tensor between two messages. @returns their elements */
async function mergeSample(
  args: MergeArguments,
  plan: MergePlan,
  sources: readonly MergeSource[],
  progress: (value: unknown) => void,
): Promise<number> {
  const sizes = plan.tensors.map(({ shape, copied }) => (copied ? 0 : elementCount(shape)));
  const index = sizes.indexOf(Math.max(...sizes));
  const tensor = plan.tensors[index];
  if (tensor === undefined || sizes[index] === 0) return 0;
  const rows = Math.max(1, Math.min(rowCount(tensor.shape), Math.floor(SAMPLE_ELEMENTS / rowElements(tensor.shape))));
  progress(SAMPLE_STARTS);
  const { inputs } = await loadItem({ plan, sources }, createBufferPool(), { tensor: index, from: 0, to: rows });
  const shape = shapeOfRows(tensor.shape, { from: 0, to: rows });
  const bytes = new Uint8Array(elementCount(shape) * DTYPE_BYTES[tensor.dtype]);
  const { seed, variant } = args.settings;
  plan.method.merge({
    ...{
      name: tensor.name,
      inputs,
      parameters: tensor.parameters,
      firstElement: 0,
      seed,
      variant,
      threads: args.threads,
    },
    output: { dtype: tensor.dtype, shape, bytes },
  });
  progress(SAMPLE_ENDS);
  return elementCount(shape);
}
