import { InputError } from '../../errors.js';
import { createInputLedger, expandSources, gunzipChunks, type InputLedger } from '../../formats/inputs.js';
import { readLineBatches } from '../../formats/lines.js';
import { isTensorFile } from '../../formats/tensor-file.js';
import { type Column, createRowTensors } from './source-row-tensors.js';
import type { SparseRows } from './types.js';

/** A sequence with a model's likeliest tokens at every position, as FuseLLM and FuseChat store them. */
export interface SourceRow {
  /** Among all sequences of the files, from 0. */
  readonly index: number;
  readonly file: string;
  /** File and line or row, for messages. */
  readonly place: string;
  /** Without the positions that the attention mask leaves out. */
  readonly inputIds: Int32Array;
  /** -100 where nothing is asked; absent where the file has none. */
  readonly labels?: Int32Array;
  /** `per_step_logits` and `per_step_indices`; absent of rows of ids alone. */
  readonly rows?: SparseRows;
  /** `metric_ce`, nats; NaN where the file has null or NaN. */
  readonly metricCe?: number;
  /** `per_step_metric_ce`, nats. */
  readonly perStepCe?: Float64Array;
  /** `per_step_aligned_*_{i}` with `metric_ce_aligned_{i}` of FuseLLM; `fused_per_step_*` with `fused_metric_ce` of FuseChat. */
  readonly aligned: readonly { readonly rows: SparseRows; readonly metricCe?: number }[];
}

export interface SourceRowsOptions {
  /** Ids of `input_ids` and of the model's own lists lie below it. */
  readonly vocabulary: number;
  /** Ids of aligned lists lie below it; default: `vocabulary`. */
  readonly pivotVocabulary?: number;
  /** Leaves out sequences whose `metric_ce` is NaN; else they are an error. */
  readonly dropNan?: boolean;
  readonly ledger?: InputLedger;
}

export interface SourceRows {
  readonly rows: readonly SourceRow[];
  /** Sequences that `dropNan` left out, by their place in the files from 0. */
  readonly dropped: readonly number[];
}

/** Numbers that Python's writer spells without quotes, outside of strings. */
const BARE = /([[:,]\s*)(NaN|-?Infinity)(?=\s*[,\]}])/g;

function parseLine(line: string, place: string): Record<string, unknown> {
  const read = (text: string): unknown => JSON.parse(text);
  try {
    let value: unknown;
    try {
      value = read(line);
    } catch {
      value = read(line.replace(BARE, '$1"$2"'));
    }
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch (error) {
    throw new InputError(`${place}: is not JSON (${(error as Error).message.split(' in JSON')[0]})`);
  }
  throw new InputError(`${place}: each line must be one JSON object`);
}

const SPELLED: Readonly<Record<string, number>> = {
  nan: Number.NaN,
  infinity: Number.POSITIVE_INFINITY,
  inf: Number.POSITIVE_INFINITY,
  '-infinity': Number.NEGATIVE_INFINITY,
  '-inf': Number.NEGATIVE_INFINITY,
};

/** A number, or one by name; null is NaN. */
function numberOf(value: unknown, what: string): number {
  if (typeof value === 'number') return value;
  if (value === null) return Number.NaN;
  const spelled = typeof value === 'string' ? SPELLED[value.toLowerCase()] : undefined;
  if (spelled !== undefined) return spelled;
  throw new InputError(`${what}: ${JSON.stringify(value)} is not a number`);
}

function listOf(value: unknown, what: string): ArrayLike<unknown> {
  if (Array.isArray(value)) return value as unknown[];
  if (value instanceof Float64Array) return value as ArrayLike<unknown>;
  throw new InputError(`${what}: is not a list`);
}

function numbersOf(value: unknown, what: string): Float64Array {
  return value instanceof Float64Array
    ? value
    : Float64Array.from(listOf(value, what), (entry, i) => numberOf(entry, `${what}, entry ${i}`));
}

/** Fills lists of tensors that are shorter than the longest. */
const FILLER = -1;

/** Integers of `least` up to the vocabulary's size. */
function idsOf(value: unknown, what: string, vocabulary: number, least = 0): Int32Array {
  return Int32Array.from(numbersOf(value, what), (id, i) => {
    if (!Number.isInteger(id) || id < least) throw new InputError(`${what}, entry ${i}: ${id} is not a token id`);
    if (id < vocabulary) return id;
    throw new InputError(
      `${what}, entry ${i}: token ${id} is outside the vocabulary of ${vocabulary}; name the tokenizer that made the rows`,
    );
  });
}

/** Lists of logits and of ids, position by position. */
function sparseRowsOf(
  column: Column,
  names: readonly [string, string],
  place: string,
  count: number,
  vocabulary: number,
): SparseRows | undefined {
  const [logitName, idName] = names;
  const logitColumn = column(logitName);
  const idColumn = column(idName);
  if (logitColumn === undefined && idColumn === undefined) return undefined;
  const missing = logitColumn === undefined ? logitName : idColumn === undefined ? idName : undefined;
  if (missing)
    throw new InputError(`${place}: ${missing} is missing beside ${missing === idName ? logitName : idName}`);
  const logitLists = listOf(logitColumn, `${place}: ${logitName}`);
  const idLists = listOf(idColumn, `${place}: ${idName}`);
  for (const [name, lists] of [
    [logitName, logitLists],
    [idName, idLists],
  ] as const) {
    if (lists.length >= count) continue;
    throw new InputError(`${place}: ${name} has ${lists.length} steps for ${count} tokens of input_ids`);
  }
  const offsets = new Int32Array(count + 1);
  const ids: Int32Array[] = [];
  const logits: Float64Array[] = [];
  for (let t = 0; t < count; t++) {
    const listed = idsOf(idLists[t], `${place}: ${idName}, step ${t}`, vocabulary, FILLER);
    const beside = numbersOf(logitLists[t], `${place}: ${logitName}, step ${t}`);
    if (listed.length !== beside.length) {
      throw new InputError(`${place}, step ${t}: ${beside.length} ${logitName} for ${listed.length} ${idName}`);
    }
    const values = beside.filter((_, i) => listed[i] !== FILLER);
    const own = listed.filter((id) => id !== FILLER);
    const bad = values.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) throw new InputError(`${place}: ${logitName}, step ${t}, entry ${bad} is ${values[bad]}`);
    const seen = new Set(own);
    if (seen.size < own.length) throw new InputError(`${place}: ${idName}, step ${t} holds a token twice`);
    ids.push(own);
    logits.push(values);
    offsets[t + 1] = offsets[t] + own.length;
  }
  return { offsets, ids: joined(ids, Int32Array), logits: joined(logits, Float64Array) };
}

function joined<T extends Int32Array | Float64Array>(parts: readonly T[], kind: new (length: number) => T): T {
  const all = new kind(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Positions that the mask keeps: those before the first 0, which must be the last 1's too. */
function lengthOf(column: Column, place: string, tokens: number): number {
  const mask = column('attention_mask');
  if (mask === undefined) return tokens;
  const values = numbersOf(mask, `${place}: attention_mask`);
  if (values.length !== tokens) {
    throw new InputError(`${place}: attention_mask has ${values.length} entries for ${tokens} input_ids`);
  }
  const end = values.indexOf(0);
  if (end < 0) return tokens;
  if (values.subarray(end).every((value) => value === 0)) return end;
  throw new InputError(`${place}: attention_mask has a hole at position ${end}; padding must follow the text`);
}

function alignedOf(column: Column, place: string, count: number, vocabulary: number): SourceRow['aligned'] {
  const aligned: { rows: SparseRows; metricCe?: number }[] = [];
  const add = (names: readonly [string, string], metric: string): boolean => {
    const rows = sparseRowsOf(column, names, place, count, vocabulary);
    if (rows === undefined) return false;
    const ce = column(metric);
    aligned.push({ rows, ...(ce !== undefined && { metricCe: numberOf(ce, `${place}: ${metric}`) }) });
    return true;
  };
  for (let i = 0; ; i++) {
    const names = [`per_step_aligned_logits_${i}`, `per_step_aligned_indices_${i}`] as const;
    if (!add(names, `metric_ce_aligned_${i}`)) break;
  }
  add(['fused_per_step_logits', 'fused_per_step_indices'], 'fused_metric_ce');
  return aligned;
}

/** A sequence from its columns. @throws InputError naming place, column and step */
export function sourceRow(
  column: Column,
  { file, place, index }: Pick<SourceRow, 'file' | 'place' | 'index'>,
  options: SourceRowsOptions,
): SourceRow {
  const { vocabulary, pivotVocabulary = vocabulary } = options;
  const given = column('input_ids');
  if (given === undefined) throw new InputError(`${place}: no column input_ids`);
  const all = idsOf(given, `${place}: input_ids`, vocabulary);
  const length = lengthOf(column, place, all.length);
  const labels = column('labels');
  const perStep = column('per_step_metric_ce');
  const ce = column('metric_ce');
  const rows = sparseRowsOf(column, ['per_step_logits', 'per_step_indices'], place, length, vocabulary);
  return {
    index,
    file,
    place,
    inputIds: all.slice(0, length),
    ...(labels !== undefined && { labels: idsOf(labels, `${place}: labels`, vocabulary, -100).slice(0, length) }),
    ...(rows && { rows }),
    ...(ce !== undefined && { metricCe: numberOf(ce, `${place}: metric_ce`) }),
    ...(perStep !== undefined && { perStepCe: numbersOf(perStep, `${place}: per_step_metric_ce`).slice(0, length) }),
    aligned: alignedOf(column, place, length, pivotVocabulary),
  };
}

async function* linesOf(path: string, ledger: InputLedger): AsyncGenerator<readonly [Column, string]> {
  const chunks = ledger.read(path);
  const plain = /\.gz$/i.test(path) ? gunzipChunks(chunks, path) : chunks;
  for await (const { firstLine, lines } of readLineBatches(plain, path)) {
    for (const [i, line] of lines.entries()) {
      if (line.trim() === '') continue;
      const place = `${path}:${firstLine + i}`;
      const record = parseLine(line, place);
      yield [(name) => record[name], place];
    }
  }
}

async function* columnsOf(path: string, ledger: InputLedger): AsyncGenerator<readonly [Column, string]> {
  if (/\.jsonl(\.gz)?$/i.test(path)) {
    yield* linesOf(path, ledger);
    return;
  }
  if (!isTensorFile(path)) {
    throw new InputError(`${path}: rows of logits are read from .jsonl, .npz and .safetensors files`);
  }
  ledger.note(path);
  const tensors = createRowTensors(path);
  try {
    for (let row = 0; row < tensors.rows; row++) yield [tensors.column(row), `${path}, row ${row}`];
  } finally {
    tensors.close();
  }
}

/**
 * Sequences of FuseLLM's and FuseChat's columns, in the order of the files.
 *
 * JSON Lines hold one sequence a line; `.npz` and `.safetensors` files hold `input_ids` [N, T], `per_step_logits` and
 * `per_step_indices` [N, T, k], `metric_ce` [N] and so on, padded behind `attention_mask`; index -1 fills a shorter list.
 *
 * @throws InputError naming file, row, column and step: a token outside the vocabulary, logits without as many indices, a
 *   mask with holes, and (with their number) sequences whose cross-entropy is NaN unless they are dropped
 */
export async function readSourceRows(patterns: readonly string[], options: SourceRowsOptions): Promise<SourceRows> {
  const ledger = options.ledger ?? createInputLedger();
  const rows: SourceRow[] = [];
  const dropped: number[] = [];
  let first: string | undefined;
  let index = 0;
  for (const path of await expandSources(patterns)) {
    const before = index;
    for await (const [column, place] of columnsOf(path, ledger)) {
      const row = sourceRow(column, { file: path, place, index }, options);
      const nan = [row.metricCe, ...row.aligned.map(({ metricCe }) => metricCe)].some(
        (ce) => ce !== undefined && Number.isNaN(ce),
      );
      if (nan) {
        dropped.push(index);
        first ??= place;
      } else rows.push(row);
      index++;
    }
    if (index === before) throw new InputError(`${path}: holds no row`);
  }
  if (dropped.length > 0 && options.dropNan !== true) {
    throw new InputError(
      `${dropped.length} of ${index} sequences have a cross-entropy that is NaN, the first at ${first}; leave them out with --drop-nan`,
    );
  }
  return { rows, dropped };
}
