/**
 * Plackett-Luce list losses and their gradients on rows of logits, many rows in one native call. Meaning:
 * `plackett-luce-reference.ts`.
 */
import { InputError } from '../errors.js';
import { kernelThreads, nativeKernels } from './native.js';
import type { NativeKernels } from './native-signatures.js';
import { plackettLuceReference } from './plackett-luce-reference.js';

type Floats = Float32Array | Float64Array;

/** What a rank counts: the teacher's probability, 1, the first rank alone, or 2^(C - k) - 1 at rank k. */
export const LIST_WEIGHTS = ['teacher', 'uniform', 'label', 'position'] as const;
export type ListWeights = (typeof LIST_WEIGHTS)[number];

/**
 * What becomes of the classes outside a list that is shorter than the row: `partial`, all of them in every denominator;
 * `truncated`, none, with weights renormalised over the list.
 */
export const LIST_TAILS = ['partial', 'truncated'] as const;
export type ListTail = (typeof LIST_TAILS)[number];

/** Teacher's weight of a label that a stored list does not hold. */
export const MISSING_LABELS = ['tail-share', 'zero', 'error'] as const;
export type MissingLabel = (typeof MISSING_LABELS)[number];

/** The teacher's logits of all classes, [rows, classes]. */
export interface FullListTeacher {
  readonly logits: Floats;
}

/** The teacher's likeliest classes with probabilities over all classes at temperature 1. */
export interface StoredListTeacher {
  readonly k: number;
  /** [rows, k], by descending log-probability; -1 from the end of a row that holds fewer. */
  readonly ids: Int32Array;
  /** [rows, k], nats. */
  readonly logProbs: Floats;
  /** [rows]: the probability of all other classes. */
  readonly leftover: Floats;
}

export type ListTeacher = FullListTeacher | StoredListTeacher;

export interface PlackettLuceRequest {
  readonly rows: number;
  readonly classes: number;
  /** [rows, classes]. */
  readonly student: Floats;
  readonly teacher: ListTeacher;
  /** [rows], -100 where a row counts nowhere. */
  readonly labels?: Int32Array;
  /** The label stands first in the list, whatever the teacher thinks of it; needs labels. */
  readonly labelFirst: boolean;
  readonly weights: ListWeights;
  /** Divides the teacher's logits in the weights; the order does not depend on it. */
  readonly temperature: number;
  /** Classes of the teacher in the list, beside the label; `classes` or more for all. */
  readonly listed: number;
  readonly tail: ListTail;
  readonly missingLabel: MissingLabel;
  /** [rows, classes]; may be the student's buffer when `overwrite`. */
  readonly gradient?: Floats;
  /** Factor of the gradient; default 1. */
  readonly scale?: number;
  /** = in place of += on the gradient. */
  readonly overwrite?: boolean;
  /** Contributions of the first so many ranks are wanted; default none. */
  readonly ranks?: number;
  /** Number of the first row, for messages. */
  readonly firstRow?: number;
  readonly threads?: number;
}

/**
 * Figures of a row. `loss`, nats; `firstWeight`, the weight of rank 1; `labelRank`, classes that the teacher ranks before
 * the label (those of the stored list where it is not there), NaN without labels; `tailWeight`, the teacher's probability
 * outside the list; `weightEntropy`, nats, of the listed probabilities and the tail as one more; `studentTail`, the
 * student's probability outside the list; `agreement`, 1 where both have the same likeliest class.
 */
export const LIST_FIGURES = [
  'loss',
  'firstWeight',
  'labelRank',
  'tailWeight',
  'weightEntropy',
  'studentTail',
  'agreement',
] as const;
export type ListFigure = (typeof LIST_FIGURES)[number];

export interface PlackettLuceRows {
  readonly validRows: number;
  /** [rows] a figure; 0 where a row does not count. */
  readonly figures: Readonly<Record<ListFigure, Float64Array>>;
  /** [rows, ranks]: w_k (A_k - u_k), 0 beyond the list; empty unless asked for. */
  readonly contributions: Float64Array;
}

const IGNORED = -100;

function checkSizes(request: PlackettLuceRequest): void {
  const { rows, classes, student, teacher, labels, gradient } = request;
  if (student.length < rows * classes) throw new RangeError(`${student.length} logits are no [${rows}, ${classes}]`);
  if (gradient !== undefined && gradient.length < rows * classes) {
    throw new RangeError(`${gradient.length} entries of a gradient are no [${rows}, ${classes}]`);
  }
  if (labels !== undefined && labels.length < rows) throw new RangeError(`${labels.length} labels for ${rows} rows`);
  if ('logits' in teacher) {
    if (teacher.logits.length !== rows * classes) {
      const columns = rows > 0 ? teacher.logits.length / rows : 0;
      throw new InputError(`the teacher's rows have ${columns} classes and the student's ${classes}`);
    }
  } else if (teacher.ids.length < rows * teacher.k || teacher.logProbs.length < rows * teacher.k) {
    throw new RangeError(`${teacher.ids.length} stored classes are no [${rows}, ${teacher.k}]`);
  } else if (teacher.leftover.length < rows) {
    throw new RangeError(`${teacher.leftover.length} leftovers for ${rows} rows`);
  }
}

/** Weights grow up to 2^ranks: what a gradient can hold, in double or single precision. */
const MOST_RANKS = { f64: 1024, f32: 120 };

function checkSettings(request: PlackettLuceRequest): void {
  const { labels, labelFirst, temperature, listed, classes, weights, gradient } = request;
  if (labelFirst && labels === undefined) throw new InputError('a list with the label first needs labels');
  if (!(temperature > 0) || temperature === Number.POSITIVE_INFINITY) {
    throw new InputError(`the teacher's temperature must be above 0, not ${temperature}`);
  }
  if (!(listed >= 1)) throw new InputError(`a list needs at least 1 class of the teacher, not ${listed}`);
  // A label that is not among the teacher's classes and the tail are ranks of their own.
  const ranks = Math.min(classes, 2 + ('logits' in request.teacher ? listed : Math.min(listed, request.teacher.k)));
  const most = gradient instanceof Float32Array ? MOST_RANKS.f32 : MOST_RANKS.f64;
  if (weights === 'position' && ranks > most) {
    throw new InputError(
      `position weights 2^(C - k) - 1 overflow for lists of more than ${most} classes, and this has ${ranks}`,
    );
  }
}

function checkLabels({ labels, rows, classes, firstRow = 0 }: PlackettLuceRequest): void {
  if (labels === undefined) return;
  for (let r = 0; r < rows; r++) {
    const label = labels[r];
    if (label !== IGNORED && (label < 0 || label >= classes)) {
      throw new InputError(`row ${firstRow + r}: label ${label} is outside [0, ${classes})`);
    }
  }
}

/**
 * L = sum_k w_k (A_k - u_k) a row, u the student's logits in the order of the list, A_k the log-sum-exp of u from rank k on
 * (Plackett-Luce; Bassam et al., 2025, arXiv 2506.12542), and its gradient. Order: the label, then all others by
 * descending teacher's logit, ties by ascending class. Sums in double; the same bits whatever the number of threads.
 * @throws InputError for a temperature of 0 or below, labels outside the classes, NaN or +Infinity with row and column, a
 *   masked class (-Infinity) that has a weight, teacher and student of different numbers of classes
 */
export function plackettLuceRows(request: PlackettLuceRequest): PlackettLuceRows {
  checkSizes(request);
  checkSettings(request);
  checkLabels(request);
  const { rows, classes, ranks = 0 } = request;
  const all = new Float64Array(LIST_FIGURES.length * rows);
  const figures = Object.fromEntries(
    LIST_FIGURES.map((name, i) => [name, all.subarray(i * rows, (i + 1) * rows)]),
  ) as Record<ListFigure, Float64Array>;
  const contributions = new Float64Array(rows * ranks);
  const result: PlackettLuceRows = { validRows: countValid(request), figures, contributions };
  const native = nativeKernels();
  const single = singlePrecision(request);
  if (native === undefined || single === undefined || rows === 0 || classes === 0)
    plackettLuceReference(request, result);
  else evaluateNatively(native, request, single, all, result);
  return result;
}

interface SingleArrays {
  readonly student: Float32Array;
  readonly teacher: Float32Array | null;
  readonly gradient: Float32Array | null;
}

/** The arrays of a request that is in f32 throughout; others are served by the reference. */
function singlePrecision({ student, teacher, gradient }: PlackettLuceRequest): SingleArrays | undefined {
  const logits = 'logits' in teacher ? teacher.logits : null;
  if (!(student instanceof Float32Array) || logits instanceof Float64Array || gradient instanceof Float64Array) {
    return undefined;
  }
  return { student, teacher: logits, gradient: gradient ?? null };
}

function evaluateNatively(
  native: NativeKernels,
  request: PlackettLuceRequest,
  { student, teacher, gradient }: SingleArrays,
  figures: Float64Array,
  result: PlackettLuceRows,
): void {
  const { rows, classes, labels, ranks = 0, scale = 1, overwrite = false, threads } = request;
  const stored = 'logits' in request.teacher ? undefined : request.teacher;
  const settings = Float64Array.of(
    request.labelFirst ? 1 : 0,
    LIST_WEIGHTS.indexOf(request.weights),
    request.temperature,
    Math.min(request.listed, classes),
    LIST_TAILS.indexOf(request.tail),
    MISSING_LABELS.indexOf(request.missingLabel),
    scale,
    overwrite ? 1 : 0,
    ranks,
  );
  const refused = native.plackettLuceRows(
    student,
    rows,
    classes,
    teacher,
    stored?.ids ?? null,
    stored === undefined ? null : Float64Array.from(stored.logProbs),
    stored === undefined ? null : Float64Array.from(stored.leftover),
    stored?.k ?? 0,
    labels ?? null,
    settings,
    gradient,
    figures,
    ranks > 0 ? result.contributions : null,
    kernelThreads(threads),
  );
  if (refused < 0) return;
  // The reference knows what is wrong with the row.
  const { gradient: _, ...forward } = request;
  plackettLuceReference(forward, result, refused, refused + 1);
  throw new RangeError(`row ${refused} was refused by the kernel and not by its reference`);
}

function countValid({ labels, rows }: PlackettLuceRequest): number {
  if (labels === undefined) return rows;
  let count = 0;
  for (let r = 0; r < rows; r++) count += labels[r] === IGNORED ? 0 : 1;
  return count;
}
