import type { Normalised } from './correlation.js';
import { normaliseByDay } from './correlation.js';
import type { Evaluator } from './evaluate.js';
import { canonicalText, type Expression, formulaText } from './expression.js';
import type { Pool } from './pool.js';
import { type ScoredFormula, scoreNormalised } from './pool.js';

/** What became of an offer. */
export interface Verdict {
  /** What a searcher is rewarded with: the objective of the pool, 0 where nothing can be said of the formula. */
  readonly reward: number;
  /** Single IC in training; 0 for a formula that reads outside of the margins or has no variation. */
  readonly ic: number;
}

/** One point of a search. */
export interface HistoryPoint {
  readonly evaluations: number;
  readonly offers: number;
  readonly objective: number;
  readonly ic: number;
  readonly poolSize: number;
  /** Mean entropy of the token policy at the states of the last batch, nats; null of searchers that have none. */
  readonly entropyNats: number | null;
}

/** What a search has done so far, as data. */
export interface ScorerState {
  readonly seen: readonly (readonly [string, string, number])[];
  readonly offers: number;
  readonly outOfRange: number;
  readonly flat: number;
  readonly history: readonly HistoryPoint[];
}

export interface Scorer {
  /** Distinct formulas evaluated: what the budget counts. */
  readonly evaluations: number;
  readonly offers: number;
  readonly outOfRange: number;
  readonly flat: number;
  readonly history: readonly HistoryPoint[];
  readonly done: boolean;
  offer(expression: Expression): Verdict;
  /** Adds a point to the history where one is due. */
  mark(entropyNats: number | null, force?: boolean): void;
  /** The `count` formulas of the highest |IC| among all that were evaluated. */
  best(count: number): readonly { readonly text: string; readonly ic: number }[];
  state(): ScorerState;
  restore(state: ScorerState): void;
}

/** A search ends when it has offered this many times its budget: a policy that repeats itself evaluates nothing new. */
const MOST_OFFERS = 20;
const POINTS = 200;

/** Scores a formula against the target of the evaluator's days. */
export function scoreFormula(
  evaluator: Evaluator,
  expression: Expression,
  target: Normalised,
  threads?: number,
): ScoredFormula {
  const shape = { days: evaluator.days, stocks: evaluator.stocks };
  const normalised = evaluator.evaluate(expression, (values) => normaliseByDay(values, shape, threads));
  return scoreNormalised(canonicalText(expression), formulaText(expression), normalised, target, shape, threads);
}

/** Offers formulas to a pool, and counts: a formula that was evaluated before costs no budget. */
export function createScorer(
  evaluator: Evaluator,
  target: Normalised,
  pool: Pool,
  budget: number,
  threads?: number,
): Scorer {
  const seen = new Map<string, { text: string; ic: number }>();
  const history: HistoryPoint[] = [];
  const counts = { offers: 0, outOfRange: 0, flat: 0 };
  const interval = Math.max(1, Math.floor(budget / POINTS));
  let marked = 0;
  return {
    get evaluations() {
      return seen.size;
    },
    get offers() {
      return counts.offers;
    },
    get outOfRange() {
      return counts.outOfRange;
    },
    get flat() {
      return counts.flat;
    },
    history,
    get done() {
      return seen.size >= budget || counts.offers >= MOST_OFFERS * budget;
    },
    offer(expression) {
      counts.offers++;
      const key = canonicalText(expression);
      const before = seen.get(key);
      if (before !== undefined) {
        const recalled = pool.recall(key, before.ic);
        if (recalled !== undefined) return { reward: recalled.reward, ic: before.ic };
      }
      if (!evaluator.inRange(expression)) {
        counts.outOfRange++;
        seen.set(key, { text: formulaText(expression), ic: 0 });
        return { reward: 0, ic: 0 };
      }
      const scored = scoreFormula(evaluator, expression, target, threads);
      const flat = scored.normalised.deviations.every((deviation) => deviation === 0);
      if (before === undefined) {
        seen.set(key, { text: scored.text, ic: scored.ic });
        if (flat) counts.flat++;
      }
      if (flat) return { reward: 0, ic: 0 };
      const { reward } = pool.offer(scored);
      return { reward: Number.isNaN(reward) ? 0 : reward, ic: scored.ic };
    },
    mark(entropyNats, force = false) {
      if (!force && seen.size < marked + interval) return;
      marked = seen.size;
      history.push({
        evaluations: seen.size,
        offers: counts.offers,
        objective: pool.objective,
        ic: pool.ic,
        poolSize: pool.members.length,
        entropyNats,
      });
    },
    best: (count) =>
      [...seen.values()].sort((a, b) => Math.abs(b.ic) - Math.abs(a.ic) || (a.text < b.text ? -1 : 1)).slice(0, count),
    state: () => ({ seen: Array.from(seen, ([key, { text, ic }]) => [key, text, ic] as const), ...counts, history }),
    restore(state) {
      seen.clear();
      for (const [key, text, ic] of state.seen) seen.set(key, { text, ic });
      counts.offers = state.offers;
      counts.outOfRange = state.outOfRange;
      counts.flat = state.flat;
      history.length = 0;
      history.push(...state.history);
      marked = history.at(-1)?.evaluations ?? 0;
    },
  };
}
