import { InputError } from '../../errors.js';
import type { TopTeacher } from '../types.js';
import { type CaptureHeader, type CapturePart, openCapturePart, readCaptureRows } from './capture-file.js';

/** What a training run expects of a capture. */
export interface CaptureExpectations {
  /** Classes of the student's logits. */
  readonly vocabulary: number;
  /** `windowsSha256` of the windows to learn from, and the hash of the student's tokenizer. */
  readonly dataSha256?: string;
  readonly tokenizerSha256?: string;
  /** Vocabularies of different sizes: an error, or the common prefix with the rest left over. Default error. */
  readonly align?: 'error' | 'truncate';
}

/** A teacher that is absent: what it said is read from files. */
export interface CapturedTeacher {
  readonly header: CaptureHeader;
  readonly paths: readonly string[];
  /** Rows of all windows. */
  readonly storedRows: number;
  /** Whether position `position` of window `window` was captured. */
  has(window: number, position: number): boolean;
  /**
   * Rows from..to-1 of a window at temperature 1; positions that were not captured hold no class.
   * @throws InputError for damaged rows, with file and window
   */
  rows(window: number, from: number, to: number): TopTeacher;
  close(): void;
}

function requireMatch(path: string, header: CaptureHeader, expected: CaptureExpectations): void {
  const { vocabulary, dataSha256, tokenizerSha256, align = 'error' } = expected;
  if (header.vocabulary !== vocabulary && align === 'error') {
    throw new InputError(
      `${path}: the captured teacher has a vocabulary of ${header.vocabulary} and the student one of ${vocabulary}; ` +
        '--vocab-align truncate keeps the common prefix',
    );
  }
  if (tokenizerSha256 !== undefined && header.tokenizerSha256 !== '' && header.tokenizerSha256 !== tokenizerSha256) {
    throw new InputError(
      `${path}: captured with the tokenizer ${header.tokenizerSha256}, but the student's is ${tokenizerSha256}: ids would mean other tokens`,
    );
  }
  if (dataSha256 !== undefined && header.dataSha256 !== dataSha256) {
    throw new InputError(
      `${path}: captured on windows of tokens with the hash ${header.dataSha256}, but these have ${dataSha256}; ` +
        'give the data and options (--context, --limit, --loss-on, templates, ends) of the capture',
    );
  }
}

const SHARED = [
  'vocabulary',
  'k',
  'dtype',
  'temperature',
  'tokenizerSha256',
  'modelSha256',
  'dataSha256',
  'windows',
  'length',
] as const;

/** @throws InputError when parts are of different captures, overlap or leave windows out */
function requireWhole(parts: readonly CapturePart[]): void {
  const [one] = parts;
  for (const part of parts) {
    const other = SHARED.find((field) => part.header[field] !== one.header[field]);
    if (other === undefined) continue;
    throw new InputError(
      `${one.path} and ${part.path} are not of one capture: ${other} is ${one.header[other]} and ${part.header[other]}`,
    );
  }
  let next = 0;
  for (const { header, path } of parts) {
    if (header.first !== next) {
      const what = header.first > next ? 'no file holds' : `${path} repeats`;
      throw new InputError(`${what} windows ${Math.min(next, header.first)} to ${Math.max(next, header.first) - 1}`);
    }
    next += header.stored;
  }
  if (next !== one.header.windows) {
    throw new InputError(`no file of the capture holds windows ${next} to ${one.header.windows - 1}`);
  }
}

/** p^t / (sum p^t + leftover^t): what was stored at temperature t, at temperature 1, what is left over taken as one class. */
function atTemperatureOne(stored: TopTeacher, rows: number, temperature: number): TopTeacher {
  if (temperature === 1) return stored;
  const { k, ids } = stored;
  const logProbs = Float32Array.from(stored.logProbs);
  const leftover = Float32Array.from(stored.leftover);
  for (let r = 0; r < rows; r++) {
    const rest = stored.leftover[r] ** temperature;
    let total = rest;
    for (let i = r * k; i < (r + 1) * k && ids[i] >= 0; i++) total += Math.exp(stored.logProbs[i] * temperature);
    for (let i = r * k; i < (r + 1) * k && ids[i] >= 0; i++) {
      logProbs[i] = stored.logProbs[i] * temperature - Math.log(total);
    }
    leftover[r] = rest / total;
  }
  return { kind: 'top', k, ids, logProbs, leftover };
}

/** Leaves out the classes from `classes` on; what they weigh is left over. */
function withinClasses(stored: TopTeacher, rows: number, classes: number): TopTeacher {
  const { k } = stored;
  const ids = Int32Array.from(stored.ids);
  const logProbs = Float32Array.from(stored.logProbs);
  const leftover = Float32Array.from(stored.leftover);
  for (let r = 0; r < rows; r++) {
    let kept = r * k;
    let dropped = 0;
    for (let i = r * k; i < (r + 1) * k && stored.ids[i] >= 0; i++) {
      if (stored.ids[i] >= classes) dropped += Math.exp(stored.logProbs[i]);
      else {
        ids[kept] = stored.ids[i];
        logProbs[kept++] = stored.logProbs[i];
      }
    }
    ids.fill(-1, kept, (r + 1) * k);
    leftover[r] += dropped;
  }
  return { kind: 'top', k, ids, logProbs, leftover };
}

/**
 * Opens a capture, of one file or of the files of its shards in any order.
 * @throws InputError when a file is none, when files are of different captures or windows are missing, and when vocabulary
 *   or hashes are not those expected, with both
 */
export function openCapturedTeacher(paths: string | readonly string[], expected: CaptureExpectations): CapturedTeacher {
  const parts: CapturePart[] = [];
  const close = (): void => {
    for (const part of parts) part.close();
  };
  try {
    for (const path of typeof paths === 'string' ? [paths] : paths) parts.push(openCapturePart(path));
    if (parts.length === 0) throw new InputError('no file of a capture was given');
    parts.sort((a, b) => a.header.first - b.header.first || a.header.stored - b.header.stored);
    for (const part of parts) requireMatch(part.path, part.header, expected);
    requireWhole(parts);
  } catch (error) {
    close();
    throw error;
  }
  const { header } = parts[0];
  const partOf = (window: number): CapturePart => {
    const part = parts.find(({ header: { first, stored } }) => window >= first && window < first + stored);
    if (part === undefined) throw new RangeError(`window ${window} of a capture of ${header.windows}`);
    return part;
  };
  return {
    header,
    paths: parts.map(({ path }) => path),
    storedRows: parts.reduce((sum, { rows }) => sum + rows, 0),
    has: (window, position) => partOf(window).has(window, position),
    rows(window, from, to) {
      const stored = readCaptureRows(partOf(window), window, from, to);
      const plain = atTemperatureOne(stored, to - from, header.temperature);
      return header.vocabulary > expected.vocabulary ? withinClasses(plain, to - from, expected.vocabulary) : plain;
    },
    close,
  };
}
