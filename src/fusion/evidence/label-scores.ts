import { midRanks } from '../../linalg/correlation.js';

/** What predictions are worth. Every mean stands with its standard error; NaN where there is nothing to average. */
export interface LabelScores {
  readonly rows: number;
  readonly accuracy: number;
  readonly accuracySe: number;
  /** Rows with at least some evidence, and accuracy on them. */
  readonly decided: number;
  readonly decidedAccuracy: number;
  readonly decidedAccuracySe: number;
  /** Accuracy of always naming the most frequent label of these rows. */
  readonly majorityAccuracy: number;
  /** Mean of the F1 of every label that occurs or is predicted. */
  readonly macroF1: number;
  /** Area under the ROC curve of the probability of the first label, with the standard error of DeLong et al. (1988). */
  readonly auc: number;
  readonly aucSe: number;
  /** Mean squared error of that probability. */
  readonly brier: number;
  readonly brierSe: number;
  /** Mean distance of predicted and observed shares over the bins, weighted by their rows. */
  readonly calibrationError: number;
}

/** Predictions with what was true. */
export interface LabelledPredictions {
  /** True and predicted labels [n]; 0 is the label of interest. */
  readonly truth: Int32Array;
  readonly predicted: Int32Array;
  /** Probability of label 0 [n]. */
  readonly probability: Float64Array;
  /** Mass on more than one label [n]; 1 is ignorance. */
  readonly unknown: Float64Array;
}

export interface CalibrationBin {
  readonly rows: number;
  readonly predicted: number;
  readonly observed: number;
  readonly standardError: number;
}

export const CALIBRATION_BINS = 10;

function meanOf(n: number, value: (i: number) => number): { mean: number; se: number } {
  if (n === 0) return { mean: Number.NaN, se: Number.NaN };
  let sum = 0;
  for (let i = 0; i < n; i++) sum += value(i);
  const mean = sum / n;
  let squares = 0;
  for (let i = 0; i < n; i++) squares += (value(i) - mean) ** 2;
  return { mean, se: n > 1 ? Math.sqrt(squares / (n - 1) / n) : Number.NaN };
}

/** Mean and standard error of the values that are numbers. */
export function meanAndError(values: readonly number[]): { mean: number; se: number } {
  const kept = values.filter((value) => !Number.isNaN(value));
  return meanOf(kept.length, (i) => kept[i]);
}

/** Macro F1 as scikit-learn has it: a label without prediction or without row counts 0. */
export function macroF1(truth: Int32Array, predicted: Int32Array): number {
  const labels = [...new Set([...truth, ...predicted])];
  let sum = 0;
  for (const label of labels) {
    let [hits, named, there] = [0, 0, 0];
    for (let i = 0; i < truth.length; i++) {
      if (truth[i] === label) there++;
      if (predicted[i] === label) named++;
      if (truth[i] === label && predicted[i] === label) hits++;
    }
    sum += (2 * hits) / (named + there);
  }
  return labels.length > 0 ? sum / labels.length : Number.NaN;
}

/**
 * Area under the ROC curve, ties counted half, with the standard error of DeLong, DeLong and Clarke-Pearson (1988) by
 * mid-ranks (Sun and Xu 2014). NaN where one of the classes is absent.
 */
export function areaUnderCurve(positive: Float64Array, negative: Float64Array): { auc: number; se: number } {
  const [m, n] = [positive.length, negative.length];
  if (m === 0 || n === 0) return { auc: Number.NaN, se: Number.NaN };
  const all = Float64Array.from([...positive, ...negative]);
  const ranks = midRanks(all);
  const [own, others] = [midRanks(positive), midRanks(negative)];
  const above = Float64Array.from(positive, (_, i) => (ranks[i] - own[i]) / n);
  const below = Float64Array.from(negative, (_, j) => 1 - (ranks[m + j] - others[j]) / m);
  const first = meanOf(m, (i) => above[i]);
  const second = meanOf(n, (j) => below[j]);
  return { auc: first.mean, se: Math.hypot(first.se, second.se) };
}

/** Rows by ten equal intervals of the predicted probability. */
export function calibrationBins({ truth, probability }: LabelledPredictions): CalibrationBin[] {
  return binned(probability, (i) => (truth[i] === 0 ? 1 : 0));
}

/** Share of wrong labels by ten equal intervals of the mass on more than one label. */
export function errorByUnknown({ truth, predicted, unknown }: LabelledPredictions): CalibrationBin[] {
  return binned(unknown, (i) => (truth[i] === predicted[i] ? 0 : 1));
}

function binned(x: Float64Array, y: (i: number) => number): CalibrationBin[] {
  const bins = Array.from({ length: CALIBRATION_BINS }, () => ({ rows: 0, predicted: 0, observed: 0 }));
  x.forEach((value, i) => {
    const bin = bins[Math.min(CALIBRATION_BINS - 1, Math.floor(value * CALIBRATION_BINS))];
    bin.rows++;
    bin.predicted += value;
    bin.observed += y(i);
  });
  return bins.map(({ rows, predicted, observed }) => {
    const share = observed / rows;
    return {
      rows,
      predicted: predicted / rows,
      observed: share,
      standardError: Math.sqrt((share * (1 - share)) / rows),
    };
  });
}

export function scoreLabels(predictions: LabelledPredictions): LabelScores {
  const { truth, predicted, probability, unknown } = predictions;
  const n = truth.length;
  const right = (i: number): number => (truth[i] === predicted[i] ? 1 : 0);
  const decided = Int32Array.from(truth, (_, i) => i).filter((i) => unknown[i] < 1);
  const counts = new Map<number, number>();
  for (const label of truth) counts.set(label, (counts.get(label) ?? 0) + 1);
  const accuracy = meanOf(n, right);
  const onDecided = meanOf(decided.length, (i) => right(decided[i]));
  const { auc, se: aucSe } = areaUnderCurve(
    probability.filter((_, i) => truth[i] === 0),
    probability.filter((_, i) => truth[i] !== 0),
  );
  const brier = meanOf(n, (i) => (probability[i] - (truth[i] === 0 ? 1 : 0)) ** 2);
  const calibration = calibrationBins(predictions).filter(({ rows }) => rows > 0);
  return {
    rows: n,
    accuracy: accuracy.mean,
    accuracySe: accuracy.se,
    decided: decided.length,
    decidedAccuracy: onDecided.mean,
    decidedAccuracySe: onDecided.se,
    majorityAccuracy: n > 0 ? Math.max(...counts.values()) / n : Number.NaN,
    macroF1: macroF1(truth, predicted),
    auc,
    aucSe,
    brier: brier.mean,
    brierSe: brier.se,
    calibrationError: calibration.reduce(
      (sum, bin) => sum + (bin.rows / n) * Math.abs(bin.predicted - bin.observed),
      0,
    ),
  };
}
