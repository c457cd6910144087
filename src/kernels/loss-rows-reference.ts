/**
 * Losses of rows of logits and their gradients, written out plainly in float64: what the native family computes, and
 * what runs where it is missing.
 */

export type Floats = Float32Array | Float64Array;

/** A loss of one row of student logits, of the label or of teacher logits over the same classes. */
export type RowOperation =
  /** -log softmax(s)[y], or the cross-entropy of the smoothed target (1 - smoothing) onehot + smoothing / classes. */
  | { readonly kind: 'cross-entropy'; readonly smoothing: number }
  /** KL(p_t || p_s) of the softmaxes of logits / temperature. */
  | { readonly kind: 'forward-kl'; readonly temperature: number }
  /** KL(p_s || p_t). */
  | { readonly kind: 'reverse-kl'; readonly temperature: number }
  /** beta KL(p_t || M) + (1 - beta) KL(p_s || M), M = (1 - beta) p_s + beta p_t, 0 < beta < 1. */
  | { readonly kind: 'jsd'; readonly temperature: number; readonly beta: number }
  /** sum |p_s - p_t| / 2. */
  | { readonly kind: 'total-variation'; readonly temperature: number }
  /** ((p^(tau - 1) - 1) / (1 - tau), p = softmax(s)[y]; -log p at tau = 1. */
  | { readonly kind: 'comp-sum'; readonly tau: number };

export interface LossRows {
  readonly rows: number;
  readonly classes: number;
  /** [rows, classes]. */
  readonly student: Floats;
  /** [rows, classes] logits, for the operations that read a teacher. */
  readonly teacher?: Floats;
  /** [rows]; rows with a negative label are left out. Without labels every row counts. */
  readonly labels?: Int32Array;
  /** [rows]: receives the losses in nats; 0 where a row is left out. */
  readonly losses: Float64Array;
  /** [rows, classes]: `scale` times the derivative of each row's loss is added. */
  readonly gradient?: Floats;
  /** Default 1. */
  readonly scale?: number;
}

/** A row of logits times `factor`, ready for its log-softmax: v * factor - max - logSum, which keeps the digits of both. */
interface Softmax {
  readonly factor: number;
  readonly max: number;
  readonly logSum: number;
}

function softmaxOf(values: Floats, at: number, count: number, factor: number): Softmax {
  let max = Number.NEGATIVE_INFINITY;
  for (let j = at; j < at + count; j++) if (values[j] > max) max = values[j];
  max *= factor;
  let sum = 0;
  for (let j = at; j < at + count; j++) sum += Math.exp(values[j] * factor - max);
  return { factor, max, logSum: Math.log(sum) };
}

const logProbability = (value: number, { factor, max, logSum }: Softmax): number => value * factor - max - logSum;

/** log sum exp(values[at + j] * factor) over `count` entries. NaN where an entry is NaN or +Infinity, or all are -Infinity. */
export function logSumExpRow(values: Floats, at: number, count: number, factor = 1): number {
  const { max, logSum } = softmaxOf(values, at, count, factor);
  return max + logSum;
}

/** log sum over the classes other than `label` of exp(s_j - s_label): log((1 - p) / p). NaN as in `logSumExpRow`. */
export function logOddsAgainst(values: Floats, at: number, count: number, label: number): number {
  if (values[at + label] === Number.POSITIVE_INFINITY) return Number.NaN;
  let max = Number.NEGATIVE_INFINITY;
  for (let j = 0; j < count; j++) if (j !== label && values[at + j] > max) max = values[at + j];
  if (max === Number.NEGATIVE_INFINITY) {
    // One class, or all others masked; NaN entries must still show.
    let check = 0;
    for (let j = 0; j < count; j++) if (j !== label) check += Math.exp(values[at + j]);
    return check + max - (values[at + label] > Number.NEGATIVE_INFINITY ? 0 : Number.NEGATIVE_INFINITY);
  }
  let sum = 0;
  for (let j = 0; j < count; j++) if (j !== label) sum += Math.exp(values[at + j] - max);
  return max + Math.log(sum) - values[at + label];
}

/** log(1 + e^x) without overflow and without loss for small e^x. */
export function softplus(x: number): number {
  return x > 0 ? x + Math.log1p(Math.exp(-x)) : Math.log1p(Math.exp(x));
}

interface Row {
  readonly student: Floats;
  readonly teacher: Floats;
  readonly at: number;
  readonly classes: number;
  readonly label: number;
  readonly gradient: Floats | undefined;
  readonly scale: number;
}

function crossEntropyRow({ student, at, classes, label, gradient, scale }: Row, smoothing: number): number {
  const againstLabel = logOddsAgainst(student, at, classes, label);
  const labelLoss = softplus(againstLabel);
  const normaliser = student[at + label] + labelLoss;
  let loss = labelLoss;
  if (smoothing > 0) {
    let sum = 0;
    for (let j = at; j < at + classes; j++) sum += normaliser - student[j];
    loss = (1 - smoothing) * labelLoss + (smoothing / classes) * sum;
  }
  if (gradient !== undefined) {
    const uniform = smoothing / classes;
    for (let j = 0; j < classes; j++) {
      const p = j === label ? 0 : Math.exp(student[at + j] - normaliser);
      gradient[at + j] += scale * (p - uniform);
    }
    // p - 1 of the label, kept to the last digit of a confident row.
    gradient[at + label] += scale * (smoothing - Math.exp(-softplus(-againstLabel)));
  }
  return loss;
}

function forwardKlRow({ student, teacher, at, classes, gradient, scale }: Row, temperature: number): number {
  const factor = 1 / temperature;
  const own = softmaxOf(student, at, classes, factor);
  const given = softmaxOf(teacher, at, classes, factor);
  let loss = 0;
  for (let j = at; j < at + classes; j++) {
    const logS = logProbability(student[j], own);
    const logT = logProbability(teacher[j], given);
    const t = Math.exp(logT);
    if (t !== 0) loss += t * (logT - logS);
    if (gradient !== undefined) gradient[j] += scale * factor * (Math.exp(logS) - t);
  }
  return loss;
}

function reverseKlRow({ student, teacher, at, classes, gradient, scale }: Row, temperature: number): number {
  const factor = 1 / temperature;
  const own = softmaxOf(student, at, classes, factor);
  const given = softmaxOf(teacher, at, classes, factor);
  let loss = 0;
  for (let j = at; j < at + classes; j++) {
    const logS = logProbability(student[j], own);
    const s = Math.exp(logS);
    if (s !== 0) loss += s * (logS - logProbability(teacher[j], given));
  }
  if (gradient === undefined) return loss;
  for (let j = at; j < at + classes; j++) {
    const logS = logProbability(student[j], own);
    const s = Math.exp(logS);
    if (s !== 0) gradient[j] += scale * factor * s * (logS - logProbability(teacher[j], given) - loss);
  }
  return loss;
}

function logAddExp(a: number, b: number): number {
  const high = Math.max(a, b);
  return high === Number.NEGATIVE_INFINITY ? high : high + Math.log1p(Math.exp(-Math.abs(a - b)));
}

function jsdRow(row: Row, temperature: number, beta: number): number {
  const { student, teacher, at, classes, gradient, scale } = row;
  const factor = 1 / temperature;
  const own = softmaxOf(student, at, classes, factor);
  const given = softmaxOf(teacher, at, classes, factor);
  const logStudentShare = Math.log1p(-beta);
  const logTeacherShare = Math.log(beta);
  let teacherPart = 0;
  let studentPart = 0;
  for (let j = at; j < at + classes; j++) {
    const logS = logProbability(student[j], own);
    const logT = logProbability(teacher[j], given);
    const logM = logAddExp(logS + logStudentShare, logT + logTeacherShare);
    const s = Math.exp(logS);
    const t = Math.exp(logT);
    if (t !== 0) teacherPart += t * (logT - logM);
    if (s !== 0) studentPart += s * (logS - logM);
  }
  if (gradient !== undefined) {
    const weight = scale * factor * (1 - beta);
    for (let j = at; j < at + classes; j++) {
      const logS = logProbability(student[j], own);
      const s = Math.exp(logS);
      if (s === 0) continue;
      const logT = logProbability(teacher[j], given);
      const logM = logAddExp(logS + logStudentShare, logT + logTeacherShare);
      gradient[j] += weight * s * (logS - logM - studentPart);
    }
  }
  return beta * teacherPart + (1 - beta) * studentPart;
}

function totalVariationRow({ student, teacher, at, classes, gradient, scale }: Row, temperature: number): number {
  const factor = 1 / temperature;
  const own = softmaxOf(student, at, classes, factor);
  const given = softmaxOf(teacher, at, classes, factor);
  let sum = 0;
  let mean = 0;
  for (let j = at; j < at + classes; j++) {
    const s = Math.exp(logProbability(student[j], own));
    const difference = s - Math.exp(logProbability(teacher[j], given));
    sum += Math.abs(difference);
    mean += s * Math.sign(difference);
  }
  if (gradient !== undefined) {
    for (let j = at; j < at + classes; j++) {
      const s = Math.exp(logProbability(student[j], own));
      const sign = Math.sign(s - Math.exp(logProbability(teacher[j], given)));
      gradient[j] += scale * factor * 0.5 * s * (sign - mean);
    }
  }
  return 0.5 * sum;
}

/** Comp-sum loss from log p: expm1((tau - 1) log p) / (1 - tau), and -log p at tau = 1. +Infinity where it overflows. */
export function compSumOfLogProbability(logP: number, tau: number): number {
  return tau === 1 ? -logP : Math.expm1((tau - 1) * logP) / (1 - tau);
}

function compSumRow({ student, at, classes, label, gradient, scale }: Row, tau: number): number {
  const against = logOddsAgainst(student, at, classes, label);
  const logP = -softplus(against);
  const loss = compSumOfLogProbability(logP, tau);
  if (gradient !== undefined) {
    const normaliser = student[at + label] - logP;
    const logWeight = (tau - 1) * logP;
    for (let j = 0; j < classes; j++) {
      // The weight may overflow where its product with the probability does not.
      if (j !== label) gradient[at + j] += scale * Math.exp(logWeight + student[at + j] - normaliser);
    }
    // 1 - p = e^against / (1 + e^against), kept to the last digit of a confident row.
    gradient[at + label] -= scale * Math.exp(logWeight - softplus(-against));
  }
  return loss;
}

function rowLoss(operation: RowOperation, row: Row): number {
  switch (operation.kind) {
    case 'cross-entropy':
      return crossEntropyRow(row, operation.smoothing);
    case 'forward-kl':
      return forwardKlRow(row, operation.temperature);
    case 'reverse-kl':
      return reverseKlRow(row, operation.temperature);
    case 'jsd':
      return jsdRow(row, operation.temperature, operation.beta);
    case 'total-variation':
      return totalVariationRow(row, operation.temperature);
    case 'comp-sum':
      return compSumRow(row, operation.tau);
  }
}

/** As `lossRows`, in TypeScript. */
export function lossRowsReference(operation: RowOperation, request: LossRows): void {
  const { rows, classes, student, labels, losses, gradient, scale = 1 } = request;
  const teacher = request.teacher ?? student;
  for (let row = 0; row < rows; row++) {
    const label = labels === undefined ? 0 : labels[row];
    losses[row] =
      label < 0 ? 0 : rowLoss(operation, { student, teacher, at: row * classes, classes, label, gradient, scale });
  }
}
