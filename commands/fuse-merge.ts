import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { fileError } from '../src/formats/files.js';
import { resolveDirectory, resolveModelPath } from '../src/formats/hub.js';
import { createInputLedger, type InputLedger } from '../src/formats/inputs.js';
import { MAX_SHARD_BYTES } from '../src/formats/safetensors-shards.js';
import { parseMergeDocuments } from '../src/fusion/merge/config-document.js';
import { formatMergeDocument } from '../src/fusion/merge/config-format.js';
import { type MergeDocument, referencedModels, tokenizerModels } from '../src/fusion/merge/document.js';
import { documentFromFlags, type MergeFlags } from '../src/fusion/merge/from-flags.js';
import type { MergeArguments } from '../src/fusion/merge/merge-arguments.js';
import { type MergeProgress, type MergeResult, mergeModels } from '../src/fusion/merge/merge-job.js';
import {
  checkBeside,
  checkPlaces,
  claimWorkFolder,
  type ReadPlace,
  type WorkFolder,
} from '../src/fusion/merge/merge-places.js';
import { FUSE_MERGE_COLUMNS, FUSE_MERGE_SCHEMA, mergeRows } from '../src/fusion/merge/merge-report.js';
import { referenceKey } from '../src/fusion/merge/merge-subject.js';
import { MERGE_METHODS, METHOD_NAMES } from '../src/fusion/merge/methods/registry.js';
import type { SearchResult } from '../src/fusion/merge/search-job.js';
import { DIAGNOSTICS } from '../src/fusion/merge/tensor-record.js';
import type { ModelReference } from '../src/fusion/merge/types.js';
import { tableBytes } from '../src/report/csv.js';
import { buildReport, writeReport } from '../src/report/json.js';
import { createProgress } from '../src/report/progress.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import { type ReportValue, reportObject } from '../src/report/values.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { memoryLimitBytes } from './edge-resources.js';
import { parseChoice, parseInteger, parseMemory } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { planOf } from './fuse-merge-plan.js';
import {
  addSearchOptions,
  parseSearch,
  runSearch,
  type SearchOptions,
  type SearchRequest,
  searchParameters,
  searchRecord,
  searchSummary,
  searchTable,
} from './fuse-merge-search.js';
import { noticeSlowKernels } from './kernel-notice.js';
import { runInThread } from './run-in-thread.js';
import { type RunTimings, startRunTimings } from './run-timings.js';
import { attachShared, requireOption, type SharedOptions } from './shared-options.js';

const SHARED = [
  'base',
  'out',
  'report',
  'table',
  'plot',
  'variant',
  'seed',
  'threads',
  'maxMemory',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
  'resume',
] as const satisfies readonly (keyof SharedOptions)[];

type Shared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

interface OwnOptions extends SearchOptions {
  method?: string;
  model?: string[];
  parameter?: string[];
  dtype?: string;
  outDtype?: string;
  tokenizerSource?: string;
  padToMultipleOf?: string;
  chatTemplate?: string;
  diagnostics?: string;
  allowNonfinite?: boolean;
  keepPadding?: boolean;
  intermediateDir?: string;
  outShardSize?: string;
  allowCrimes?: boolean;
  copyTokenizer?: boolean;
  writeModelCard?: boolean;
  randomSeed?: string;
  numThreads?: string;
  transformersCache?: string;
  trustRemoteCode?: boolean;
  device?: string;
}

const COMMAND = 'fuse merge';
const VARIANTS = ['surprisal', 'mergekit'] as const;

/** Switches of mergekit about how it works, which name what is always so here, or what has no counterpart. */
const ALWAYS_SO: readonly (readonly [flags: string, why: string])[] = [
  ['--lazy-unpickle', 'tensors are always read by range'],
  ['--low-cpu-memory', 'memory is bounded by --max-memory'],
  ['--async-write', 'output is always written beside the merge'],
  ['--write-threads <n>', 'output is always written beside the merge'],
  ['--clone-tensors', 'tensors never share memory'],
  ['--safe-serialization', 'the output is always safetensors'],
  ['--lora-merge-cache <folder>', 'adapters are added as tensors are read'],
  ['--lora-merge-dtype <name>', 'adapters are added in f32 or wider'],
  [
    '--unsafe-truncate-embeddings',
    'vocabularies without a tokenizer section are cut to their common rows, and it is said',
  ],
  ['-v, --verbose', 'what happens is in the report'],
];

/** Switches of mergekit that ask for another processor. */
const ACCELERATORS = ['cuda', 'gpu-rich', 'read-to-gpu', 'multi-gpu'];

/** Declares `surprisal fuse merge`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .argument('[config]', 'mergekit YAML; without it the merge is given by --method, --model and --parameter')
    .argument('[out]', 'directory to write, in the place of --out')
    .option('--method <name>', METHOD_NAMES.join(', '))
    .option('--model <model...>', 'models to merge, path[@revision][+lora[@revision]]')
    .option('--parameter <name=value...>', 'parameters; values of models with commas in the order of --model')
    .option('--dtype <name>', 'type of the arithmetic and the output: bfloat16, float16, float32, float64')
    .option('--out-dtype <name>', 'type of the output where the arithmetic has another')
    .option('--tokenizer-source <source>', 'union, base or a model')
    .option('--pad-to-multiple-of <n>', 'rows of the vocabulary, with --tokenizer-source')
    .option('--chat-template <template>', 'auto, a name, or the text of a template')
    .option('--diagnostics <kind>', `${DIAGNOSTICS.join(', ')}: what is measured of every tensor (default auto)`)
    .option('--allow-nonfinite', 'merge NaN and infinite values all the same')
    .option('--keep-padding', "keep rows behind the vocabulary with the base's tokenizer")
    .option('--intermediate-dir <folder>', 'keep the results of named documents here')
    .option('--out-shard-size <size>', 'largest file of weights (default 5B, which means 5e9 bytes as in mergekit)')
    .option('--allow-crimes', 'merge models of different architectures by the names of their tensors')
    .option('--no-copy-tokenizer', 'write no tokenizer files where the configuration asks for none')
    .option('--copy-tokenizer', 'copy the tokenizer files (default)')
    .option('--no-write-model-card', 'write no README.md')
    .option('--write-model-card', 'write README.md with the configuration (default)')
    .option('--random-seed <n>', '--seed under the name of mergekit')
    .option('-j, --num-threads <n>', '--threads under the name of mergekit')
    .option('--transformers-cache <folder>', 'hub cache in the place of HF_HUB_CACHE')
    .option('--trust-remote-code', 'refused: no code of models is run')
    .option('--device <name>', 'cpu');
  for (const name of ACCELERATORS) command.option(`--${name}`, 'refused: merges run on the processor');
  addSearchOptions(command);
  for (const name of MODEL_PARAMETERS) {
    const flag = name.replaceAll('_', '-');
    command.option(`--${flag} <value...>`, `${name} of the models, in the order of --model, or one for all`);
  }
  for (const [flags, why] of ALWAYS_SO) command.option(flags, `accepted: ${why}`);
  command.action(async (config: string | undefined, out: string | undefined) => {
    refuseTwice(command);
    process.exitCode = await run(await read(), command.opts<OwnOptions>(), config, out);
  });
}

/** @throws InputError for an option that is given under our name and under mergekit's */
function refuseTwice(command: Command): void {
  for (const [ours, theirs] of [
    ['seed', 'random-seed'],
    ['threads', 'num-threads'],
  ])
    if (command.getOptionValue(ours) !== undefined && command.getOptionValue(optionKey(theirs)) !== undefined)
      throw new InputError(`--${ours} and --${theirs} are the same option: leave out one of them`);
}

async function run(
  options: Shared,
  own: OwnOptions,
  config: string | undefined,
  outArgument: string | undefined,
): Promise<number> {
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings(COMMAND);
  refuse({ ...own });
  const { text, name } = configurationOf(config, options, { ...own });
  const out = outputOf(options, outArgument);
  const documents = parseMergeDocuments(text, name);
  const search = await parseSearch(
    own,
    own.randomSeed === undefined ? options.seed : parseInteger('--random-seed', own.randomSeed),
  );
  const args = argumentsOf(options, own, { text, name, out, documents }, searchParameters(search));
  const replace = { force: options.force, resume: options.resume };
  const read = [
    ...[...args.directories.values()].map((path): ReadPlace => ({ what: `the model ${path}`, path })),
    ...(config === undefined ? [] : [{ what: `the configuration ${config}`, path: config }]),
    ...(search?.data ?? []).map((path): ReadPlace => ({ what: `the text ${path}`, path })),
  ];
  checkPlaces(documents, args, read, options.dryRun ? { force: true, resume: false } : replace);
  const outputs = openOutputs(filesAt(read), replace);
  let work: WorkFolder | undefined;
  try {
    for (const [flag, path] of besideOf(options, own)) checkBeside(flag, path, out);
    const table = outputs.table('--table', options.table, FUSE_MERGE_COLUMNS);
    const reportFile = outputs.file('--report', options.report);
    const plotFile = outputs.file('--plot', options.plot);
    const timingsFile = outputs.file('--timings', options.timings);
    const searchFile = outputs.file('--search-table', own.searchTable);
    if (plotFile) (await import('../src/report/plots/figure.js')).plotExtension(options.plot as string);
    if (options.dryRun) {
      process.stdout.write(await planOf(args));
      return 0;
    }
    noticeSlowKernels();
    const ledger = createInputLedger();
    if (config !== undefined) ledger.note(config);
    work = search && claimWorkFolder(out, options.resume);
    const found = search && work && (await searchNumbers(search, { args, documents, options, timings, ledger, work }));
    timings.begin('merge');
    const configuration = found?.configuration ?? text;
    const result = await merge({ ...args, configuration }, options);
    timings.count(
      'bytes read',
      result.documents.reduce((sum, { bytes_read: bytes }) => sum + bytes, 0),
    );
    timings.count(
      'bytes written',
      result.documents.reduce((sum, { tensor_bytes: bytes }) => sum + bytes, 0),
    );
    timings.begin('summarise and write');
    const last = result.documents[result.documents.length - 1];
    const report = buildReport(
      { ...args.head, name: FUSE_MERGE_SCHEMA, inputs: [...(await ledger.digests()), ...result.inputs] },
      reportObject({
        configuration: found?.configuration ?? documents.map(formatMergeDocument).join('---\n'),
        summary: last.summary,
        search: found && search ? searchRecord(found, search) : null,
        documents: result.documents,
      }),
    );
    if (table) for (const document of result.documents) for (const row of mergeRows(document)) table.write(row);
    if (searchFile && found && search) {
      const { columns, rows } = searchTable(found, search.settings.groups);
      searchFile.write(tableBytes(own.searchTable ?? '', columns, rows));
    }
    if (reportFile) writeReport(report, reportFile);
    if (plotFile) {
      const { mergeFigure } = await import('../src/fusion/merge/merge-plot.js');
      const { plotBytes } = await import('../src/report/plots/figure.js');
      plotFile.write(await plotBytes(await mergeFigure(last), options.plot as string));
    }
    if (timingsFile) timings.write(timingsFile, options);
    outputs.commit();
    work?.remove();
    if (!options.quiet) {
      for (const document of result.documents)
        for (const warning of document.warnings) process.stderr.write(`warning: ${warning}\n`);
      process.stdout.write(summary(result, out));
      if (found) process.stdout.write(searchSummary(found));
    }
    return asserts.check(report);
  } finally {
    outputs.abort();
    work?.leave();
  }
}

/** Regular files at places: those of a model's directory, and single ones. */
function filesAt(places: readonly ReadPlace[]): string[] {
  return places.flatMap(({ path }) =>
    statSync(path, { throwIfNoEntry: false })?.isDirectory()
      ? readdirSync(path).map((name) => join(path, name))
      : [path],
  );
}

/** Files that are written beside the model. */
const besideOf = (options: Shared, own: OwnOptions): [flag: string, path: string | undefined][] => [
  ['--report', options.report],
  ['--table', options.table],
  ['--plot', options.plot],
  ['--timings', options.timings],
  ['--search-table', own.searchTable],
];

const MERGE_JOB = new URL('../src/fusion/merge/merge-job.js', import.meta.url).href;

/** @throws InputError for what mergekit can and this program does not */
function refuse(own: OwnOptions & Readonly<Record<string, unknown>>): void {
  if (own.trustRemoteCode) throw new InputError('--trust-remote-code: no code of models is run here; leave it out');
  const accelerator = ACCELERATORS.find((name) => own[optionKey(name)] !== undefined);
  if (accelerator !== undefined || (own.device !== undefined && own.device !== 'cpu'))
    throw new InputError(`--${accelerator ?? `device ${own.device}`}: merges run on the processor; leave it out`);
}

const FLAGS_OF_A_MERGE = [
  'method',
  'model',
  'parameter',
  'dtype',
  'out-dtype',
  'tokenizer-source',
  'pad-to-multiple-of',
  'chat-template',
];

/** The YAML, from a file or from flags. */
function configurationOf(
  config: string | undefined,
  options: Shared,
  own: OwnOptions & Readonly<Record<string, unknown>>,
): { readonly text: string; readonly name: string } {
  if (config === undefined) {
    if (own.method === undefined && own.model === undefined)
      throw new InputError('name a mergekit YAML, or a merge by --method and --model');
    const document = documentFromFlags(flagsOf(options, own));
    return { text: formatMergeDocument(document), name: 'the merge given by flags' };
  }
  const given = [...FLAGS_OF_A_MERGE, ...MODEL_PARAMETERS].find((flag) => own[optionKey(flag)] !== undefined);
  if (given !== undefined || options.base !== undefined)
    throw new InputError(`--${given ?? 'base'}: ${config} says what is merged; give one of them`);
  try {
    return { text: readFileSync(config, 'utf8'), name: config };
  } catch (error) {
    throw fileError(error, config, 'read');
  }
}

/** Parameters that models have of their own, of all methods: an option each. */
const MODEL_PARAMETERS = [...new Set(MERGE_METHODS.flatMap(({ perModel }) => perModel.map(({ name }) => name)))];

function flagsOf(options: Shared, own: OwnOptions & Readonly<Record<string, unknown>>): MergeFlags {
  const given = MODEL_PARAMETERS.filter((name) => Array.isArray(own[optionKey(name)]));
  return {
    method: requireOption(own.method, '--method', 'how the models are merged'),
    models: requireOption(own.model, '--model', 'the models that are merged'),
    ...(options.base !== undefined && { base: options.base }),
    perModel: Object.fromEntries(given.map((name) => [name, (own[optionKey(name)] as unknown[]).map(String)])),
    ...(own.parameter && { parameters: own.parameter }),
    ...(own.dtype !== undefined && { dtype: own.dtype }),
    ...(own.outDtype !== undefined && { outDtype: own.outDtype }),
    ...(own.tokenizerSource !== undefined && { tokenizerSource: own.tokenizerSource }),
    ...(own.padToMultipleOf !== undefined && {
      padToMultipleOf: parseInteger('--pad-to-multiple-of', own.padToMultipleOf, 1),
    }),
    ...(own.chatTemplate !== undefined && { chatTemplate: own.chatTemplate }),
  };
}

/** The key under which commander keeps `--some-name`. */
const optionKey = (name: string): string => name.replace(/[_-](\w)/g, (_, letter: string) => letter.toUpperCase());

function outputOf(options: Shared, argument: string | undefined): string {
  if (argument !== undefined && options.out !== undefined)
    throw new InputError(`--out ${options.out}: the directory is named twice; leave out one of them`);
  return requireOption(argument ?? options.out, 'the directory to write', 'it behind the configuration, or by --out');
}

interface Configuration {
  readonly text: string;
  readonly name: string;
  readonly out: string;
  readonly documents: readonly MergeDocument[];
}

function argumentsOf(
  options: Shared,
  own: OwnOptions,
  { text, name, out, documents }: Configuration,
  more: Record<string, ReportValue>,
): MergeArguments {
  const settings: MergeArguments['settings'] = {
    seed: own.randomSeed === undefined ? options.seed : parseInteger('--random-seed', own.randomSeed),
    variant: options.variant === undefined ? 'surprisal' : parseChoice('--variant', options.variant, VARIANTS),
    maxShardBytes: shardBytes(own.outShardSize),
    keepPadding: own.keepPadding ?? false,
    copyTokenizer: own.copyTokenizer ?? true,
    modelCard: own.writeModelCard ?? true,
    allowCrimes: own.allowCrimes ?? false,
    allowNonFinite: own.allowNonfinite ?? false,
    diagnostics: own.diagnostics === undefined ? 'auto' : parseChoice('--diagnostics', own.diagnostics, DIAGNOSTICS),
  };
  const parameters: Record<string, ReportValue> = {
    ...{ seed: settings.seed, variant: settings.variant, out_shard_size: settings.maxShardBytes },
    ...{ keep_padding: settings.keepPadding, copy_tokenizer: settings.copyTokenizer, model_card: settings.modelCard },
    ...{ allow_crimes: settings.allowCrimes, allow_nonfinite: settings.allowNonFinite },
    diagnostics: settings.diagnostics,
    ...more,
  };
  return {
    configuration: text,
    configurationName: name,
    out,
    ...(own.intermediateDir !== undefined && { intermediate: own.intermediateDir }),
    directories: locateModels(documents, own.transformersCache),
    settings,
    memoryBytes: options.maxMemory,
    cacheBytes: memoryLimitBytes() / 2,
    threads: own.numThreads === undefined ? options.threads : parseInteger('--num-threads', own.numThreads, 1, 1024),
    write: { force: options.force, resume: options.resume },
    head: { tool: { name: 'surprisal', version: toolVersion() }, command: COMMAND, parameters },
  };
}

/** `5B` is mergekit's way to write 5e9 bytes; all else as every size here. */
function shardBytes(text: string | undefined): number {
  if (text === undefined) return MAX_SHARD_BYTES;
  const billions = /^(\d+(?:\.\d+)?)B$/.exec(text);
  if (billions) return Math.round(Number(billions[1]) * 1e9);
  return parseMemory('--out-shard-size', text, () => Number.MAX_SAFE_INTEGER);
}

/** Directories of all models and adapters but those that the configuration itself makes. */
function locateModels(documents: readonly MergeDocument[], cache: string | undefined): Map<string, string> {
  const env = cache === undefined ? process.env : { ...process.env, HF_HUB_CACHE: cache };
  const made = new Set(documents.map(({ name }) => name));
  const directories = new Map<string, string>();
  const locate = ({ model, revision, lora, loraRevision }: ModelReference): void => {
    const key = referenceKey(model, revision);
    if (!directories.has(key) && !made.has(model)) directories.set(key, resolveModelPath(key, env).path);
    if (lora === undefined) return;
    const adapter = referenceKey(lora, loraRevision);
    if (!directories.has(adapter)) directories.set(adapter, resolveDirectory(adapter, env));
  };
  for (const document of documents) [...referencedModels(document), ...tokenizerModels(document)].forEach(locate);
  return directories;
}

/** The numbers with the lowest loss, before the merge. */
async function searchNumbers(
  search: SearchRequest,
  run: {
    readonly args: MergeArguments;
    readonly documents: readonly MergeDocument[];
    readonly options: Shared;
    readonly timings: RunTimings;
    readonly ledger: InputLedger;
    readonly work: WorkFolder;
  },
): Promise<SearchResult> {
  const { args, documents, options, timings, ledger, work } = run;
  const [document, ...others] = documents;
  if (others.length > 0) throw new InputError('--search works on a configuration of one document');
  timings.begin('search');
  const progress = await createProgress({
    ...{ stream: process.stderr, quiet: options.quiet, unit: 'candidates' },
    now: () => performance.now(),
  });
  try {
    return await runSearch(search, { document, merge: args, ledger, progress, folder: work.path });
  } finally {
    progress.stop();
  }
}

async function merge(args: MergeArguments, options: Shared): Promise<MergeResult> {
  const progress = await createProgress({
    stream: process.stderr,
    quiet: options.quiet,
    unit: 'MB',
    now: () => performance.now(),
  });
  try {
    const onProgress = (value: unknown): void => {
      const { bytes, totalBytes, tensor } = value as MergeProgress;
      progress.setTotal(Math.round(totalBytes / 1e6));
      progress.update(Math.round(bytes / 1e6), tensor);
    };
    return await runInThread({ module: MERGE_JOB, job: mergeModels }, args, onProgress, args.threads);
  } finally {
    progress.stop();
  }
}

function summary(result: MergeResult, out: string): string {
  const rows = result.documents.map(
    ({ name, method, models, tensors, tensor_bytes: bytes, summary: means }): SummaryCell[] => [
      name ?? out,
      method.name,
      models.length,
      tensors.length,
      bytes,
      means.relative_change ?? undefined,
      means.mean_cosine ?? undefined,
      means.sign_conflict ?? undefined,
    ],
  );
  const header = ['output', 'method', 'models', 'tensors', 'bytes', 'relative change', 'mean cosine', 'sign conflict'];
  return summaryTable(header, rows);
}
