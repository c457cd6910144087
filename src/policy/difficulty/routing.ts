import { quantileOfSorted } from '../../linalg/quantile-sketch.js';
import { createRandom } from '../../random.js';
import { DIFFICULTIES } from './labels.js';
import { oraclePick, routedOutcome, type StrategyOutcome } from './strategies.js';

/** How one way to pick a strategy does beside always taking the normal one. */
export interface RoutedPolicy {
  readonly name: string;
  readonly accuracy: number;
  readonly accuracySe: number;
  readonly meanTokens: number;
  /** 1 - tokens / tokens of the normal strategy, with its interval over questions. */
  readonly tokenSaving: number;
  readonly tokenSavingLow: number;
  readonly tokenSavingHigh: number;
  /** Accuracy minus that of the normal strategy, paired by question. */
  readonly accuracyDifference: number;
  readonly accuracyDifferenceSe: number;
  readonly picks: readonly number[];
}

export const SAVING_COVERAGE = 0.9;
const RESAMPLES = 1000;

function standardError(values: Float64Array): number {
  const n = values.length;
  if (n < 2) return Number.NaN;
  const mean = values.reduce((sum, one) => sum + one, 0) / n;
  return Math.sqrt(values.reduce((sum, one) => sum + (one - mean) ** 2, 0) / (n - 1) / n);
}

/** Interval of 1 - sum(own) / sum(normal) by resampling questions. */
function savingInterval(own: Float64Array, normal: Float64Array, seed: number): [number, number] {
  const random = createRandom(seed).fork(0x73617665);
  const drawn = Float64Array.from({ length: RESAMPLES }, () => {
    let [a, b] = [0, 0];
    for (let i = 0; i < own.length; i++) {
      const q = Math.floor(random.uniform() * own.length);
      a += own[q];
      b += normal[q];
    }
    return 1 - a / b;
  }).sort();
  return [quantileOfSorted(drawn, (1 - SAVING_COVERAGE) / 2), quantileOfSorted(drawn, (1 + SAVING_COVERAGE) / 2)];
}

/**
 * The three fixed strategies, routes that were learned or labelled, and the oracle, on the same questions (spec 8.4).
 * @param outcomes [strategies][questions], in the order of `DIFFICULTIES`
 * @param routes a strategy for every question, by name
 */
export function comparePolicies(
  outcomes: readonly (readonly StrategyOutcome[])[],
  routes: ReadonlyMap<string, ArrayLike<number>>,
  seed: number,
): RoutedPolicy[] {
  const normal = DIFFICULTIES.indexOf('normal');
  const questions = outcomes[0].length;
  const picks: [string, (q: number) => number][] = [
    ...DIFFICULTIES.map((name, s): [string, (q: number) => number] => [`always ${name}`, () => s]),
    ...[...routes].map(([name, route]): [string, (q: number) => number] => [name, (q) => route[q]]),
    ['oracle', (q) => oraclePick(outcomes, q)],
  ];
  const column = (pick: (q: number) => number, of: (outcome: StrategyOutcome) => number): Float64Array =>
    Float64Array.from({ length: questions }, (_, q) => of(outcomes[pick(q)][q]));
  const normalTokens = column(
    () => normal,
    ({ tokens }) => tokens,
  );
  const normalAccuracy = column(
    () => normal,
    ({ accuracy }) => accuracy,
  );
  const fixed = routedOutcome('', outcomes, () => normal);
  return picks.map(([name, pick]): RoutedPolicy => {
    const routed = routedOutcome(name, outcomes, pick);
    const accuracy = column(pick, (outcome) => outcome.accuracy);
    const [low, high] = savingInterval(
      column(pick, ({ tokens }) => tokens),
      normalTokens,
      seed,
    );
    return {
      name,
      accuracy: routed.accuracy,
      accuracySe: standardError(accuracy),
      meanTokens: routed.meanTokens,
      tokenSaving: 1 - routed.meanTokens / fixed.meanTokens,
      tokenSavingLow: low,
      tokenSavingHigh: high,
      accuracyDifference: routed.accuracy - fixed.accuracy,
      accuracyDifferenceSe: standardError(accuracy.map((one, q) => one - normalAccuracy[q])),
      picks: routed.picks,
    };
  });
}
