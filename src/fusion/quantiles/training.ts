import { RunError } from '../../errors.js';
import type { Random } from '../../random.js';
import type { Aggregator } from './aggregator.js';
import { amsgrad } from './amsgrad.js';
import { crossingPenalty } from './crossing-penalty.js';
import { smoothPinball, smoothPinballSlope } from './pinball.js';

/** The loss of a batch: mean smoothed pinball loss over rows and levels, and lambda times the mean crossing penalty. */
export interface TrainingLoss {
  readonly levels: Float64Array;
  /** Half-width of the rounded corner; 0 for the pinball loss itself. */
  readonly smoothing: number;
  readonly crossing: number;
  /** `[m, m]` of `marginTable`. */
  readonly margins: Float64Array;
}

export interface TrainingSettings {
  readonly learningRate: number;
  readonly penalty: number;
  readonly batchRows: number;
  readonly mostSteps: number;
  readonly evaluateEvery: number;
  readonly patience: number;
}

/** Settings of the authors' code; the batch follows the number of rows. */
export const CODE_TRAINING: Omit<TrainingSettings, 'batchRows'> = {
  learningRate: 1e-3,
  penalty: 1e-7,
  mostSteps: 20_000,
  evaluateEvery: 100,
  patience: 500,
};

/** 2^(3 + floor(log10 N)). */
export const batchRowsOf = (rows: number): number => 2 ** (3 + Math.floor(Math.log10(Math.max(1, rows))));

/**
 * Loss of a batch and, where wanted, dL/dq `[rows, m]`. Cells whose outcome or quantile is missing do not count.
 */
export function batchLoss(
  quantiles: Float64Array,
  outcomes: ArrayLike<number>,
  rows: ArrayLike<number>,
  loss: TrainingLoss,
  slopes?: Float64Array,
): number {
  const { levels, smoothing, crossing, margins } = loss;
  const m = levels.length;
  const scale = 1 / (rows.length * m);
  let sum = 0;
  for (let at = 0; at < rows.length; at++) {
    const y = outcomes[rows[at]];
    for (let j = 0, cell = at * m; j < m; j++, cell++) {
      const error = y - quantiles[cell];
      if (Number.isNaN(error)) continue;
      sum += smoothPinball(levels[j], error, smoothing);
      if (slopes) slopes[cell] += scale * smoothPinballSlope(levels[j], error, smoothing);
    }
  }
  let total = sum * scale;
  if (crossing > 0) {
    total += (crossing * crossingPenalty(quantiles, m, margins, slopes, crossing / rows.length)) / rows.length;
  }
  return total;
}

/** Mean pinball loss over rows and levels, batch by batch. */
export function evaluateAggregator(
  aggregator: Aggregator,
  parameters: Float64Array,
  outcomes: ArrayLike<number>,
  rows: Int32Array,
  levels: Float64Array,
  batchRows = 1024,
): number {
  const plain: TrainingLoss = { levels, smoothing: 0, crossing: 0, margins: new Float64Array(0) };
  let sum = 0;
  for (let start = 0; start < rows.length; start += batchRows) {
    const batch = rows.subarray(start, start + batchRows);
    sum += batch.length * batchLoss(aggregator.forward(parameters, batch), outcomes, batch, plain);
  }
  return sum / rows.length;
}

export interface TrainingRun {
  readonly parameters: Float64Array;
  readonly steps: number;
  /** Best mean pinball loss on the validation rows; NaN without them. */
  readonly validation: number;
  readonly bestSteps: number;
}

/**
 * Trains an aggregator by minibatches: epochs of seeded permutations, amsgrad, the validation loss every so many steps,
 * and an end when it has not improved for `patience` steps. Without validation rows exactly `mostSteps` steps are taken.
 * @returns the parameters of the best validation loss, or the last ones
 * @throws RunError when the loss is no number
 */
export function trainAggregator(
  aggregator: Aggregator,
  outcomes: ArrayLike<number>,
  rows: Int32Array,
  validation: Int32Array,
  loss: TrainingLoss,
  settings: TrainingSettings,
  random: Random,
): TrainingRun {
  const m = loss.levels.length;
  const parameters = aggregator.initial(random.fork(0));
  const order = random.fork(1);
  const dropout = random.fork(2);
  const move = amsgrad(aggregator.parameterCount, settings);
  const gradient = new Float64Array(aggregator.parameterCount);
  const judged = validation.length > 0;
  const judge = (): number => evaluateAggregator(aggregator, parameters, outcomes, validation, loss.levels);
  let best = judged ? judge() : Number.NaN;
  let kept = parameters.slice();
  let bestSteps = 0;
  let steps = 0;
  const batchRows = Math.min(settings.batchRows, rows.length);
  while (steps < settings.mostSteps) {
    const shuffled = order.permutation(rows.length).map((at) => rows[at]);
    for (let start = 0; start + batchRows <= shuffled.length && steps < settings.mostSteps; start += batchRows) {
      const batch = shuffled.subarray(start, start + batchRows);
      const slopes = new Float64Array(batch.length * m);
      const value = batchLoss(aggregator.forward(parameters, batch, dropout), outcomes, batch, loss, slopes);
      if (!Number.isFinite(value)) {
        throw new RunError(`the loss became ${value} at step ${steps}; scale the outcomes or lower the learning rate`);
      }
      gradient.fill(0);
      aggregator.backward(parameters, slopes, gradient);
      move(parameters, gradient);
      steps++;
      if (!judged || steps % settings.evaluateEvery !== 0) continue;
      const now = judge();
      if (now < best) {
        best = now;
        bestSteps = steps;
        kept = parameters.slice();
      } else if (steps - bestSteps >= settings.patience) {
        return { parameters: kept, steps, validation: best, bestSteps };
      }
    }
  }
  return judged
    ? { parameters: kept, steps, validation: best, bestSteps }
    : { parameters, steps, validation: best, bestSteps: steps };
}
