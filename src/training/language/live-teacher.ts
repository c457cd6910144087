import { gatherRows } from '../../models/gather-rows.js';
import type { LanguageModel, PositionRange } from '../../models/language-model.js';
import { type DenseTeacher, type Floats, IGNORED, type TeacherRows, type TokenBatch } from '../types.js';

/** The teacher's rows of one batch, asked for in ascending blocks. */
export interface TeacherOfBatch {
  /** Rows from..from+rows-1 of the batch; what it gives is valid until the next call. */
  rows(from: number, rows: number): Promise<TeacherRows>;
}

/** Where the teacher's distributions come from. */
export interface LanguageTeacher {
  /** Begins a batch; the one before is over. */
  begin(batch: TokenBatch): Promise<TeacherOfBatch>;
  close(): Promise<void>;
}

/** What `alignColumns` has dropped, over the rows that were measured. */
export interface DroppedMass {
  readonly rows: number;
  /** Mean probability of the teacher's tokens that the student does not have. */
  readonly mean: number;
}

/** Rows whose dropped mass is measured: enough for a warning, too few to be felt. */
const MEASURED_ROWS = 256;
/** Nats below the least logit of a row where tokens that the teacher does not have are put. */
const OUT_OF_REACH = 100;

/**
 * A model that runs beside the student.
 *
 * Rows that nothing is asked of are not run through the head; they are zero. With fewer tokens in the student the
 * teacher's columns beyond them are left out, with more the others are put `OUT_OF_REACH` nats below the least.
 *
 * @param classes columns of the student's logits
 */
export function openLiveTeacher(
  model: LanguageModel,
  classes: number,
): LanguageTeacher & { dropped(): DroppedMass | undefined } {
  const columns = model.info.vocabularySize;
  let buffer: Floats = new Float32Array(0);
  let streams: Floats = new Float32Array(0);
  let normed: Floats = new Float32Array(0);
  let measured = 0;
  let lost = 0;

  const sized = (old: Floats, length: number): Floats => (old.length >= length ? old : new Float32Array(length));

  const readerOf = async (batch: TokenBatch): Promise<(wanted: readonly PositionRange[]) => Promise<Floats>> => {
    const { length } = batch;
    const windows = Array.from({ length: batch.batch }, (_, b) =>
      batch.tokens.subarray(b * length, (b + 1) * length).slice(),
    );
    const { engine } = model;
    if (!engine) return (wanted) => model.logits(windows, wanted);
    const { hiddenSize } = engine.model;
    streams = sized(streams, batch.tokens.length * hiddenSize);
    const groups = await engine.forward({ windows, streams });
    return async (wanted) => {
      const count = wanted.reduce((sum, [from, to]) => sum + to - from, 0);
      normed = sized(normed, count * hiddenSize);
      const rows = gatherRows(groups, hiddenSize, wanted, normed);
      await engine.normalize(rows);
      return engine.logits(rows);
    };
  };

  return {
    async begin(batch) {
      const read = await readerOf(batch);
      return {
        async rows(from, rows): Promise<DenseTeacher> {
          buffer = sized(buffer, rows * classes);
          const logits = buffer.subarray(0, rows * classes).fill(0);
          const wanted = askedRanges(batch, from, from + rows);
          if (wanted.every(([first, end]) => first === end)) return { kind: 'dense', logits };
          const found = await read(wanted);
          let at = 0;
          wanted.forEach(([first, end], window) => {
            for (let row = window * batch.length + first; row < window * batch.length + end; row++) {
              const source = found.subarray(at * columns, ++at * columns);
              alignColumns(source, logits.subarray((row - from) * classes, (row - from + 1) * classes));
              if (columns <= classes || measured === MEASURED_ROWS) continue;
              lost += massBeyond(source, classes);
              measured++;
            }
          });
          return { kind: 'dense', logits };
        },
      };
    },
    dropped: () => (measured === 0 ? undefined : { rows: measured, mean: lost / measured }),
    close: () => model.close(),
  };
}

/** Of every window, the positions from the first to the last row in from..to-1 of which something is asked. */
function askedRanges({ batch, length, labels }: TokenBatch, from: number, to: number): PositionRange[] {
  const ranges: [number, number][] = Array.from({ length: batch }, () => [0, 0]);
  for (let row = from; row < to; row++) {
    if (labels[row] === IGNORED) continue;
    const range = ranges[Math.floor(row / length)];
    const at = row % length;
    if (range[1] === 0) range[0] = at;
    range[1] = at + 1;
  }
  return ranges;
}

/** Copies a row of logits into one of another width. */
function alignColumns(source: Floats, target: Floats): void {
  const shared = Math.min(source.length, target.length);
  target.set(source.subarray(0, shared));
  if (shared === target.length) return;
  let least = Infinity;
  for (const value of source) if (value < least) least = value;
  target.fill(least - OUT_OF_REACH, shared);
}

/** Probability of the columns from `classes` on. */
function massBeyond(logits: Floats, classes: number): number {
  let most = -Infinity;
  for (const value of logits) if (value > most) most = value;
  let all = 0;
  let beyond = 0;
  logits.forEach((value, column) => {
    const share = Math.exp(value - most);
    all += share;
    if (column >= classes) beyond += share;
  });
  return beyond / all;
}
