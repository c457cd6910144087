import type { Command } from 'commander';
import { addColumnDocument, type ColumnDocument, columnsToJson } from '../src/entropy/column-statistics.js';
import type { DocumentStatistics } from '../src/entropy/corpus.js';
import {
  addLogits,
  createLogitsStatistics,
  type DumpDescription,
  LOGIT_COLUMNS,
  LOGIT_STATISTICS,
  LOGITS_SCHEMA,
  type LogitsBody,
  logitRows,
  logitsBody,
  logitsPartial,
} from '../src/entropy/logits-report.js';
import { logitDocuments, logitTargets, ofShard, scoreLogits } from '../src/entropy/logits-scoring.js';
import {
  addLogProbs,
  createLogProbStatistics,
  LOGPROB_COLUMNS,
  LOGPROBS_SCHEMA,
  type LogProbsBody,
  logProbRow,
  logProbsBody,
} from '../src/entropy/logprobs-report.js';
import { InputError } from '../src/errors.js';
import { readRecords } from '../src/formats/documents.js';
import { createInputLedger, expandSources, type InputDigest } from '../src/formats/inputs.js';
import { type LogitTensor, openLogitTensor, readTokenIdFile } from '../src/formats/logit-rows.js';
import { parseLogProbRow } from '../src/formats/logprob-rows.js';
import { placeOf } from '../src/formats/rows.js';
import { isTensorFile } from '../src/formats/tensor-file.js';
import { buildReport, type Report, writeReport } from '../src/report/json.js';
import { createProgress } from '../src/report/progress.js';
import { summaryTable } from '../src/report/summary-table.js';
import { type ReportObject, type ReportValue, reportObject } from '../src/report/values.js';
import { prepareAsserts } from './edge-asserts.js';
import { type Outputs, openOutputs } from './edge-outputs.js';
import { parseInteger } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { type RunTimings, startRunTimings } from './run-timings.js';
import { attachShared, requireOption, type SharedOptions } from './shared-options.js';

const SHARED = [
  'data',
  'dataFormat',
  'limit',
  'out',
  'format',
  'report',
  'plot',
  'seed',
  'threads',
  'maxMemory',
  'shard',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
] as const satisfies readonly (keyof SharedOptions)[];

type Shared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Options of this view alone, as commander gives them. */
interface OwnOptions {
  tensor?: string;
  targets?: string;
  shift?: boolean;
  documentRows?: string;
  vocabularySize?: string;
  idField?: string;
  top?: string;
}

/** Declares `surprisal analyze-entropy logits`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--tensor <name>', 'tensor of logits [.., vocabulary] (default: the only one, or logits)')
    .option('--targets <file|name>', 'token ids of the rows: a tensor of the same file, or a file of its own')
    .option('--shift', 'the ids are the inputs: the target of a row is the next id of its sequence')
    .option('--document-rows <n>', 'cut a tensor [rows, vocabulary] into documents of so many rows')
    .option('--vocabulary-size <n>', 'log-probabilities: tokens of the vocabulary, for the upper bound')
    .option('--id-field <name>', 'log-probabilities: field that names a row (default id)')
    .option('--top <n>', 'length of the lists of most surprising and most uncertain rows (default 20)')
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

/** What either kind of input gives: the body of the report, what shards need, and what is shown. */
interface Measured {
  readonly schema: string;
  readonly body: LogitsBody | LogProbsBody;
  readonly partial: ReportValue;
  readonly inputs: readonly InputDigest[];
  readonly summary: string;
  readonly plot: (target: string, subtitle: string) => Promise<Uint8Array>;
}

async function run(options: Shared, own: OwnOptions): Promise<number> {
  const data = requireOption(options.data, '--data', 'dumps of logits, or JSONL with log-probabilities');
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings('analyze-entropy logits');
  if (options.dataFormat !== undefined && options.dataFormat !== 'jsonl') {
    throw new InputError(`--data-format ${options.dataFormat}: log-probabilities are read from jsonl`);
  }
  const sources = await expandSources(data);
  const tensors = sources.filter((source) => options.dataFormat === undefined && isTensorFile(source));
  if (tensors.length > 0 && tensors.length < sources.length) {
    const other = sources.find((source) => !isTensorFile(source));
    throw new InputError(`${other}: cannot be read together with ${tensors[0]}; give tensors or JSONL, not both`);
  }
  const dumps = tensors.length > 0;
  refuseForeignOptions(own, dumps);
  const outputs = openOutputs([...sources, ...(own.targets === undefined ? [] : [own.targets])], {
    force: options.force,
  });
  try {
    const reportFile = outputs.file('--report', options.report);
    const plotFile = outputs.file('--plot', options.plot);
    const timingsFile = outputs.file('--timings', options.timings);
    if (plotFile) (await import('../src/report/plots/figure.js')).plotExtension(options.plot as string);
    const measured = dumps
      ? await measureDumps(tensors, options, own, outputs, timings)
      : await measureLogProbs(sources, options, own, outputs, timings);
    if (measured === undefined) {
      outputs.abort();
      return 0;
    }
    const { schema, body, partial, inputs, summary, plot } = measured;
    timings.begin('summarise and write');
    const report: Report = buildReport(
      {
        name: schema,
        tool: { name: 'surprisal', version: toolVersion() },
        command: 'analyze-entropy logits',
        parameters: parametersOf(data, options, own),
        inputs,
      },
      reportObject(options.shard ? { ...body, shard: options.shard, partial } : body),
    );
    if (reportFile) writeReport(report, reportFile);
    if (plotFile) plotFile.write(await plot(options.plot as string, data.join(', ')));
    if (timingsFile) timings.write(timingsFile, options);
    outputs.commit();
    if (!options.quiet) process.stdout.write(summary);
    return asserts.check(report);
  } catch (error) {
    outputs.abort();
    throw error;
  }
}

function refuseForeignOptions(own: OwnOptions, dumps: boolean): void {
  const foreign: readonly [unknown, string, string][] = dumps
    ? [
        [own.vocabularySize, '--vocabulary-size', 'a dump says how large its vocabulary is'],
        [own.idField, '--id-field', 'the documents of a dump have no fields'],
      ]
    : [
        [own.tensor, '--tensor', 'log-probabilities are no tensor'],
        [own.targets, '--targets', 'log-probabilities carry their own targets'],
        [own.shift, '--shift', 'log-probabilities carry their own targets'],
        [own.documentRows, '--document-rows', 'every row of JSONL is a document'],
        [own.top, '--top', 'such lists are made of dumps with --targets'],
      ];
  const found = foreign.find(([value]) => value !== undefined);
  if (found) throw new InputError(`${found[1]}: ${found[2]}; drop it`);
  if (dumps && own.shift === true && own.targets === undefined) {
    throw new InputError('--shift needs --targets: the ids whose next one is the target of a row');
  }
}

/** Logits of one block stay below this, whatever the memory allows: larger blocks are no faster. */
const LARGEST_BLOCK_BYTES = 32 << 20;

async function measureDumps(
  paths: readonly string[],
  options: Shared,
  own: OwnOptions,
  outputs: Outputs,
  timings: RunTimings,
): Promise<Measured | undefined> {
  timings.begin('open the dumps');
  const opened: LogitTensor[] = [];
  try {
    for (const path of paths) opened.push(openLogitTensor(path, own.tensor));
    return await measureOpened(opened, options, own, outputs, timings);
  } finally {
    for (const tensor of opened) tensor.close();
  }
}

async function measureOpened(
  tensors: readonly LogitTensor[],
  options: Shared,
  own: OwnOptions,
  outputs: Outputs,
  timings: RunTimings,
): Promise<Measured | undefined> {
  const blockRows = own.documentRows === undefined ? undefined : parseInteger('--document-rows', own.documentRows, 1);
  const odd = tensors.find(({ vocabulary }) => vocabulary !== tensors[0].vocabulary);
  if (odd) {
    throw new InputError(
      `${odd.path}: a vocabulary of ${odd.vocabulary}, ${tensors[0].path} has ${tensors[0].vocabulary}; measure them apart`,
    );
  }
  const targets = tensors.map((tensor) => targetsOf(tensor, own, tensors.length));
  let next = 0;
  const work = tensors.map((tensor, i) => {
    const all = logitDocuments(tensor, next, blockRows);
    next += all.length;
    const kept = all.filter(({ index }) => options.limit === undefined || index < options.limit);
    return { tensor, documents: ofShard(kept, options.shard), targets: targets[i]?.ids };
  });
  const total = work.reduce(
    (sum, { documents }) => sum + documents.reduce((rows, document) => rows + document.rows, 0),
    0,
  );
  const blockBytes = Math.max(1 << 20, Math.min(LARGEST_BLOCK_BYTES, Math.floor(options.maxMemory / 16)));
  if (options.dryRun) {
    process.stdout.write(dumpPlan(tensors, total, blockBytes));
    return undefined;
  }
  const table = outputs.table('--out', options.out, LOGIT_COLUMNS, options.format);
  const progress = await createProgress({
    stream: process.stderr,
    quiet: options.quiet,
    unit: 'rows',
    total,
    now: () => performance.now(),
  });
  timings.begin('measure');
  const statistics = createLogitsStatistics(
    own.targets !== undefined,
    own.top === undefined ? 20 : parseInteger('--top', own.top, 1),
  );
  const entered = new Map<number, DocumentStatistics | ColumnDocument>();
  for (const { tensor, documents, targets: wanted } of work) {
    const scoring = { threads: options.threads, blockBytes, ...LOGIT_STATISTICS };
    for (const pieces of scoreLogits(tensor, documents, wanted, scoring)) {
      addLogits(statistics, entered, pieces);
      if (table) for (const row of logitRows(pieces)) table.write(row);
      progress.update(statistics.rows);
      // Signals and the progress line get their turn between blocks.
      await new Promise(setImmediate);
    }
  }
  progress.stop();
  timings.count('rows', statistics.rows);
  if (own.targets !== undefined && statistics.rows > 0 && statistics.rows === statistics.rowsWithoutTarget) {
    throw new InputError(`--targets ${own.targets}: no row has a target: all are below zero`);
  }
  timings.begin('hash the inputs');
  const inputs: InputDigest[] = [];
  for (const tensor of tensors) {
    inputs.push({ path: tensor.path, bytes: tensor.fileBytes, sha256: await tensor.sha256() });
  }
  const ledger = createInputLedger();
  const files = new Set(targets.flatMap((given) => (given?.file === undefined ? [] : [given.file])));
  for (const file of files) ledger.note(file);
  inputs.push(...(await ledger.digests()));
  const description: DumpDescription = {
    dumps: tensors.map(({ path, name, dtype, shape }) => ({ path, tensor: name, dtype, shape })),
    vocabulary_size: tensors[0].vocabulary,
  };
  const body = logitsBody(statistics, description, options.seed);
  return {
    schema: LOGITS_SCHEMA,
    body,
    partial: logitsPartial(statistics),
    inputs,
    summary: dumpSummary(body),
    plot: async (target, subtitle) =>
      (await import('../src/entropy/logits-plot.js')).logitsPlot(body, subtitle, target),
  };
}

/** Targets of one dump: a tensor of its own file, or another file, which then serves the only dump. */
function targetsOf(
  tensor: LogitTensor,
  own: OwnOptions,
  tensors: number,
): { readonly ids: Int32Array; readonly file?: string } | undefined {
  const given = own.targets;
  if (given === undefined) return undefined;
  const shift = own.shift === true;
  if (!isTensorFile(given) || tensor.has(given)) {
    return { ids: logitTargets(tensor, tensor.tokenIds(given), shift, `${tensor.path}: tensor "${given}"`) };
  }
  if (tensors > 1) {
    throw new InputError(`--targets ${given}: one file cannot serve ${tensors} dumps; name a tensor that each holds`);
  }
  return { ids: logitTargets(tensor, readTokenIdFile(given), shift, given), file: given };
}

async function measureLogProbs(
  sources: readonly string[],
  options: Shared,
  own: OwnOptions,
  outputs: Outputs,
  timings: RunTimings,
): Promise<Measured | undefined> {
  const vocabulary =
    own.vocabularySize === undefined ? undefined : parseInteger('--vocabulary-size', own.vocabularySize, 1);
  if (options.dryRun) {
    process.stdout.write(
      summaryTable(
        ['plan', 'value'],
        [
          ['inputs', sources.join(', ')],
          ['kind', 'top-k log-probabilities, one JSON object a line'],
          ['vocabulary', vocabulary ?? 'not given: upper bounds are infinite where a tail is missing'],
        ],
      ),
    );
    return undefined;
  }
  const table = outputs.table('--out', options.out, LOGPROB_COLUMNS, options.format);
  const ledger = createInputLedger();
  const progress = await createProgress({
    stream: process.stderr,
    quiet: options.quiet,
    unit: 'positions',
    now: () => performance.now(),
  });
  timings.begin('measure');
  const statistics = createLogProbStatistics();
  let positions = 0;
  const records = readRecords(sources, {
    ledger,
    format: options.dataFormat ?? 'jsonl',
    ...(options.limit !== undefined && { limit: options.limit }),
    ...(options.shard && { shard: options.shard }),
  });
  for await (const record of records) {
    const where = placeOf(record);
    const rows = parseLogProbRow(record.record, where);
    const id = record.record[own.idField ?? 'id'];
    const document = addColumnDocument(statistics, {
      index: record.index,
      id: typeof id === 'string' || typeof id === 'number' ? String(id) : String(record.index),
      source: record.source,
    });
    for (const row of rows) {
      const bounds = placed(where, () => addLogProbs(statistics, document, row, vocabulary));
      table?.write(logProbRow(document, row, bounds));
    }
    positions += rows.length;
    progress.update(positions);
  }
  progress.stop();
  timings.count('positions', positions);
  // A shard may be left without rows; the run as a whole may not.
  if (positions === 0 && !options.shard)
    throw new InputError(`${sources.join(', ')}: no position with log-probabilities`);
  timings.begin('hash the inputs');
  const inputs = await ledger.digests();
  const body = logProbsBody(statistics, vocabulary ?? null, options.seed);
  return {
    schema: LOGPROBS_SCHEMA,
    body,
    partial: reportObject(columnsToJson(statistics)),
    inputs,
    summary: logProbSummary(body),
    plot: async (target, subtitle) =>
      (await import('../src/entropy/logits-plot.js')).logProbsPlot(body, subtitle, target),
  };
}

/** Puts file and line before a complaint about one position. */
function placed<T>(where: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (error instanceof InputError && !error.message.startsWith(where)) {
      throw new InputError(`${where}: ${error.message}`);
    }
    throw error;
  }
}

function parametersOf(data: readonly string[], options: Shared, own: OwnOptions): Record<string, ReportValue> {
  return {
    data: [...data],
    data_format: options.dataFormat ?? null,
    limit: options.limit ?? null,
    tensor: own.tensor ?? null,
    targets: own.targets ?? null,
    shift: own.shift === true,
    document_rows: own.documentRows === undefined ? null : Number(own.documentRows),
    vocabulary_size: own.vocabularySize === undefined ? null : Number(own.vocabularySize),
    seed: options.seed,
  };
}

function dumpPlan(tensors: readonly LogitTensor[], rows: number, blockBytes: number): string {
  return summaryTable(
    ['plan', 'value'],
    [
      ...tensors.map(({ path, name, dtype, shape }): [string, string] => [
        path,
        `${name} ${dtype} [${shape.join(', ')}]`,
      ]),
      ['rows', rows],
      ['logits in memory, MiB', blockBytes / 2 ** 20],
    ],
  );
}

function intervalText(intervals: object | undefined, name: string): string {
  const found = (intervals as ReportObject | undefined)?.[name] as { low: number; high: number } | undefined;
  return found && Number.isFinite(found.high) ? `${found.low.toPrecision(5)} to ${found.high.toPrecision(5)}` : '';
}

const HEADER = ['figure', 'value', 'standard error', '95% over documents'] as const;

function dumpSummary(body: LogitsBody): string {
  const interval = (name: string): string => intervalText(body.intervals, name);
  return summaryTable(HEADER, [
    ['documents', body.documents],
    ['rows', body.rows],
    ['vocabulary', body.vocabulary_size],
    ...(body.targets
      ? [
          ['rows with a target', body.scored_tokens],
          ['perplexity', body.perplexity, body.perplexity_se, interval('perplexity')],
          ['mean surprisal, nats', body.mean_nll_nats, body.mean_nll_nats_se, interval('mean_nll_nats')],
          ['top-1 accuracy', body.top1_accuracy],
        ]
      : []),
    ['mean entropy, nats', body.mean_entropy_nats, body.mean_entropy_nats_se, interval('mean_entropy_nats')],
    ['mean varentropy, nats²', body.mean_varentropy_nats2],
  ]);
}

function logProbSummary(body: LogProbsBody): string {
  const interval = (name: string): string => intervalText(body.intervals, name);
  return summaryTable(HEADER, [
    ['documents', body.documents],
    ['positions', body.positions],
    ['mean kept mass', body.mean_kept_mass],
    [
      'mean entropy at least, nats',
      body.mean_entropy_lower_nats,
      body.mean_entropy_lower_nats_se,
      interval('mean_entropy_lower_nats'),
    ],
    [
      'mean entropy at most, nats',
      body.mean_entropy_upper_nats,
      body.mean_entropy_upper_nats_se,
      interval('mean_entropy_upper_nats'),
    ],
    ...(body.scored_tokens > 0
      ? [['perplexity of returned targets', body.perplexity, undefined, undefined] as const]
      : []),
    ...(body.unreturned_targets > 0 ? [['targets that were not returned', body.unreturned_targets] as const] : []),
  ]);
}
