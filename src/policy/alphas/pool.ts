import type { PanelShape } from '../../kernels/panel-operators.js';
import { dailyCorrelations, meanOf, type Normalised } from './correlation.js';
import {
  type DailyCovariances,
  dailyIcOfWeights,
  type Iterate,
  maximiseDailyObjective,
  minimiseSquares,
  objectiveOf,
  type PoolObjective,
  solveLeastSquares,
} from './pool-weights.js';

/** A newcomer more alike than this to a member is refused. One-sided: its negative passes. */
const MOST_ALIKE = 0.99;

/** A formula with its normalised values on the days of training. */
export interface ScoredFormula {
  /** Canonical text: what makes two formulas the same. */
  readonly key: string;
  readonly text: string;
  readonly normalised: Normalised;
  /** [days]. */
  readonly dailyIc: Float64Array;
  readonly ic: number;
}

export interface PoolSettings {
  readonly capacity: number;
  /** Weight of |w|_1; 0 solves least squares. */
  readonly l1: number;
  readonly iterate: Iterate;
  readonly objective: PoolObjective;
  /** Formulas with a lower single IC are refused, but for one while the pool holds none above it. */
  readonly icBound?: number;
  readonly threads?: number;
}

/** What an offer came to. */
export type OfferResult = 'added' | 'dropped' | 'refused' | 'failed before';

export interface Offer {
  /** The objective of the pool behind the offer; the best so far where the newcomer was dropped; 0 where it was refused. */
  readonly reward: number;
  readonly result: OfferResult;
}

/** What a pool is, as data: it can be written down and taken up. */
export interface PoolState {
  readonly members: readonly string[];
  readonly weights: readonly number[];
  readonly bestObjective: number;
  readonly failures: readonly string[];
}

export interface Pool {
  /** Members in the order of the original: a newcomer takes the place of what it drives out. */
  readonly members: readonly ScoredFormula[];
  readonly weights: Float64Array;
  readonly bestObjective: number;
  /** Objective and IC of the combination; 0 and 0 while the pool is empty. */
  readonly objective: number;
  readonly ic: number;
  offer(formula: ScoredFormula): Offer;
  /** What an offer of a formula that was scored before would come to, where that is known without its values. */
  recall(key: string, ic: number): Offer | undefined;
  /** Mutual IC of every day of two members. */
  mutualIc(i: number, j: number): Float64Array;
  /** Fills an empty pool with formulas as they are; their weights are found unless they are given. */
  load(formulas: readonly ScoredFormula[], weights?: Float64Array): void;
  state(): PoolState;
  /** Takes up a state whose members were scored anew. */
  restore(state: PoolState, members: readonly ScoredFormula[]): void;
}

/** Scores normalised values against a normalised target, both `[days, stocks]`. */
export function scoreNormalised(
  key: string,
  text: string,
  normalised: Normalised,
  target: Normalised,
  shape: PanelShape,
  threads?: number,
): ScoredFormula {
  const dailyIc = dailyCorrelations(normalised, target, shape, threads);
  return { key, text, normalised, dailyIc, ic: meanOf(dailyIc) };
}

/**
 * A pool of formulas whose weighted sum is to predict the target (spec 10.5). It keeps the mutual ICs of every day, so that
 * the IC of any weights costs O(days members^2) and a newcomer one pass over the members' values.
 */
export function createPool(settings: PoolSettings, target: Normalised, shape: PanelShape): Pool {
  const { capacity, l1, iterate, objective, threads } = settings;
  const icBound = settings.icBound ?? -1;
  const members: ScoredFormula[] = [];
  const mutual = new Map<ScoredFormula, Map<ScoredFormula, { daily: Float64Array; mean: number }>>();
  let weights: Float64Array = new Float64Array(0);
  let bestObjective = -1;
  let failures = new Set<string>();
  let now = { objective: 0, ic: 0 };

  const between = (a: ScoredFormula, b: ScoredFormula): { daily: Float64Array; mean: number } => {
    const known = mutual.get(a)?.get(b);
    if (known !== undefined) return known;
    const daily = dailyCorrelations(a.normalised, b.normalised, shape, threads);
    return { daily, mean: meanOf(daily) };
  };
  const remember = (a: ScoredFormula, b: ScoredFormula, ic: { daily: Float64Array; mean: number }): void => {
    for (const [x, y] of [
      [a, b],
      [b, a],
    ]) {
      const row = mutual.get(x) ?? new Map();
      row.set(y, ic);
      mutual.set(x, row);
    }
  };
  const forget = (a: ScoredFormula): void => {
    mutual.delete(a);
    for (const row of mutual.values()) row.delete(a);
  };
  const covariances = (): DailyCovariances => {
    const n = members.length;
    const { days } = shape;
    const among = new Float64Array(days * n * n);
    const withTarget = new Float64Array(days * n);
    members.forEach((a, i) => {
      const da = a.normalised.deviations;
      for (let t = 0; t < days; t++) {
        withTarget[t * n + i] = a.dailyIc[t] * da[t] * target.deviations[t];
        among[(t * n + i) * n + i] = da[t] * da[t];
      }
      for (let j = 0; j < i; j++) {
        const { daily } = between(a, members[j]);
        const db = members[j].normalised.deviations;
        for (let t = 0; t < days; t++) {
          const value = daily[t] * da[t] * db[t];
          among[(t * n + i) * n + j] = value;
          among[(t * n + j) * n + i] = value;
        }
      }
    });
    return { days, members: n, among, withTarget, targetDeviation: target.deviations };
  };
  const optimise = (): Float64Array => {
    const n = members.length;
    if (objective.kind !== 'ic') return maximiseDailyObjective(covariances(), weights, { objective, l1, iterate });
    const single = Float64Array.from(members, ({ ic }) => ic);
    const matrix = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      matrix[i * n + i] = 1;
      for (let j = 0; j < i; j++) {
        const { mean } = between(members[i], members[j]);
        matrix[i * n + j] = mean;
        matrix[j * n + i] = mean;
      }
    }
    return l1 === 0 ? solveLeastSquares(matrix, single) : minimiseSquares(matrix, single, weights, l1, iterate);
  };
  const measure = (): void => {
    const daily = dailyIcOfWeights(covariances(), weights);
    now = { ic: meanOf(daily), objective: objectiveOf(daily, objective) };
    if (now.objective > bestObjective) bestObjective = now.objective;
  };
  const underBound = (): boolean => members.length === 0 || (members.length === 1 && Math.abs(members[0].ic) < icBound);

  return {
    members,
    get weights() {
      return weights;
    },
    get bestObjective() {
      return bestObjective;
    },
    get objective() {
      return now.objective;
    },
    get ic() {
      return now.ic;
    },
    offer(formula) {
      const refused: Offer = { reward: 0, result: 'refused' };
      if (Number.isNaN(formula.ic) || (!underBound() && formula.ic < icBound)) return refused;
      const ics = members.map((member) => between(formula, member));
      if (ics.some(({ mean }) => Number.isNaN(mean) || mean > MOST_ALIKE)) return refused;
      if (failures.has(formula.key)) return { reward: bestObjective, result: 'failed before' };
      const before = weights;
      let sum = 0;
      for (const weight of weights) sum += weight;
      const initial = members.length === 0 ? Math.max(formula.ic, 0.01) : sum / members.length;
      members.forEach((member, i) => {
        remember(formula, member, ics[i]);
      });
      members.push(formula);
      weights = Float64Array.of(...weights, initial);
      if (members.length > 1) {
        const found = optimise();
        if (members.length > capacity) {
          let worst = 0;
          for (let i = 1; i < found.length; i++) if (Math.abs(found[i]) < Math.abs(found[worst])) worst = i;
          const last = members.length - 1;
          forget(members[worst]);
          if (worst === last) {
            members.pop();
            weights = before;
            failures.add(formula.key);
            return { reward: bestObjective, result: 'dropped' };
          }
          members[worst] = members[last];
          found[worst] = found[last];
          members.pop();
          weights = found.slice(0, last);
        } else weights = found;
      }
      failures = new Set();
      measure();
      return { reward: now.objective, result: 'added' };
    },
    recall(key, ic) {
      if (members.some((member) => member.key === key)) return { reward: 0, result: 'refused' };
      if (Number.isNaN(ic) || (!underBound() && ic < icBound)) return { reward: 0, result: 'refused' };
      return failures.has(key) ? { reward: bestObjective, result: 'failed before' } : undefined;
    },
    mutualIc: (i, j) => (i === j ? new Float64Array(shape.days).fill(1) : between(members[i], members[j]).daily),
    load(formulas, given) {
      for (const formula of formulas) {
        for (const member of members) remember(formula, member, between(formula, member));
        members.push(formula);
        const initial =
          weights.length === 0 ? Math.max(formula.ic, 0.01) : weights.reduce((a, b) => a + b, 0) / weights.length;
        weights = Float64Array.of(...weights, initial);
      }
      weights = given ?? (members.length > 1 ? optimise() : weights);
      if (members.length > 0) measure();
    },
    state: () => ({
      members: members.map(({ text }) => text),
      weights: Array.from(weights),
      bestObjective,
      failures: [...failures],
    }),
    restore(state, scored) {
      members.length = 0;
      mutual.clear();
      for (const formula of scored) {
        for (const member of members) remember(formula, member, between(formula, member));
        members.push(formula);
      }
      weights = Float64Array.from(state.weights);
      failures = new Set(state.failures);
      if (members.length > 0) measure();
      bestObjective = state.bestObjective;
    },
  };
}
