import { InputError } from '../errors.js';
import { RELATIVE_SLACK } from '../kernels/token-cuts.js';
import { entropyHeld, truncationDivergence } from './top-h.js';

/** Searches over more candidates than this take too long. */
export const MOST_CANDIDATES = 24;

export interface ConstrainedMassOptions {
  readonly alpha: number;
  /** Only subsets of the m most probable tokens are searched, m <= 24. Default: all, at most 24. */
  readonly candidates?: number;
  /** H(p) in nats over the whole vocabulary; default that of `probabilities`. */
  readonly entropyNats?: number;
}

/** The optimum and the greedy prefix of one distribution. Sets are ids, ascending. */
export interface ConstrainedMass {
  readonly entropyNats: number;
  readonly boundNats: number;
  readonly candidates: number;
  /** Whether the candidates are all tokens of probability above 0: then the optimum is that of the whole problem. */
  readonly complete: boolean;
  readonly optimal: Int32Array;
  readonly optimalMass: number;
  /** The paper's prefix, within the candidates. */
  readonly greedy: Int32Array;
  readonly greedyMass: number;
  /** Greedy over optimal mass. */
  readonly ratio: number;
  /** 1 - greedy mass: what the optimum can have more at most, over the whole vocabulary. */
  readonly gapBound: number;
  readonly greedyDivergenceNats: number;
  readonly optimalDivergenceNats: number;
  /** Nodes of the search tree that were visited. */
  readonly visited: number;
}

const plogp = (p: number): number => (p > 0 ? p * Math.log(p) : 0);

/**
 * Entropy-constrained mass maximisation, exactly: the subset S of the m most probable tokens of largest mass
 * Gamma = sum_S p whose renormalised entropy ln Gamma - sum_S p ln p / Gamma is at most alpha H(p) (Potraghloo et al. 2025,
 * the problem that its theorem 2 proves NP-hard). Branch and bound over the tokens in falling order: what can still be
 * added is bounded by its mass and, for the entropy, by mass in tokens as probable as the next one.
 * @param probabilities [n], summing to 1
 * @throws InputError for alpha outside (0, 1], more than 24 candidates, or no distribution
 */
export function entropyConstrainedMass(probabilities: Float64Array, options: ConstrainedMassOptions): ConstrainedMass {
  const { alpha } = options;
  if (!(alpha > 0 && alpha <= 1)) throw new InputError(`alpha is ${alpha}; expected a number in (0, 1]`);
  const support = [...probabilities.keys()].filter((id) => !(probabilities[id] === 0));
  let total = 0;
  for (const p of probabilities) total += p;
  if (support.some((id) => !(probabilities[id] > 0)) || !(Math.abs(total - 1) < 1e-6)) {
    throw new InputError(`probabilities must be above or equal to 0 and sum to 1; they sum to ${total}`);
  }
  const m = Math.min(options.candidates ?? MOST_CANDIDATES, support.length);
  if (!(Number.isInteger(m) && m >= 1 && m <= MOST_CANDIDATES)) {
    throw new InputError(`${options.candidates} candidates; the exact search takes 1 to ${MOST_CANDIDATES}`);
  }
  support.sort((a, b) => probabilities[b] - probabilities[a] || a - b);
  const ids = support.slice(0, m);
  const p = Float64Array.from(ids, (id) => probabilities[id]);
  const entropyNats = options.entropyNats ?? -probabilities.reduce((sum, value) => sum + plogp(value), 0);
  const boundNats = alpha * entropyNats;
  const greedyCount = greedyPrefix(p, boundNats);
  const greedyMask = 2 ** greedyCount - 1;
  const found = searchSubsets(p, boundNats, greedyMask);
  const setOf = (mask: number): Int32Array => Int32Array.from(ids.filter((_, i) => (mask & (1 << i)) !== 0)).sort();
  const greedyMass = massOf(p, greedyMask);
  const optimalMass = massOf(p, found.mask);
  return {
    entropyNats,
    boundNats,
    candidates: m,
    complete: m === support.length,
    optimal: setOf(found.mask),
    optimalMass,
    greedy: setOf(greedyMask),
    greedyMass,
    ratio: greedyMass / optimalMass,
    gapBound: Math.max(0, 1 - greedyMass),
    greedyDivergenceNats: truncationDivergence(greedyMass),
    optimalDivergenceNats: truncationDivergence(optimalMass),
    visited: found.visited,
  };
}

function massOf(p: Float64Array, mask: number): number {
  let mass = 0;
  for (let i = 0; i < p.length; i++) if ((mask & (1 << i)) !== 0) mass += p[i];
  return mass;
}

/** Length of the longest prefix within the bound, at least 1. */
function greedyPrefix(p: Float64Array, boundNats: number): number {
  let mass = p[0];
  let moment = plogp(p[0]);
  let count = 1;
  for (; count < p.length; count++) {
    mass += p[count];
    moment += plogp(p[count]);
    if (!entropyHeld(Math.log(mass) - moment / mass, boundNats)) break;
  }
  return count;
}

/**
 * The most mass M <= most that may be added to (mass, moment) in tokens of -ln p >= surprisal with the entropy within the
 * bound; undefined when no M is. f(M) = (Gamma + M) ln(Gamma + M) - s + M surprisal - bound (Gamma + M) is convex in M and must
 * not be above 0.
 */
function largestAddition(
  mass: number,
  moment: number,
  surprisal: number,
  boundNats: number,
  most: number,
): number | undefined {
  const excess = (added: number): number => {
    const sum = mass + added;
    return sum * Math.log(sum) - moment + added * surprisal - boundNats * sum;
  };
  if (excess(most) <= 0) return most;
  const least = Math.min(most, Math.max(0, Math.exp(boundNats - surprisal - 1) - mass));
  if (excess(least) > 0) return undefined;
  let [low, high] = [least, most];
  for (let i = 0; i < 60 && high - low > 1e-15; i++) {
    const middle = (low + high) / 2;
    if (excess(middle) <= 0) low = middle;
    else high = middle;
  }
  return high;
}

/** Depth first, the more probable token in before out, from an incumbent that is feasible. */
function searchSubsets(p: Float64Array, boundNats: number, incumbent: number): { mask: number; visited: number } {
  const n = p.length;
  const surprisal = p.map((value) => -Math.log(value));
  const left = new Float64Array(n + 1);
  for (let i = n - 1; i >= 0; i--) left[i] = left[i + 1] + p[i];
  // The slack of the comparison, as an addition to the bound of the relaxed problem.
  const relaxed = boundNats * (1 + 2 * RELATIVE_SLACK) + 2 * Number.EPSILON;
  let best = incumbent;
  let bestMass = massOf(p, incumbent);
  let visited = 0;
  const visit = (i: number, mask: number, mass: number, moment: number): void => {
    visited++;
    if (mass > bestMass * (1 + RELATIVE_SLACK) && entropyHeld(Math.log(mass) - moment / mass, boundNats)) {
      best = mask;
      bestMass = mass;
    }
    if (i === n || mass + left[i] <= bestMass * (1 + RELATIVE_SLACK)) return;
    if (mass > 0) {
      const added = largestAddition(mass, moment, surprisal[i], relaxed, left[i]);
      if (added === undefined || mass + added <= bestMass * (1 + RELATIVE_SLACK)) return;
    }
    visit(i + 1, mask | (1 << i), mass + p[i], moment - p[i] * surprisal[i]);
    visit(i + 1, mask, mass, moment);
  };
  visit(0, 0, 0, 0);
  return { mask: best, visited };
}
