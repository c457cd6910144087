import { groupAdvantages } from '../advantages.js';
import { batchSize } from '../aggregation.js';
import type { CarriedState } from '../interventions/carried-state.js';
import type { Intervention, InterventionSettings, PolicyEffect, Surrogate } from '../interventions/types.js';
import { blockObjective } from '../objective.js';
import { stepOfArrays } from '../rollouts/array-step.js';
import type { RolloutIndex, TokenBlock } from '../rollouts/types.js';
import {
  descend,
  evaluateRows,
  type PolicyRows,
  type TabularPolicy,
  type TabularRates,
  type TokenRows,
} from './tabular-policy.js';

/** One minibatch of a table: all responses have as many tokens as the policy has positions. */
export interface TabularBatch {
  /** [records]: prompt of every response. */
  readonly contexts: Int32Array;
  /** [records]: number of the group, from 0. */
  readonly group: Int32Array;
  readonly groups: number;
  /** [records, positions]. */
  readonly tokens: Int32Array;
  /** [records, positions], of the policy before the step; nats. */
  readonly oldLogProb: Float64Array;
  /** [records, positions], of the policy before the step; nats. */
  readonly oldEntropy: Float64Array;
  /** [records]. */
  readonly reward: Float64Array;
  /** [records], GRPO's. */
  readonly advantage: Float64Array;
}

/** The rule of an update. */
export interface TabularRule {
  readonly intervention: Intervention;
  /** Complete. */
  readonly settings: InterventionSettings;
  /** Of random choices, which are keyed by the number of the update. */
  readonly seed: number;
  /** Clip of the plain rule, against which touched tokens are told. */
  readonly plain: Surrogate;
  /** What the intervention keeps between the updates of the run. */
  readonly carried: CarriedState;
}

/** What an update met. */
export interface TabularUpdate {
  /** Mean entropy over the tokens of the minibatch, of the policy before the update; nats. */
  readonly meanEntropy: number;
  /** Mean summand of the covariance of log-probability and advantage over the tokens. */
  readonly meanCovariance: number;
  readonly touched: number;
  readonly clipFraction: number;
  /** [records, positions], of the policy before the update; nats. */
  readonly logProb: Float64Array;
  readonly warnings: readonly string[];
}

const broadcast = (values: Float64Array, positions: number): Float64Array => {
  const spread = new Float64Array(values.length * positions);
  for (let r = 0; r < values.length; r++) spread.fill(values[r], r * positions, (r + 1) * positions);
  return spread;
};

/** Every position is a turn of its own, [from, to) each: its row of the table is asked once a response. */
export const turnsOf = (positions: number): Int32Array =>
  Int32Array.from({ length: 2 * positions }, (_, i) => (i + 1) >> 1);

/** Facts of the records of a minibatch, as dumps have them. */
function indexOf(batch: TabularBatch, step: number, positions: number): RolloutIndex {
  const records = batch.contexts.length;
  const lengths = new Int32Array(records).fill(positions);
  const names: string[] = new Array(batch.groups);
  for (let r = 0; r < records; r++) names[batch.group[r]] ??= String(batch.contexts[r]);
  const turns = turnsOf(positions);
  return {
    records,
    step: new Float64Array(records).fill(step),
    group: batch.group,
    groups: batch.groups,
    promptIds: names,
    length: lengths,
    counted: lengths,
    reward: batch.reward,
    correct: batch.reward.map((reward) => (reward > 0 ? 1 : 0)),
    advantage: batch.advantage,
    stepSpans: new Array<Int32Array>(records).fill(turns),
  };
}

/** Rewards that the rule replaces without saying what becomes of the advantages give group-relative ones. */
function withAdvantages(effect: PolicyEffect, batch: TabularBatch, positions: number): PolicyEffect {
  if (effect.reward === undefined || effect.advantage !== undefined) return effect;
  return { ...effect, advantage: broadcast(groupAdvantages(effect.reward, batch.group, batch.groups), positions) };
}

function meanCovariance(logProb: Float64Array, advantage: Float64Array): number {
  const n = logProb.length;
  let meanLogProb = 0;
  let meanAdvantage = 0;
  for (let i = 0; i < n; i++) {
    meanLogProb += logProb[i];
    meanAdvantage += advantage[i];
  }
  meanLogProb /= n;
  meanAdvantage /= n;
  let sum = 0;
  for (let i = 0; i < n; i++) sum += (logProb[i] - meanLogProb) * (advantage[i] - meanAdvantage);
  return sum / n;
}

/**
 * One update of the policy on one minibatch, in place: the intervention sees the minibatch as a step, its effect becomes a
 * gradient by the log-probabilities and entropies of the tokens, and plain gradient descent follows.
 * @param rows is overwritten in the contexts of the batch
 * @param number of the update, from 0
 */
export function updatePolicy(
  policy: TabularPolicy,
  rows: PolicyRows,
  batch: TabularBatch,
  rule: TabularRule,
  rates: TabularRates,
  number: number,
): TabularUpdate {
  const { positions, vocabulary } = policy;
  const records = batch.contexts.length;
  const tokens = records * positions;
  evaluateRows(policy, new Set(batch.contexts), rows);
  const places: TokenRows = { rows: new Int32Array(tokens), tokens: batch.tokens };
  const logProb = new Float64Array(tokens);
  const entropy = new Float64Array(tokens);
  let entropySum = 0;
  for (let i = 0; i < tokens; i++) {
    const row = batch.contexts[Math.floor(i / positions)] * positions + (i % positions);
    places.rows[i] = row;
    logProb[i] = rows.logProbs[row * vocabulary + batch.tokens[i]];
    entropy[i] = rows.entropies[row];
    entropySum += entropy[i];
  }
  const offsets = Int32Array.from({ length: records + 1 }, (_, r) => r * positions);
  const advantage = broadcast(batch.advantage, positions);
  const step = stepOfArrays({
    step: number,
    offsets,
    columns: {
      logProb,
      oldLogProb: batch.oldLogProb,
      entropy: rule.intervention.entropyOf === 'update' ? entropy : batch.oldEntropy,
      advantage,
      tokens: batch.tokens,
    },
  });
  const [block] = step.blocks() as readonly TokenBlock[];
  const prepared = rule.intervention.prepare(step, rule.settings, {
    index: indexOf(batch, number, positions),
    seed: rule.seed,
    plain: rule.plain,
    carried: rule.carried,
  });
  const effect = withAdvantages(prepared.effect(block), batch, positions);
  const objective = blockObjective(block, effect, batchSize(offsets, block.mask));
  descend(policy, places, { logProb: objective.gradient, entropy: objective.entropyGradient }, rows, rates);
  let touched = 0;
  for (const one of effect.touched) touched += one;
  return {
    meanEntropy: entropySum / tokens,
    meanCovariance: meanCovariance(logProb, advantage),
    touched,
    clipFraction: objective.clipFraction,
    logProb,
    warnings: prepared.warnings,
  };
}
