import { type Floats, logSumExpRow } from './loss-rows-reference.js';

/** How the probability that a top-k row leaves over is treated. */
export type LeftoverRule =
  /** The teacher is renormalised on its listed classes. */
  | 'zero'
  /** All other classes are one category, for teacher and student alike: the same density of both over them drops out. */
  | 'symmetric-uniform';

/** A teacher of top-k rows, and where losses and gradients go. */
export interface SparseRows {
  readonly rows: number;
  readonly classes: number;
  /** [rows, classes]. */
  readonly student: Floats;
  readonly k: number;
  /** [rows, k]; a row ends early at -1. No class comes twice in a row. */
  readonly ids: Int32Array;
  /** [rows, k]: logs of probabilities over all classes. */
  readonly logProbs: Floats;
  /** [rows]: probability of all other classes. */
  readonly leftover: Floats;
  readonly temperature: number;
  readonly rule: LeftoverRule;
  /** [rows]; rows with a negative label are left out. */
  readonly labels?: Int32Array;
  readonly losses: Float64Array;
  readonly gradient?: Floats;
  readonly scale?: number;
}

/** log sum over the classes that are not listed of exp(s_j / T); -Infinity where none is left. */
function tailLogSum(scratch: Floats, request: SparseRows, row: number, listed: number): number {
  const { classes, student, ids, k, temperature } = request;
  scratch.set(student.subarray(row * classes, (row + 1) * classes));
  for (let i = 0; i < listed; i++) scratch[ids[row * k + i]] = Number.NEGATIVE_INFINITY;
  let largest = Number.NEGATIVE_INFINITY;
  for (let j = 0; j < classes; j++) if (scratch[j] > largest) largest = scratch[j];
  return largest === Number.NEGATIVE_INFINITY ? largest : logSumExpRow(scratch, 0, classes, 1 / temperature);
}

function sparseKlRow(request: SparseRows, scratch: Floats, row: number): number {
  const { classes, student, ids, logProbs, k, temperature, rule, gradient, scale = 1 } = request;
  const factor = 1 / temperature;
  const at = row * classes;
  let listed = 0;
  while (listed < k && ids[row * k + listed] >= 0) listed++;
  const logZ = logSumExpRow(student, at, classes, factor);
  const grouped = rule === 'symmetric-uniform';
  // With every class listed nothing is left, whatever rounding says.
  const leftover = grouped && listed < classes ? request.leftover[row] : 0;
  // Weights p^(1/T), the leftover as one category.
  let mass = leftover > 0 ? leftover ** factor : 0;
  for (let i = row * k; i < row * k + listed; i++) mass += Math.exp(logProbs[i] * factor);
  if (mass === 0) return 0;
  const logMass = Math.log(mass);
  let loss = 0;
  for (let i = row * k; i < row * k + listed; i++) {
    const logQ = logProbs[i] * factor - logMass;
    const q = Math.exp(logQ);
    if (q !== 0) loss += q * (logQ - (student[at + ids[i]] * factor - logZ));
  }
  const logRest = leftover > 0 ? Math.log(leftover) * factor - logMass : Number.NEGATIVE_INFINITY;
  const rest = Math.exp(logRest);
  const logTail = rest === 0 ? 0 : tailLogSum(scratch, request, row, listed);
  if (rest !== 0) loss += rest * (logRest - (logTail - logZ));
  if (gradient === undefined) return loss;
  const each = scale * factor;
  for (let j = 0; j < classes; j++) {
    // The scratch row holds -Infinity at the listed classes: their exponentials by the tail's sum could overflow.
    const tailShare = rest === 0 ? 0 : rest * Math.exp(scratch[j] * factor - logTail);
    gradient[at + j] += each * (Math.exp(student[at + j] * factor - logZ) - tailShare);
  }
  for (let i = row * k; i < row * k + listed; i++) {
    gradient[at + ids[i]] -= each * Math.exp(logProbs[i] * factor - logMass);
  }
  return loss;
}

/** As `sparseRows`, in TypeScript. */
export function sparseRowsReference(request: SparseRows): void {
  const { rows, classes, labels, losses } = request;
  const scratch = request.student instanceof Float32Array ? new Float32Array(classes) : new Float64Array(classes);
  for (let row = 0; row < rows; row++) {
    losses[row] = labels !== undefined && labels[row] < 0 ? 0 : sparseKlRow(request, scratch, row);
  }
}
