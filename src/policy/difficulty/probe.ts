import { multiply } from '../../kernels/gemm.js';
import type { Standardisation } from '../../linalg/linear-probe.js';

/** A probe of one hidden layer: softmax(W2 ReLU(W1 z + b1) + b2) of the standardised features z (spec 8.2). */
export interface DifficultyProbe {
  readonly features: number;
  readonly hidden: number;
  readonly classes: number;
  /** [hidden, features], [hidden], [classes, hidden], [classes]. */
  readonly w1: Float32Array | Float64Array;
  readonly b1: Float32Array | Float64Array;
  readonly w2: Float32Array | Float64Array;
  readonly b2: Float32Array | Float64Array;
  /** Of the training split; features are taken as they are when absent. */
  readonly standardisation?: Pick<Standardisation, 'mean' | 'scale'>;
}

type Floats = Float32Array | Float64Array;

const like = (model: Floats, length: number): Floats =>
  model instanceof Float32Array ? new Float32Array(length) : new Float64Array(length);

/** Features [rows, features] in place: minus the mean, over the scale. */
export function standardiseRows(
  x: Floats,
  rows: number,
  { mean, scale }: Pick<Standardisation, 'mean' | 'scale'>,
): void {
  const features = mean.length;
  for (let r = 0, i = 0; r < rows; r++) for (let j = 0; j < features; j++, i++) x[i] = (x[i] - mean[j]) / scale[j];
}

/** Activations of the hidden layer behind the ReLU, [rows, hidden]. */
export function hiddenRows(probe: DifficultyProbe, z: Floats, rows: number, threads?: number): Floats {
  const { features, hidden, w1, b1 } = probe;
  const out = like(w1, rows * hidden);
  for (let r = 0; r < rows; r++) out.set(b1, r * hidden);
  multiply(z, w1, out, { m: rows, n: hidden, k: features }, { transposeB: true, beta: 1, ...(threads && { threads }) });
  for (let i = 0; i < out.length; i++) if (!(out[i] > 0)) out[i] = 0;
  return out;
}

/** Logits [rows, classes] of activations [rows, hidden]. */
export function headRows(probe: DifficultyProbe, activations: Floats, rows: number): Floats {
  const { hidden, classes, w2, b2 } = probe;
  const logits = like(w2, rows * classes);
  for (let r = 0; r < rows; r++) logits.set(b2, r * classes);
  return multiply(activations, w2, logits, { m: rows, n: classes, k: hidden }, { transposeB: true, beta: 1 });
}

/**
 * Logits of features [rows, features] as they are stored; they are standardised first where the probe says so.
 * @returns [rows, classes]
 */
export function probeLogits(probe: DifficultyProbe, features: Floats, rows: number): Floats {
  const z = like(probe.w1, rows * probe.features);
  z.set(features.subarray(0, z.length));
  if (probe.standardisation) standardiseRows(z, rows, probe.standardisation);
  return headRows(probe, hiddenRows(probe, z, rows), rows);
}

/** Softmax of every row of logits [rows, classes]. */
export function softmaxRows(logits: Floats, classes: number): Float64Array {
  const p = Float64Array.from(logits);
  for (let at = 0; at < p.length; at += classes) {
    let most = Number.NEGATIVE_INFINITY;
    for (let c = 0; c < classes; c++) most = Math.max(most, p[at + c]);
    let sum = 0;
    for (let c = 0; c < classes; c++) sum += p[at + c] = Math.exp(p[at + c] - most);
    for (let c = 0; c < classes; c++) p[at + c] /= sum;
  }
  return p;
}

/** Likeliest class of every row, the first of equals. */
export function predictedClasses(probabilities: ArrayLike<number>, classes: number): Uint8Array {
  const rows = probabilities.length / classes;
  return Uint8Array.from({ length: rows }, (_, r) => {
    let best = 0;
    for (let c = 1; c < classes; c++) if (probabilities[r * classes + c] > probabilities[r * classes + best]) best = c;
    return best;
  });
}

/** Mean cross-entropy of labels, nats. */
export function crossEntropyNats(probabilities: ArrayLike<number>, labels: ArrayLike<number>, classes: number): number {
  let sum = 0;
  for (let r = 0; r < labels.length; r++) sum -= Math.log(probabilities[r * classes + labels[r]]);
  return sum / labels.length;
}

/** How predictions fit labels. */
export interface ProbeScore {
  readonly rows: number;
  readonly accuracy: number;
  readonly accuracySe: number;
  /** Mean over classes of the harmonic mean of precision and recall; a class that is neither true nor predicted counts 0. */
  readonly macroF1: number;
  readonly crossEntropyNats: number;
  /** [true][predicted] */
  readonly confusion: readonly (readonly number[])[];
}

/** @param probabilities [rows, classes] */
export function scoreProbabilities(
  probabilities: ArrayLike<number>,
  labels: ArrayLike<number>,
  classes: number,
): ProbeScore {
  const predicted = predictedClasses(probabilities, classes);
  const confusion = Array.from({ length: classes }, () => new Array<number>(classes).fill(0));
  for (let r = 0; r < labels.length; r++) confusion[labels[r]][predicted[r]]++;
  const right = confusion.reduce((sum, row, c) => sum + row[c], 0);
  const f1 = confusion.map((row, c) => {
    const actual = row.reduce((sum, n) => sum + n, 0);
    const claimed = confusion.reduce((sum, other) => sum + other[c], 0);
    return actual + claimed === 0 ? 0 : (2 * row[c]) / (actual + claimed);
  });
  const accuracy = right / labels.length;
  return {
    rows: labels.length,
    accuracy,
    accuracySe: Math.sqrt((accuracy * (1 - accuracy)) / labels.length),
    macroF1: f1.reduce((sum, one) => sum + one, 0) / classes,
    crossEntropyNats: crossEntropyNats(probabilities, labels, classes),
    confusion,
  };
}
