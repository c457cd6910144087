import type { RolloutIndex, RolloutStep, Rollouts, TokenBlock } from '../rollouts/types.js';
import type { CarriedState } from './carried-state.js';

/** How the policy-gradient loss of a token is clipped (spec 0.4). */
export interface Surrogate {
  /** rho is held in [1 - low, 1 + high]; absent: -A rho as it is. */
  readonly clip?: { readonly low: number; readonly high: number };
  /** Dual clip c > 1 for negative advantages. */
  readonly dualClip?: number;
  /** The log-ratio is held in [-limit, limit]. */
  readonly logRatioLimit?: number;
}

/** How the losses of tokens become one number (spec 0.2). */
export type Aggregation =
  | 'token-mean'
  | 'seq-mean-token-sum'
  | 'seq-mean-token-mean'
  | 'seq-mean-token-sum-norm'
  | 'token-sum';

/**
 * What an intervention does to the loss of a block: L_i = multiplier_i * surrogate(A_i, rho_i) + penalty_i, aggregated, plus a
 * term in the entropies. Every array has one value a position of the block (masked-out ones included, 0 there) and carries
 * no gradient unless it is named so; an array that is absent changes nothing.
 */
export interface PolicyEffect {
  readonly surrogate: Surrogate;
  readonly aggregation: Aggregation;
  /** Advantages in the place of the block's. */
  readonly advantage?: Float64Array;
  /** [records of the block]: rewards in the place of the dump's. */
  readonly reward?: Float64Array;
  readonly multiplier?: Float64Array;
  readonly penalty?: Float64Array;
  /** d penalty_i / d log pi(token i). */
  readonly penaltyGradient?: Float64Array;
  /** d (term in the entropies) / d H_i, already divided by the number of tokens of the step. */
  readonly entropyGradient?: Float64Array;
  /** 1 where the loss of the token is not plain GRPO's: multiplier other than 1, penalty, other advantage, other clip. */
  readonly touched: Uint8Array;
}

/** What the methods say of one step beside their effect: thresholds, ranges, counts, by name with units. */
export type Facts = Readonly<Record<string, number>>;

/** An intervention that has seen a whole step. */
export interface PreparedIntervention {
  effect(block: TokenBlock): PolicyEffect;
  readonly facts: Facts;
  readonly warnings: readonly string[];
}

/** Parameter of an intervention: a number, or one of some words. */
export type InterventionParameter =
  | {
      readonly kind: 'number';
      readonly initial: number;
      readonly least?: number;
      readonly most?: number;
      readonly help: string;
    }
  | { readonly kind: 'choice'; readonly initial: string; readonly choices: readonly string[]; readonly help: string };

export type InterventionSettings = Readonly<Record<string, number | string>>;

/** What an intervention reads. */
export type Need =
  | 'logProb'
  | 'oldLogProb'
  | 'entropy'
  | 'advantage'
  | 'reward'
  | 'correct'
  | 'topTokens'
  | 'text'
  | 'thinkEnd'
  | 'stepSpans'
  | 'difficulty';

/** What a method may know beside the tokens of its step. */
export interface InterventionContext {
  readonly index: RolloutIndex;
  readonly textOf?: Rollouts['textOf'];
  /** Text of a token id, where a tokenizer is at hand. */
  readonly textOfToken?: Rollouts['textOfToken'];
  /** Seed of random choices, which are keyed by step and token so that they do not depend on blocks. */
  readonly seed: number;
  /** Clip of plain GRPO, against which `touched` is told; `PLAIN_SURROGATE` when absent. */
  readonly plain?: Surrogate;
  /**
   * What the method keeps between the steps of one run: `prepare` is called once a step, in ascending order. Without it every
   * step is the first.
   */
  readonly carried?: CarriedState;
  /** Trigger words in the place of the built-in list, normalised. */
  readonly triggerWords?: readonly string[];
  /** Ids of tokens that are no text: end of text, padding. */
  readonly specialTokens?: readonly number[];
}

/**
 * One method (spec 11). `prepare` looks at a step as often as it must, in bounded memory, and gives what `effect` says of any
 * block of it. The same functions are the training rules of the laboratory, where a step is one minibatch.
 */
export interface Intervention {
  /** Name on the command line: `kl-cov`, `steer`, ... */
  readonly name: string;
  readonly title: string;
  /** Paper, section, equation. */
  readonly reference: string;
  readonly needs: readonly Need[];
  readonly parameters: Readonly<Record<string, InterventionParameter>>;
  /** Parameters of which at most one may be given. */
  readonly exclusive?: readonly (readonly [string, string])[];
  /**
   * Whose entropies a trainer puts into the column `entropy`: those of the policy that sampled (when absent), or of the policy
   * that is being updated, for a term whose gradient goes through them.
   */
  readonly entropyOf?: 'sampling' | 'update';
  /** `settings` are complete: see `completeSettings`. */
  prepare(step: RolloutStep, settings: InterventionSettings, context: InterventionContext): PreparedIntervention;
}
