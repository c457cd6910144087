import { createRandom } from '../../random.js';
import { normalisedValues } from './combination.js';
import { createEvaluator } from './evaluate.js';
import { createGeneticSearch, GENETIC_DEFAULTS } from './genetic-search.js';
import { type Panel, sliceDays } from './panel.js';
import { parseFormula } from './parse-formula.js';
import { createPolicySearch, type PolicySearchSettings } from './policy-search.js';
import { createPool, type PoolSettings, type PoolState } from './pool.js';
import { createRandomSearch } from './random-search.js';
import { createScorer, type HistoryPoint, type ScorerState, scoreFormula } from './scorer.js';
import type { SearchSpace } from './search-space.js';
import type { Plain, Searcher } from './searcher.js';

/** Which searcher, under which name. */
export type SearcherChoice =
  | { readonly kind: 'random'; readonly label: string }
  | { readonly kind: 'genetic'; readonly label: string }
  | { readonly kind: 'policy'; readonly label: string; readonly settings: Omit<PolicySearchSettings, 'seed'> };

/** One search: a searcher with a seed on the days of training. */
export interface SearchRequest {
  readonly panel: Panel;
  /** Text of the target. */
  readonly target: string;
  /** Days of training, with the margins that windows and target read around them. */
  readonly train: readonly [number, number];
  readonly backtrack: number;
  readonly future: number;
  readonly space: SearchSpace;
  readonly pool: PoolSettings;
  readonly searcher: SearcherChoice;
  readonly seed: number;
  /** Distinct formulas to evaluate. */
  readonly budget: number;
  /** Formulas of the highest single |IC| that are handed back beside the pool. */
  readonly singles: number;
  readonly cacheBytes: number;
  readonly threads: number;
  /** A state that an earlier run of this search left. */
  readonly from?: SearchState;
  /** Evaluations between two states that are handed out; 0 for none. */
  readonly checkpointEvery: number;
}

/** A search between two rounds. */
export interface SearchState {
  readonly round: number;
  readonly pool: PoolState;
  readonly scorer: ScorerState;
  readonly searcher: Plain;
}

export interface SearchResult {
  readonly label: string;
  readonly seed: number;
  readonly formulas: readonly string[];
  readonly weights: readonly number[];
  readonly objective: number;
  readonly trainIc: number;
  readonly evaluations: number;
  readonly offers: number;
  readonly outOfRange: number;
  readonly flat: number;
  readonly history: readonly HistoryPoint[];
  /** By descending single |IC| in training, among all formulas that were evaluated. */
  readonly singles: readonly { readonly text: string; readonly ic: number }[];
}

/** What a running search says. */
export type SearchProgress = { readonly evaluations: number; readonly state?: SearchState };

function searcherOf(choice: SearcherChoice, space: SearchSpace, seed: number): Searcher {
  if (choice.kind === 'random') return createRandomSearch(space);
  if (choice.kind === 'genetic') return createGeneticSearch(space, GENETIC_DEFAULTS);
  return createPolicySearch(space, { ...choice.settings, seed });
}

/**
 * Runs one search to the end of its budget. The same request gives the same result, whatever the number of threads and
 * wherever it was taken up again: the random numbers of a round are keyed by its number.
 */
export function searchFormulas(request: SearchRequest, progress: (value: unknown) => void): SearchResult {
  const { backtrack, future, train, threads, searcher: choice, seed, space } = request;
  const evaluator = createEvaluator(sliceDays(request.panel, train[0] - backtrack, train[1] + future), {
    backtrack,
    future,
    cacheBytes: request.cacheBytes,
    threads,
  });
  const shape = { days: evaluator.days, stocks: evaluator.stocks };
  const target = normalisedValues(evaluator, parseFormula(request.target), threads);
  const pool = createPool({ ...request.pool, threads }, target, shape);
  const scorer = createScorer(evaluator, target, pool, request.budget, threads);
  const searcher = searcherOf(choice, space, seed);
  let round = 0;
  if (request.from !== undefined) {
    const { from } = request;
    const members = from.pool.members.map((text) => scoreFormula(evaluator, parseFormula(text), target, threads));
    pool.restore(from.pool, members);
    scorer.restore(from.scorer);
    searcher.restore(from.searcher);
    round = from.round;
  }
  const random = createRandom(seed);
  let saved = scorer.evaluations;
  for (; !scorer.done; round++) {
    searcher.round(round, random.fork(round), scorer);
    const due = request.checkpointEvery > 0 && scorer.evaluations >= saved + request.checkpointEvery;
    const report: SearchProgress = { evaluations: scorer.evaluations };
    if (due) saved = scorer.evaluations;
    const state = (): SearchState => ({
      round: round + 1,
      pool: pool.state(),
      scorer: scorer.state(),
      searcher: searcher.state(),
    });
    progress(due ? { ...report, state: state() } : report);
  }
  scorer.mark(scorer.history.at(-1)?.entropyNats ?? null, scorer.history.at(-1)?.evaluations !== scorer.evaluations);
  return {
    label: choice.label,
    seed,
    formulas: pool.members.map(({ text }) => text),
    weights: Array.from(pool.weights),
    objective: pool.objective,
    trainIc: pool.ic,
    evaluations: scorer.evaluations,
    offers: scorer.offers,
    outOfRange: scorer.outOfRange,
    flat: scorer.flat,
    history: scorer.history,
    singles: scorer.best(request.singles),
  };
}

/** The reference of {@link searchFormulas} for a thread of its own. */
export const SEARCH_FORMULAS = { module: import.meta.url, job: searchFormulas };
