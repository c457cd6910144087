import { InputError } from '../../errors.js';
import { IGNORED, type TokenBatch, type TopTeacher } from '../types.js';
import type { CapturedTeacher } from './captured-teacher.js';
import type { LanguageTeacher } from './live-teacher.js';

function requireCaptured(teacher: CapturedTeacher, { labels, length, windows }: TokenBatch, row: number): void {
  if (labels[row] === IGNORED) return;
  const window = windows[Math.floor(row / length)];
  const position = row % length;
  if (teacher.has(window, position)) return;
  throw new InputError(
    `${teacher.paths.join(', ')}: position ${position} of window ${window} is to be learnt but was not captured; ` +
      'capture with the same --loss-on',
  );
}

/** Rows from..from+rows-1 of a batch, window by window. */
function rowsOf(teacher: CapturedTeacher, batch: TokenBatch, from: number, rows: number): TopTeacher {
  const { k } = teacher.header;
  const ids = new Int32Array(rows * k);
  const logProbs = new Float32Array(rows * k);
  const leftover = new Float32Array(rows);
  let at = 0;
  while (at < rows) {
    const place = Math.floor((from + at) / batch.length);
    const first = (from + at) % batch.length;
    const count = Math.min(batch.length - first, rows - at);
    const part = teacher.rows(batch.windows[place], first, first + count);
    ids.set(part.ids, at * k);
    logProbs.set(part.logProbs, at * k);
    leftover.set(part.leftover, at);
    at += count;
  }
  return { kind: 'top', k, ids, logProbs, leftover };
}

/**
 * A capture in the place of a model that runs beside the student.
 * @throws InputError for windows that no capture can hold, or rows that are asked for and were not captured
 */
export function capturedLanguageTeacher(teacher: CapturedTeacher): LanguageTeacher {
  return {
    async begin(batch) {
      if (batch.windows.some((window) => window < 0)) {
        throw new InputError(
          'a capture holds nothing of windows that the student writes itself: leave out --on-policy',
        );
      }
      for (let row = 0; row < batch.batch * batch.length; row++) requireCaptured(teacher, batch, row);
      return { rows: async (from, rows) => rowsOf(teacher, batch, from, rows) };
    },
    async close() {
      teacher.close();
    },
  };
}
