import fs from 'node:fs';
import path from 'node:path';
import { InputError } from '../errors.js';
import type { AtomicDirectory } from '../formats/atomic.js';
import { differingKey, readWorkFile } from '../formats/work-files.js';
import { writeHashed } from '../models/model-directory.js';
import type { ExpertMatrixPlan } from './compress-plan.js';

/** What the first pass over a matrix found. */
export interface MatrixFactors {
  /** L [rows, rank] and R [rank, columns] as they are stored. */
  readonly left: Uint8Array;
  readonly right: Uint8Array;
  /** See `rowScores`, [rows]. */
  readonly scores: Float64Array;
  /** ||S_row||^2, [rows]. */
  readonly residualSquares: Float64Array;
  readonly figures: MatrixFigures;
}

export interface MatrixFigures {
  /** ||W||_F. */
  readonly norm: number;
  /** sigma_1. */
  readonly largest: number;
  /** Sum of the squares of the kept singular values. */
  readonly keptSquares: number;
  /** NaN where the spectrum was not computed. */
  readonly effectiveRank: number;
  /** 1: the whole decomposition; 0: range found at random. */
  readonly exact: number;
  /** 1: the expert saw no token, and its rows are scored by their magnitude. */
  readonly unused: number;
}

const FIGURES = ['norm', 'largest', 'keptSquares', 'effectiveRank', 'exact', 'unused'] as const;

/** Factors of finished matrices in a file of fixed places; a run that was killed goes on behind the last whole one. */
export interface FactorJournal {
  /** Matrices that are done. */
  readonly done: number;
  append(factors: MatrixFactors): void;
  read(place: number): MatrixFactors;
  close(): void;
}

const FOLDER = '.compress';

interface Place {
  readonly offset: number;
  readonly leftBytes: number;
  readonly rightBytes: number;
  readonly rows: number;
  readonly byteLength: number;
}

function placesOf(matrices: readonly ExpertMatrixPlan[], elementBytes: (matrix: ExpertMatrixPlan) => number): Place[] {
  let offset = 0;
  return matrices.map((matrix) => {
    const { rows, columns, rank } = matrix;
    const [leftBytes, rightBytes] = [rows * rank, columns * rank].map((count) => count * elementBytes(matrix));
    const byteLength = 8 * (FIGURES.length + 2 * rows) + leftBytes + rightBytes;
    const place = { offset, leftBytes, rightBytes, rows, byteLength };
    offset += byteLength;
    return place;
  });
}

const bytesOf = (values: Float64Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/**
 * Opens the journal inside a directory that is being filled.
 * @param identity what two runs must share for one to continue the other
 * @param elementBytes of a stored factor
 * @throws InputError when the interrupted run there had another identity; its directory stays
 */
export function openFactorJournal(
  out: string,
  directory: AtomicDirectory,
  identity: unknown,
  matrices: readonly ExpertMatrixPlan[],
  elementBytes: (matrix: ExpertMatrixPlan) => number,
): FactorJournal {
  const work = path.join(directory.path, FOLDER);
  const runFile = path.join(work, 'run.json');
  const before = directory.resumed ? readWorkFile(runFile) : undefined;
  const differing = before === undefined ? undefined : differingKey(before, identity);
  if (differing !== undefined) {
    directory.abort();
    throw new InputError(
      `${out}: the interrupted run in ${directory.path} had another "${differing}": repeat its options, or remove that directory and leave out --resume`,
    );
  }
  if (before === undefined) {
    for (const name of fs.readdirSync(directory.path)) {
      fs.rmSync(path.join(directory.path, name), { recursive: true, force: true });
    }
  }
  fs.mkdirSync(work, { recursive: true });
  writeHashed(work, 'run.json', `${JSON.stringify(identity)}\n`);
  const places = placesOf(matrices, elementBytes);
  const file = path.join(work, 'factors.bin');
  const fd = fs.openSync(file, fs.existsSync(file) ? 'r+' : 'w+');
  const found = fs.fstatSync(fd).size;
  let done = places.findIndex(({ offset, byteLength }) => offset + byteLength > found);
  if (done < 0) done = places.length;
  return {
    get done() {
      return done;
    },
    append({ left, right, scores, residualSquares, figures }): void {
      const { offset, byteLength } = places[done];
      const record = Buffer.concat([
        bytesOf(Float64Array.from(FIGURES, (key) => figures[key])),
        bytesOf(scores),
        bytesOf(residualSquares),
        left,
        right,
      ]);
      if (record.length !== byteLength) throw new RangeError(`a record of ${record.length} bytes, not ${byteLength}`);
      for (let at = 0; at < record.length; ) at += fs.writeSync(fd, record, at, record.length - at, offset + at);
      // The next matrix takes far longer than this.
      fs.fdatasyncSync(fd);
      done++;
    },
    read(place): MatrixFactors {
      const { offset, rows, leftBytes, rightBytes, byteLength } = places[place];
      const record = new Uint8Array(byteLength);
      for (let at = 0; at < byteLength; ) {
        const length = fs.readSync(fd, record, at, byteLength - at, offset + at);
        if (length === 0) throw new RangeError(`factors of matrix ${place} are not there`);
        at += length;
      }
      const numbers = (start: number, count: number): Float64Array =>
        new Float64Array(record.buffer, 8 * start, count).slice();
      const values = numbers(0, FIGURES.length);
      const figures = Object.fromEntries(FIGURES.map((key, i) => [key, values[i]])) as unknown as MatrixFigures;
      const factors = 8 * (FIGURES.length + 2 * rows);
      return {
        figures,
        scores: numbers(FIGURES.length, rows),
        residualSquares: numbers(FIGURES.length + rows, rows),
        left: record.slice(factors, factors + leftBytes),
        right: record.slice(factors + leftBytes, factors + leftBytes + rightBytes),
      };
    },
    close: () => fs.closeSync(fd),
  };
}

/** Removes the journal from a directory that is complete. */
export function removeFactorJournal(directory: AtomicDirectory): void {
  fs.rmSync(path.join(directory.path, FOLDER), { recursive: true, force: true });
}
