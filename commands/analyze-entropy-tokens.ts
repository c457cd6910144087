import type { Command } from 'commander';
import {
  addDocument,
  addEmptyWindow,
  addScoredTokens,
  type CorpusJson,
  type CorpusStatistics,
  corpusFromJson,
  corpusToJson,
  createCorpus,
  type DocumentStatistics,
  documentsInOrder,
} from '../src/entropy/corpus.js';
import { TOKENS_SCHEMA, tokensBody } from '../src/entropy/token-report.js';
import { type ScoredWindow, scoreDocuments } from '../src/entropy/token-scoring.js';
import {
  DOCUMENT_COLUMNS,
  documentRow,
  scoredTokens,
  TOKEN_COLUMNS,
  TOKEN_STATISTICS,
  tokenRows,
} from '../src/entropy/token-table.js';
import type { TokensPlotJson } from '../src/entropy/tokens-plot.js';
import { effectiveContext, type WindowOptions } from '../src/entropy/windows.js';
import { InputError } from '../src/errors.js';
import { createInputLedger } from '../src/formats/inputs.js';
import type { TablePosition } from '../src/report/csv.js';
import { escapeToken } from '../src/report/escape.js';
import { buildReport, writeReport } from '../src/report/json.js';
import { createProgress } from '../src/report/progress.js';
import { summaryTable } from '../src/report/summary-table.js';
import { type ReportValue, reportObject } from '../src/report/values.js';
import type { Tokenizer } from '../src/tokenizers/tokenizer.js';
import { prepareAsserts } from './edge-asserts.js';
import { openCheckpoint } from './edge-checkpoint.js';
import { openOutputs } from './edge-outputs.js';
import { parseInteger } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { type ModelSession, openModelSession, PRECISION_OPTION, parsePrecision } from './model-session.js';
import { startRunTimings } from './run-timings.js';
import {
  addScoredTextOptions,
  describeConvention,
  documentsOf,
  type ScoredTextOptions,
  textParameters,
  windowOptions,
} from './scored-text.js';
import { attachShared, requireOption, type SharedOptions, TEXT_OPTIONS } from './shared-options.js';

const SHARED = ['model', 'stride', 'resume', ...TEXT_OPTIONS] as const;

type Shared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Options of this view alone, as commander gives them. */
interface OwnOptions extends ScoredTextOptions {
  top?: string;
  precision?: string;
}

/** Declares `surprisal analyze-entropy tokens`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  addScoredTextOptions(command)
    .option('--top <n>', 'length of the lists of most surprising and most uncertain tokens (default 20)')
    .option(...PRECISION_OPTION)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

/** What a checkpoint holds: everything of the documents before `next`. */
interface TokensState {
  readonly next: number;
  readonly fed: number;
  readonly corpus: CorpusJson;
  readonly table: TablePosition;
  readonly excerpt?: TokensPlotJson;
}

async function run(options: Shared, own: OwnOptions): Promise<number> {
  const model = requireOption(options.model, '--model', 'a model directory, a .gguf or an .onnx file');
  const data = requireOption(options.data, '--data', 'the text to read');
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings('analyze-entropy tokens');
  const checkpoint = openCheckpoint<TokensState>(
    options.out ?? options.report,
    { version: toolVersion(), model, data, own, ...resultOptions(options) },
    options.resume,
  );
  const outputs = openOutputs(data, { force: options.force, resume: options.resume });
  try {
    const resumeFrom = options.resume ? (checkpoint.found?.table ?? { bytes: 0, rows: 0 }) : undefined;
    const table = outputs.table('--out', options.out, TOKEN_COLUMNS, options.format, resumeFrom);
    const documentTable = outputs.table('--table', options.table, DOCUMENT_COLUMNS);
    const reportFile = outputs.file('--report', options.report);
    const plotFile = outputs.file('--plot', options.plot);
    const timingsFile = outputs.file('--timings', options.timings);
    if (plotFile) (await import('../src/report/plots/figure.js')).plotExtension(options.plot as string);

    const precision = parsePrecision(own.precision);
    timings.begin('open the model');
    const session = await openModelSession(model, { ...options, precision });
    const { host, tokenizer } = session;
    const { vocabularySize, maxPositions } = host.info;
    const subject = {
      name: model,
      ...(tokenizer && { tokenizer }),
      vocabularySize,
      maxPositions,
      context: session.context,
    };
    const windows = windowOptions(options, own, subject);
    if (options.dryRun) {
      process.stdout.write(describePlan(model, session, windows));
      await session.close();
      outputs.abort();
      return 0;
    }
    const ledger = createInputLedger();
    const top = own.top === undefined ? 20 : parseInteger('--top', own.top, 1);
    const corpus = checkpoint.found ? corpusFromJson(checkpoint.found.corpus) : createCorpus({ top });
    const progress = await createProgress({
      stream: process.stderr,
      quiet: options.quiet,
      unit: 'tokens',
      now: () => performance.now(),
    });
    const excerpt = plotFile ? await createExcerpt(tokenizer, checkpoint.found?.excerpt) : undefined;

    timings.begin('score');
    let fed = checkpoint.found?.fed ?? 0;
    const entered = new Map<number, DocumentStatistics>();
    const next = checkpoint.found?.next ?? 0;
    const documents = documentsOf(data, options, own, ledger, subject, next);
    const events = scoreDocuments(documents, host, windows, TOKEN_STATISTICS, (rows) => {
      fed += rows;
      progress.update(fed);
    });
    for await (const event of events) {
      if (event.kind === 'document') {
        const { index, id, source, tokens, bytes, words } = event.document;
        if (checkpoint.due()) {
          table?.flush();
          checkpoint.save({
            next: index,
            fed,
            corpus: corpusToJson(corpus),
            table: { bytes: table?.file.position ?? 0, rows: table?.rows ?? 0 },
            ...(excerpt && { excerpt: excerpt.toJson() }),
          });
        }
        const text = { ...(bytes !== undefined && { bytes }), ...(words !== undefined && { words }) };
        entered.set(index, addDocument(corpus, { index, id, source, tokens: tokens.length, ...text }));
        continue;
      }
      if (event.kind === 'empty window') {
        addEmptyWindow(documentStatistics(entered, event.document.index));
        continue;
      }
      const { scored } = event;
      addScored(corpus, documentStatistics(entered, scored.document.index), scored, tokenizer);
      if (table) for (const row of tokenRows(scored, tokenizer)) table.write(row);
      excerpt?.add(scored);
    }
    progress.stop();
    timings.count('tokens', fed);

    const scoredTotal = documentsInOrder(corpus).reduce((sum, document) => sum + document.scoredTokens, 0);
    // A shard may be left without documents; the run as a whole may not.
    if (scoredTotal === 0 && !options.shard) {
      throw new InputError(`${data.join(', ')}: no token was scored: the documents are empty or shorter than a window`);
    }
    if (documentTable) for (const document of documentsInOrder(corpus)) documentTable.write(documentRow(document));
    timings.begin('hash the inputs');
    const inputs = [...(await session.digests()), ...(await ledger.digests())];
    await session.close();

    timings.begin('summarise and write');
    const body = tokensBody(corpus, {
      seed: options.seed,
      convention: describeConvention(windows, host.info.modelType),
    });
    const report = buildReport(
      {
        name: TOKENS_SCHEMA,
        tool: { name: 'surprisal', version: toolVersion() },
        command: 'analyze-entropy tokens',
        parameters: parametersOf(model, data, options, own, windows, precision),
        inputs,
      },
      reportObject(options.shard ? { ...body, shard: options.shard, partial: corpusToJson(corpus) } : body),
    );
    if (reportFile) writeReport(report, reportFile);
    if (plotFile && excerpt)
      plotFile.write(await excerpt.plot(body, `${model}: ${data.join(', ')}`, options.plot as string));
    if (timingsFile) timings.write(timingsFile, options);
    outputs.commit();
    checkpoint.remove();
    if (!options.quiet) process.stdout.write(summary(body));
    return asserts.check(report);
  } catch (error) {
    outputs.abort();
    throw error;
  }
}

function documentStatistics(entered: ReadonlyMap<number, DocumentStatistics>, index: number): DocumentStatistics {
  return entered.get(index) as DocumentStatistics;
}

/** The shared options that decide the result, for a checkpoint. */
function resultOptions(options: Shared): object {
  const { dataFormat, textSplit, textField, limit, format, seed, device, context, stride, shard } = options;
  return { dataFormat, textSplit, textField, limit, format, seed, device, context, stride, shard };
}

function parametersOf(
  model: string,
  data: readonly string[],
  options: Shared,
  own: OwnOptions,
  windows: WindowOptions,
  precision: string,
): Record<string, ReportValue> {
  return { model, ...textParameters(data, options, own, windows), precision };
}

function describePlan(model: string, session: ModelSession, windows: WindowOptions): string {
  const { info } = session.host;
  return summaryTable(
    ['plan', 'value'],
    [
      ['model', `${model} (${info.modelType}, ${info.format})`],
      ['layers', info.layers ?? 'unknown'],
      ['vocabulary', info.vocabularySize],
      ['convention', `${windows.convention}, ${effectiveContext(windows)} tokens a window`],
      ['tokens per batch', info.rowsPerBatch],
      ['weights', info.residence],
      ['peak memory, MiB', info.peakBytes === null ? 'unknown' : Math.ceil(info.peakBytes / 2 ** 20)],
    ],
  );
}

function addScored(
  corpus: CorpusStatistics,
  document: DocumentStatistics,
  scored: ScoredWindow,
  tokenizer: Tokenizer | undefined,
): void {
  const { tokens } = scored.document;
  const render = (from: number, to: number): string => {
    let text = '';
    for (let p = Math.max(0, from); p < to; p++)
      text += escapeToken(tokenizer?.tokenBytes(tokens[p]) ?? `[${tokens[p]}]`);
    return text;
  };
  addScoredTokens(corpus, document, scoredTokens(scored), (position) => ({
    token: render(position, position + 1),
    context: render(position - 12, position),
  }));
}

async function createExcerpt(tokenizer: Tokenizer | undefined, from: TokensPlotJson | undefined) {
  const { createTokensPlot } = await import('../src/entropy/tokens-plot.js');
  return createTokensPlot(tokenizer, from);
}

function summary(body: ReturnType<typeof tokensBody>): string {
  const interval = (name: 'perplexity' | 'mean_nll_nats' | 'mean_entropy_nats' | 'bits_per_byte'): string => {
    const found = body.intervals?.[name];
    return found ? `${found.low.toPrecision(5)} to ${found.high.toPrecision(5)}` : '';
  };
  return summaryTable(
    ['figure', 'value', 'standard error', '95% over documents'],
    [
      ['documents', body.documents, undefined, undefined],
      ['tokens scored', body.scored_tokens, undefined, undefined],
      ['perplexity', body.perplexity, body.perplexity_se, interval('perplexity')],
      ['mean surprisal, nats', body.mean_nll_nats, body.mean_nll_nats_se, interval('mean_nll_nats')],
      ['mean entropy, nats', body.mean_entropy_nats, body.mean_entropy_nats_se, interval('mean_entropy_nats')],
      ['bits per byte', body.bits_per_byte, undefined, interval('bits_per_byte')],
      ['word perplexity', body.word_perplexity, undefined, undefined],
      ['top-1 accuracy', body.top1_accuracy, undefined, undefined],
      ['entropy - surprisal, nats', body.entropy_calibration_gap_nats, undefined, undefined],
    ],
  );
}
