/**
 * Plackett-Luce list losses in plain f64, one row at a time: what the native kernel computes (`plackett-luce.ts`).
 *
 * With u the student's logits in the order of the list, w the weights, and A_k = LSE_{l >= k} u_l (and of the tail):
 *   L = sum_k w_k (A_k - u_k),   dL/du_m = exp(u_m - A_m) c_m - w_m,   c_m = w_m + c_{m-1} exp(A_m - A_{m-1}).
 * A never increases with k, so that no exponential overflows; nothing is divided by a sum that may vanish.
 */
import { InputError } from '../errors.js';
import type { FullListTeacher, PlackettLuceRequest, PlackettLuceRows, StoredListTeacher } from './plackett-luce.js';

type Floats = Float32Array | Float64Array;

const IGNORED = -100;
const NEGATIVE = Number.NEGATIVE_INFINITY;

/** A teacher's list of one row. */
export interface RankedList {
  /** Classes by rank. */
  readonly ids: Int32Array;
  /** Weights by rank. */
  readonly weights: Float64Array;
  /** Probability of the teacher outside the list, at its temperature. */
  readonly tailWeight: number;
  /** Classes that the teacher puts before the label; NaN without one. */
  readonly labelRank: number;
  /** Entropy of the listed probabilities and the tail as one more, nats. */
  readonly entropy: number;
  /** The teacher's likeliest class. */
  readonly top: number;
}

/** log(e^a + e^b). */
function logAdd(a: number, b: number): number {
  const high = Math.max(a, b);
  return high === NEGATIVE ? NEGATIVE : high + Math.log1p(Math.exp(-Math.abs(a - b)));
}

/** Classes by descending score, ties by ascending class. */
export function descendingOrder(scores: ArrayLike<number>): Int32Array {
  // -Infinity less -Infinity is NaN, which goes on to the class like 0.
  return Int32Array.from({ length: scores.length }, (_, j) => j).sort((a, b) => scores[b] - scores[a] || a - b);
}

/** Log-sum-exp of scores / temperature. */
function logSumExp(scores: Floats, temperature: number): number {
  let high = NEGATIVE;
  for (const score of scores) high = Math.max(high, score / temperature);
  let sum = 0;
  for (const score of scores) sum += Math.exp(score / temperature - high);
  return high + Math.log(sum);
}

function requireLegal(values: Floats, row: number, what: string): void {
  let finite = 0;
  for (let j = 0; j < values.length; j++) {
    if (!(values[j] < Number.POSITIVE_INFINITY)) {
      throw new InputError(`${what} logits: row ${row}, column ${j} is ${values[j]}`);
    }
    finite += values[j] > NEGATIVE ? 1 : 0;
  }
  if (values.length > 0 && finite === 0) throw new InputError(`${what} logits: row ${row} has no finite logit`);
}

interface Ranked {
  readonly ids: Int32Array;
  /** Probabilities at the temperature, by rank. */
  readonly probabilities: Float64Array;
  readonly labelRank: number;
  readonly top: number;
}

/** `order` cut to the list: the label first where asked, then the first `listed`. */
function listedOrder(order: Int32Array, label: number, listed: number): Int32Array {
  const kept = order.subarray(0, listed);
  if (label < 0) return Int32Array.from(kept);
  return Int32Array.from([label, ...kept.filter((id) => id !== label)]);
}

function rankFull(teacher: FullListTeacher, request: PlackettLuceRequest, r: number, first: number): Ranked {
  const { classes, temperature, listed, labels, firstRow = 0 } = request;
  const logits = teacher.logits.subarray(r * classes, (r + 1) * classes);
  requireLegal(logits, firstRow + r, 'teacher');
  const order = descendingOrder(logits);
  const ids = listedOrder(order, first, listed);
  const normaliser = logSumExp(logits, temperature);
  return {
    ids,
    probabilities: Float64Array.from(ids, (id) => Math.exp(logits[id] / temperature - normaliser)),
    labelRank: labels === undefined ? Number.NaN : order.indexOf(labels[r]),
    top: order[0],
  };
}

function storedCount(teacher: StoredListTeacher, row: number): number {
  for (let i = 0; i < teacher.k; i++) if (teacher.ids[row * teacher.k + i] < 0) return i;
  return teacher.k;
}

function requireStored(teacher: StoredListTeacher, row: number, classes: number, shownRow: number): void {
  const count = storedCount(teacher, row);
  if (count === 0) throw new InputError(`teacher's list: row ${shownRow} is empty`);
  for (let i = row * teacher.k; i < row * teacher.k + count; i++) {
    if (teacher.ids[i] >= classes) {
      throw new InputError(
        `teacher's list: row ${shownRow} holds class ${teacher.ids[i]}, but the student has ${classes} classes`,
      );
    }
    if (!(teacher.logProbs[i] <= 1e-3)) {
      throw new InputError(`teacher's list: row ${shownRow} holds the log-probability ${teacher.logProbs[i]}`);
    }
  }
}

function rankStored(teacher: StoredListTeacher, request: PlackettLuceRequest, r: number, first: number): Ranked {
  const { classes, temperature, listed, labels, missingLabel, firstRow = 0 } = request;
  requireStored(teacher, r, classes, firstRow + r);
  const count = storedCount(teacher, r);
  const stored = teacher.ids.subarray(r * teacher.k, r * teacher.k + count);
  const logProbs = teacher.logProbs.subarray(r * teacher.k, r * teacher.k + count);
  const leftover = Math.max(0, teacher.leftover[r]);
  // At temperature 1 the stored numbers are the probabilities; otherwise what is not stored is one category.
  const powers = Float64Array.from(logProbs, (value) => Math.exp(value / temperature));
  const rest = leftover ** (1 / temperature);
  let total = temperature === 1 ? 1 : rest;
  if (temperature !== 1) for (const power of powers) total += power;
  const label = labels === undefined ? -1 : labels[r];
  const place = stored.indexOf(label);
  if (first >= 0 && place < 0 && missingLabel === 'error') {
    throw new InputError(`row ${firstRow + r}: the teacher's list does not hold label ${label}`);
  }
  const others = classes - count;
  const share = missingLabel === 'zero' || others <= 0 ? 0 : rest / total / others;
  const ids = listedOrder(stored, first, listed);
  return {
    ids,
    probabilities: Float64Array.from(ids, (id) => {
      const at = stored.indexOf(id);
      return at < 0 ? share : powers[at] / total;
    }),
    labelRank: labels === undefined ? Number.NaN : place < 0 ? count : place,
    top: stored[0],
  };
}

function weigh(request: PlackettLuceRequest, { ids, probabilities }: Ranked): Float64Array {
  const length = ids.length;
  switch (request.weights) {
    case 'uniform':
      return new Float64Array(length).fill(1);
    case 'label':
      return Float64Array.from({ length }, (_, k) => (k === 0 ? 1 : 0));
    case 'position': {
      const ranks = length + (length < request.classes && request.tail === 'partial' ? 1 : 0);
      return Float64Array.from({ length }, (_, k) => 2 ** (ranks - 1 - k) - 1);
    }
    default: {
      if (length === request.classes || request.tail === 'partial') return probabilities;
      let mass = 0;
      for (const p of probabilities) mass += p;
      return probabilities.map((p) => (mass > 0 ? p / mass : 0));
    }
  }
}

/**
 * The teacher's list of row r with its weights.
 * @throws InputError as `plackettLuceRows`
 */
export function rankedList(request: PlackettLuceRequest, r: number): RankedList {
  const { teacher, labels, labelFirst, classes } = request;
  const first = labelFirst && labels !== undefined ? labels[r] : -1;
  const ranked = 'logits' in teacher ? rankFull(teacher, request, r, first) : rankStored(teacher, request, r, first);
  let mass = 0;
  let entropy = 0;
  for (const p of ranked.probabilities) {
    mass += p;
    if (p > 0) entropy -= p * Math.log(p);
  }
  const tailWeight = ranked.ids.length >= classes ? 0 : Math.max(0, 1 - mass);
  if (tailWeight > 0) entropy -= tailWeight * Math.log(tailWeight);
  const { ids, labelRank, top } = ranked;
  return { ids, weights: weigh(request, ranked), tailWeight, labelRank, entropy, top };
}

/** A_k by rank, with A of the tail behind them. */
export function suffixLogSums(scores: Float64Array, tail: number): Float64Array {
  const sums = new Float64Array(scores.length + 1);
  sums[scores.length] = tail;
  for (let k = scores.length - 1; k >= 0; k--) sums[k] = logAdd(sums[k + 1], scores[k]);
  return sums;
}

/** Log-sum-exp of the student's logits outside the list. */
function tailLogSum(student: Floats, ids: Int32Array): number {
  if (ids.length >= student.length) return NEGATIVE;
  const rest = Float64Array.from(student);
  for (const id of ids) rest[id] = NEGATIVE;
  const sum = logSumExp(rest, 1);
  return Number.isNaN(sum) ? NEGATIVE : sum;
}

function requireUnmasked(request: PlackettLuceRequest, r: number, list: RankedList, scores: Float64Array): void {
  for (let k = 0; k < scores.length; k++) {
    if (scores[k] > NEGATIVE || list.weights[k] === 0) continue;
    throw new InputError(
      `row ${(request.firstRow ?? 0) + r}: class ${list.ids[k]} has teacher weight ${list.weights[k]} but student logit -Infinity`,
    );
  }
}

/** Adds dL/du, or writes it, of one row. */
function writeGradient(
  request: PlackettLuceRequest,
  r: number,
  list: RankedList,
  { scores, sums }: { scores: Float64Array; sums: Float64Array },
): void {
  const { gradient, student, classes, scale = 1, overwrite = false, tail } = request;
  if (gradient === undefined) return;
  const length = list.ids.length;
  const row = new Float64Array(classes);
  let prefix = 0;
  for (let k = 0; k < length; k++) {
    const drop = k === 0 || sums[k] === NEGATIVE ? 0 : Math.exp(sums[k] - sums[k - 1]);
    prefix = list.weights[k] + prefix * drop;
    row[list.ids[k]] = (scores[k] === NEGATIVE ? 0 : Math.exp(scores[k] - sums[k]) * prefix) - list.weights[k];
  }
  const rest = sums[length];
  if (tail === 'partial' && length < classes && rest > NEGATIVE) {
    prefix *= Math.exp(rest - sums[length - 1]);
    const listed = new Uint8Array(classes);
    for (const id of list.ids) listed[id] = 1;
    for (let j = 0; j < classes; j++) {
      if (listed[j] === 0) row[j] = Math.exp(student[r * classes + j] - rest) * prefix;
    }
  }
  for (let j = 0; j < classes; j++) {
    gradient[r * classes + j] = (overwrite ? 0 : gradient[r * classes + j]) + scale * row[j];
  }
}

function evaluateRow(request: PlackettLuceRequest, r: number, into: PlackettLuceRows): void {
  const { student, classes, tail, ranks = 0, firstRow = 0 } = request;
  const logits = student.subarray(r * classes, (r + 1) * classes);
  requireLegal(logits, firstRow + r, 'student');
  const list = rankedList(request, r);
  const scores = Float64Array.from(list.ids, (id) => logits[id]);
  requireUnmasked(request, r, list, scores);
  const outside = tailLogSum(logits, list.ids);
  const sums = suffixLogSums(scores, tail === 'partial' ? outside : NEGATIVE);
  let loss = 0;
  for (let k = 0; k < scores.length; k++) {
    if (list.weights[k] === 0) continue;
    const term = list.weights[k] * (sums[k] - scores[k]);
    loss += term;
    if (k < ranks) into.contributions[r * ranks + k] = term;
  }
  const { figures } = into;
  figures.loss[r] = loss;
  figures.firstWeight[r] = list.weights[0];
  figures.labelRank[r] = list.labelRank;
  figures.tailWeight[r] = list.tailWeight;
  figures.weightEntropy[r] = list.entropy;
  figures.studentTail[r] = outside === NEGATIVE ? 0 : Math.exp(outside - logSumExp(logits, 1));
  figures.agreement[r] = topOf(logits) === list.top ? 1 : 0;
  writeGradient(request, r, list, { scores, sums });
}

function topOf(logits: Floats): number {
  let top = 0;
  for (let j = 1; j < logits.length; j++) if (logits[j] > logits[top]) top = j;
  return top;
}

/** Fills the figures of all rows and the gradient. Rows from `from` up to `to` alone, where given. */
export function plackettLuceReference(
  request: PlackettLuceRequest,
  into: PlackettLuceRows,
  from = 0,
  to = request.rows,
): void {
  const { labels, classes, gradient, overwrite = false } = request;
  for (let r = from; r < to; r++) {
    if (classes > 0 && labels?.[r] !== IGNORED) evaluateRow(request, r, into);
    else if (overwrite) gradient?.fill(0, r * classes, (r + 1) * classes);
  }
}
