import type { Random } from '../../random.js';
import { batchSize } from '../aggregation.js';
import type { CarriedState } from '../interventions/carried-state.js';
import { findIntervention } from '../interventions/registry.js';
import { completeSettings } from '../interventions/settings.js';
import type { InterventionSettings } from '../interventions/types.js';
import { blockObjective } from '../objective.js';
import { stepOfArrays } from '../rollouts/array-step.js';
import type { RolloutIndex, TokenBlock } from '../rollouts/types.js';
import { finishedFormula, pushToken, type Stack } from './grammar.js';
import type { Scorer } from './scorer.js';
import { type SearchSpace, tokensOfSpace } from './search-space.js';
import type { Plain, Searcher } from './searcher.js';
import {
  addTokenGradient,
  createTokenPolicy,
  descendTables,
  stateOf,
  type TokenState,
  tokenLogProbs,
} from './token-policy.js';

/** Interventions that need no more than token log-probabilities, entropies and advantages. */
export const SEARCH_RULES = [
  'grpo',
  'clip-higher',
  'clip-cov',
  'kl-cov',
  'steer',
  'entropy-bonus',
  'targeted-entropy',
] as const;

export interface PolicySearchSettings {
  /** Formulas of a batch. */
  readonly episodes: number;
  /** Updates on every batch. */
  readonly epochs: number;
  readonly learningRate: number;
  /** Name in the registry of interventions, and its settings. */
  readonly rule: string;
  readonly settings: InterventionSettings;
  readonly seed: number;
}

/** Formulas written by the policy, flat. */
interface Batch {
  readonly offsets: Int32Array;
  readonly tokens: Int32Array;
  readonly states: readonly TokenState[];
  readonly oldLogProb: Float64Array;
  readonly entropy: Float64Array;
  readonly reward: Float64Array;
}

/** Reward of a sequence that is no formula when its length is used up (spec 10.3). */
const INVALID = -1;

/**
 * A policy over the tokens of the grammar, trained by policy gradients with the pool's objective as the reward at stop. Its
 * update is the objective of an intervention: the same functions as in the analyses of rollouts and in the laboratory.
 */
export function createPolicySearch(space: SearchSpace, given: PolicySearchSettings): Searcher {
  const vocabulary = tokensOfSpace(space);
  const policy = createTokenPolicy(vocabulary);
  const rule = findIntervention(given.rule);
  const settings = completeSettings(rule, given.settings);
  let carried: CarriedState = {};
  const logProbs = new Float64Array(vocabulary.length);

  const sample = (random: Random): number => {
    let left = random.uniform();
    let last = -1;
    for (let v = 0; v < logProbs.length; v++) {
      if (logProbs[v] === Number.NEGATIVE_INFINITY) continue;
      last = v;
      left -= Math.exp(logProbs[v]);
      if (left < 0) break;
    }
    return last;
  };
  const generate = (random: Random, scorer: Scorer): Batch => {
    const offsets = [0];
    const tokens: number[] = [];
    const states: TokenState[] = [];
    const oldLogProb: number[] = [];
    const entropy: number[] = [];
    const reward: number[] = [];
    while (offsets.length <= given.episodes && !scorer.done) {
      let stack: Stack = [];
      let last: [number, number] = [-1, -1];
      let stopped = false;
      for (let length = 1; length < space.maxTokens && !stopped; length++) {
        const state = stateOf(policy, stack, last, space.maxTokens - length);
        const one = tokenLogProbs(policy, state, logProbs);
        const token = sample(random);
        states.push(state);
        tokens.push(token);
        oldLogProb.push(logProbs[token]);
        entropy.push(one);
        stopped = vocabulary[token].kind === 'stop';
        stack = pushToken(stack, vocabulary[token]);
        last = [last[1], token];
      }
      offsets.push(tokens.length);
      const formula = finishedFormula(stack);
      reward.push(formula === undefined ? INVALID : scorer.offer(formula).reward);
      let sum = 0;
      for (const one of entropy) sum += one;
      scorer.mark(sum / entropy.length);
    }
    return {
      offsets: Int32Array.from(offsets),
      tokens: Int32Array.from(tokens),
      states,
      oldLogProb: Float64Array.from(oldLogProb),
      entropy: Float64Array.from(entropy),
      reward: Float64Array.from(reward),
    };
  };
  const advantagesOf = (reward: Float64Array): Float64Array => {
    const n = reward.length;
    let mean = 0;
    for (const value of reward) mean += value;
    mean /= n;
    let squares = 0;
    for (const value of reward) squares += (value - mean) ** 2;
    const deviation = n > 1 ? Math.sqrt(squares / (n - 1)) : 1;
    return reward.map((value) => (value - mean) / (deviation + 1e-6));
  };
  const learn = (batch: Batch, round: number): void => {
    const records = batch.reward.length;
    const advantages = advantagesOf(batch.reward);
    const count = batch.tokens.length;
    const advantage = new Float64Array(count);
    const lengths = new Int32Array(records);
    for (let r = 0; r < records; r++) {
      advantage.fill(advantages[r], batch.offsets[r], batch.offsets[r + 1]);
      lengths[r] = batch.offsets[r + 1] - batch.offsets[r];
    }
    const rows = new Float64Array(count * vocabulary.length);
    for (let epoch = 0; epoch < given.epochs; epoch++) {
      const number = round * given.epochs + epoch;
      const logProb = new Float64Array(count);
      const entropy = new Float64Array(count);
      for (let i = 0; i < count; i++) {
        const row = rows.subarray(i * vocabulary.length, (i + 1) * vocabulary.length);
        entropy[i] = tokenLogProbs(policy, batch.states[i], row);
        logProb[i] = row[batch.tokens[i]];
      }
      const step = stepOfArrays({
        step: number,
        offsets: batch.offsets,
        columns: {
          logProb,
          oldLogProb: batch.oldLogProb,
          entropy: rule.entropyOf === 'update' ? entropy : batch.entropy,
          advantage,
          tokens: batch.tokens,
        },
      });
      const index: RolloutIndex = {
        records,
        step: new Float64Array(records).fill(number),
        group: new Int32Array(records),
        groups: 1,
        promptIds: ['formula'],
        length: lengths,
        counted: lengths,
        reward: batch.reward,
        advantage: advantages,
      };
      const [block] = step.blocks() as readonly TokenBlock[];
      const prepared = rule.prepare(step, settings, { index, seed: given.seed, carried });
      const { gradient, entropyGradient } = blockObjective(
        block,
        prepared.effect(block),
        batchSize(batch.offsets, block.mask),
      );
      const gradients = new Map<string, Float64Array>();
      for (let i = 0; i < count; i++) {
        const row = rows.subarray(i * vocabulary.length, (i + 1) * vocabulary.length);
        const byEntropy = entropyGradient?.[i] ?? 0;
        if (gradient[i] === 0 && byEntropy === 0) continue;
        addTokenGradient(gradients, batch.states[i], row, entropy[i], batch.tokens[i], gradient[i], byEntropy);
      }
      descendTables(policy, gradients, given.learningRate);
    }
  };
  return {
    round(number, random, scorer) {
      const batch = generate(random, scorer);
      if (batch.reward.length > 1) learn(batch, number);
    },
    state: (): Plain => ({
      tables: Array.from(policy.tables, ([context, row]) => [context, Array.from(row)]),
      carried: JSON.parse(JSON.stringify(carried)) as Plain,
    }),
    restore(state: Plain) {
      const held = state as {
        tables: readonly (readonly [string, readonly number[]])[];
        carried: Plain;
      };
      policy.tables.clear();
      for (const [context, row] of held.tables) policy.tables.set(context, Float64Array.from(row));
      carried = { ...(held.carried as CarriedState) };
    },
  };
}
