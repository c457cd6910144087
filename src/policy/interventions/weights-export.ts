import fs from 'node:fs';
import path from 'node:path';
import { fileError } from '../../formats/files.js';
import { createNpzWriter, fileParts, type NpzWriter } from '../../formats/npz-writer.js';
import type { RolloutStep, Rollouts, TokenBlock } from '../rollouts/types.js';
import type { MethodChoice } from './comparison.js';
import type { PolicyEffect } from './types.js';

/** What a directory, or a file by its ending, holds of the effects of methods. */
export type WeightForm = 'directory' | 'jsonl' | 'npz';

/** Where effects go, in the thread of the job. */
export interface WeightTarget {
  readonly form: WeightForm;
  /** Directory that is there, or file that is replaced. */
  readonly path: string;
  /** Where columns of an archive lie until they are put together. */
  readonly workDirectory: string;
}

/** Arrays with one value a position that an effect may have, and what stands where it has none. */
const TOKEN_ARRAYS = {
  multiplier: 1,
  penalty: 0,
  penaltyGradient: 0,
  entropyGradient: 0,
  advantage: 0,
} as const satisfies Partial<Record<keyof PolicyEffect, number>>;
type TokenArray = keyof typeof TOKEN_ARRAYS;
const TOKEN_ARRAY_NAMES = Object.keys(TOKEN_ARRAYS) as TokenArray[];

/** Names of arrays in files. */
const FILE_NAMES: Readonly<Record<TokenArray, string>> = {
  multiplier: 'multiplier',
  penalty: 'penalty',
  penaltyGradient: 'penalty_gradient',
  entropyGradient: 'entropy_gradient',
  advantage: 'advantage',
};

export interface WeightWriter {
  /** Takes what a method makes of a block; methods come in any order, the blocks of each in that of the dump. */
  take(method: MethodChoice, step: RolloutStep, block: TokenBlock, effect: PolicyEffect): void;
  /** Completes the files of the methods with these labels; those of the others are removed or left out. */
  finish(labels: ReadonlySet<string>): void;
  /** Removes what only an archive in the making needs. */
  abort(): void;
}

/** A label as the name of a file. */
export const fileNameOf = (label: string): string => label.replace(/[^A-Za-z0-9._=-]+/g, '_');

/** The form that a path asks for. */
export function weightFormOf(target: string): WeightForm {
  if (target.endsWith('.jsonl')) return 'jsonl';
  return target.endsWith('.npz') ? 'npz' : 'directory';
}

function append(fd: number, bytes: Uint8Array, file: string): void {
  try {
    for (let done = 0; done < bytes.length; ) done += fs.writeSync(fd, bytes, done);
  } catch (error) {
    throw fileError(error, file, 'write');
  }
}

const bytesOf = (values: Float64Array | Int32Array | Uint8Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** One line a record: the arrays that the method has, positions as in the dump. */
function linesOf(
  method: MethodChoice,
  { step }: RolloutStep,
  block: TokenBlock,
  effect: PolicyEffect,
  { index }: Rollouts,
): string {
  let lines = '';
  for (let r = 0; r < block.records.length; r++) {
    const record = block.records[r];
    const [from, to] = [block.offsets[r], block.offsets[r + 1]];
    const line: Record<string, unknown> = {
      method: method.label,
      step,
      record,
      prompt_id: index.promptIds[index.group[record]],
      ...(index.responseIds?.[record] !== undefined && { response_id: index.responseIds[record] }),
      length: to - from,
      touched: Array.from(effect.touched.subarray(from, to)),
    };
    if (effect.reward) line.reward = effect.reward[r];
    for (const name of TOKEN_ARRAY_NAMES) {
      const values = effect[name];
      if (values) line[FILE_NAMES[name]] = Array.from(values.subarray(from, to));
    }
    lines += `${JSON.stringify(line)}\n`;
  }
  return lines;
}

/** A column of an archive in a file of its own. */
interface ColumnFile {
  readonly file: string;
  readonly fd: number;
  written: number;
}

/** The columns of one method. */
interface MethodColumns {
  readonly arrays: Map<TokenArray | 'touched' | 'reward', ColumnFile>;
  readonly records: number[];
  readonly steps: number[];
  readonly offsets: number[];
}

const FILL_VALUES = 65_536;

function createColumns(directory: string, key: string) {
  const columns: MethodColumns = { arrays: new Map(), records: [], steps: [], offsets: [0] };
  const open = (name: TokenArray | 'touched' | 'reward'): ColumnFile => {
    const known = columns.arrays.get(name);
    if (known !== undefined) return known;
    const file = path.join(directory, `${key}.${name}`);
    const column: ColumnFile = { file, fd: fs.openSync(file, 'w'), written: 0 };
    columns.arrays.set(name, column);
    return column;
  };
  /** Positions so far get what stands where a method has no array. */
  const fill = (column: ColumnFile, until: number, value: number): void => {
    const part = new Float64Array(Math.min(FILL_VALUES, Math.max(0, until - column.written))).fill(value);
    while (column.written < until) {
      const count = Math.min(part.length, until - column.written);
      append(column.fd, bytesOf(part.subarray(0, count)), column.file);
      column.written += count;
    }
  };
  const total = (): number => columns.offsets[columns.offsets.length - 1];
  const add = (step: RolloutStep, block: TokenBlock, effect: PolicyEffect): void => {
    const tokens = total();
    const records = columns.records.length;
    for (const name of TOKEN_ARRAY_NAMES) {
      const values = effect[name];
      if (values === undefined) continue;
      const column = open(name);
      fill(column, tokens, TOKEN_ARRAYS[name]);
      append(column.fd, bytesOf(values), column.file);
      column.written += values.length;
    }
    const touched = open('touched');
    append(touched.fd, bytesOf(effect.touched), touched.file);
    if (effect.reward) {
      const column = open('reward');
      fill(column, records, Number.NaN);
      append(column.fd, bytesOf(effect.reward), column.file);
      column.written += effect.reward.length;
    }
    for (let r = 0; r < block.records.length; r++) {
      columns.records.push(block.records[r]);
      columns.steps.push(step.step);
      columns.offsets.push(tokens + block.offsets[r + 1]);
    }
  };
  const into = (archive: NpzWriter, prefix: string): void => {
    const tokens = total();
    const { records, steps, offsets } = columns;
    archive.add(`${prefix}record`, 'I32', [records.length], [bytesOf(Int32Array.from(records))]);
    archive.add(`${prefix}step`, 'F64', [records.length], [bytesOf(Float64Array.from(steps))]);
    const wide = BigInt64Array.from(offsets, BigInt);
    archive.add(`${prefix}offsets`, 'I64', [wide.length], [new Uint8Array(wide.buffer)]);
    for (const [name, column] of columns.arrays) {
      if (name === 'reward') fill(column, records.length, Number.NaN);
      else if (name !== 'touched') fill(column, tokens, TOKEN_ARRAYS[name]);
      const stored = name === 'touched' || name === 'reward' ? name : FILE_NAMES[name];
      const length = name === 'reward' ? records.length : tokens;
      archive.add(`${prefix}${stored}`, name === 'touched' ? 'U8' : 'F64', [length], fileParts(column.file));
    }
  };
  const close = (): void => {
    for (const { fd } of columns.arrays.values()) fs.closeSync(fd);
  };
  return { add, into, close };
}

/**
 * Writes the effects of methods so that a trainer can use them: JSON lines, one a record and method; an archive of flat arrays
 * (`record`, `step`, `offsets`, `touched`, and the arrays that the method has) as `<method>/<array>`; or a directory with both,
 * a file a method.
 * @throws RunError when the disk is full
 */
export function createWeightWriter(target: WeightTarget, rollouts: Rollouts): WeightWriter {
  const { form } = target;
  const withLines = form !== 'npz';
  const withArrays = form !== 'jsonl';
  const lines = new Map<string, { readonly fd: number; readonly file: string }>();
  const columns = new Map<string, ReturnType<typeof createColumns>>();
  let scratch: string | undefined;
  const lineFile = (label: string) => {
    const key = form === 'jsonl' ? '' : label;
    const known = lines.get(key);
    if (known !== undefined) return known;
    const file = form === 'jsonl' ? target.path : path.join(target.path, `${fileNameOf(label)}.jsonl`);
    const opened = { fd: fs.openSync(file, 'w'), file };
    lines.set(key, opened);
    return opened;
  };
  const columnsOf = (label: string) => {
    scratch ??= fs.mkdtempSync(path.join(target.workDirectory, 'surprisal-weights-'));
    const known = columns.get(label);
    if (known !== undefined) return known;
    const made = createColumns(scratch, fileNameOf(label));
    columns.set(label, made);
    return made;
  };
  const abort = (): void => {
    if (scratch !== undefined) fs.rmSync(scratch, { recursive: true, force: true });
  };
  return {
    take(method, step, block, effect) {
      if (withLines) {
        const { fd, file } = lineFile(method.label);
        append(fd, Buffer.from(linesOf(method, step, block, effect, rollouts)), file);
      }
      if (withArrays) columnsOf(method.label).add(step, block, effect);
    },
    finish(labels) {
      for (const [label, { fd, file }] of lines) {
        fs.closeSync(fd);
        if (form === 'directory' && !labels.has(label)) fs.rmSync(file);
      }
      const whole = form === 'npz' ? createNpzWriter(target.path) : undefined;
      for (const [label, method] of columns) {
        if (!labels.has(label)) {
          method.close();
          continue;
        }
        const archive = whole ?? createNpzWriter(path.join(target.path, `${fileNameOf(label)}.npz`));
        method.into(archive, whole === undefined ? '' : `${fileNameOf(label)}/`);
        if (whole === undefined) archive.finish();
        method.close();
      }
      whole?.finish();
      abort();
    },
    abort,
  };
}
