/**
 * Smooth adversarial comp-sum losses: Phi^tau of the label plus nu times the largest change of margins
 * ||D(x') - D(x)||_2, D(x) = (h_y(x) - h_j(x)) over j != y, within a ball about x (Mao, Mohri and Zhong 2023).
 */

import { InputError } from '../../errors.js';
import { multiply } from '../../kernels/gemm.js';
import { symmetricEigenvalues } from '../../linalg/symmetric-eigenvalues.js';
import { type Floats, IGNORED, type Loss, type LossGradients, type LossInput, type LossOutput } from '../types.js';
import { choiceOf, declareLoss, numberOf } from './declare.js';
import { evaluateRows } from './row-loss.js';

/** h = X W^T + b: points [rows, width], weights [classes, width], bias [classes]; scores [rows, classes]. */
export function linearScores(
  points: Float64Array,
  weights: Float64Array,
  bias: Float64Array,
  { rows, classes, width }: { rows: number; classes: number; width: number },
): Float64Array {
  const scores = Float64Array.from({ length: rows * classes }, (_, i) => bias[i % classes]);
  return multiply(points, weights, scores, { m: rows, n: classes, k: width }, { transposeB: true, beta: 1 });
}

/** ||D(x') - D(x)||_2 of one row of logits; `at` and `otherAt` are the places of h(x) and h(x'). */
export function marginChange(
  logits: Floats,
  at: number,
  perturbed: Floats,
  otherAt: number,
  { classes, label }: { classes: number; label: number },
): number {
  const own = perturbed[otherAt + label] - logits[at + label];
  let square = 0;
  for (let j = 0; j < classes; j++) {
    const change = own - (perturbed[otherAt + j] - logits[at + j]);
    square += change * change;
  }
  return Math.sqrt(square);
}

/**
 * The supremum for linear scores h = W x + b over an L2 ball: radius times the largest singular value of the matrix of
 * rows w_y - w_j.
 *
 * @param weights W, [classes, width]
 * @returns [classes]: the supremum for each label
 */
export function linearMarginSuprema(weights: Floats, classes: number, width: number, radius: number): Float64Array {
  // The Gram matrix of differences from w_y follows from that of the rows of W.
  const gram = new Float64Array(classes * classes);
  for (let i = 0; i < classes; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = 0;
      for (let d = 0; d < width; d++) sum += weights[i * width + d] * weights[j * width + d];
      gram[i * classes + j] = sum;
      gram[j * classes + i] = sum;
    }
  }
  return Float64Array.from({ length: classes }, (_, y) => {
    const others = Array.from({ length: classes }, (_, j) => j).filter((j) => j !== y);
    if (others.length === 0) return 0;
    const packed: number[] = [];
    others.forEach((i, row) => {
      for (const j of others.slice(0, row + 1)) {
        packed.push(gram[y * classes + y] - gram[y * classes + i] - gram[y * classes + j] + gram[i * classes + j]);
      }
    });
    const values = symmetricEigenvalues(Float64Array.from(packed), others.length);
    return radius * Math.sqrt(Math.max(0, ...values));
  });
}

/**
 * The largest change over given perturbed logits: a LOWER estimate of the supremum.
 *
 * @param perturbed [rows, copies, classes]
 * @returns [rows]
 */
export function finiteSetMarginChange(
  logits: Floats,
  perturbed: Floats,
  labels: Int32Array,
  { classes, copies }: { classes: number; copies: number },
): Float64Array {
  return Float64Array.from(labels, (label, row) => {
    let largest = 0;
    for (let copy = 0; copy < copies; copy++) {
      const otherAt = (row * copies + copy) * classes;
      largest = Math.max(largest, marginChange(logits, row * classes, perturbed, otherAt, { classes, label }));
    }
    return largest;
  });
}

/**
 * Adds `scale` times the derivative of a row's ||D(x') - D(x)|| by h(x) and h(x'), and returns the norm. At zero, where
 * there is none, it adds nothing.
 */
export function addMarginGradient(
  logits: Floats,
  at: number,
  otherAt: number,
  { classes, label, scale }: { classes: number; label: number; scale: number },
  gradient: Floats,
): number {
  const norm = marginChange(logits, at, logits, otherAt, { classes, label });
  if (norm === 0) return 0;
  const own = logits[otherAt + label] - logits[at + label];
  let total = 0;
  for (let j = 0; j < classes; j++) {
    const share = (scale * (own - (logits[otherAt + j] - logits[at + j]))) / norm;
    total += share;
    gradient[otherAt + j] -= share;
    gradient[at + j] += share;
  }
  gradient[otherAt + label] += total;
  gradient[at + label] -= total;
  return norm;
}

function evaluatePairs(tau: number, nu: number, input: LossInput, gradients?: LossGradients): LossOutput {
  const name = 'smooth-adversarial';
  if (input.rows % 2 !== 0) {
    throw new InputError(`loss ${name} reads each row beside its perturbed copy; it got ${input.rows} rows`);
  }
  const rows = input.rows / 2;
  const { classes, student, labels } = input;
  if (labels?.subarray(rows, input.rows).some((label) => label !== IGNORED)) {
    throw new InputError(`loss ${name}: the second half of a batch must be perturbed copies; it trains classifiers`);
  }
  const operation = { kind: 'comp-sum', tau } as const;
  const plan = { name, operation, labels: true, teacher: false, allowInfinite: true };
  const clean = evaluateRows(plan, { ...input, rows }, gradients);
  const perRow = new Float64Array(input.rows);
  let changes = 0;
  for (let row = 0; row < rows; row++) {
    const label = labels?.[row] ?? IGNORED;
    if (label === IGNORED) continue;
    const at = row * classes;
    const otherAt = (rows + row) * classes;
    const change =
      gradients === undefined
        ? marginChange(student, at, student, otherAt, { classes, label })
        : addMarginGradient(
            student,
            at,
            otherAt,
            { classes, label, scale: nu * (gradients.scale ?? 1) },
            gradients.logits,
          );
    perRow[row] = (clean.perRow?.[row] ?? 0) + nu * change;
    changes += change;
  }
  const sum = clean.sum + nu * changes;
  return { sum, validRows: clean.validRows, perRow, diagnostics: { margin_change: changes, comp_sum: clean.sum } };
}

/**
 * The loss over a batch whose second half are the perturbed copies of the first, their labels IGNORED: comp-sum of the
 * first half, and nu times the change of margins of every pair. `radius`, `norm` and `steps` say how the trainer seeks
 * the copies (`src/training/perturbed-batches.ts`). The guarantees of the paper ask for nu >= sqrt(n - 1) / rho.
 */
export const smoothAdversarial = declareLoss({
  name: 'smooth-adversarial',
  summary: 'comp-sum of the label plus nu times the change of margins that a small perturbation can make',
  parameters: { tau: 1, nu: 1, radius: 0.1, norm: 'inf', steps: 5 },
  build(parameters): Omit<Loss, 'label'> {
    const tau = numberOf('smooth-adversarial', parameters, 'tau', { from: 0 });
    const nu = numberOf('smooth-adversarial', parameters, 'nu', { from: 0 });
    const steps = numberOf('smooth-adversarial', parameters, 'steps', { from: 1 });
    if (!Number.isInteger(steps)) throw new InputError(`loss smooth-adversarial: steps must be whole; it is ${steps}`);
    const perturbation = {
      radius: numberOf('smooth-adversarial', parameters, 'radius', { above: 0 }),
      norm: choiceOf('smooth-adversarial', parameters, 'norm', ['2', 'inf']),
      steps,
    };
    return {
      perturbation,
      scope: 'batch',
      reads: { teacher: 'none', labels: true, features: false },
      evaluate: (input, gradients) => evaluatePairs(tau, nu, input, gradients),
    };
  },
});
