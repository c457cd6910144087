import { gatherCalibration } from '../training/calibration.js';
import { type Floats, IGNORED } from '../training/types.js';

/** How a classifier does on labelled rows; rows labelled `IGNORED` are left out. */
export interface ClassMetrics {
  readonly rows: number;
  readonly accuracy: number;
  readonly accuracyError: number;
  /** Mean of -log p(label), in nats, and its standard error. */
  readonly nllNats: number;
  readonly nllError: number;
  /** Expected calibration error over 15 equal bins of the greatest probability (Guo et al. 2017). */
  readonly calibrationError: number;
  /** Mean entropy of the predictions, in nats. */
  readonly entropyNats: number;
  /** Share of rows whose likeliest class is the teacher's. */
  readonly agreement?: number;
  readonly agreementError?: number;
  /** Mean of KL(teacher || student), in nats. */
  readonly klNats?: number;
  readonly klError?: number;
}

/** log sum exp of a row, its sum in f64. */
function logSumExp(logits: Floats, start: number, classes: number): number {
  let most = -Infinity;
  for (let c = 0; c < classes; c++) most = Math.max(most, logits[start + c]);
  if (most === -Infinity) return most;
  let sum = 0;
  for (let c = 0; c < classes; c++) sum += Math.exp(logits[start + c] - most);
  return most + Math.log(sum);
}

/** First of the greatest entries of a row. */
export function likeliestClass(logits: Floats, start: number, classes: number): number {
  let best = 0;
  for (let c = 1; c < classes; c++) if (logits[start + c] > logits[start + best]) best = c;
  return best;
}

/** Mean and standard error of the mean from sums. */
function meanOf(sum: number, squares: number, rows: number): [number, number] {
  const mean = sum / rows;
  const variance = rows > 1 ? Math.max(0, squares - rows * mean * mean) / (rows - 1) : Number.NaN;
  return [mean, Math.sqrt(variance / rows)];
}

/**
 * @param logits [rows, classes]
 * @param teacher [rows, classes], where there is one
 */
export function measureClassifier(logits: Floats, labels: Int32Array, classes: number, teacher?: Floats): ClassMetrics {
  const counted = labels.reduce((count, label) => count + (label === IGNORED ? 0 : 1), 0);
  const calibration = gatherCalibration();
  const sums = { hits: 0, nll: 0, nllSquares: 0, entropy: 0, agree: 0, kl: 0, klSquares: 0 };
  labels.forEach((label, row) => {
    if (label === IGNORED) return;
    const start = row * classes;
    const normaliser = logSumExp(logits, start, classes);
    const best = likeliestClass(logits, start, classes);
    calibration.add(Math.exp(logits[start + best] - normaliser), best === label);
    if (best === label) sums.hits++;
    const nll = normaliser - logits[start + label];
    sums.nll += nll;
    sums.nllSquares += nll * nll;
    for (let c = 0; c < classes; c++) {
      const logP = logits[start + c] - normaliser;
      const p = Math.exp(logP);
      if (p > 0) sums.entropy -= p * logP;
    }
    if (!teacher) return;
    sums.agree += likeliestClass(teacher, start, classes) === best ? 1 : 0;
    const kl = divergence(teacher, logits, start, classes, normaliser);
    sums.kl += kl;
    sums.klSquares += kl * kl;
  });
  const [accuracy, accuracyError] = meanOf(sums.hits, sums.hits, counted);
  const [nllNats, nllError] = meanOf(sums.nll, sums.nllSquares, counted);
  const own = {
    rows: counted,
    accuracy,
    accuracyError,
    nllNats,
    nllError,
    calibrationError: calibration.finish().error,
    entropyNats: sums.entropy / counted,
  };
  if (!teacher) return own;
  const [agreement, agreementError] = meanOf(sums.agree, sums.agree, counted);
  const [klNats, klError] = meanOf(sums.kl, sums.klSquares, counted);
  return { ...own, agreement, agreementError, klNats, klError };
}

/** KL(teacher || student) of one row. */
function divergence(teacher: Floats, student: Floats, start: number, classes: number, normaliser: number): number {
  const own = logSumExp(teacher, start, classes);
  let sum = 0;
  for (let c = start; c < start + classes; c++) {
    const logP = teacher[c] - own;
    const p = Math.exp(logP);
    if (p > 0) sum += p * (logP - (student[c] - normaliser));
  }
  return sum;
}
