import { InputError } from '../errors.js';
import { openFeatures } from '../features/open-features.js';
import { type FeatureMatrix, fitsSingle } from '../formats/feature-matrix.js';
import { labelCount, readLabels } from '../formats/labels.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { logSumExpRow } from '../kernels/loss-rows-reference.js';
import { parseLosses, termWeight } from '../training/losses/loss-text.js';
import { type Floats, IGNORED, type Loss, type TeacherRows } from '../training/types.js';
import { gatherPair, type PairAudit, type PairRow } from './pair-audit.js';
import { type ScoreFigures, type SharedScore, scoredLosses } from './score-settings.js';

/** A file of logits, [rows, classes] or [batch, positions, classes]. */
export interface LogitsFile {
  readonly path: string;
  readonly tensor?: string;
}

/** An audit of stored logits. */
export interface LogitsScore extends SharedScore {
  readonly student: LogitsFile;
  readonly teacher?: LogitsFile;
  readonly labels?: { readonly path: string; readonly column?: string };
  /** Label probabilities of the shape of the logits. */
  readonly conditional?: LogitsFile;
  readonly limit?: number;
  /** Teacher and student of different sizes: an error, or the common prefix of the classes. */
  readonly vocabularies: 'error' | 'truncate';
  /** A loss whose gradient by the student's logits is wanted. */
  readonly gradientOf?: string;
}

/** Elements up to which all rows are one block, which losses over whole batches need. */
const WHOLE_BATCH = 1 << 24;
/** Elements of a block beyond it. */
const BLOCK = 1 << 22;

interface StoredRows {
  readonly name: string;
  readonly rows: number;
  readonly classes: number;
  /** Rows that are read together: positions of one entry of a batch. */
  readonly grain: number;
  readonly single: boolean;
  read(from: number, count: number): Floats;
  close(): void;
}

async function openRows(file: LogitsFile, limit: number | undefined): Promise<StoredRows> {
  const matrix: FeatureMatrix = await openFeatures({ kind: 'file', ...file, flatten: true });
  const dims = matrix.rowDims ?? [matrix.columns];
  const classes = dims[dims.length - 1];
  const grain = matrix.columns / classes;
  const rows = Math.min(matrix.rows * grain, limit ?? Number.POSITIVE_INFINITY);
  const single = fitsSingle(matrix.dtype);
  return {
    name: matrix.name,
    rows,
    classes,
    grain,
    single,
    read(from, count) {
      const first = Math.floor(from / grain);
      const items = Math.ceil((from + count) / grain) - first;
      const size = items * matrix.columns;
      const all = single ? new Float32Array(size) : new Float64Array(size);
      matrix.readRows(first, items, all);
      const skip = (from - first * grain) * classes;
      return all.subarray(skip, skip + count * classes);
    },
    close: () => matrix.close(),
  };
}

async function labelsOf(score: LogitsScore, rows: number, name: string): Promise<Int32Array | undefined> {
  if (score.labels === undefined) return undefined;
  const { path, column } = score.labels;
  const labels = await readLabels(path, { kind: 'numbers', ...(column !== undefined && { column }) });
  const count = labelCount(labels);
  if (count < rows || (score.limit === undefined && count !== rows)) {
    throw new InputError(`${path}: ${count} labels, but ${name} has ${rows} rows; give one label a row`);
  }
  if (labels.kind !== 'numbers') throw new InputError(`${path}: labels must be numbers of classes`);
  return Int32Array.from(labels.values.subarray(0, rows), (value, row) => {
    if (Number.isInteger(value)) return value;
    throw new InputError(`${path}: row ${row} has the label ${value}, which is no number of a class`);
  });
}

/** Rows of wider logits cut to the first `classes` columns. */
function firstColumns(values: Floats, rows: number, classes: number): Floats {
  const columns = values.length / Math.max(1, rows);
  if (columns === classes) return values;
  const cut = values instanceof Float32Array ? new Float32Array(rows * classes) : new Float64Array(rows * classes);
  for (let row = 0; row < rows; row++) {
    cut.set(values.subarray(row * columns, row * columns + classes), row * classes);
  }
  return cut;
}

function checkPair(score: LogitsScore, student: StoredRows, other: StoredRows, whose: string): void {
  if (other.rows !== student.rows) {
    throw new InputError(`${other.name}: ${other.rows} rows of the ${whose}, but ${student.name} has ${student.rows}`);
  }
  if (other.classes !== student.classes && (whose !== 'teacher' || score.vocabularies === 'error')) {
    const way = whose === 'teacher' ? '; --vocab-align truncate keeps the common prefix' : '';
    throw new InputError(
      `${student.name} has ${student.classes} classes and the ${whose} ${other.name} has ${other.classes}${way}`,
    );
  }
}

/** Mean probability that the teacher gives to the classes beyond the student's. */
function droppedShare(values: Floats, rows: number, classes: number): number {
  const columns = values.length / rows;
  let total = 0;
  for (let row = 0; row < rows; row++) {
    const logZ = logSumExpRow(values, row * columns, columns);
    const kept = logSumExpRow(values, row * columns, classes);
    total += -Math.expm1(kept - logZ);
  }
  return total / rows;
}

/** The gradient of the mean of a sum of losses by all logits. */
function gradientOf(text: string, input: Parameters<Loss['evaluate']>[0]): Float64Array {
  const gradient = new Float64Array(input.rows * input.classes);
  const student = Float64Array.from(input.student);
  const valid = Math.max(1, (input.labels ?? new Int32Array(input.rows)).filter((label) => label !== IGNORED).length);
  for (const term of parseLosses(text)) {
    const scale = termWeight(term, Number.POSITIVE_INFINITY) / valid;
    term.loss.evaluate({ ...input, student }, { logits: gradient, scale });
  }
  return gradient;
}

/** Audits stored logits: a job in a thread of its own. */
export async function scoreLogits(score: LogitsScore, progress: (value: unknown) => void): Promise<ScoreFigures> {
  const student = await openRows(score.student, score.limit);
  const teacher = score.teacher && (await openRows(score.teacher, score.limit));
  const conditional = score.conditional && (await openRows(score.conditional, score.limit));
  try {
    if (teacher) checkPair(score, student, teacher, 'teacher');
    if (conditional) checkPair(score, student, conditional, 'label probabilities');
    const { rows } = student;
    const classes = Math.min(student.classes, teacher?.classes ?? student.classes);
    const labels = await labelsOf(score, rows, student.name);
    const wholeBatch = rows * classes <= WHOLE_BATCH || score.gradientOf !== undefined;
    const gatherer = gatherPair({
      classes,
      teacher: teacher ? 'dense' : 'none',
      labels: labels !== undefined,
      wholeBatch,
      ...scoredLosses(score),
    });
    const listed: PairRow[] = [];
    const block = wholeBatch ? Math.max(1, rows) : Math.max(1, Math.floor(BLOCK / classes));
    let gradient: Float64Array | undefined;
    let dropped = 0;
    for (let from = 0; from < rows; from += block) {
      const count = Math.min(block, rows - from);
      const wide = teacher?.read(from, count);
      if (wide && wide.length > count * classes) dropped += droppedShare(wide, count, classes) * (count / rows);
      const given: TeacherRows | undefined = wide && { kind: 'dense', logits: firstColumns(wide, count, classes) };
      const own = labels?.subarray(from, from + count);
      const input = {
        rows: count,
        firstRow: from,
        student: firstColumns(student.read(from, count), count, classes),
        ...(given && { teacher: given }),
        ...(own && { labels: own }),
        ...(conditional && { conditional: Float64Array.from(conditional.read(from, count)) }),
      };
      gatherer.add(input, (row) => {
        if (score.rowsWanted) listed.push(row);
      });
      if (score.gradientOf !== undefined) gradient = gradientOf(score.gradientOf, { ...input, classes });
      progress(from + count);
    }
    const audit: PairAudit = gatherer.finish();
    const share = (100 * dropped).toPrecision(3);
    const warnings =
      teacher && teacher.classes !== student.classes
        ? [
            `the student has ${student.classes} classes and the teacher ${teacher.classes}: the first ${classes} are kept` +
              (dropped > 0 ? `, which leaves out ${share}% of the teacher's probability` : ''),
          ]
        : [];
    return {
      audit: { ...audit, warnings: [...audit.warnings, ...warnings] },
      rows: listed,
      ...(gradient && { gradient }),
    };
  } finally {
    for (const open of [student, teacher, conditional]) open?.close();
  }
}

export const SCORE_LOGITS: ComputeReference<LogitsScore, ScoreFigures> = {
  module: import.meta.url,
  job: scoreLogits,
};
