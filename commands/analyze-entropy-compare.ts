import type { Command } from 'commander';
import type { TokenComparison } from '../src/entropy/compare.js';
import {
  checkDump,
  checkLlamaCppTokens,
  checkSameVocabulary,
  combinedSha256,
  llamaCppDocument,
  openStoredBase,
  type StoredBase,
} from '../src/entropy/compare-base.js';
import {
  addCandidateRows,
  type BaseDescription,
  COMPARE_COLUMNS,
  COMPARE_DOCUMENT_COLUMNS,
  COMPARE_SCHEMA,
  type CompareBody,
  compareBody,
  comparePartial,
  comparisonDocumentRows,
  comparisonRow,
  createCandidate,
} from '../src/entropy/compare-report.js';
import {
  type BaseSource,
  compareDocuments,
  comparisonReserveBytes,
  type RowPlaces,
} from '../src/entropy/compare-scoring.js';
import type { TokenisedDocument } from '../src/entropy/tokenised-document.js';
import type { WindowOptions } from '../src/entropy/windows.js';
import { InputError } from '../src/errors.js';
import { createInputLedger, expandSources, type InputDigest, type InputLedger } from '../src/formats/inputs.js';
import { createLogitDump, type LogitDumpHeader } from '../src/formats/logit-dump.js';
import { buildReport, writeReport } from '../src/report/json.js';
import { createProgress } from '../src/report/progress.js';
import { summaryTable } from '../src/report/summary-table.js';
import { type ReportValue, reportObject } from '../src/report/values.js';
import type { Tokenizer } from '../src/tokenizers/tokenizer.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { parseInteger } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { modelDigests } from './model-digests.js';
import {
  type ModelSession,
  openModelSession,
  PRECISION_OPTION,
  type Precision,
  parsePrecision,
} from './model-session.js';
import { startRunTimings } from './run-timings.js';
import {
  addScoredTextOptions,
  describeConvention,
  documentsOf,
  type ScoredTextOptions,
  textParameters,
  windowOptions,
} from './scored-text.js';
import { attachShared, type SharedOptions, TEXT_OPTIONS } from './shared-options.js';

const SHARED = ['base', 'against', 'stride', ...TEXT_OPTIONS] as const;

type Shared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Options of this view alone, as commander gives them. */
interface OwnOptions extends ScoredTextOptions {
  saveLogits?: string;
  baseLogits?: string;
  top?: string;
  precision?: string;
}

/** Declares `surprisal analyze-entropy compare`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  addScoredTextOptions(command)
    .option('--save-logits <file>', "keep the base's predictions in a compressed dump, for later candidates")
    .option('--base-logits <file>', "read them instead of running a base: a dump, or llama.cpp's base file")
    .option('--top <n>', 'length of the list of the most divergent tokens (default 20)')
    .option(...PRECISION_OPTION)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

/** Every model of the run, opened. */
interface Models {
  readonly base?: ModelSession;
  readonly candidates: readonly ModelSession[];
  /** The one that says how text is read: the base, else the first candidate. */
  readonly reader: ModelSession;
  close(): Promise<void>;
}

async function run(options: Shared, own: OwnOptions): Promise<number> {
  checkUsage(options, own);
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings('analyze-entropy compare');
  const sources = options.data.length > 0 ? await expandSources(options.data) : [];
  const outputs = openOutputs([...sources, ...(own.baseLogits === undefined ? [] : [own.baseLogits])], {
    force: options.force,
  });
  let models: Models | undefined;
  let stored: StoredBase | undefined;
  try {
    const table = outputs.table('--out', options.out, COMPARE_COLUMNS, options.format);
    const documentTable = outputs.table('--table', options.table, COMPARE_DOCUMENT_COLUMNS);
    const reportFile = outputs.file('--report', options.report);
    const plotFile = outputs.file('--plot', options.plot);
    const timingsFile = outputs.file('--timings', options.timings);
    const dumpFile = outputs.file('--save-logits', own.saveLogits);
    if (plotFile) (await import('../src/report/plots/figure.js')).plotExtension(options.plot as string);
    stored = own.baseLogits === undefined ? undefined : openStoredBase(own.baseLogits);

    const precision = parsePrecision(own.precision);
    timings.begin('open the models');
    models = await openModels(options, precision, stored);
    const { reader } = models;
    const vocabulary = reader.host.info.vocabularySize;
    const windows = comparisonWindows(options, own, models, stored);
    if (options.dryRun) {
      process.stdout.write(describePlan(options, own, models, windows));
      return 0;
    }

    timings.begin('hash the inputs');
    const ledger = createInputLedger();
    const baseDigests = (await models.base?.digests()) ?? [];
    const header = await dumpHeader(options, own, { windows, precision, vocabulary, sources, ledger, baseDigests });
    if (stored?.kind === 'dump' && header) {
      const { modelSha256, ...present } = header;
      checkDump(stored.logits, { ...present, ...(options.base !== undefined && { modelSha256 }) });
    }
    const dump = dumpFile && header ? createLogitDump(dumpFile, header) : undefined;

    timings.begin('compare');
    const progress = await createProgress({
      stream: process.stderr,
      quiet: options.quiet,
      unit: 'tokens',
      now: () => performance.now(),
    });
    const top = own.top === undefined ? 20 : parseInteger('--top', own.top, 1);
    const candidates = options.against.map((name) => createCandidate(name, top));
    const base: BaseSource = stored
      ? { kind: 'stored', logits: stored.logits }
      : { kind: 'model', host: (models.base as ModelSession).host };
    const documents = new Map<number, { id: string; source: string }>();
    const counts = { documents: 0, tokens: 0, scoredTokens: 0 };
    let fed = 0;
    const events = compareDocuments(
      textOf(options, own, ledger, reader, stored),
      base,
      models.candidates.map(({ host }) => host),
      {
        windows,
        vocabulary,
        ...(dump && {
          onBaseLogits: (logits: Float32Array | Float64Array, places: RowPlaces) =>
            dump.append(logits, places.documentIndices, places.positions, places.targets),
        }),
        onRows(rows) {
          fed += rows;
          progress.update(fed);
        },
      },
    );
    for await (const event of events) {
      if (event.kind === 'document') {
        const { index, id, source, tokens } = event.document;
        documents.set(index, { id, source });
        counts.documents++;
        counts.tokens += tokens.length;
        continue;
      }
      const { places, comparisons } = event;
      counts.scoredTokens += places.targets.length;
      for (const [c, comparison] of comparisons.entries()) {
        addCandidateRows(candidates[c], comparison, places, reader.tokenizer);
      }
      if (table) writeRows(table, options.against, comparisons, places, reader.tokenizer);
    }
    progress.stop();
    timings.count('tokens', fed);
    // A shard may be left without documents; the run as a whole may not.
    if (counts.scoredTokens === 0 && !options.shard) {
      throw new InputError(`${options.data.join(', ')}: no token was scored: the documents are empty or too short`);
    }
    dump?.finish();
    if (documentTable) for (const row of comparisonDocumentRows(candidates, documents)) documentTable.write(row);

    timings.begin('hash the inputs');
    const inputs = [...baseDigests];
    for (const candidate of models.candidates) inputs.push(...(await candidate.digests()));
    if (own.baseLogits !== undefined) ledger.note(own.baseLogits);
    inputs.push(...(await ledger.digests()));
    const modelType = reader.host.info.modelType;
    await models.close();
    models = undefined;

    timings.begin('summarise and write');
    const body = compareBody(candidates, counts, {
      convention: describeConvention(windows, modelType),
      base: baseDescription(options, own, stored, vocabulary),
      seed: options.seed,
    });
    const report = buildReport(
      {
        name: COMPARE_SCHEMA,
        tool: { name: 'surprisal', version: toolVersion() },
        command: 'analyze-entropy compare',
        parameters: parametersOf(options, own, windows, precision),
        inputs,
      },
      reportObject(
        options.shard ? { ...body, shard: options.shard, partial: comparePartial(candidates, counts) } : body,
      ),
    );
    if (reportFile) writeReport(report, reportFile);
    if (plotFile) {
      const { comparePlot } = await import('../src/entropy/compare-plot.js');
      plotFile.write(await comparePlot(body, options.data.join(', '), options.plot as string));
    }
    if (timingsFile) timings.write(timingsFile, options);
    outputs.commit();
    if (!options.quiet) process.stdout.write(summary(body, own.saveLogits));
    return asserts.check(report);
  } finally {
    outputs.abort();
    stored?.logits.close();
    await models?.close();
  }
}

function checkUsage(options: Shared, own: OwnOptions): void {
  const { base, against, data } = options;
  if (base === undefined && own.baseLogits === undefined) {
    throw new InputError('--base is missing; name the reference model, or its dump with --base-logits');
  }
  if (against.length === 0 && own.saveLogits === undefined) {
    throw new InputError(
      '--against is missing; name what the base is compared with, or keep the base with --save-logits',
    );
  }
  if (own.saveLogits !== undefined && own.baseLogits !== undefined) {
    throw new InputError('--save-logits and --base-logits exclude each other: the dump is there already');
  }
  if (against.length === 0) {
    const useless = (['out', 'table', 'plot'] as const).find((name) => options[name] !== undefined);
    if (useless) throw new InputError(`--${useless} needs --against: without candidates there is nothing to show`);
  }
  if (data.includes('-') && (own.saveLogits !== undefined || own.baseLogits !== undefined)) {
    throw new InputError('a dump knows its data by their hash: name files with --data, not standard input (-)');
  }
}

/** Each model gets an equal share of what the process does not use yet. */
async function openModels(options: Shared, precision: Precision, stored: StoredBase | undefined): Promise<Models> {
  // A dump stands for the base; --base beside it is only held against the dump's hash.
  const specs = [...(stored ? [] : [options.base as string]), ...options.against];
  const used = process.memoryUsage.rss();
  const maxMemory = used + Math.floor(Math.max(0, options.maxMemory - used) / specs.length);
  const threads = Math.max(1, Math.floor(options.threads / Math.min(2, specs.length)));
  const reserveBytes = comparisonReserveBytes(precision);
  const opened = await Promise.allSettled(
    specs.map((spec) => openModelSession(spec, { ...options, precision, maxMemory, threads, reserveBytes })),
  );
  const sessions = opened.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  const close = async (): Promise<void> => {
    await Promise.all(sessions.map((session) => session.close()));
  };
  try {
    const failed = opened.findIndex((result) => result.status === 'rejected');
    if (failed >= 0) throw namedFailure((opened[failed] as PromiseRejectedResult).reason, specs, failed);
    const named = sessions.map(({ host, tokenizer }, i) => ({
      name: specs[i],
      vocabularySize: host.info.vocabularySize,
      ...(tokenizer && { tokenizer }),
    }));
    const reference = stored ? { name: stored.logits.path, vocabularySize: stored.logits.vocabulary } : named[0];
    for (const other of named) checkSameVocabulary(reference, other);
    for (const other of named) checkSameVocabulary(named[0], other);
    const candidates = stored ? sessions : sessions.slice(1);
    return { ...(stored ? {} : { base: sessions[0] }), candidates, reader: sessions[0], close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Says of which share of the memory a complaint speaks. */
function namedFailure(reason: unknown, specs: readonly string[], failed: number): unknown {
  if (!(reason instanceof InputError) || specs.length === 1 || !reason.message.startsWith('--max-memory'))
    return reason;
  return new InputError(
    `${specs[failed]}: ${reason.message} (${specs.length} models share --max-memory equally; compare fewer at once, ` +
      'or keep the base with --save-logits)',
  );
}

function comparisonWindows(
  options: Shared,
  own: OwnOptions,
  { candidates, base, reader }: Models,
  stored: StoredBase | undefined,
): WindowOptions {
  const sessions = [...(base ? [base] : []), ...candidates];
  const limits = sessions.flatMap(({ host }) => (host.info.maxPositions === null ? [] : [host.info.maxPositions]));
  const subject = {
    name: options.base ?? options.against[0],
    ...(reader.tokenizer && { tokenizer: reader.tokenizer }),
    vocabularySize: reader.host.info.vocabularySize,
    maxPositions: limits.length > 0 ? Math.min(...limits) : null,
    context: Math.min(...sessions.map(({ context }) => context)),
  };
  if (stored?.kind !== 'llama.cpp') return windowOptions(options, own, subject);
  const { context, path } = stored.logits;
  if (own.convention !== undefined && own.convention !== 'llama.cpp') {
    throw new InputError(`${path}: a base file of llama.cpp has its own windows; drop --convention ${own.convention}`);
  }
  if (options.context !== undefined && options.context !== context) {
    throw new InputError(`${path}: was made with windows of ${context} tokens; drop --context ${options.context}`);
  }
  if (options.stride !== undefined || options.shard !== undefined || options.limit !== undefined) {
    throw new InputError(`${path}: a base file of llama.cpp is one stream; drop --stride, --shard and --limit`);
  }
  return windowOptions(options, { ...own, convention: 'llama.cpp' }, { ...subject, context });
}

/** The header of a dump, written or held against the one that is read; needs the hash of the data before they are read. */
async function dumpHeader(
  options: Shared,
  own: OwnOptions,
  run: {
    readonly windows: WindowOptions;
    readonly precision: Precision;
    readonly vocabulary: number;
    readonly sources: readonly string[];
    readonly ledger: InputLedger;
    readonly baseDigests: readonly InputDigest[];
  },
): Promise<LogitDumpHeader | undefined> {
  if (own.saveLogits === undefined && own.baseLogits === undefined) return undefined;
  for (const source of run.sources) run.ledger.note(source);
  const data = await run.ledger.digests();
  const {
    data: _data,
    seed: _seed,
    device: _device,
    ...text
  } = textParameters(options.data, options, own, run.windows);
  const base =
    options.base !== undefined && run.baseDigests.length === 0 ? await digestsOf(options.base) : run.baseDigests;
  return {
    vocabulary: run.vocabulary,
    modelSha256: combinedSha256(base),
    dataSha256: combinedSha256(data),
    parameters: {
      ...(text as LogitDumpHeader['parameters']),
      shard: options.shard ? `${options.shard.index}/${options.shard.count}` : null,
      precision: run.precision,
    },
  };
}

/** Digests of a model that is not run. */
async function digestsOf(spec: string): Promise<InputDigest[]> {
  const { resolveModelPath } = await import('../src/formats/hub.js');
  return (await modelDigests(spec, resolveModelPath(spec, process.env).path)).digests;
}

async function* textOf(
  options: Shared,
  own: OwnOptions,
  ledger: InputLedger,
  reader: ModelSession,
  stored: StoredBase | undefined,
): AsyncGenerator<TokenisedDocument, void, undefined> {
  if (stored?.kind === 'llama.cpp' && options.data.length === 0) {
    yield llamaCppDocument(stored.logits);
    return;
  }
  const subject = {
    ...(reader.tokenizer && { tokenizer: reader.tokenizer }),
    vocabularySize: reader.host.info.vocabularySize,
  };
  for await (const document of documentsOf(options.data, options, own, ledger, subject)) {
    if (stored?.kind !== 'llama.cpp') yield document;
    else if (document.index === 0) yield checkLlamaCppTokens(stored.logits, document);
    else throw new InputError(`${stored.logits.path}: is of one text, --data holds several documents; give that text`);
  }
}

function writeRows(
  table: { write(cells: ReturnType<typeof comparisonRow>): void },
  names: readonly string[],
  comparisons: readonly TokenComparison[],
  places: RowPlaces,
  tokenizer: Tokenizer | undefined,
): void {
  for (let i = 0; i < places.targets.length; i++) {
    for (const [c, comparison] of comparisons.entries()) {
      table.write(comparisonRow(names[c], comparison, places, i, tokenizer));
    }
  }
}

function baseDescription(
  options: Shared,
  own: OwnOptions,
  stored: StoredBase | undefined,
  vocabulary: number,
): BaseDescription {
  return {
    kind: stored?.kind ?? 'model',
    name: own.baseLogits ?? (options.base as string),
    vocabulary_size: vocabulary,
  };
}

function parametersOf(
  options: Shared,
  own: OwnOptions,
  windows: WindowOptions,
  precision: Precision,
): Record<string, ReportValue> {
  return {
    base: options.base ?? null,
    against: [...options.against],
    base_logits: own.baseLogits ?? null,
    ...textParameters(options.data, options, own, windows),
    precision,
  };
}

function describePlan(options: Shared, own: OwnOptions, models: Models, windows: WindowOptions): string {
  const sessions = [...(models.base ? [models.base] : []), ...models.candidates];
  const names = [...(models.base ? [options.base as string] : []), ...options.against];
  const mebibytes = (bytes: number | null): string =>
    bytes === null ? 'unknown' : `${Math.ceil(bytes / 2 ** 20)} MiB`;
  return summaryTable(
    ['plan', 'value'],
    [
      ['base', own.baseLogits ?? options.base],
      ...sessions.map(({ host: { info } }, i): [string, string] => [
        names[i],
        `${info.modelType}, ${info.format}, ${info.residence}, at most ${mebibytes(info.peakBytes)}`,
      ]),
      ['vocabulary', models.reader.host.info.vocabularySize],
      ['windows', `${windows.convention}, ${windows.context} tokens a window`],
      ...(own.saveLogits === undefined
        ? []
        : [['bytes of the dump a token', 2 * models.reader.host.info.vocabularySize + 48] as const]),
    ],
  );
}

function summary(body: CompareBody, saved: string | undefined): string {
  const notes = body.candidates.some((candidate) => candidate.fewer_than_100_tokens)
    ? 'fewer than 100 tokens: the figures say little\n'
    : '';
  if (body.candidates.length === 0) {
    return summaryTable(
      ['figure', 'value'],
      [
        ['documents', body.documents],
        ['tokens scored', body.scored_tokens],
        ['saved in', saved],
      ],
    );
  }
  const figures: readonly (readonly [string, (candidate: CompareBody['candidates'][number]) => number | undefined])[] =
    [
      ['tokens scored', (c) => c.tokens],
      ['base perplexity', (c) => c.base_perplexity],
      ['candidate perplexity', (c) => c.candidate_perplexity],
      ['perplexity ratio', (c) => c.perplexity_ratio],
      ['  standard error', (c) => c.perplexity_ratio_se],
      ['mean KL(base || candidate), nats', (c) => c.mean_kl_nats],
      ['  standard error', (c) => c.mean_kl_nats_se],
      ['  median', (c) => c.kl_quantiles_nats.median],
      ['  99%', (c) => c.kl_quantiles_nats.p99],
      ['mean KL(candidate || base), nats', (c) => c.mean_reverse_kl_nats],
      ['mean Jensen-Shannon, nats', (c) => c.mean_js_nats],
      ['mean KL, base in 16 bits (llama.cpp)', (c) => c.mean_kl_16bit_base_nats],
      ['entropy of the base, nats', (c) => c.base_mean_entropy_nats],
      ['change of entropy, nats', (c) => c.mean_delta_entropy_nats],
      ['  standard error', (c) => c.mean_delta_entropy_nats_se],
      ['agreement of top-1', (c) => c.top1_agreement],
      ['RMS change of p', (c) => c.rms_delta_p],
    ];
  const rows = figures
    .map(([name, of]) => [name, ...body.candidates.map(of)] as const)
    .filter(([, ...values]) => values.some((value) => value !== undefined));
  return summaryTable(['figure', ...body.candidates.map(({ candidate }) => candidate)], rows) + notes;
}
