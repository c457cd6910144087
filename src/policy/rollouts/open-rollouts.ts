import { InputError } from '../../errors.js';
import { topKEntropyBounds } from '../topk-bounds.js';
import type { DumpRow } from './dump-rows.js';
import { createFieldPicker, type FieldPicker } from './fields.js';
import { type DumpSource, dumpSources, type ReadOptions, readDump } from './read-dump.js';
import { createIndexBuilder, type IndexBuilder } from './record-index.js';
import { createRecordStore, type RecordStore, type StoredColumn } from './record-store.js';
import { rolloutSteps } from './rollout-steps.js';
import {
  type ScoredColumn,
  type ScoredRecord,
  type TextRecord,
  type TextScorer,
  textOnlyError,
  textOrMessages,
} from './text-records.js';
import { findIds, findText, type Marker, type MarkerPlace, parseMarker } from './think-marker.js';
import { checkScored, readTokenLists, type TokenLists } from './token-lists.js';
import { createTokenTexts, type TokenTexts } from './token-texts.js';
import type { RolloutRequest, Rollouts, TokenColumn } from './types.js';

/** How far the reading of a dump is. */
export interface OpenProgress {
  readonly bytes: number;
  readonly totalBytes: number;
  readonly records: number;
  readonly tokens: number;
}

/** Bytes of tokens that stay in memory, as a part of what the run may take. */
const MEMORY_SHARE = 1 / 3;

/** The state of a reading. */
interface Reading {
  readonly request: RolloutRequest;
  readonly sources: readonly DumpSource[];
  readonly picker: FieldPicker;
  readonly store: RecordStore;
  readonly index: IndexBuilder;
  readonly texts: TokenTexts;
  readonly marker: Marker | undefined;
  readonly scorer: TextScorer | undefined;
  readonly vocabularySize: number | undefined;
  /** Columns that every record so far has, and how many of the records lack a column that others have. */
  readonly columns: Set<StoredColumn | 'topTokens'>;
  readonly incomplete: Map<string, { lacking: number; place: string }>;
  readonly fields: Set<string>;
  readonly places: { source: number[]; line: number[] };
  /** Column of the dump that a column of the first records was read from. */
  readonly from: Record<string, string>;
  tokens: number;
  counted: number;
  /** Files that blocks are read from. */
  readonly opened: { close(): void }[];
}

const closeAll = ({ store, opened }: Reading): void => {
  store.close();
  for (const file of opened.splice(0)) file.close();
};

const placeOf = (sources: readonly DumpSource[], source: number, line: number): string => {
  const { name, kind } = sources[source];
  return kind === 'text' || kind === 'gzip' ? `${name}:${line}` : `${name}, row ${line}`;
};

/** Columns of the scorer that a record lacks. */
function wantedOf(lists: TokenLists | undefined, { scorer }: Reading): Set<ScoredColumn> {
  const wanted = new Set<ScoredColumn>();
  if (scorer === undefined) return wanted;
  const has = (column: TokenColumn): boolean => lists?.columns.has(column) === true;
  for (const column of scorer.gives) {
    const bounded = column === 'entropy' && lists?.topTokens !== undefined;
    if (!has(column) && !bounded) wanted.add(column);
  }
  return wanted;
}

function textRecordOf(
  row: DumpRow,
  lists: TokenLists | undefined,
  record: number,
  place: string,
  picker: FieldPicker,
): TextRecord {
  const prompt = textOrMessages(picker.pick(row.fields, 'prompt')?.value);
  const response = textOrMessages(picker.pick(row.fields, 'response')?.value);
  return {
    record,
    place,
    ...(prompt !== undefined && { prompt }),
    ...(response !== undefined && { response }),
    ...(lists?.tokens && { tokens: lists.tokens }),
  };
}

/** The lists of a record with what a model said of it. @throws InputError where lengths differ or values are impossible */
function withScores(
  lists: TokenLists | undefined,
  scored: ScoredRecord,
  reading: Reading,
  row: DumpRow,
  place: string,
): TokenLists {
  const record = reading.index.records;
  const length = scored.tokens.length;
  if (lists && lists.length !== length)
    throw new InputError(
      `${place}: record ${record} has ${lists.length} tokens, its text ${length}; give the token ids`,
    );
  const added = new Map<TokenColumn, Float64Array>();
  for (const name of ['logProb', 'oldLogProb', 'entropy'] as const) {
    const values = scored[name];
    if (values === undefined || lists?.columns.has(name)) continue;
    if (lists?.mask) for (let t = 0; t < length; t++) if (lists.mask[t] === 0) values[t] = 0;
    added.set(name, values);
  }
  checkScored(added, { row, picker: reading.picker, place, record, vocabularySize: reading.vocabularySize });
  if (length === 0) throw new InputError(`${place}: record ${record} has no tokens; leave empty responses out`);
  return {
    ...(lists ?? { length, counted: length, from: {} }),
    columns: new Map([...(lists?.columns ?? []), ...added]),
    tokens: lists?.tokens ?? scored.tokens,
  };
}

function addBounds(lists: TokenLists, { vocabularySize }: Reading): void {
  const { topTokens, columns, mask, length } = lists;
  if (topTokens === undefined || columns.has('entropy')) return;
  const { lower, upper } = topKEntropyBounds(topTokens.logProbs, length, topTokens.k, vocabularySize);
  if (mask) {
    for (let t = 0; t < length; t++) {
      if (mask[t] !== 0) continue;
      lower[t] = 0;
      if (upper) upper[t] = 0;
    }
  }
  columns.set('entropyLower', lower);
  if (upper) columns.set('entropyUpper', upper);
}

/** A column counts only where every record has it; the others are dropped, with a warning. */
function noteColumns(present: ReadonlySet<StoredColumn | 'topTokens'>, reading: Reading, place: string): void {
  const { columns, incomplete, store, index } = reading;
  if (index.records === 0) {
    for (const column of present) columns.add(column);
    return;
  }
  for (const column of [...columns]) {
    if (present.has(column)) continue;
    columns.delete(column);
    store.drop(column);
    incomplete.set(column, { lacking: 0, place });
  }
  for (const [column, seen] of incomplete) if (!present.has(column as StoredColumn)) seen.lacking++;
  for (const column of present) {
    if (!columns.has(column) && !incomplete.has(column))
      incomplete.set(column, {
        lacking: index.records,
        place: placeOf(reading.sources, reading.places.source[0], reading.places.line[0]),
      });
  }
}

function findMarker(lists: TokenLists, { marker, request, texts }: Reading): MarkerPlace | null | undefined {
  if (marker === undefined) return undefined;
  if ('ids' in marker)
    return lists.tokens && (findIds(lists.tokens, lists.mask, marker.ids, request.markerChoice) ?? null);
  if (lists.texts) return findText(lists.texts, lists.mask, marker.text, request.markerChoice) ?? null;
  if (lists.tokens === undefined || texts.ofToken === undefined) return undefined;
  const { ofToken } = texts;
  return findText(Array.from(lists.tokens, ofToken), lists.mask, marker.text, request.markerChoice) ?? null;
}

function ingest(row: DumpRow, lists: TokenLists | undefined, reading: Reading, place: string): void {
  const { index, store, request, texts } = reading;
  const record = index.records;
  if (lists === undefined && !request.recordsOnly) {
    const text = [...row.fields.keys()].find((column) => reading.picker.fieldOf(column) === 'response');
    const kind = text === undefined ? 'a record without lists of tokens' : `a dump of text ("${text}")`;
    throw textOnlyError(place, kind, reading.picker.pick(row.fields, 'reward') !== undefined);
  }
  if (lists) {
    addBounds(lists, reading);
    if (request.advantage !== 'dump') lists.columns.delete('advantage');
    const columns = new Map<StoredColumn, Float64Array | Int32Array>(lists.columns);
    if (lists.tokens) columns.set('tokens', lists.tokens);
    if (lists.texts) columns.set('textIds', texts.intern(lists.texts));
    const present = new Set<StoredColumn | 'topTokens'>(columns.keys());
    if (lists.topTokens) present.add('topTokens');
    noteColumns(present, reading, place);
    for (const column of columns.keys()) if (!reading.columns.has(column)) columns.delete(column);
    const keptTop = reading.columns.has('topTokens') ? lists.topTokens : undefined;
    for (const [name, column] of Object.entries(lists.from)) reading.from[name] ??= column;
    const marker = findMarker(lists, reading);
    const { length, counted, rewardSum, mask } = lists;
    const step = index.add(
      row,
      { length, counted, ...(marker !== undefined && { marker }), ...(rewardSum !== undefined && { rewardSum }) },
      place,
    );
    store.append({ record, step, length, columns, ...(mask && { mask }), ...(keptTop && { topTokens: keptTop }) });
    reading.tokens += length;
    reading.counted += counted;
  } else index.add(row, { length: 0, counted: 0 }, place);
  reading.places.source.push(row.source);
  reading.places.line.push(row.line);
}

/** Takes an archive whose columns can stay in it. @returns whether it is one */
async function ingestFlat(source: number, reading: Reading): Promise<boolean> {
  const { request, sources, picker, scorer, marker, texts, store, index, fields } = reading;
  const { kind, path, name } = sources[source];
  // What came by standard input is named otherwise in messages.
  const isPlain = kind === 'npz' && path === name && request.limit === undefined && !request.recordsOnly;
  // A text is not to be found among ids whose texts nobody knows: such a marker asks for nothing.
  const looksForMarker = marker !== undefined && ('ids' in marker || texts.ofToken !== undefined);
  if (!isPlain || scorer !== undefined || looksForMarker) return false;
  const { vocabularySize } = reading;
  const { openFlatNpz } = await import('./flat-npz.js');
  const flat = openFlatNpz(path, source, picker, {
    vocabularySize,
    advantages: request.advantage === 'dump',
  });
  if (flat === undefined) return false;
  reading.opened.push(flat);
  picker.check(flat.fields, placeOf(sources, source, 1));
  for (const column of flat.fields) fields.add(column);
  for (const [token, column] of flat.from) reading.from[token] ??= column;
  const present = new Set(flat.from.keys());
  const bySteps = new Map<number, number[]>();
  const base = index.records;
  for (let r = 0; r < flat.records; r++) {
    const place = placeOf(sources, source, r + 1);
    noteColumns(present, reading, place);
    const step = index.add(flat.row(r), { length: flat.length[r], counted: flat.counted[r] }, place);
    const list = bySteps.get(step);
    if (list) list.push(r);
    else bySteps.set(step, [r]);
    reading.tokens += flat.length[r];
    reading.counted += flat.counted[r];
    reading.places.source.push(source);
    reading.places.line.push(r + 1);
  }
  for (const [step, list] of bySteps) store.refer(step, flat.segments(list, base));
  return true;
}

async function ingestBatch(rows: readonly DumpRow[], reading: Reading): Promise<void> {
  const { index, picker, sources, scorer, vocabularySize } = reading;
  const first = index.records;
  const read = (row: DumpRow, record: number): TokenLists | undefined =>
    readTokenLists({
      row,
      picker,
      place: placeOf(sources, row.source, row.line),
      record,
      ...(vocabularySize !== undefined && { vocabularySize }),
    });
  if (scorer === undefined) {
    rows.forEach((row, i) => {
      ingest(row, read(row, first + i), reading, placeOf(sources, row.source, row.line));
    });
    return;
  }
  const lists = rows.map((row, i) => read(row, first + i));
  const scored = new Map<number, ScoredRecord>();
  const asked = new Map<string, { wanted: Set<ScoredColumn>; records: number[] }>();
  lists.forEach((one, i) => {
    const wanted = wantedOf(one, reading);
    if (wanted.size === 0) return;
    const key = [...wanted].join();
    const entry = asked.get(key) ?? { wanted, records: [] };
    asked.set(key, entry);
    entry.records.push(i);
  });
  for (const { wanted, records } of asked.values()) {
    const texts = records.map((i) =>
      textRecordOf(rows[i], lists[i], first + i, placeOf(sources, rows[i].source, rows[i].line), picker),
    );
    const answers = await scorer.score(texts, wanted);
    records.forEach((i, j) => {
      scored.set(i, answers[j]);
    });
  }
  rows.forEach((row, i) => {
    const place = placeOf(sources, row.source, row.line);
    const answer = scored.get(i);
    ingest(row, answer ? withScores(lists[i], answer, reading, row, place) : lists[i], reading, place);
  });
}

async function readAll(reading: Reading, progress: ((value: OpenProgress) => void) | undefined): Promise<void> {
  const { sources, request, index, picker, fields, scorer } = reading;
  const totalBytes = sources.reduce((sum, { bytes }) => sum + bytes, 0);
  let bytes = 0;
  const limit = request.limit ?? Number.POSITIVE_INFINITY;
  const options: ReadOptions = {
    picker,
    ...(request.limit !== undefined && { limit: request.limit }),
    isWanted(column) {
      const field = picker.fieldOf(column);
      return field !== undefined && (field !== 'response' || scorer !== undefined);
    },
    threads: request.threads,
    passed: (read) => {
      bytes += read;
    },
  };
  for (const [number, source] of sources.entries()) {
    if (index.records >= limit) break;
    const before = index.records;
    if (await ingestFlat(number, reading)) {
      bytes += source.bytes;
      progress?.({ bytes, totalBytes, records: index.records, tokens: reading.tokens });
      continue;
    }
    let checked = false;
    for await (const batch of readDump(source, number, options)) {
      const rows = batch.slice(0, limit - index.records);
      if (!checked && rows.length > 0) {
        picker.check(rows[0].fields.keys(), placeOf(sources, number, rows[0].line));
        checked = true;
      }
      for (const row of rows) for (const column of row.fields.keys()) fields.add(column);
      await ingestBatch(rows, reading);
      progress?.({ bytes, totalBytes, records: index.records, tokens: reading.tokens });
      if (index.records >= limit) break;
    }
    if (index.records === before) throw new InputError(`${source.name}: holds no record`);
  }
}

/** Where the columns of tokens came from, by the first record's fields. */
function columnProvenance({ columns, from, scorer }: Reading): Record<string, string> {
  const found: Record<string, string> = {};
  const scored = new Set((scorer?.rescored() ?? []).flatMap((one) => one.columns));
  for (const column of columns) found[column] = from[column] ?? (scored.has(column) ? 're-scored' : column);
  if (columns.has('logProb') && !columns.has('oldLogProb')) found.oldLogProb = 'equal to logprob';
  if (columns.has('entropyLower')) found.entropyLower = 'top-k log-probabilities and one tail';
  if (columns.has('entropyUpper')) found.entropyUpper = 'top-k log-probabilities, tail spread over the vocabulary';
  return found;
}

const warningsOf = ({ incomplete, index }: Reading): string[] =>
  [...incomplete].map(
    ([column, { lacking, place }]) =>
      `${lacking} of ${index.records} records have no ${column} (first ${place}): the column is not used`,
  );

function finish(reading: Reading): Rollouts {
  const { store, columns, request, scorer, texts, sources, places } = reading;
  const stored = store.finish();
  const { index, promptOf, provenance, warnings } = reading.index.finish(columns.has('advantage'));
  const shown = new Set<StoredColumn | 'topTokens'>(columns);
  if (shown.has('logProb') && !shown.has('oldLogProb')) shown.add('oldLogProb');
  if (index.advantage) shown.add('advantage');
  const textOf = texts.textOf(shown.has('textIds'), shown.has('tokens'));
  if (textOf && shown.has('tokens')) shown.add('textIds');
  const vocabularySize = reading.vocabularySize ?? request.vocabularySize;
  return {
    index,
    tokens: reading.tokens,
    counted: reading.counted,
    columns: shown,
    steps: rolloutSteps(stored, index, shown),
    ...(vocabularySize !== undefined && { vocabularySize }),
    rescored: scorer?.rescored() ?? [],
    warnings: [...warningsOf(reading), ...warnings, ...(scorer?.warnings() ?? [])],
    held: store.held,
    ...(textOf && { textOf }),
    ...(texts.ofToken && { textOfToken: texts.ofToken }),
    ...(promptOf && { promptOf }),
    provenance: { ...columnProvenance(reading), ...provenance },
    fields: [...reading.fields],
    place: (record) => placeOf(sources, places.source[record], places.line[record]),
    close: () => closeAll(reading),
  };
}

/**
 * Reads and checks a rollout dump (spec 0.1) in the thread of a job: JSON Lines (also gzipped), Parquet or .npz, one record a
 * response. Tokens are kept by step, in memory up to `exactLimit` of them, else in a work file that goes with the process.
 * Close it at the end.
 * @param scorer fills log-probabilities and entropies that the dump lacks; one of `request.model` when absent
 * @throws InputError naming file, row, field and lengths (rules 1 to 6), for an unknown field of `map`, for a dump of text without
 *   a scorer
 */
export async function openRollouts(
  request: RolloutRequest,
  progress?: (value: OpenProgress) => void,
  scorer?: TextScorer,
): Promise<Rollouts> {
  if (scorer !== undefined || request.model === undefined || request.recordsOnly)
    return read(request, progress, scorer);
  const { createModelScorer } = await import('./model-scorer.js');
  const own = await createModelScorer({ ...request, model: request.model });
  try {
    return await read(request, progress, own);
  } finally {
    await own.close();
  }
}

async function read(
  request: RolloutRequest,
  progress: ((value: OpenProgress) => void) | undefined,
  scorer: TextScorer | undefined,
): Promise<Rollouts> {
  const picker = createFieldPicker(request.map);
  const sources = await dumpSources(request);
  const store = createRecordStore({
    mostTokens: request.exactLimit,
    mostBytes: request.maxMemory * MEMORY_SHARE,
    directory: request.workDirectory,
  });
  const vocabularySize = request.vocabularySize ?? scorer?.vocabularySize;
  const reading: Reading = {
    request,
    sources,
    picker,
    store,
    index: createIndexBuilder(request, picker),
    texts: await createTokenTexts(request, scorer),
    marker: request.marker === undefined ? undefined : parseMarker(request.marker),
    scorer,
    vocabularySize,
    columns: new Set(),
    incomplete: new Map(),
    fields: new Set(),
    places: { source: [], line: [] },
    from: {},
    tokens: 0,
    counted: 0,
    opened: [],
  };
  try {
    await readAll(reading, progress);
    return finish(reading);
  } catch (error) {
    closeAll(reading);
    throw error;
  }
}
