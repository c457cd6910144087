import { type AttentionRows, ROW_PROPER } from './attention.js';
import { isPenalised } from './attention-regulariser.js';
import type { RegulariserSettings } from './attention-settings.js';
import { addExact, type ExactSum, mergeExact, totalOf } from './exact-sum.js';

/** Exact sums over the rows of one head whose deviation delta = e - theta E_max costs. */
export interface PenaltySums {
  rows: number;
  readonly squares: ExactSum;
  readonly deviations: ExactSum;
}

export function createPenalties(count: number): PenaltySums[] {
  return Array.from({ length: count }, () => ({ rows: 0, squares: [], deviations: [] }));
}

/** Adds the rows `[heads, queries]` of one layer. */
export function addPenalties(
  penalties: readonly PenaltySums[],
  rows: AttentionRows,
  layer: number,
  heads: number,
  settings: RegulariserSettings,
): void {
  const maximum = Math.log(settings.contextSize);
  const queries = rows.entropyNats.length / heads;
  for (let head = 0; head < heads; head++) {
    const at = layer * heads + head;
    const wanted = settings.thresholds[at] * maximum;
    for (let row = head * queries; row < (head + 1) * queries; row++) {
      if (rows.state[row] !== ROW_PROPER) continue;
      const delta = rows.entropyNats[row] - wanted;
      if (!isPenalised(delta, settings.gamma * maximum)) continue;
      penalties[at].rows++;
      addExact(penalties[at].squares, delta * delta);
      addExact(penalties[at].deviations, delta);
    }
  }
}

/** Adds `other` into `penalties`; exact, so the order of parts leaves no trace. */
export function mergePenalties(penalties: readonly PenaltySums[], other: readonly PenaltySums[]): void {
  penalties.forEach((sums, i) => {
    sums.rows += other[i].rows;
    mergeExact(sums.squares, other[i].squares);
    mergeExact(sums.deviations, other[i].deviations);
  });
}

/** Loss of a corpus and its gradient by the thresholds. */
export interface CorpusLoss {
  /** With lambda. */
  readonly loss: number;
  /** Without lambda, summed as the reduction says: `loss = lambda * unscaled`. */
  readonly unscaled: number;
  /** Share of each head in `loss`, `[layers * heads]`. */
  readonly headLoss: Float64Array;
  /** d loss / d theta, `[layers * heads]`. */
  readonly thresholdGradient: Float64Array;
}

/**
 * The loss from sums over all rows (`code`) or from head means (`algorithm1`); see `attentionRegulariser`.
 * @param means mean entropy of every head over all rows, nats, `[layers * heads]`
 */
export function corpusLoss(
  penalties: readonly PenaltySums[],
  means: Float64Array,
  settings: RegulariserSettings,
): CorpusLoss {
  const maximum = Math.log(settings.contextSize);
  const scale = settings.lambda / penalties.length;
  const headLoss = new Float64Array(penalties.length);
  const thresholdGradient = new Float64Array(penalties.length);
  penalties.forEach((sums, i) => {
    const [square, deviation] =
      settings.reduction === 'code'
        ? [totalOf(sums.squares), totalOf(sums.deviations)]
        : meanPenalty(means[i] - settings.thresholds[i] * maximum, settings.gamma * maximum);
    headLoss[i] = scale * square;
    thresholdGradient[i] = deviation === 0 ? 0 : -2 * scale * maximum * deviation;
  });
  const unscaled = headLoss.reduce((sum, part) => sum + part, 0) / settings.lambda;
  return { loss: settings.lambda * unscaled, unscaled, headLoss, thresholdGradient };
}

function meanPenalty(delta: number, tolerance: number): [square: number, deviation: number] {
  return isPenalised(delta, tolerance) ? [delta * delta, delta] : [0, 0];
}

/**
 * d loss / d t from sums over rows, `[layers * heads, positions]`: of 2 delta Var(z) / t over penalised rows (`code`), of
 * Var(z) / t over all (`algorithm1`).
 * @param counts proper rows of each head
 */
export function corpusTemperatureGradient(
  sums: Float64Array,
  means: Float64Array,
  counts: ArrayLike<number>,
  settings: RegulariserSettings,
): Float64Array {
  const maximum = Math.log(settings.contextSize);
  const scale = settings.lambda / means.length;
  const positions = sums.length / means.length;
  return sums.map((sum, at) => {
    if (settings.reduction === 'code') return scale * sum;
    const head = Math.floor(at / positions);
    const [, delta] = meanPenalty(means[head] - settings.thresholds[head] * maximum, settings.gamma * maximum);
    return delta === 0 ? 0 : (scale * 2 * delta * sum) / counts[head];
  });
}
