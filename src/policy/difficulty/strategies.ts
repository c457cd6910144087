import { DIFFICULTIES, type Difficulty } from './labels.js';

/** A decoding setting (DiffAdapt, section 3.3; spec 8.3). */
export interface Strategy {
  readonly temperature: number;
  /** Share of the token budget. */
  readonly budgetShare: number;
  /** What the prompt asks for. */
  readonly instruction: string;
}

export const STRATEGIES: Readonly<Record<Difficulty, Strategy>> = {
  easy: { temperature: 0.5, budgetShare: 0.4, instruction: 'solve directly and verify' },
  normal: { temperature: 0.8, budgetShare: 1, instruction: 'solve step by step' },
  hard: { temperature: 0.4, budgetShare: 0.5, instruction: 'mind the budget and fail fast' },
};

/** Tokens that a strategy may write: floor(share * most). */
export function budgetOf({ budgetShare }: Strategy, mostTokens: number): number {
  return Math.floor(budgetShare * mostTokens);
}

/** Samples of one question under one strategy. */
export interface StrategyOutcome {
  readonly accuracy: number;
  /** Mean tokens of a response. */
  readonly tokens: number;
}

/** Accuracy and tokens of a policy that picks a strategy for every question. */
export interface RoutedOutcome {
  readonly name: string;
  readonly accuracy: number;
  readonly meanTokens: number;
  /** Questions that got each strategy, in the order of `DIFFICULTIES`. */
  readonly picks: readonly number[];
}

/**
 * What becomes of the questions when `pick` chooses.
 * @param outcomes [strategies][questions], in the order of `DIFFICULTIES`
 */
export function routedOutcome(
  name: string,
  outcomes: readonly (readonly StrategyOutcome[])[],
  pick: (question: number) => number,
): RoutedOutcome {
  const questions = outcomes[0].length;
  const picks = DIFFICULTIES.map(() => 0);
  let accuracy = 0;
  let tokens = 0;
  for (let q = 0; q < questions; q++) {
    const strategy = pick(q);
    picks[strategy]++;
    accuracy += outcomes[strategy][q].accuracy;
    tokens += outcomes[strategy][q].tokens;
  }
  return { name, accuracy: accuracy / questions, meanTokens: tokens / questions, picks };
}

/**
 * The strategy of the oracle: of those that are right most often, the one with the fewest tokens (spec 8.4: the cheapest
 * strategy that is right; where none is ever right, the cheapest).
 */
export function oraclePick(outcomes: readonly (readonly StrategyOutcome[])[], question: number): number {
  let best = 0;
  for (let s = 1; s < outcomes.length; s++) {
    const [a, b] = [outcomes[s][question], outcomes[best][question]];
    if (a.accuracy > b.accuracy || (a.accuracy === b.accuracy && a.tokens < b.tokens)) best = s;
  }
  return best;
}

/**
 * What a budget alone would have done to samples that were drawn without it: longer responses are cut and count as wrong. Says
 * nothing of the strategy's temperature and instruction.
 */
export function truncatedOutcome(
  lengths: readonly number[],
  correct: readonly number[],
  budgetTokens: number,
): StrategyOutcome {
  let right = 0;
  let tokens = 0;
  for (const [i, length] of lengths.entries()) {
    tokens += Math.min(length, budgetTokens);
    if (length <= budgetTokens) right += correct[i];
  }
  return { accuracy: right / lengths.length, tokens: tokens / lengths.length };
}
