import { InputError } from '../errors.js';
import type { RowStatistics } from '../kernels/row-statistics.js';
import type { EngineHost, JobReference } from '../models/engine-host.js';
import type { StatisticsRequest } from '../models/head-runner.js';
import type { LanguageModel, PositionRange } from '../models/language-model.js';
import type { TokenisedDocument } from './tokenised-document.js';
import { restrictToSpan, type ScoringWindow, scoringWindows, type WindowOptions } from './windows.js';

interface ScoreArguments {
  readonly windows: readonly Int32Array[];
  readonly wanted: readonly PositionRange[];
  readonly targets: Int32Array;
  readonly request: StatisticsRequest;
}

/** Runs beside the engine: statistics of the wanted predictions of a batch of windows. */
export async function scoreWindows(model: LanguageModel, args: ScoreArguments): Promise<RowStatistics> {
  return model.statistics(args.windows, args.wanted, args.targets, args.request);
}

export const SCORE_WINDOWS: JobReference<ScoreArguments, RowStatistics> = {
  module: import.meta.url,
  job: scoreWindows,
};

/** One scored window: rows first..first+count-1 of `statistics` belong to it. */
export interface ScoredWindow {
  readonly document: TokenisedDocument;
  readonly window: ScoringWindow;
  readonly statistics: RowStatistics;
  readonly first: number;
}

/** What a scorer yields: a document begins, then its windows follow in order; some predict nothing that counts. */
export type ScoringEvent =
  | { readonly kind: 'document'; readonly document: TokenisedDocument }
  | { readonly kind: 'window'; readonly scored: ScoredWindow }
  | { readonly kind: 'empty window'; readonly document: TokenisedDocument };

/** Windows of one document, restricted to the span that is scored. */
export function* documentWindows(
  document: TokenisedDocument,
  options: WindowOptions,
): Generator<ScoringWindow, void, undefined> {
  for (const window of scoringWindows(document.tokens, document.index, options)) {
    const kept = document.span ? restrictToSpan(window, document.span[0], document.span[1]) : window;
    if (kept) yield kept;
  }
}

/** A piece of work for the engine: windows that go together, and the documents that begin among them. */
interface Batch {
  readonly events: ({ document: TokenisedDocument } | { document: TokenisedDocument; window: ScoringWindow })[];
  rows: number;
}

/** The kernel names a row of the batch; the user wants the document and the token. */
function placeHostileLogit(error: unknown, batch: Batch): unknown {
  const found =
    error instanceof InputError ? /^logits: row (\d+)(?:, column (\d+) is (\S+?);| has)/.exec(error.message) : null;
  if (!found) return error;
  let row = Number(found[1]);
  for (const event of batch.events) {
    if (!('window' in event)) continue;
    const { targets, targetStart } = event.window;
    if (row >= targets.length) {
      row -= targets.length;
      continue;
    }
    const what = found[2] === undefined ? 'all logits are -inf' : `the logit of token ${found[2]} is ${found[3]}`;
    return new InputError(
      `${event.document.source}: document ${event.document.id}, position ${targetStart + row}: ${what}; ` +
        "the model's weights are damaged or overflow (try --precision f64)",
    );
  }
  return error;
}

/** Groups windows, in order, until a batch has enough rows. Long documents are cut, short ones joined. */
export async function* batchWindows(
  documents: AsyncIterable<TokenisedDocument>,
  options: WindowOptions,
  rowsPerBatch: number,
): AsyncGenerator<Batch, void, undefined> {
  let batch: Batch = { events: [], rows: 0 };
  for await (const document of documents) {
    batch.events.push({ document });
    for (const window of documentWindows(document, options)) {
      if (batch.rows > 0 && batch.rows + window.inputs.length > rowsPerBatch) {
        yield batch;
        batch = { events: [], rows: 0 };
      }
      batch.events.push({ document, window });
      batch.rows += window.inputs.length;
    }
  }
  if (batch.events.length > 0) yield batch;
}

/**
 * Scores documents in order. While the engine works on one batch the next is read and tokenised.
 * @param onRows called with the number of tokens that went through the model
 */
export async function* scoreDocuments(
  documents: AsyncIterable<TokenisedDocument>,
  host: EngineHost,
  options: WindowOptions,
  request: StatisticsRequest,
  onRows: (rows: number) => void = () => undefined,
): AsyncGenerator<ScoringEvent, void, undefined> {
  const submit = (batch: Batch): { batch: Batch; result: Promise<RowStatistics | undefined> } => {
    const windows = batch.events.flatMap((event) =>
      'window' in event && event.window.targets.length > 0 ? [event.window] : [],
    );
    if (windows.length === 0) return { batch, result: Promise.resolve(undefined) };
    const count = windows.reduce((sum, window) => sum + window.targets.length, 0);
    const targets = new Int32Array(count);
    let at = 0;
    for (const window of windows) {
      targets.set(window.targets, at);
      at += window.targets.length;
    }
    const result = host.run(SCORE_WINDOWS, {
      windows: windows.map((window) => window.inputs),
      wanted: windows.map((window) => [window.scoreFrom, window.scoreFrom + window.targets.length] as const),
      targets,
      request,
    });
    // A failure is seen where the result is awaited; until then it must not count as unhandled.
    result.catch(() => undefined);
    return { batch, result };
  };

  let running: ReturnType<typeof submit> | undefined;
  async function* drain(work: ReturnType<typeof submit>): AsyncGenerator<ScoringEvent, void, undefined> {
    const statistics = await work.result.catch((error: unknown) => {
      throw placeHostileLogit(error, work.batch);
    });
    onRows(work.batch.rows);
    let first = 0;
    for (const event of work.batch.events) {
      if (!('window' in event)) {
        yield { kind: 'document', document: event.document };
        continue;
      }
      if (!statistics || event.window.targets.length === 0) {
        yield { kind: 'empty window', document: event.document };
        continue;
      }
      yield { kind: 'window', scored: { document: event.document, window: event.window, statistics, first } };
      first += event.window.targets.length;
    }
  }
  for await (const batch of batchWindows(documents, options, host.info.rowsPerBatch)) {
    const next = submit(batch);
    if (running) yield* drain(running);
    running = next;
  }
  if (running) yield* drain(running);
}
