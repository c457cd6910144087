import { InputError } from '../../errors.js';
import { addTo, type CompensatedSum, createCompensatedSum, totalOf } from '../compensated-sum.js';
import type { RolloutStep, TokenBlock } from '../rollouts/types.js';
import type { ScopeUnits } from './scoped-selection.js';

/** Means over the tokens of every unit. */
export interface UnitMeans {
  /** [units]. */
  readonly advantage: Float64Array;
  readonly logProb: Float64Array;
}

/** The columns that covariances need. @throws InputError where the block lacks one */
export function covarianceColumns(block: TokenBlock): { logProb: Float64Array; advantage: Float64Array } {
  const { logProb, advantage } = block;
  if (logProb === undefined || advantage === undefined) {
    throw new InputError('covariances need log-probabilities of the sampled tokens and advantages');
  }
  return { logProb, advantage };
}

/**
 * Means of advantage and log-probability over the counted tokens of every unit.
 * @param epsilon added to the number of tokens: 0, or the 1e-8 of the published masked mean
 */
export function unitMeans(step: RolloutStep, units: ScopeUnits, epsilon: number): UnitMeans {
  const advantages = Array.from({ length: units.count }, createCompensatedSum);
  const logProbs = Array.from({ length: units.count }, createCompensatedSum);
  for (const block of step.blocks()) {
    const { logProb, advantage } = covarianceColumns(block);
    for (let r = 0; r < block.records.length; r++) {
      const unit = units.of(block.records[r]);
      let advantageSum = 0;
      let logProbSum = 0;
      for (let i = block.offsets[r]; i < block.offsets[r + 1]; i++) {
        if (block.mask[i] === 0) continue;
        advantageSum += advantage[i];
        logProbSum += logProb[i];
      }
      addTo(advantages[unit], advantageSum);
      addTo(logProbs[unit], logProbSum);
    }
  }
  const mean = (sums: readonly CompensatedSum[]): Float64Array =>
    Float64Array.from(sums, (sum, u) => (units.counted[u] === 0 ? 0 : totalOf(sum) / (units.counted[u] + epsilon)));
  return { advantage: mean(advantages), logProb: mean(logProbs) };
}

/**
 * Summands of the covariance of advantage and log-probability (spec 1.2): (A - mean A)(log pi - mean log pi), NaN under a mask
 * of 0.
 * @param out [tokens of the block]
 */
export function tokenCovariance(block: TokenBlock, units: ScopeUnits, means: UnitMeans, out: Float64Array): void {
  const { logProb, advantage } = covarianceColumns(block);
  for (let r = 0; r < block.records.length; r++) {
    const unit = units.of(block.records[r]);
    const meanAdvantage = means.advantage[unit];
    const meanLogProb = means.logProb[unit];
    for (let i = block.offsets[r]; i < block.offsets[r + 1]; i++) {
      out[i] = block.mask[i] === 0 ? Number.NaN : (advantage[i] - meanAdvantage) * (logProb[i] - meanLogProb);
    }
  }
}
