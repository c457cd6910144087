/**
 * Mixtures of models under log loss: sequential regret, posterior, and what it would have cost to know the best model
 * (Feder, Urbanke and Fogel, "The Universality Lens", 2025; universal prediction of individual sequences). All in nats.
 */
import { InputError } from '../errors.js';
import { logSumExpRow } from '../kernels/loss-rows-reference.js';

/** How far the prior's sum may be from 1. */
const PRIOR_TOLERANCE = 1e-9;

export interface Prior {
  /** [models], sum 1. */
  readonly weights: Float64Array;
  /** The given weights did not sum to 1, and were divided by this. */
  readonly normalisedBy?: number;
}

/** @throws InputError for negative weights, or none above 0 */
export function priorOf(models: number, weights?: ArrayLike<number>): Prior {
  if (weights === undefined) return { weights: new Float64Array(models).fill(1 / models) };
  if (weights.length !== models) throw new InputError(`the prior has ${weights.length} weights for ${models} models`);
  let sum = 0;
  for (let m = 0; m < models; m++) {
    if (!(weights[m] >= 0 && Number.isFinite(weights[m]))) {
      throw new InputError(`the prior weight of model ${m} is ${weights[m]}`);
    }
    sum += weights[m];
  }
  if (sum === 0) throw new InputError('every prior weight is 0');
  const given = Float64Array.from(weights);
  if (Math.abs(sum - 1) <= PRIOR_TOLERANCE) return { weights: given };
  return { weights: given.map((weight) => weight / sum), normalisedBy: sum };
}

/** Softmax of logs; undefined where all are -Infinity. */
function normalised(logs: Float64Array): Float64Array | undefined {
  const logZ = logSumExpRow(logs, 0, logs.length);
  return Number.isNaN(logZ) ? undefined : logs.map((value) => Math.exp(value - logZ));
}

/** exp of the entropy of weights that sum to 1. */
export function effectiveNumber(weights: Float64Array): number {
  let entropy = 0;
  for (const weight of weights) if (weight > 0) entropy -= weight * Math.log(weight);
  return Math.exp(entropy);
}

/** A mixture that has seen some records. */
export interface Mixture {
  readonly models: number;
  /** Records seen. */
  readonly seen: number;
  /** [models]: sums of the losses. */
  readonly totals: Float64Array;
  /** Sum of the mixture's losses. */
  readonly total: number;
  /** Sum of the losses of the plain average of all models' probabilities. */
  readonly averageTotal: number;
  /**
   * The mixture's loss of the next record, from the posterior before it, which the record then changes.
   *
   * @param losses [models], Infinity for probability 0
   * @throws InputError with the record when every model that is left gives it probability 0, or for NaN
   */
  observe(losses: ArrayLike<number>): { readonly mixture: number; readonly average: number };
  /** The mixture's loss of a record by the posterior as it is. */
  predict(losses: ArrayLike<number>): number;
  posterior(): Float64Array;
}

/** A Bayesian mixture in O(models) memory; weights are kept as logs and renormalised at every record. */
export function createMixture(prior: Float64Array): Mixture {
  const models = prior.length;
  const logPosterior = prior.map(Math.log);
  const joint = new Float64Array(models);
  const totals = new Float64Array(models);
  const state = { seen: 0, total: 0, averageTotal: 0 };
  const lossOf = (losses: ArrayLike<number>): number => {
    for (let m = 0; m < models; m++) {
      const loss = losses[m];
      if (Number.isNaN(loss) || loss === Number.NEGATIVE_INFINITY) {
        throw new InputError(`log losses, model ${m}, record ${state.seen}: ${loss}`);
      }
      joint[m] = logPosterior[m] - loss;
    }
    const logP = logSumExpRow(joint, 0, models);
    if (!Number.isFinite(logP)) {
      throw new InputError(`record ${state.seen}: every model that is left gives it probability 0`);
    }
    return -logP;
  };
  const negative = new Float64Array(models);
  const logModels = Math.log(models);
  return {
    models,
    totals,
    get seen() {
      return state.seen;
    },
    get total() {
      return state.total;
    },
    get averageTotal() {
      return state.averageTotal;
    },
    predict: lossOf,
    observe(losses) {
      const mixture = lossOf(losses);
      for (let m = 0; m < models; m++) {
        logPosterior[m] = joint[m] + mixture;
        totals[m] += losses[m];
        negative[m] = -losses[m];
      }
      const average = logModels - logSumExpRow(negative, 0, models);
      state.seen++;
      state.total += mixture;
      state.averageTotal += average;
      return { mixture, average };
    },
    posterior: () => normalised(logPosterior) ?? prior.slice(),
  };
}

/**
 * Posterior with the likelihood to the power beta, from total losses [models].
 *
 * @throws InputError when every model has an infinite loss
 */
export function temperedPosterior(prior: Float64Array, totals: ArrayLike<number>, beta: number): Float64Array {
  const posterior = normalised(prior.map((weight, m) => Math.log(weight) - (beta === 0 ? 0 : beta * totals[m])));
  if (posterior === undefined) throw new InputError('every model has an infinite total loss');
  return posterior;
}

/** Log-loss records [models, records] of labels under log-probabilities [models, records, classes]. */
export function lossRecords(
  logProbs: ArrayLike<number>,
  labels: Int32Array,
  { models, classes }: { models: number; classes: number },
): Float64Array {
  const records = labels.length;
  const losses = new Float64Array(models * records);
  for (let m = 0; m < models; m++) {
    for (let t = 0; t < records; t++) {
      const label = labels[t];
      if (label < 0 || label >= classes) {
        throw new InputError(`record ${t}: label ${label} is outside the ${classes} classes`);
      }
      losses[m * records + t] = -logProbs[(m * records + t) * classes + label];
    }
  }
  return losses;
}

/** Mean over records of KL(reference || model), [models], from log-probabilities [models, records, classes]. */
export function divergencesFrom(
  reference: number,
  logProbs: ArrayLike<number>,
  { models, records, classes }: { models: number; records: number; classes: number },
): Float64Array {
  return Float64Array.from({ length: models }, (_, m) => {
    let sum = 0;
    for (let i = 0; i < records * classes; i++) {
      const own = logProbs[reference * records * classes + i];
      const p = Math.exp(own);
      if (p > 0) sum += p * (own - logProbs[m * records * classes + i]);
    }
    return m === reference ? 0 : sum / records;
  });
}

/** Divergences estimated from loss records of data that the reference generated. */
export interface EstimatedDivergences {
  readonly values: Float64Array;
  /** Models whose estimate was negative, and is 0. */
  readonly clamped: readonly number[];
}

/** Means of the loss differences to the reference: an estimate that may be negative, and is clamped at 0. */
export function estimateDivergences(
  reference: number,
  totals: ArrayLike<number>,
  records: number,
): EstimatedDivergences {
  const clamped: number[] = [];
  const values = Float64Array.from(totals, (total, m) => {
    const difference = (total - totals[reference]) / records;
    if (difference < 0) clamped.push(m);
    return Math.max(0, difference);
  });
  return { values, clamped };
}
