import type { EngineHost, JobReference } from '../models/engine-host.js';
import type { PositionRange } from '../models/language-model.js';
import { batchWindows } from './token-scoring.js';
import type { TokenisedDocument } from './tokenised-document.js';
import type { ScoringWindow, WindowOptions } from './windows.js';

/** What every job over windows is given: token ids, and the positions of each window that count. */
export interface WindowArguments {
  readonly windows: readonly Int32Array[];
  readonly wanted: readonly PositionRange[];
}

/** A window of a batch and the document that it belongs to. */
export interface PlacedWindow {
  readonly document: TokenisedDocument;
  readonly window: ScoringWindow;
}

/** Documents that begin in a batch, its windows in order, and what the job made of them (absent without windows). */
export interface BatchResult<R> {
  readonly documents: readonly TokenisedDocument[];
  readonly windows: readonly PlacedWindow[];
  readonly result: R | undefined;
  /** Tokens that went through the model. */
  readonly rows: number;
}

/**
 * Runs a job beside the engine over batches of windows, in document order. While the engine works on one batch the next
 * is read and tokenised. A consumer that leaves early stops the reading.
 */
export async function* runWindowJob<A extends WindowArguments, R>(
  documents: AsyncIterable<TokenisedDocument>,
  host: EngineHost,
  job: JobReference<A, R>,
  options: {
    readonly windows: WindowOptions;
    readonly rowsPerBatch: number;
    readonly argumentsOf: (head: WindowArguments, windows: readonly PlacedWindow[]) => A;
  },
): AsyncGenerator<BatchResult<R>, void, undefined> {
  interface Work {
    readonly head: Omit<BatchResult<R>, 'result'>;
    readonly result: Promise<R | undefined>;
  }
  let running: Work | undefined;
  const finish = async ({ head, result }: Work): Promise<BatchResult<R>> => ({ ...head, result: await result });
  for await (const batch of batchWindows(documents, options.windows, options.rowsPerBatch)) {
    const begun = batch.events.filter((event) => !('window' in event)).map((event) => event.document);
    const windows = batch.events.filter(
      (event): event is PlacedWindow => 'window' in event && event.window.targets.length > 0,
    );
    const head: WindowArguments = {
      windows: windows.map(({ window }) => window.inputs),
      wanted: windows.map(({ window }) => [window.scoreFrom, window.scoreFrom + window.targets.length]),
    };
    const result =
      windows.length === 0 ? Promise.resolve(undefined) : host.run(job, options.argumentsOf(head, windows));
    // A failure is seen where the result is awaited; until then it must not count as unhandled.
    result.catch(() => undefined);
    if (running) yield await finish(running);
    running = { head: { documents: begun, windows, rows: batch.rows }, result };
  }
  if (running) yield await finish(running);
}
