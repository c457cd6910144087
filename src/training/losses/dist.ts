import { logSumExpRow } from '../../kernels/loss-rows-reference.js';
import { type Floats, IGNORED, type Loss, type LossGradients, type LossInput, type LossOutput } from '../types.js';
import { checkRows, denseTeacher, refuseRow } from './checks.js';
import { choiceOf, declareLoss, numberOf } from './declare.js';

const EPSILON = 1e-8;

/** Softmaxes at `temperature` of the rows that count, [count, classes]. */
function softmaxRows(logits: Floats, counted: Int32Array, classes: number, temperature: number): Float64Array {
  const result = new Float64Array(counted.length * classes);
  counted.forEach((row, i) => {
    const logZ = logSumExpRow(logits, row * classes, classes, 1 / temperature);
    for (let j = 0; j < classes; j++) {
      result[i * classes + j] = Math.exp(logits[row * classes + j] / temperature - logZ);
    }
  });
  return result;
}

interface Vectors {
  readonly student: Float64Array;
  readonly teacher: Float64Array;
  /** dL/dstudent, added to. */
  readonly gradient: Float64Array | undefined;
  /** Number of vectors, entries of one, and the distances between vectors and between entries in the arrays. */
  readonly count: number;
  readonly size: number;
  readonly vectorStride: number;
  readonly entryStride: number;
}

/**
 * 1 - mean Pearson correlation of paired vectors, as the cosine of centred ones with |x||y| + 1e-8 below, and `weight`
 * times its gradient.
 */
function correlationGap({ student, teacher, gradient, ...layout }: Vectors, weight: number): number {
  const { count, size, vectorStride, entryStride } = layout;
  let total = 0;
  for (let v = 0; v < count; v++) {
    const at = (i: number): number => v * vectorStride + i * entryStride;
    let meanX = 0;
    let meanY = 0;
    for (let i = 0; i < size; i++) {
      meanX += student[at(i)];
      meanY += teacher[at(i)];
    }
    meanX /= size;
    meanY /= size;
    let product = 0;
    let squareX = 0;
    let squareY = 0;
    for (let i = 0; i < size; i++) {
      const x = student[at(i)] - meanX;
      const y = teacher[at(i)] - meanY;
      product += x * y;
      squareX += x * x;
      squareY += y * y;
    }
    const normX = Math.sqrt(squareX);
    const normY = Math.sqrt(squareY);
    const below = normX * normY + EPSILON;
    total += product / below;
    if (gradient === undefined) continue;
    // Both terms are centred already, so the derivative of the centring changes nothing.
    const byY = -weight / (count * below);
    const byX = normX === 0 ? 0 : (weight * product * normY) / (count * below * below * normX);
    for (let i = 0; i < size; i++) {
      gradient[at(i)] += byY * (teacher[at(i)] - meanY) + byX * (student[at(i)] - meanX);
    }
  }
  return count === 0 ? 0 : 1 - total / count;
}

/** Adds `scale` dL/dlogits from dL/dsoftmax, of the rows that count. */
function throughSoftmax(
  probabilities: Float64Array,
  upstream: Float64Array,
  counted: Int32Array,
  classes: number,
  { logits, scale }: { logits: Floats; scale: number },
): void {
  counted.forEach((row, i) => {
    const at = i * classes;
    let mean = 0;
    for (let j = 0; j < classes; j++) mean += probabilities[at + j] * upstream[at + j];
    for (let j = 0; j < classes; j++) {
      logits[row * classes + j] += scale * probabilities[at + j] * (upstream[at + j] - mean);
    }
  });
}

interface Settings {
  readonly beta: number;
  readonly gamma: number;
  readonly tau: number;
  readonly factor: number;
}

function evaluateDist(settings: Settings, input: LossInput, gradients?: LossGradients): LossOutput {
  const { beta, gamma, tau, factor } = settings;
  const validRows = checkRows(input, 'dist', false);
  const teacherLogits = denseTeacher(input, 'dist').logits;
  const { rows, classes, labels } = input;
  const counted = Int32Array.from({ length: rows }, (_, row) => row).filter((row) => labels?.[row] !== IGNORED);
  if (validRows === 0) return { sum: 0, validRows };
  const student = softmaxRows(input.student, counted, classes, tau);
  const teacher = softmaxRows(teacherLogits, counted, classes, tau);
  const gradient = gradients === undefined ? undefined : new Float64Array(student.length);
  const shared = { student, teacher, gradient };
  const rowShape = { count: validRows, size: classes, vectorStride: classes, entryStride: 1 };
  const columnShape = { count: classes, size: validRows, vectorStride: 1, entryStride: classes };
  const rowPart = correlationGap({ ...shared, ...rowShape }, beta);
  const columnPart = correlationGap({ ...shared, ...columnShape }, gamma);
  const value = factor * (beta * rowPart + gamma * columnPart);
  if (Number.isNaN(value)) {
    const bad = counted.find((_, i) => Number.isNaN(student[i * classes] + teacher[i * classes]));
    refuseRow(input, bad ?? 0, 'dist', value);
  }
  if (gradients !== undefined && gradient !== undefined) {
    const scale = ((gradients.scale ?? 1) * factor * validRows) / tau;
    throughSoftmax(student, gradient, counted, classes, { logits: gradients.logits, scale });
  }
  const diagnostics = {
    dist_rows: rowPart * validRows,
    dist_columns: columnPart * validRows,
    // Correlations over one row are all 0: the column part is constant and teaches nothing.
    dist_single_row_batches: validRows === 1 ? 1 : 0,
  };
  return { sum: value * validRows, validRows, diagnostics };
}

/**
 * beta (1 - mean correlation of rows) + gamma (1 - mean correlation of columns) of the softmaxes at tau (Huang et al.
 * 2022). `scale=tau2` multiplies by tau^2, as the authors' classification code does. A loss of the whole batch: with one
 * row the column part is constant, which `dist_single_row_batches` counts.
 */
export const dist = declareLoss({
  name: 'dist',
  summary: 'correlation of class probabilities with the teacher over rows (beta) and over columns (gamma)',
  parameters: { beta: 1, gamma: 1, tau: 1, scale: 'none' },
  build(parameters): Omit<Loss, 'label'> {
    const tau = numberOf('dist', parameters, 'tau', { above: 0 });
    const settings = {
      beta: numberOf('dist', parameters, 'beta', { from: 0 }),
      gamma: numberOf('dist', parameters, 'gamma', { from: 0 }),
      tau,
      factor: choiceOf('dist', parameters, 'scale', ['none', 'tau2']) === 'tau2' ? tau * tau : 1,
    };
    return {
      scope: 'batch',
      reads: { teacher: 'dense', labels: false, features: false },
      evaluate: (input, gradients) => evaluateDist(settings, input, gradients),
    };
  },
});
