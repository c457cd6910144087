/** Comp-sum losses of rows of logits beside the zero-one error that they certify, gathered block by block. */
import { InputError } from '../errors.js';
import { compSumOfLogProbability, type Floats, logOddsAgainst, softplus } from '../kernels/loss-rows-reference.js';
import { IGNORED } from '../training/types.js';
import {
  bestBoundedLoss,
  bestConditionalRisk,
  checkTau,
  errorOfSurrogate,
  simpleErrorBound,
} from './comp-sum-bounds.js';

/** Rounding that a bound which is attained may miss by. */
const SLACK = 1e-12;

export interface CompSumOptions {
  readonly taus: readonly number[];
  readonly classes: number;
  /** Bound on |score|, for the least loss that bounded scores reach. */
  readonly scoreBound?: number;
}

export interface CompSumBlock {
  readonly rows: number;
  /** [rows, classes]. */
  readonly logits: Floats;
  /** [rows]; IGNORED rows count nowhere. */
  readonly labels?: Int32Array;
  /** [rows, classes]: label probabilities; without them a label has probability 1. */
  readonly conditional?: Float64Array;
  /** Place of the first row, for messages. */
  readonly firstRow?: number;
}

const QUANTILES = [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1] as const;

export interface QuantileRow {
  readonly q: number;
  readonly value: number;
}

/** One tau. Losses are nats at tau = 1 and of the loss's own scale elsewhere. */
export interface CompSumFigures {
  readonly tau: number;
  /** Mean loss of the labels; absent without labels. */
  readonly mean_loss?: number;
  readonly mean_loss_se?: number;
  /** Mean over rows of sum_i p_i loss(i). */
  readonly conditional_risk: number;
  /** Mean over rows of the least such risk. */
  readonly bayes_conditional_risk: number;
  readonly surrogate_excess: number;
  readonly gamma_exact: number;
  readonly gamma_simple: number;
  readonly zero_one_excess: number;
  readonly bound_holds: boolean;
  /** gamma_exact - zero_one_excess. */
  readonly slack: number;
  /** Bound on the error rate on the labels from their mean loss; absent without labels. */
  readonly certified_error?: number;
  /** Least mean loss that scores within the bound reach. */
  readonly best_bounded_loss?: number;
  /** Quantiles of the row losses of the labels, and of their gradient weights p^(tau - 1). */
  readonly loss_quantiles: readonly QuantileRow[];
  readonly gradient_weight_quantiles: readonly QuantileRow[];
}

export interface CompSumAudit {
  readonly rows: number;
  readonly classes: number;
  /** `conditional`: p was given and the bound holds for it; `one-hot`: the labels are certain. */
  readonly distribution: 'conditional' | 'one-hot';
  /** Share of labels that are not the first largest logit. */
  readonly error_on_labels?: number;
  readonly conditional_error: number;
  readonly bayes_error: number;
  readonly by_tau: readonly CompSumFigures[];
  /** Rows whose loss overflows at some tau, at most ten, by place. */
  readonly overflowing_rows: readonly number[];
}

interface Sums {
  readonly risk: Float64Array;
  readonly best: Float64Array;
  conditionalError: number;
  bayesError: number;
}

function firstLargest(logits: Floats, at: number, classes: number): number {
  let best = 0;
  for (let j = 1; j < classes; j++) if (logits[at + j] > logits[at + best]) best = j;
  return best;
}

/** log softmax of one entry, with the digits of a confident row. */
const logProbability = (logits: Floats, at: number, classes: number, label: number): number =>
  -softplus(logOddsAgainst(logits, at, classes, label));

function checkDistribution(p: Float64Array, place: number): void {
  let sum = 0;
  for (const value of p) {
    if (!(value >= 0)) throw new InputError(`label probabilities, row ${place}: ${value}`);
    sum += value;
  }
  if (Math.abs(sum - 1) > 1e-6) {
    throw new InputError(`label probabilities, row ${place}: they sum to ${sum}, not to 1`);
  }
}

function addConditional(sums: Sums, taus: readonly number[], block: CompSumBlock, classes: number, row: number): void {
  const { logits, conditional, firstRow = 0 } = block;
  if (conditional === undefined) return;
  const at = row * classes;
  const p = conditional.subarray(at, at + classes);
  checkDistribution(p, firstRow + row);
  const logs = Float64Array.from(p, (value, i) => (value > 0 ? logProbability(logits, at, classes, i) : 0));
  taus.forEach((tau, t) => {
    let risk = 0;
    for (let i = 0; i < classes; i++) if (p[i] > 0) risk += p[i] * compSumOfLogProbability(logs[i], tau);
    sums.risk[t] += risk;
    sums.best[t] += bestConditionalRisk(p, tau);
  });
  sums.conditionalError += 1 - p[firstLargest(logits, at, classes)];
  sums.bayesError += 1 - p.reduce((most, value) => Math.max(most, value), 0);
}

function quantileRows(ascending: Float64Array, map: (value: number) => number): QuantileRow[] {
  if (ascending.length === 0) return [];
  return QUANTILES.map((q) => {
    const place = q * (ascending.length - 1);
    const low = map(ascending[Math.floor(place)]);
    const high = map(ascending[Math.ceil(place)]);
    const share = place - Math.floor(place);
    return { q, value: share === 0 || low === high ? low : low + share * (high - low) };
  });
}

/** A gatherer of rows; memory is one number a row. */
export interface CompSumGatherer {
  /** @throws InputError for logits that are no numbers, p that is no distribution, labels outside the classes */
  add(block: CompSumBlock): void;
  finish(): CompSumAudit;
}

/** @throws InputError for a tau below 0 */
export function gatherCompSum(options: CompSumOptions): CompSumGatherer {
  const { classes, scoreBound } = options;
  const taus = options.taus.map(checkTau);
  const sums: Sums = {
    ...{ risk: new Float64Array(taus.length), best: new Float64Array(taus.length) },
    ...{ conditionalError: 0, bayesError: 0 },
  };
  const logs: number[] = [];
  const overflowing: number[] = [];
  let wrong = 0;
  let conditionalRows = 0;

  const addLabel = (block: CompSumBlock, row: number, label: number): void => {
    const place = (block.firstRow ?? 0) + row;
    if (label < 0 || label >= classes) {
      throw new InputError(`row ${place}: label ${label} is outside the ${classes} classes`);
    }
    const logP = logProbability(block.logits, row * classes, classes, label);
    if (Number.isNaN(logP)) throw new InputError(`student logits, row ${place}: a logit is NaN or +Infinity`);
    logs.push(logP);
    if (firstLargest(block.logits, row * classes, classes) !== label) wrong++;
    const infinite = taus.some((tau) => !Number.isFinite(compSumOfLogProbability(logP, tau)));
    if (infinite && overflowing.length < 10) overflowing.push(place);
  };

  const figuresOf = (tau: number, t: number, ascending: Float64Array): CompSumFigures => {
    const labelled = logs.length > 0;
    const losses = Float64Array.from(ascending, (logP) => compSumOfLogProbability(logP, tau));
    const mean = losses.reduce((sum, value) => sum + value, 0) / losses.length;
    const spread = losses.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    const conditional = conditionalRows > 0;
    const risk = conditional ? sums.risk[t] / conditionalRows : mean;
    const best = conditional ? sums.best[t] / conditionalRows : 0;
    const excess = risk - best;
    const gamma = errorOfSurrogate(excess, tau, classes);
    const error = conditional
      ? (sums.conditionalError - sums.bayesError) / conditionalRows
      : wrong / Math.max(1, logs.length);
    return {
      tau,
      ...(labelled && { mean_loss: mean }),
      ...(losses.length > 1 && { mean_loss_se: Math.sqrt(spread / (losses.length - 1) / losses.length) }),
      conditional_risk: risk,
      bayes_conditional_risk: best,
      surrogate_excess: excess,
      gamma_exact: gamma,
      gamma_simple: simpleErrorBound(excess, tau, classes),
      zero_one_excess: error,
      bound_holds: error <= gamma + SLACK,
      slack: gamma - error,
      ...(labelled && { certified_error: errorOfSurrogate(mean, tau, classes) }),
      ...(scoreBound !== undefined && { best_bounded_loss: bestBoundedLoss(classes, scoreBound, tau) }),
      loss_quantiles: quantileRows(ascending.slice().reverse(), (logP) => compSumOfLogProbability(logP, tau)),
      gradient_weight_quantiles: quantileRows(tau < 1 ? ascending.slice().reverse() : ascending, (logP) =>
        Math.exp((tau - 1) * logP),
      ),
    };
  };

  return {
    add(block) {
      for (let row = 0; row < block.rows; row++) {
        const label = block.labels?.[row];
        if (label === IGNORED) continue;
        if (label !== undefined) addLabel(block, row, label);
        if (block.conditional === undefined) continue;
        addConditional(sums, taus, block, classes, row);
        conditionalRows++;
      }
    },
    finish() {
      const ascending = Float64Array.from(logs).sort();
      const conditional = conditionalRows > 0;
      const error = wrong / Math.max(1, logs.length);
      return {
        rows: conditional ? conditionalRows : logs.length,
        classes,
        distribution: conditional ? 'conditional' : 'one-hot',
        ...(logs.length > 0 && { error_on_labels: error }),
        conditional_error: conditional ? sums.conditionalError / conditionalRows : error,
        bayes_error: conditional ? sums.bayesError / conditionalRows : 0,
        by_tau: taus.map((tau, t) => figuresOf(tau, t, ascending)),
        overflowing_rows: overflowing,
      };
    },
  };
}
