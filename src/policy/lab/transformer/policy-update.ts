import { sumOfSquares } from '../../../kernels/optimizer-steps.js';
import { clipCoefficient } from '../../../training/clipping.js';
import type { DecoderStudent } from '../../../training/decoder-student.js';
import type { Optimizer } from '../../../training/optimizer.js';
import { groupAdvantages } from '../../advantages.js';
import { batchSize } from '../../aggregation.js';
import type { CarriedState } from '../../interventions/carried-state.js';
import type { Intervention, InterventionSettings, PolicyEffect, Surrogate } from '../../interventions/types.js';
import { type BatchObjective, blockObjective } from '../../objective.js';
import { stepOfArrays } from '../../rollouts/array-step.js';
import type { RolloutIndex, RolloutStep, TokenBlock } from '../../rollouts/types.js';
import { addLogitGradients, type PolicyBatch, policyBatch, scoreTokens, type TokenScores } from './policy-batch.js';
import type { RolloutGroup } from './rollout-groups.js';
import type { PolicyTask } from './task.js';

/** A minibatch of whole groups. */
export interface Minibatch {
  readonly groups: readonly RolloutGroup[];
  /** [records]: number of the group in the minibatch. */
  readonly group: Int32Array;
  readonly batch: PolicyBatch;
  /** [records]. */
  readonly reward: Float64Array;
  /** [records], GRPO's. */
  readonly advantage: Float64Array;
  /** Of the policy before the step; nats. */
  readonly old: TokenScores;
}

/** The rule of an update. */
export interface TrainingRule {
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
export interface PolicyUpdate {
  /** [tokens], of the policy before the update; nats. */
  readonly logProb: Float64Array;
  /** Advantages that the loss was made with, [tokens]. */
  readonly covariance: number;
  readonly touched: number;
  readonly counted: number;
  readonly clipFraction: number;
  readonly gradientNorm: number;
  readonly warnings: readonly string[];
}

/**
 * Lays whole groups out and scores their tokens with the policy as it is: the same pass of the student as in the update, so that
 * the ratio of the first update is exactly 1.
 * @param topCount likeliest tokens of every position that are kept
 */
export async function scoreMinibatch(
  student: DecoderStudent,
  groups: readonly RolloutGroup[],
  length: number,
  topCount: number,
): Promise<Minibatch> {
  const rollouts = groups.flatMap((group) => group.rollouts);
  const group = Int32Array.from(groups.flatMap(({ rollouts: own }, g) => own.map(() => g)));
  const reward = Float64Array.from(rollouts, (rollout) => rollout.reward);
  const batch = policyBatch(rollouts, length);
  let old: TokenScores | undefined;
  await student.evaluate(
    batch.windows,
    (block) => {
      old = scoreTokens(batch, block, topCount);
    },
    { wholeBatch: true },
  );
  if (old === undefined) throw new RangeError('the student showed no logits');
  return { groups, group, batch, reward, old, advantage: groupAdvantages(reward, group, groups.length) };
}

function perToken(values: Float64Array, offsets: Int32Array, mask: Uint8Array): Float64Array {
  const spread = new Float64Array(mask.length);
  for (let r = 0; r < values.length; r++) {
    for (let i = offsets[r]; i < offsets[r + 1]; i++) spread[i] = mask[i] === 1 ? values[r] : 0;
  }
  return spread;
}

/** Facts of the records of a minibatch, as dumps have them. */
function indexOf({ groups, group, batch, reward, advantage }: Minibatch, step: number): RolloutIndex {
  const rollouts = groups.flatMap((one) => one.rollouts);
  const marker = Int32Array.from(rollouts, ({ thinkEnd = -1 }) => thinkEnd);
  const counted = rollouts.map(({ mask }) => mask.reduce((sum, one) => sum + one, 0));
  return {
    records: rollouts.length,
    step: new Float64Array(rollouts.length).fill(step),
    group,
    groups: groups.length,
    promptIds: groups.map(({ prompt }) => prompt.id),
    length: Int32Array.from(rollouts, (_, r) => batch.offsets[r + 1] - batch.offsets[r]),
    counted: Int32Array.from(counted),
    reward,
    correct: Float64Array.from(rollouts, ({ correct }) => (correct ? 1 : 0)),
    advantage,
    thinkEnd: marker,
    thinkMarkerStart: marker,
    difficulty: groups.flatMap(({ prompt, rollouts: own }) => own.map(() => prompt.difficulty)),
    stepSpans: rollouts.map(({ stepSpans }) => stepSpans),
    responseIds: groups.flatMap(({ rollouts: own }) => own.map(({ id }) => id)),
  };
}

/** Rewards that the rule replaces without saying what becomes of the advantages give group-relative ones. */
function withAdvantages(effect: PolicyEffect, { batch, group, groups }: Minibatch): PolicyEffect {
  if (effect.reward === undefined || effect.advantage !== undefined) return effect;
  const advantage = groupAdvantages(effect.reward, group, groups.length);
  return { ...effect, advantage: perToken(advantage, batch.offsets, batch.mask) };
}

/** The minibatch as what interventions take, under the policy's scores of now. */
function stepOf(minibatch: Minibatch, now: TokenScores, rule: TrainingRule, number: number): RolloutStep {
  const { batch, old, advantage } = minibatch;
  return stepOfArrays({
    step: number,
    offsets: batch.offsets,
    mask: batch.mask,
    columns: {
      logProb: now.logProb,
      oldLogProb: old.logProb,
      entropy: rule.intervention.entropyOf === 'update' ? now.entropy : old.entropy,
      advantage: perToken(advantage, batch.offsets, batch.mask),
      tokens: batch.tokens,
      textIds: batch.tokens,
      ...(old.topTokens && { topTokens: old.topTokens }),
    },
  });
}

/** Mean summand of the covariance of log-probability and advantage over the tokens that count. */
function meanCovariance({ logProb, advantage, mask }: TokenBlock): number {
  if (logProb === undefined || advantage === undefined) return Number.NaN;
  let [count, meanLogProb, meanAdvantage] = [0, 0, 0];
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === 0) continue;
    count++;
    meanLogProb += logProb[i];
    meanAdvantage += advantage[i];
  }
  meanLogProb /= count;
  meanAdvantage /= count;
  let sum = 0;
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === 1) sum += (logProb[i] - meanLogProb) * (advantage[i] - meanAdvantage);
  }
  return sum / count;
}

interface Applied {
  readonly block: TokenBlock;
  readonly effect: PolicyEffect;
  readonly objective: BatchObjective;
  readonly warnings: readonly string[];
}

/** The loss of a minibatch under the rule, and its gradients by log-probabilities and entropies of its tokens. */
export function applyRule(
  minibatch: Minibatch,
  now: TokenScores,
  rule: TrainingRule,
  task: PolicyTask,
  number: number,
): Applied {
  const { batch } = minibatch;
  const step = stepOf(minibatch, now, rule, number);
  const prepared = rule.intervention.prepare(step, rule.settings, {
    index: indexOf(minibatch, number),
    textOf: (id) => task.vocabulary[id],
    seed: rule.seed,
    plain: rule.plain,
    carried: rule.carried,
    specialTokens: task.specialTokens,
  });
  const [block] = step.blocks();
  const effect = withAdvantages(prepared.effect(block), minibatch);
  const objective = blockObjective(block, effect, batchSize(batch.offsets, batch.mask));
  return { block, effect, objective, warnings: prepared.warnings };
}

export interface UpdateOptions {
  readonly learningRate: number;
  /** Longer gradients are shortened to this norm. */
  readonly maxNorm: number;
  /** Number of the update in the run. */
  readonly number: number;
}

/** One update of the policy: forward, the rule's gradient by the logits, backward, optimiser. */
export async function updatePolicy(
  student: DecoderStudent,
  optimizer: Optimizer,
  minibatch: Minibatch,
  rule: TrainingRule,
  task: PolicyTask,
  { learningRate, maxNorm, number }: UpdateOptions,
): Promise<PolicyUpdate> {
  const { batch } = minibatch;
  const seen: { logProb?: Float64Array; applied?: Applied } = {};
  await student.accumulate(
    batch.windows,
    (logits) => {
      const now = scoreTokens(batch, logits);
      const applied = applyRule(minibatch, now, rule, task, number);
      addLogitGradients(batch, logits, applied.objective.gradient, applied.objective.entropyGradient);
      seen.logProb = now.logProb;
      seen.applied = applied;
    },
    { wholeBatch: true },
  );
  if (seen.applied === undefined || seen.logProb === undefined) throw new RangeError('the student showed no logits');
  const norm = Math.sqrt(sumOfSquares(student.parameters.gradients, 1));
  optimizer.step({ learningRate, gradientScale: clipCoefficient(norm, maxNorm), clear: true, threads: 1 });
  const { block, effect, objective, warnings } = seen.applied;
  let touched = 0;
  for (const one of effect.touched) touched += one;
  let counted = 0;
  for (const one of batch.mask) counted += one;
  return {
    logProb: seen.logProb,
    covariance: meanCovariance(block),
    touched,
    counted,
    clipFraction: objective.clipFraction,
    gradientNorm: norm,
    warnings,
  };
}
