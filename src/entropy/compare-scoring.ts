import { InputError } from '../errors.js';
import type { StoredLogits, StoredRows } from '../formats/logit-dump.js';
import type { EngineHost, JobReference } from '../models/engine-host.js';
import { gatherRows } from '../models/gather-rows.js';
import type { LanguageModel, PositionRange } from '../models/language-model.js';
import type { Floats } from '../models/layer-runner.js';
import { compareExactLogits, type TokenComparison } from './compare.js';
import { compareStored } from './compare-stored.js';
import { batchWindows } from './token-scoring.js';
import type { TokenisedDocument } from './tokenised-document.js';
import { contextLengthOf, type ScoringWindow, type WindowOptions } from './windows.js';

/**
 * What a model holds between the jobs of one batch: the normed residual rows of the wanted positions, from which logits
 * are made a few rows at a time; the logits themselves where the layers cannot be reached.
 */
const held = new WeakMap<LanguageModel, { readonly rows: Floats; readonly areLogits: boolean }>();

interface HoldArguments {
  readonly windows: readonly Int32Array[];
  readonly wanted: readonly PositionRange[];
}

/** Runs beside an engine: passes windows through the layers and keeps the rows of the wanted positions. */
export async function holdRows(model: LanguageModel, { windows, wanted }: HoldArguments): Promise<void> {
  held.delete(model);
  const { engine } = model;
  if (!engine) {
    held.set(model, { rows: await model.logits(windows, wanted), areLogits: true });
    return;
  }
  const groups = await engine.forward({ windows });
  const rows = gatherRows(groups, engine.model.hiddenSize, wanted);
  await engine.normalize(rows);
  held.set(model, { rows, areLogits: false });
}

interface RowRange {
  readonly from: number;
  readonly count: number;
}

/** Logits `[count, vocabulary]` of held rows. */
async function logitsOf(model: LanguageModel, { from, count }: RowRange): Promise<Floats> {
  const kept = held.get(model);
  if (!kept) throw new Error('no rows are held');
  const vocabulary = model.info.vocabularySize;
  if (kept.areLogits || !model.engine) return kept.rows.subarray(from * vocabulary, (from + count) * vocabulary);
  const { hiddenSize } = model.engine.model;
  return model.engine.logits(kept.rows.subarray(from * hiddenSize, (from + count) * hiddenSize));
}

/** Runs beside the base: logits in shared memory, so that every candidate reads the same bytes and none is copied. */
export async function takeLogits(model: LanguageModel, range: RowRange): Promise<Floats> {
  const logits = await logitsOf(model, range);
  const shared = new SharedArrayBuffer(logits.byteLength);
  const copy = logits instanceof Float32Array ? new Float32Array(shared) : new Float64Array(shared);
  copy.set(logits);
  return copy;
}

interface AgainstBase extends RowRange {
  readonly base: Floats;
  readonly targets: Int32Array;
}

/** Runs beside a candidate: its held rows against the base's logits. */
export async function compareWithBase(model: LanguageModel, args: AgainstBase): Promise<TokenComparison> {
  const logits = await logitsOf(model, args);
  return compareExactLogits(args.base, logits, model.info.vocabularySize, args.targets, {
    base: 'the base model',
    candidate: model.info.path,
  });
}

interface AgainstStored extends RowRange {
  readonly stored: StoredRows;
}

/** Runs beside a candidate: its held rows against stored rows of a base. */
export async function compareWithStored(model: LanguageModel, args: AgainstStored): Promise<TokenComparison> {
  return compareStored(args.stored, await logitsOf(model, args), model.info.path);
}

const reference = <A, R>(job: JobReference<A, R>['job']): JobReference<A, R> => ({ module: import.meta.url, job });
const HOLD_ROWS = reference(holdRows);
const TAKE_LOGITS = reference(takeLogits);
const COMPARE_WITH_BASE = reference(compareWithBase);
const COMPARE_WITH_STORED = reference(compareWithStored);

/** Where the base's predictions come from. */
export type BaseSource =
  | { readonly kind: 'model'; readonly host: EngineHost }
  | { readonly kind: 'stored'; readonly logits: StoredLogits };

/** Consecutive scored tokens. Arrays have one entry a row. */
export interface RowPlaces {
  readonly documents: readonly TokenisedDocument[];
  readonly documentIndices: Int32Array;
  readonly positions: Int32Array;
  readonly contextLengths: Int32Array;
  readonly targets: Int32Array;
}

export type ComparisonEvent =
  | { readonly kind: 'document'; readonly document: TokenisedDocument }
  | { readonly kind: 'rows'; readonly places: RowPlaces; readonly comparisons: readonly TokenComparison[] };

export interface ComparisonOptions {
  readonly windows: WindowOptions;
  readonly vocabulary: number;
  /** Called with the base's exact logits `[rows, vocabulary]` of every chunk, in order. */
  readonly onBaseLogits?: (logits: Floats, places: RowPlaces) => void;
  readonly onRows?: (rows: number) => void;
}

/** Logits of one chunk of rows: bounded, and a function of the vocabulary alone, so that figures never depend on it. */
const CHUNK_LOGITS = 1 << 22;

export function chunkRows(vocabulary: number): number {
  return Math.max(1, Math.floor(CHUNK_LOGITS / vocabulary));
}

/** Bytes that a comparison holds beside one engine: chunks of base and candidate, and what decoding makes of them. */
export function comparisonReserveBytes(precision: 'f32' | 'f64'): number {
  return CHUNK_LOGITS * ((precision === 'f32' ? 4 : 8) * 3 + 8 + 2);
}

/** Rows of logits that an export without reachable layers makes at once. */
const EXPORT_LOGITS = 1 << 26;

function rowsPerBatch(host: EngineHost): number {
  const { format, rowsPerBatch: planned, vocabularySize } = host.info;
  return format === 'onnx' ? Math.max(1, Math.floor(EXPORT_LOGITS / vocabularySize)) : planned;
}

function placesOf(windows: readonly { document: TokenisedDocument; window: ScoringWindow }[]): RowPlaces {
  const count = windows.reduce((sum, { window }) => sum + window.targets.length, 0);
  const documents: TokenisedDocument[] = [];
  const places = {
    documentIndices: new Int32Array(count),
    positions: new Int32Array(count),
    contextLengths: new Int32Array(count),
    targets: new Int32Array(count),
  };
  let row = 0;
  for (const { document, window } of windows) {
    for (let i = 0; i < window.targets.length; i++, row++) {
      documents.push(document);
      places.documentIndices[row] = document.index;
      places.positions[row] = window.targetStart + i;
      places.contextLengths[row] = contextLengthOf(window, i);
      places.targets[row] = window.targets[i];
    }
  }
  return { documents, ...places };
}

function slicePlaces(places: RowPlaces, from: number, count: number): RowPlaces {
  return {
    documents: places.documents.slice(from, from + count),
    documentIndices: places.documentIndices.slice(from, from + count),
    positions: places.positions.slice(from, from + count),
    contextLengths: places.contextLengths.slice(from, from + count),
    targets: places.targets.slice(from, from + count),
  };
}

/** The next rows of a stored base. @throws InputError when they do not belong to these tokens */
function readStored(logits: StoredLogits, at: number, places: RowPlaces): StoredRows {
  const count = places.targets.length;
  if (at + count > logits.rows) {
    throw new InputError(
      `${logits.path}: holds ${logits.rows} rows and this run scores more; it was saved from other data or windows`,
    );
  }
  const stored = logits.readRows(at, count);
  for (let i = 0; i < count; i++) {
    const same =
      stored.documents[i] === places.documentIndices[i] &&
      stored.positions[i] === places.positions[i] &&
      stored.targets[i] === places.targets[i];
    if (!same) {
      throw new InputError(
        `${logits.path}: row ${at + i} is of token ${stored.targets[i]} at position ${stored.positions[i]} of document ` +
          `${stored.documents[i]}, this run scores token ${places.targets[i]} at position ${places.positions[i]} of ` +
          `document ${places.documentIndices[i]}: the text, the tokenizer or the windows differ`,
      );
    }
  }
  return stored;
}

/**
 * Compares candidates with a base over documents, in order. All models see the same windows; the base's logits exist a
 * chunk of rows at a time, and the next chunk is made while candidates work on one.
 * @throws InputError when a stored base does not belong to these tokens
 */
export async function* compareDocuments(
  documents: AsyncIterable<TokenisedDocument>,
  base: BaseSource,
  candidates: readonly EngineHost[],
  options: ComparisonOptions,
): AsyncGenerator<ComparisonEvent, void, undefined> {
  const hosts = [...(base.kind === 'model' ? [base.host] : []), ...candidates];
  const most = Math.min(...hosts.map(rowsPerBatch));
  const step = chunkRows(options.vocabulary);
  let storedRow = 0;
  for await (const batch of batchWindows(documents, options.windows, most)) {
    const windows: { document: TokenisedDocument; window: ScoringWindow }[] = [];
    for (const event of batch.events) {
      if (!('window' in event)) yield { kind: 'document', document: event.document };
      else if (event.window.targets.length > 0) windows.push(event);
    }
    if (windows.length === 0) continue;
    const args: HoldArguments = {
      windows: windows.map(({ window }) => window.inputs),
      wanted: windows.map(({ window }) => [window.scoreFrom, window.scoreFrom + window.targets.length]),
    };
    await Promise.all(hosts.map((host) => host.run(HOLD_ROWS, args)));
    const all = placesOf(windows);
    const total = all.targets.length;
    const rangeAt = (from: number): RowRange => ({ from, count: Math.min(step, total - from) });
    const begin = (from: number): Promise<Floats> | undefined => {
      if (base.kind !== 'model' || from >= total) return undefined;
      const logits = base.host.run(TAKE_LOGITS, rangeAt(from));
      // A failure is seen where the result is awaited; until then it must not count as unhandled.
      logits.catch(() => undefined);
      return logits;
    };
    let coming = begin(0);
    for (let from = 0; from < total; from += step) {
      const range = rangeAt(from);
      const places = slicePlaces(all, from, range.count);
      let comparisons: Promise<TokenComparison[]>;
      if (base.kind === 'stored') {
        const stored = readStored(base.logits, storedRow, places);
        storedRow += range.count;
        comparisons = Promise.all(candidates.map((host) => host.run(COMPARE_WITH_STORED, { ...range, stored })));
      } else {
        const logits = (await coming) as Floats;
        coming = begin(from + step);
        const { targets } = places;
        comparisons = Promise.all(
          candidates.map((host) => host.run(COMPARE_WITH_BASE, { ...range, base: logits, targets })),
        );
        comparisons.catch(() => undefined);
        options.onBaseLogits?.(logits, places);
      }
      yield { kind: 'rows', places, comparisons: await comparisons };
    }
    options.onRows?.(batch.rows);
  }
  if (base.kind === 'stored' && storedRow !== base.logits.rows) {
    throw new InputError(
      `${base.logits.path}: holds ${base.logits.rows} rows and this run scored ${storedRow}; it was saved from other data or windows`,
    );
  }
}
