/** Bins of confidence of the calibration error. */
export const ECE_BINS = 15;

/** How good predicted class probabilities are. */
export interface ClassMetrics {
  readonly accuracy: number;
  /** Mean of -log p of the true class. */
  readonly nllNats: number;
  readonly nllNatsSe: number;
  /** Expected calibration error: confidence of the likeliest class against accuracy, 15 bins of equal width. */
  readonly ece: number;
  /** Of every row: whether the likeliest class (the first of equals) is the true one. */
  readonly correct: Uint8Array;
}

/** Logits `[rows, classes]` to probabilities, in place. */
export function softmaxRows(logits: Float64Array, rows: number, classes: number): Float64Array {
  for (let r = 0; r < rows; r++) {
    let max = Number.NEGATIVE_INFINITY;
    for (let k = 0; k < classes; k++) max = Math.max(max, logits[r * classes + k]);
    let total = 0;
    for (let k = 0; k < classes; k++) {
      logits[r * classes + k] = Math.exp(logits[r * classes + k] - max);
      total += logits[r * classes + k];
    }
    for (let k = 0; k < classes; k++) logits[r * classes + k] /= total;
  }
  return logits;
}

/** -log softmax(logits)[label] of every row, without forming a probability that may underflow. */
export function nllOfLogits(logits: Float64Array, labels: ArrayLike<number>, classes: number): Float64Array {
  return Float64Array.from(labels, (label, r) => {
    let max = Number.NEGATIVE_INFINITY;
    for (let k = 0; k < classes; k++) max = Math.max(max, logits[r * classes + k]);
    let total = 0;
    for (let k = 0; k < classes; k++) total += Math.exp(logits[r * classes + k] - max);
    return max + Math.log(total) - logits[r * classes + label];
  });
}

/**
 * Metrics of probabilities `[rows, classes]`.
 * @param nll -log p of the true class, where it is known better than from the probabilities
 */
export function classMetrics(
  probabilities: Float64Array,
  labels: ArrayLike<number>,
  classes: number,
  nll?: Float64Array,
): ClassMetrics {
  const rows = labels.length;
  const correct = new Uint8Array(rows);
  const confidence = new Float64Array(ECE_BINS);
  const hits = new Float64Array(ECE_BINS);
  const losses = nll ?? Float64Array.from(labels, (label, r) => -Math.log(probabilities[r * classes + label]));
  let right = 0;
  let mean = 0;
  for (let r = 0; r < rows; r++) {
    let best = 0;
    for (let k = 1; k < classes; k++) if (probabilities[r * classes + k] > probabilities[r * classes + best]) best = k;
    const sure = probabilities[r * classes + best];
    const bin = Math.min(ECE_BINS - 1, Math.max(0, Math.ceil(sure * ECE_BINS) - 1));
    correct[r] = best === labels[r] ? 1 : 0;
    confidence[bin] += sure;
    hits[bin] += correct[r];
    right += correct[r];
    mean += losses[r] / rows;
  }
  let squares = 0;
  for (let r = 0; r < rows; r++) squares += (losses[r] - mean) ** 2;
  let ece = 0;
  for (let b = 0; b < ECE_BINS; b++) ece += Math.abs(confidence[b] - hits[b]) / rows;
  const nllNatsSe = rows > 1 ? Math.sqrt(squares / (rows - 1) / rows) : Number.NaN;
  return { accuracy: right / rows, nllNats: mean, nllNatsSe, ece, correct };
}

/** How good predicted amounts are. */
export interface AmountMetrics {
  readonly mse: number;
  readonly mseSe: number;
  /** 1 - mse / variance of the targets of this split; NaN where they are constant. */
  readonly r2: number;
  readonly squaredErrors: Float64Array;
}

export function amountMetrics(predictions: Float64Array, targets: Float64Array): AmountMetrics {
  const rows = targets.length;
  const squaredErrors = predictions.map((value, r) => (value - targets[r]) ** 2);
  const mean = (values: Float64Array): number => values.reduce((sum, value) => sum + value, 0) / rows;
  const mse = mean(squaredErrors);
  const centre = mean(targets);
  const variance = mean(targets.map((value) => (value - centre) ** 2));
  const spread = squaredErrors.reduce((sum, value) => sum + (value - mse) ** 2, 0);
  return {
    mse,
    mseSe: rows > 1 ? Math.sqrt(spread / (rows - 1) / rows) : Number.NaN,
    r2: variance > 0 ? 1 - mse / variance : Number.NaN,
    squaredErrors,
  };
}
