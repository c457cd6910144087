import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError } from '../../errors.js';
import { createAtomicFile } from '../../formats/atomic.js';
import { fileError } from '../../formats/files.js';
import { createNpzWriter, fileParts } from '../../formats/npz-writer.js';
import type { DType } from '../../formats/tensor.js';
import type { TopTokens } from './types.js';

/** One response in the terms of spec 0.1. Every array has one value a token; nats. */
export interface RolloutRecord {
  readonly step: number;
  readonly promptId: string;
  readonly responseId?: string;
  readonly prompt?: string;
  readonly tokens?: ArrayLike<number>;
  readonly tokenText?: readonly string[];
  readonly logProb: ArrayLike<number>;
  readonly oldLogProb?: ArrayLike<number>;
  readonly referenceLogProb?: ArrayLike<number>;
  readonly entropy?: ArrayLike<number>;
  readonly topTokens?: TopTokens;
  readonly mask?: ArrayLike<number>;
  /** Of the record, or of every token. */
  readonly advantage?: number | ArrayLike<number>;
  readonly reward?: number;
  readonly correct?: boolean;
  readonly difficulty?: string | number;
  /** Position of the last token of the end-of-thinking marker; -1 without. */
  readonly thinkEnd?: number;
  /** Spans [from, to) of the turns, one behind another. */
  readonly stepSpans?: ArrayLike<number>;
  /** Other numbers of the record by name, such as component rewards. */
  readonly numbers?: Readonly<Record<string, number>>;
}

export interface RolloutWriter {
  /** @throws InputError for lists of different lengths */
  write(record: RolloutRecord): void;
  /** Gives the file its name. */
  commit(): void;
  abort(): void;
}

export interface RolloutWriterOptions {
  /** Replace what is there. */
  readonly force?: boolean;
  /** Where columns of an .npz wait; default the temporary directory. */
  readonly workDirectory?: string;
}

/** Fields with one value a token, and how .npz stores them. */
const LISTS = {
  tokens: { field: 'tokens', dtype: 'I32' },
  logProb: { field: 'logprob', dtype: 'F64' },
  oldLogProb: { field: 'old_logprob', dtype: 'F64' },
  referenceLogProb: { field: 'ref_logprob', dtype: 'F64' },
  entropy: { field: 'entropy', dtype: 'F64' },
  mask: { field: 'mask', dtype: 'U8' },
} as const satisfies Readonly<Record<string, { readonly field: string; readonly dtype: DType }>>;

type ListName = keyof typeof LISTS;
const LIST_NAMES = Object.keys(LISTS) as ListName[];

function checkLengths(record: RolloutRecord, written: number): void {
  const wanted = record.logProb.length;
  const check = (name: string, length: number | undefined): void => {
    if (length !== undefined && length !== wanted)
      throw new InputError(`record ${written}: ${name} has ${length} values and logprob ${wanted}`);
  };
  for (const name of LIST_NAMES) check(LISTS[name].field, record[name]?.length);
  check('token_text', record.tokenText?.length);
  if (typeof record.advantage === 'object') check('advantage', record.advantage.length);
  if (record.topTokens) check('topk', record.topTokens.ids.length / record.topTokens.k);
}

/** Numbers as JSON has them: what is not finite becomes null, which is NaN again where it is read. */
const listed = (values: ArrayLike<number>): number[] => Array.from(values);

/** Pairs of id and log-probability of every position, without those that fill up k. */
function pairs({ k, ids, logProbs }: TopTokens): [number, number][][] {
  return Array.from({ length: ids.length / k }, (_, t) => {
    const position: [number, number][] = [];
    for (let j = t * k; j < (t + 1) * k; j++)
      if (logProbs[j] > Number.NEGATIVE_INFINITY) position.push([ids[j], logProbs[j]]);
    return position;
  });
}

function spans(values: ArrayLike<number>): [number, number][] {
  return Array.from({ length: values.length / 2 }, (_, s) => [values[2 * s], values[2 * s + 1]]);
}

/** A record as an object of the fields of spec 0.1. */
function objectOf(record: RolloutRecord): Record<string, unknown> {
  const object: Record<string, unknown> = {
    step: record.step,
    prompt_id: record.promptId,
    response_id: record.responseId,
    prompt: record.prompt,
    reward: record.reward,
    correct: record.correct,
    difficulty: record.difficulty,
    think_end: record.thinkEnd,
    step_spans: record.stepSpans && spans(record.stepSpans),
    advantage: typeof record.advantage === 'object' ? listed(record.advantage) : record.advantage,
    ...record.numbers,
    token_text: record.tokenText,
    topk: record.topTokens && pairs(record.topTokens),
  };
  for (const name of LIST_NAMES) {
    const values = record[name];
    if (values) object[LISTS[name].field] = listed(values);
  }
  return object;
}

/**
 * A record as a line of a JSON Lines dump.
 * @param written records before it, for messages
 * @throws InputError for lists of different lengths
 */
export function rolloutLine(record: RolloutRecord, written: number): string {
  checkLengths(record, written);
  return `${JSON.stringify(objectOf(record))}\n`;
}

function jsonWriter(path: string, options: RolloutWriterOptions): RolloutWriter {
  const file = createAtomicFile(path, { ...(options.force !== undefined && { force: options.force }) });
  let written = 0;
  return {
    write(record) {
      file.write(rolloutLine(record, written));
      written++;
    },
    commit: () => file.commit(),
    abort: () => file.abort(),
  };
}

/** A column that waits in a file of its own. */
interface Spool {
  readonly path: string;
  readonly dtype: DType;
  readonly inner: readonly number[];
  readonly fd: number;
  elements: number;
}

const ARRAYS = { F64: Float64Array, I32: Int32Array, U8: Uint8Array } as const;
type SpoolType = keyof typeof ARRAYS;

/** Refused in an .npz, which holds numbers alone. */
function refuseText(record: RolloutRecord, path: string): void {
  if (record.tokenText || record.prompt !== undefined || typeof record.difficulty === 'string' || record.stepSpans)
    throw new InputError(`${path}: an .npz dump holds numbers alone; write .jsonl for texts and turns`);
}

function workFolder(directory: string): string {
  try {
    return fs.mkdtempSync(join(directory, 'surprisal-npz-'));
  } catch (error) {
    throw fileError(error, directory, 'write');
  }
}

function npzWriter(path: string, options: RolloutWriterOptions): RolloutWriter {
  const file = createAtomicFile(path, { ...(options.force !== undefined && { force: options.force }) });
  const folder = workFolder(options.workDirectory ?? tmpdir());
  const spools = new Map<string, Spool>();
  const prompts = new Map<string, number>();
  const offsets = [0];
  const put = (name: string, dtype: SpoolType, values: ArrayLike<number>, inner: readonly number[] = []): void => {
    let spool = spools.get(name);
    if (spool === undefined) {
      const place = join(folder, `${spools.size}`);
      spool = { path: place, dtype, inner, fd: fs.openSync(place, 'w'), elements: 0 };
      spools.set(name, spool);
    }
    if (spool.inner.join() !== inner.join())
      throw new InputError(`${path}: topk of ${inner} after ${spool.inner} tokens a position`);
    const array = ARRAYS[dtype].from(values);
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    try {
      for (let done = 0; done < bytes.length; ) done += fs.writeSync(spool.fd, bytes, done);
    } catch (error) {
      throw fileError(error, folder, 'write');
    }
    spool.elements += values.length;
  };
  const numbersOf = (record: RolloutRecord): [string, SpoolType, number][] => {
    const prompt = prompts.get(record.promptId) ?? prompts.size;
    prompts.set(record.promptId, prompt);
    const found: [string, SpoolType, number | undefined][] = [
      ['step', 'F64', record.step],
      ['prompt_id', 'I32', prompt],
      ['reward', 'F64', record.reward],
      ['correct', 'U8', record.correct === undefined ? undefined : Number(record.correct)],
      ['difficulty', 'F64', typeof record.difficulty === 'number' ? record.difficulty : undefined],
      ['think_end', 'I32', record.thinkEnd],
      ['advantage', 'F64', typeof record.advantage === 'number' ? record.advantage : undefined],
      ...Object.entries(record.numbers ?? {}).map(([name, value]): [string, SpoolType, number] => [name, 'F64', value]),
    ];
    return found.filter((entry): entry is [string, SpoolType, number] => entry[2] !== undefined);
  };
  const closeSpools = (): void => {
    for (const { fd } of spools.values()) fs.closeSync(fd);
    fs.rmSync(folder, { recursive: true, force: true });
    spools.clear();
  };
  return {
    write(record) {
      checkLengths(record, offsets.length - 1);
      refuseText(record, path);
      for (const [name, dtype, value] of numbersOf(record)) put(name, dtype, [value]);
      for (const name of LIST_NAMES) {
        const values = record[name];
        if (values) put(LISTS[name].field, LISTS[name].dtype, values);
      }
      if (typeof record.advantage === 'object') put('advantage', 'F64', record.advantage);
      if (record.topTokens) {
        const { k, ids, logProbs } = record.topTokens;
        put('topk_ids', 'I32', ids, [k]);
        put('topk_logprobs', 'F64', logProbs, [k]);
      }
      offsets.push(offsets[offsets.length - 1] + record.logProb.length);
    },
    commit() {
      const records = offsets.length - 1;
      const tokens = offsets[records];
      const archive = createNpzWriter(file.partialPath);
      const ends = Float64Array.from(offsets);
      archive.add('offsets', 'F64', [ends.length], [new Uint8Array(ends.buffer)]);
      for (const [name, spool] of spools) {
        const width = spool.inner.reduce((product, extent) => product * extent, 1);
        const rows = spool.elements / width;
        if (rows !== records && rows !== tokens)
          throw new InputError(
            `${path}: ${name} was given for some records alone (${rows} values of ${records} records, ${tokens} tokens)`,
          );
        archive.add(name, spool.dtype, [rows, ...spool.inner], fileParts(spool.path));
      }
      archive.finish();
      closeSpools();
      file.commit();
    },
    abort() {
      closeSpools();
      file.abort();
    },
  };
}

/**
 * Writes a dump that `openRollouts` reads: .jsonl with all fields, or .npz with flat arrays of tokens and `offsets` (numbers alone;
 * prompts are numbered). The file appears at `commit`.
 * @throws InputError for another extension, for a file that exists without `force`
 */
export function createRolloutWriter(path: string, options: RolloutWriterOptions = {}): RolloutWriter {
  if (/\.jsonl$/i.test(path)) return jsonWriter(path, options);
  if (/\.npz$/i.test(path)) return npzWriter(path, options);
  throw new InputError(`${path}: a dump is written as .jsonl or .npz`);
}
