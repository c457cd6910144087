import fs from 'node:fs';
import { stringify } from 'csv-stringify/sync';
import { InputError } from '../errors.js';
import { fileError } from '../formats/files.js';
import type { Evaluation } from './trainer.js';
import type { StepRecord } from './types.js';

export interface MetricsOptions {
  /** Labels of the terms of the loss, and of the student's own. */
  readonly terms: readonly string[];
  /** Names of figures of evaluations beside their loss; no evaluation columns without it. */
  readonly evaluation?: readonly string[];
  /** Names of further columns, such as seconds, which the caller measures. */
  readonly extra?: readonly string[];
  /** Go on behind this step: later rows are cut away. Without it the file must not exist. */
  readonly resumeAt?: number;
  /** Replace an existing file. */
  readonly force?: boolean;
}

/** A CSV that grows by a row a step and can be read while it does. */
export interface MetricsFile {
  /** Appends a row and hands it to the system. @throws RunError when the disk is full */
  append(record: StepRecord, evaluation?: Evaluation, extra?: Readonly<Record<string, number>>): void;
  /** Flushes to the disk and closes. */
  close(): void;
}

type Cell = number | string;

const cell = (value: number | undefined): Cell => {
  if (value === undefined) return '';
  if (Number.isFinite(value)) return value;
  return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf';
};

const line = (cells: readonly Cell[]): string => stringify([cells as Cell[]], { record_delimiter: 'unix' });

/** Columns in order. Losses are nats. */
export function metricsColumns(options: MetricsOptions): string[] {
  const { terms, evaluation, extra = [] } = options;
  return [
    'step',
    'loss_nats',
    ...terms.map((label) => `${label}_nats`),
    'learning_rate',
    'gradient_norm',
    'valid_rows',
    'skipped',
    ...(evaluation === undefined ? [] : ['eval_loss_nats', ...evaluation.map((name) => `eval_${name}`)]),
    ...extra,
  ];
}

/** Bytes of the rows of steps up to `step`, the header included. A last line without an end is not among them. */
function bytesUpTo(path: string, header: string, step: number): number {
  const text = fs.readFileSync(path, 'utf8');
  if (!text.startsWith(header))
    throw new InputError(`${path}: its columns are not those of this run: use the same options, or another output`);
  let end = header.length;
  for (;;) {
    const next = text.indexOf('\n', end);
    if (next < 0 || !(Number.parseInt(text.slice(end, next), 10) <= step)) break;
    end = next + 1;
  }
  return Buffer.byteLength(text.slice(0, end));
}

/**
 * Opens `metrics.csv` under its own name: it is a log, and whoever watches a run reads it as it grows.
 * @throws InputError when it exists and neither `resumeAt` nor `force` is given, or when its columns are others
 */
export function openMetricsFile(path: string, options: MetricsOptions): MetricsFile {
  const { terms, evaluation, extra = [], resumeAt, force } = options;
  const header = line(metricsColumns(options));
  let fd: number;
  let position = 0;
  const write = (text: string): void => {
    const bytes = Buffer.from(text);
    let done = 0;
    try {
      while (done < bytes.length) done += fs.writeSync(fd, bytes, done, bytes.length - done, position + done);
    } catch (error) {
      throw fileError(error, path, 'write');
    }
    position += bytes.length;
  };
  const exists = fs.existsSync(path);
  if (exists && resumeAt === undefined && !force)
    throw new InputError(
      `${path}: already exists: pass --force to replace it, --resume to go on, or choose another path`,
    );
  const kept = exists && resumeAt !== undefined ? bytesUpTo(path, header, resumeAt) : 0;
  try {
    fd = fs.openSync(path, kept > 0 ? 'r+' : 'w');
    fs.ftruncateSync(fd, kept);
  } catch (error) {
    throw fileError(error, path, 'write');
  }
  position = kept;
  if (kept === 0) write(header);
  return {
    append(record, evaluated, extras = {}) {
      write(
        line([
          record.step,
          cell(record.loss),
          ...terms.map((label) => cell(record.terms[label])),
          cell(record.learningRate),
          cell(record.gradientNorm),
          record.validRows,
          record.skipped ? 1 : 0,
          ...(evaluation === undefined
            ? []
            : [cell(evaluated?.loss), ...evaluation.map((name) => cell(evaluated?.figures?.[name]))]),
          ...extra.map((name) => cell(extras[name])),
        ]),
      );
    },
    close() {
      fs.fsyncSync(fd);
      fs.closeSync(fd);
    },
  };
}
