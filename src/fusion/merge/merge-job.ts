import path from 'node:path';
import { InputError, RunError } from '../../errors.js';
import type { InputDigest } from '../../formats/inputs.js';
import { differingKey, readWorkFile } from '../../formats/work-files.js';
import { buildReport, type Report, validateReport } from '../../report/json.js';
import { type ReportValue, reportObject } from '../../report/values.js';
import { copiedTokenizer } from './chat-templates.js';
import { parseMergeDocuments } from './config-document.js';
import { formatMergeDocument } from './config-format.js';
import { type MergeDocument, orderDocuments } from './document.js';
import { executeMerge } from './executor.js';
import { bufferBytes, type MergeArguments, subjectWork } from './merge-arguments.js';
import { claimWorkFolder, targetOf } from './merge-places.js';
import {
  type DocumentResult,
  FUSE_MERGE_MANIFEST_SCHEMA,
  gatherWarnings,
  type MergedTensor,
  mergedTensor,
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
import { surveyModels } from './survey.js';
import type { UnitedTokenizers } from './tokenizer-union.js';
import type { WorkPlan } from './work-plan.js';

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

/**
 * Merges as a configuration says, document by document, and writes the model directories.
 * @throws InputError for everything that is wrong with configuration and models; RunError for a full disk
 */
export async function mergeModels(args: MergeArguments, progress: (value: unknown) => void): Promise<MergeResult> {
  const documents = orderDocuments(parseMergeDocuments(args.configuration, args.configurationName));
  if (documents.length === 1 || args.intermediate !== undefined) return await mergeDocuments(args, documents, progress);
  const work = claimWorkFolder(args.out, args.write.resume ?? false);
  try {
    const result = await mergeDocuments(args, documents, progress);
    work.remove();
    return result;
  } catch (error) {
    work.leave();
    throw error;
  }
}

async function mergeDocuments(
  args: MergeArguments,
  documents: readonly MergeDocument[],
  progress: (value: unknown) => void,
): Promise<MergeResult> {
  const directories = new Map(args.directories);
  const results: DocumentResult[] = [];
  const inputs = new Map<string, InputDigest>();
  const made = new Set(documents.flatMap(({ name }) => name ?? []));
  for (const [i, document] of documents.entries()) {
    const target = targetOf(document, documents, args);
    const report = (done: DocumentProgress): void =>
      progress({ document: i, documents: documents.length, ...done } satisfies MergeProgress);
    const { result, digests } = await mergeDocument(args, document, target, directories, report);
    results.push(result);
    for (const digest of digests) if (!made.has(path.dirname(digest.path))) inputs.set(digest.path, digest);
    if (document.name !== undefined) directories.set(document.name, target);
  }
  return { documents: results, inputs: [...inputs.values()] };
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
  const subject = openMergeSubject(document, {
    ...settings,
    directories,
    hashed: args.hashed ?? true,
    ...(args.cacheBytes !== undefined && { cacheBytes: args.cacheBytes }),
  });
  try {
    const { plan } = subject;
    const work = subjectWork(args, subject);
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
        ...{ memoryBytes: bufferBytes(args), seed: settings.seed, threads: args.threads },
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
  const copies = args.settings.copyTokenizer && vocabulary === undefined;
  const { chatTemplate } = document;
  for (const file of takenOverFiles(configDirectory, copies && chatTemplate === undefined)) put(file);
  if (copies && chatTemplate !== undefined)
    for (const { name, bytes } of copiedTokenizer(configDirectory, chatTemplate, subject.directories))
      put({ name, data: bytes });
  for (const { name, bytes } of vocabulary?.files ?? []) put({ name, data: bytes });
  put({ name: 'config.json', data: mergedConfigText(configDirectory, plan, vocabulary?.vocabularySize) });
  put({ name: 'mergekit_config.yml', data: formatMergeDocument(document) });
  if (args.settings.modelCard) put({ name: 'README.md', data: modelCard(document, plan, args.head.tool.version) });
  return [...files.values()];
}
