import { InputError } from '../errors.js';
import { type BatchSize, MASKED_MEAN_EPSILON, tokenWeight } from './aggregation.js';
import { addTo, type CompensatedSum, createCompensatedSum, totalOf } from './compensated-sum.js';
import type { PolicyEffect } from './interventions/types.js';
import type { TokenBlock } from './rollouts/types.js';
import { HELD_DUAL, HELD_HIGH, HELD_LOW, surrogateTerms } from './surrogate.js';

/** Sums of an objective over the blocks of a batch; they do not depend on how the batch is cut into blocks. */
export interface ObjectiveSums {
  readonly batch: BatchSize;
  readonly loss: CompensatedSum;
  readonly negativeLogRatio: CompensatedSum;
  readonly absoluteLogRatio: CompensatedSum;
  clippedHigh: number;
  clippedLow: number;
  dualClipped: number;
}

export function createObjectiveSums(batch: BatchSize): ObjectiveSums {
  return {
    batch,
    loss: createCompensatedSum(),
    negativeLogRatio: createCompensatedSum(),
    absoluteLogRatio: createCompensatedSum(),
    clippedHigh: 0,
    clippedLow: 0,
    dualClipped: 0,
  };
}

/** Where {@link addObjective} writes, one value a position of the block, 0 under a mask of 0. */
export interface ObjectiveOutputs {
  /** d loss / d log pi(token), aggregated: the weight of the token in the batch is part of it. */
  readonly gradient?: Float64Array;
  /** Loss of every token before it is aggregated. */
  readonly losses?: Float64Array;
}

/** What trainers log of an objective. */
export interface ObjectiveFigures {
  /** Aggregated; without the term in the entropies, whose value the effect does not hold. */
  readonly loss: number;
  /** Masked means (1e-8 in the denominator, as published): tokens with L2 > L1, by side; tokens held by the dual clip. */
  readonly clipFraction: number;
  readonly clipFractionHigh: number;
  readonly clipFractionLow: number;
  readonly dualClipFraction: number;
  /** Masked mean of log pi_old - log pi, nats (of log-ratios as they were limited). */
  readonly ppoKl: number;
  /** Masked mean of |log pi - log pi_old|, nats. */
  readonly absoluteKl: number;
}

/**
 * Adds the loss of a block under an effect, L_i = multiplier_i surrogate(A_i, rho_i) + penalty_i, aggregated over the batch of
 * `sums`, and writes its gradient by the log-probabilities. The gradient by the entropies is `effect.entropyGradient` as it is.
 * What stands under a mask of 0 is not read.
 * @throws InputError where the block lacks log-probabilities or advantages
 */
export function addObjective(
  sums: ObjectiveSums,
  block: TokenBlock,
  effect: PolicyEffect,
  { gradient, losses }: ObjectiveOutputs = {},
): void {
  const { mask, offsets, records, logProb } = block;
  const advantage = effect.advantage ?? block.advantage;
  if (logProb === undefined)
    throw new InputError('a policy-gradient loss needs log-probabilities of the sampled tokens');
  if (advantage === undefined)
    throw new InputError('a policy-gradient loss needs advantages, or rewards to make them of');
  const old = block.oldLogProb ?? logProb;
  const { surrogate, aggregation, multiplier, penalty, penaltyGradient } = effect;
  const { logRatioLimit = Number.POSITIVE_INFINITY } = surrogate;
  const terms = surrogateTerms(block, surrogate, advantage);
  // Tokens by the bits of what holds them.
  const held = new Float64Array(8);
  for (let r = 0; r < records.length; r++) {
    const from = offsets[r];
    const to = offsets[r + 1];
    let counted = 0;
    for (let i = from; i < to; i++) counted += mask[i];
    const weight = tokenWeight(aggregation, sums.batch, counted, records[r]);
    let loss = 0;
    let negative = 0;
    let absolute = 0;
    for (let i = from; i < to; i++) {
      if (mask[i] === 0) {
        if (gradient) gradient[i] = 0;
        if (losses) losses[i] = 0;
        continue;
      }
      const factor = multiplier === undefined ? 1 : multiplier[i];
      let value = factor * terms.loss[i];
      let slope = factor * terms.gradient[i];
      if (penalty !== undefined) value += penalty[i];
      if (penaltyGradient !== undefined) slope += penaltyGradient[i];
      loss += value;
      const logRatio = Math.min(Math.max(logProb[i] - old[i], -logRatioLimit), logRatioLimit);
      negative -= logRatio;
      absolute += Math.abs(logRatio);
      if (terms.held[i] !== 0) held[terms.held[i]]++;
      if (gradient) gradient[i] = weight * slope;
      if (losses) losses[i] = value;
    }
    addTo(sums.loss, weight * loss);
    addTo(sums.negativeLogRatio, negative);
    addTo(sums.absoluteLogRatio, absolute);
  }
  for (let bits = 1; bits < held.length; bits++) {
    if (bits & HELD_HIGH) sums.clippedHigh += held[bits];
    if (bits & HELD_LOW) sums.clippedLow += held[bits];
    if (bits & HELD_DUAL) sums.dualClipped += held[bits];
  }
}

/** What has been added, as trainers log it. */
export function objectiveFigures(sums: ObjectiveSums): ObjectiveFigures {
  const tokens = sums.batch.counted + MASKED_MEAN_EPSILON;
  return {
    loss: totalOf(sums.loss),
    clipFraction: (sums.clippedHigh + sums.clippedLow) / tokens,
    clipFractionHigh: sums.clippedHigh / tokens,
    clipFractionLow: sums.clippedLow / tokens,
    dualClipFraction: sums.dualClipped / tokens,
    ppoKl: totalOf(sums.negativeLogRatio) / tokens,
    absoluteKl: totalOf(sums.absoluteLogRatio) / tokens,
  };
}

/** Loss, gradient and logged quantities of a batch that is one block. */
export interface BatchObjective extends ObjectiveFigures {
  /** [tokens], d loss / d log pi(token). */
  readonly gradient: Float64Array;
  /** [tokens], d loss / d H, where the effect has such a term. */
  readonly entropyGradient?: Float64Array;
}

/**
 * The whole objective of a batch that is one block: what a trainer calls once a minibatch.
 * @param gradient [tokens]; is filled instead of a new array
 * @throws InputError as {@link addObjective}
 */
export function blockObjective(
  block: TokenBlock,
  effect: PolicyEffect,
  batch: BatchSize,
  gradient: Float64Array = new Float64Array(block.mask.length),
): BatchObjective {
  const sums = createObjectiveSums(batch);
  addObjective(sums, block, effect, { gradient });
  return {
    ...objectiveFigures(sums),
    gradient,
    ...(effect.entropyGradient && { entropyGradient: effect.entropyGradient }),
  };
}
