import { InputError } from '../errors.js';
import { ofBlock } from './rollouts/small-blocks.js';
import type { TokenBlock, TopTokens } from './rollouts/types.js';

/** Probabilities are held in these ranges by the published STEER metric. */
export const LEAST_PROBABILITY = 1e-8;
export const MOST_PROBABILITY = 1 - 1e-8;

/**
 * How the change of a token's entropy by its own update is estimated, to first order in a free softmax. With g the ascent
 * direction of the objective by log pi (A rho for plain policy gradient), x = pi(token), S = sum_v p_v^2 (ln p_v + H):
 * `steer` -g (1-x)(ln x + H), `single-logit` -g x (1-x)(ln x + H), `exact` -g [x (ln x + H) - S] (spec 2).
 */
export const ESTIMATORS = ['steer', 'single-logit', 'exact'] as const;
export type Estimator = (typeof ESTIMATORS)[number];

/** d H / d (size of a step along log pi of the token), by estimator; S is read by `exact` alone. Nats. */
export function entropySlope(estimator: Estimator, logProb: number, entropy: number, s: number): number {
  const x = Math.exp(logProb);
  const surplus = logProb + entropy;
  if (estimator === 'exact') return -(x * surplus - s);
  const slope = -(1 - x) * surplus;
  return estimator === 'steer' ? slope : x * slope;
}

/**
 * Size of the change of H by a step along its own gradient: sum_v p_v^2 (ln p_v + H)^2, or what the sampled token says of it: its
 * own logit alone, and, in STEER's scale, that divided by x.
 */
export function entropyAscent(estimator: Estimator, logProb: number, entropy: number, squares: number): number {
  if (estimator === 'exact') return squares;
  const x = Math.exp(logProb);
  const ascent = x * (logProb + entropy) ** 2;
  return estimator === 'steer' ? ascent : x * ascent;
}

/** {@link entropySlope} and {@link entropyAscent} of every token of a block, 0 under a mask of 0. */
export interface EntropyDirections {
  readonly slope: Float64Array;
  readonly ascent: Float64Array;
}

const STEER_DIRECTIONS = Symbol('steer');
const EXACT_DIRECTIONS = Symbol('exact');

/**
 * How the entropy of every token of a block moves, in STEER's scale or exactly from the likeliest tokens; undefined where the
 * block lacks what that needs. Blocks of `smallBlocks` keep it.
 */
export function entropyDirections(block: TokenBlock, estimator: 'steer' | 'exact'): EntropyDirections | undefined {
  return ofBlock(block, estimator === 'steer' ? STEER_DIRECTIONS : EXACT_DIRECTIONS, () => {
    const { mask, logProb, entropy, topTokens } = block;
    if (logProb === undefined || entropy === undefined) return undefined;
    if (estimator === 'exact' && topTokens === undefined) return undefined;
    const slope = new Float64Array(mask.length);
    const ascent = new Float64Array(mask.length);
    const sums = createDistributionSums();
    for (let i = 0; i < mask.length; i++) {
      if (mask[i] === 0) continue;
      if (estimator === 'exact' && topTokens !== undefined) distributionSums(topTokens, i, entropy[i], sums);
      slope[i] = entropySlope(estimator, logProb[i], entropy[i], sums.s);
      ascent[i] = entropyAscent(estimator, logProb[i], entropy[i], sums.squares);
    }
    return { slope, ascent };
  });
}

/**
 * STEER's metric of one sampled token: Omega = (A / q) x (1 - x)(ln x + H), with x = pi held in [1e-8, 1 - 1e-8] and q = pi_old in
 * [1e-8, 1]; above 0 where a decrease of the entropy is predicted; 0 where it is not finite.
 * @param entropy of the old policy's pass, nats
 */
export function steerOmega(advantage: number, logProb: number, oldLogProb: number, entropy: number): number {
  const x = Math.min(Math.max(Math.exp(logProb), LEAST_PROBABILITY), MOST_PROBABILITY);
  const q = Math.min(Math.max(Math.exp(oldLogProb), LEAST_PROBABILITY), 1);
  const omega = (advantage / q) * x * (1 - x) * (Math.log(x) + entropy);
  return Number.isFinite(omega) ? omega : 0;
}

/** Sums over the vocabulary that the exact estimates need, from the likeliest tokens of a position. */
export interface DistributionSums {
  /** S = sum_v p_v^2 (ln p_v + H). */
  s: number;
  /** sum_v p_v^2 (ln p_v + H)^2. */
  squares: number;
  /** Bound on what the tokens beyond the k likeliest could add to S; 0 where they have no mass. */
  tail: number;
}

export function createDistributionSums(): DistributionSums {
  return { s: 0, squares: 0, tail: 0 };
}

/**
 * Sums of position `at`. Tokens beyond the k likeliest are left out: together they add at most m max(|p (ln p + H)|) over p up to
 * the smallest kept probability, m their mass, which is `tail`.
 * @param sums is overwritten
 */
export function distributionSums(
  top: TopTokens,
  at: number,
  entropy: number,
  sums: DistributionSums,
): DistributionSums {
  const { k, logProbs } = top;
  let s = 0;
  let squares = 0;
  let mass = 0;
  let least = 1;
  for (let j = at * k; j < (at + 1) * k; j++) {
    const logP = logProbs[j];
    if (logP === Number.NEGATIVE_INFINITY) break;
    const p = Math.exp(logP);
    const part = p * (logP + entropy);
    s += p * part;
    squares += part * part;
    mass += p;
    least = p;
  }
  sums.s = s;
  sums.squares = squares;
  const missing = Math.max(0, 1 - mass);
  sums.tail = missing > 1e-12 ? missing * largestPart(Math.min(least, missing), entropy) : 0;
  return sums;
}

/** Largest |p (ln p + H)| for p in (0, most]: at an end, or where the derivative ln p + H + 1 is 0. */
function largestPart(most: number, entropy: number): number {
  const atEnd = Math.abs(most * (Math.log(most) + entropy));
  const turning = Math.exp(-entropy - 1);
  return turning < most ? Math.max(atEnd, turning) : atEnd;
}

/** Changes of entropy of rows of logits by one update of a sampled token each. */
export interface TokenEntropyChanges {
  /** [rows], nats. */
  readonly entropy: Float64Array;
  /** [rows]: change of entropy to first order in eta, and after the whole step. */
  readonly exactFirstOrder: Float64Array;
  readonly exactChange: Float64Array;
  /** [rows]: to first order where only the sampled logit moves. */
  readonly singleLogit: Float64Array;
  /** [rows]: STEER's metric, whose sign is opposite to the change. */
  readonly omega: Float64Array;
}

/** Entropy of logits, H = lse(z) - sum p z. */
function logitEntropy(logits: Float64Array): number {
  let peak = Number.NEGATIVE_INFINITY;
  for (const z of logits) if (z > peak) peak = z;
  let total = 0;
  let weighted = 0;
  for (const z of logits) {
    const e = Math.exp(z - peak);
    total += e;
    weighted += e * (z - peak);
  }
  return Math.log(total) - weighted / total;
}

/**
 * What the update of one sampled token does to the entropy of its softmax: dz_v = eta (A / q) x ([v = a] - p_v), the gradient of
 * the objective A pi(a) / q (spec 2).
 * @param logits [rows, vocabulary]
 * @param token, advantage, oldProbability [rows]
 * @throws InputError for a token outside the vocabulary
 */
export function tokenEntropyChanges(
  logits: Float64Array,
  token: Int32Array,
  advantage: Float64Array,
  oldProbability: Float64Array,
  eta: number,
): TokenEntropyChanges {
  const rows = token.length;
  const vocabulary = logits.length / rows;
  const column = (): Float64Array => new Float64Array(rows);
  const changes = {
    entropy: column(),
    exactFirstOrder: column(),
    exactChange: column(),
    singleLogit: column(),
    omega: column(),
  };
  const moved = new Float64Array(vocabulary);
  for (let r = 0; r < rows; r++) {
    const a = token[r];
    if (!(a >= 0 && a < vocabulary)) throw new InputError(`row ${r}: token ${a} of a vocabulary of ${vocabulary}`);
    const z = logits.subarray(r * vocabulary, (r + 1) * vocabulary);
    const peak = z.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
    const logTotal = peak + Math.log(z.reduce((sum, value) => sum + Math.exp(value - peak), 0));
    const entropy = logitEntropy(z);
    const x = Math.exp(z[a] - logTotal);
    const g = (advantage[r] / oldProbability[r]) * x;
    let s = 0;
    for (let v = 0; v < vocabulary; v++) {
      const p = Math.exp(z[v] - logTotal);
      s += p * p * (z[v] - logTotal + entropy);
      moved[v] = z[v] + eta * g * ((v === a ? 1 : 0) - p);
    }
    changes.entropy[r] = entropy;
    changes.exactFirstOrder[r] = eta * g * entropySlope('exact', z[a] - logTotal, entropy, s);
    changes.exactChange[r] = logitEntropy(moved) - entropy;
    changes.singleLogit[r] = eta * g * entropySlope('single-logit', z[a] - logTotal, entropy, s);
    changes.omega[r] = steerOmega(advantage[r], z[a] - logTotal, Math.log(oldProbability[r]), entropy);
  }
  return changes;
}
