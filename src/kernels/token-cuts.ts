/**
 * What each filter of next-token distributions keeps, on a distribution that is sorted: the definitions that the native
 * kernel `token_filter` holds to. Every filter keeps a contiguous range of the descending order, and at least one token.
 * Comparisons have a relative slack of 1e-12, so that a bound that is met exactly in real numbers is met here.
 */

/** Filters in the order of their numbers in the addon, each with the meaning of its values. */
export const FILTER_METHODS = [
  /** [temperature] */
  'temperature',
  /** [temperature, range, exponent] */
  'dynamic-temperature',
  /** [k] */
  'top-k',
  /** [p] */
  'top-p',
  /** [p] */
  'min-p',
  /** [mass] */
  'typical',
  /** [epsilon] */
  'epsilon',
  /** [epsilon] */
  'eta',
  /** [n] */
  'top-n-sigma',
  /** [alpha] */
  'top-h-paper',
  /** [alpha] */
  'top-h-reference',
  /** [alpha] */
  'top-h-transformers',
  /** [threshold] */
  'xtc',
  /** [mu in bits, candidates] */
  'mirostat-v1',
  /** [mu in bits] */
  'mirostat-v2',
] as const;
export type FilterMethod = (typeof FILTER_METHODS)[number];

export const RELATIVE_SLACK = 1e-12;
/** A logit that many nats (over the temperature) below the largest has no weight. */
export const WEIGHT_DEPTH = 700;
/** How many of the most probable tokens the code rules of top-H look at. */
export const TOP_H_CANDIDATES = 100;

/** A distribution over n tokens in falling order of their logits (of equal ones the lower id first). */
export interface SortedDistribution {
  /** Logits before any temperature, [n] falling. */
  readonly logits: Float64Array;
  /** e^((x - x_0)/T), [n]; 0 below {@link WEIGHT_DEPTH}. */
  readonly weights: Float64Array;
  readonly temperature: number;
  /** Sum of the weights. */
  readonly total: number;
  readonly entropyNats: number;
}

/** What a filter may know of the row as a whole, whatever was cut before. */
export interface WholeRow {
  /** Size of the vocabulary, masked tokens included. */
  readonly vocabulary: number;
  /** Population deviation of the finite logits, before any temperature. */
  readonly deviation: number;
}

/** Positions from (inclusive) to (exclusive) of the descending order. */
export interface KeptRange {
  readonly from: number;
  readonly to: number;
}

type Cut = (tokens: SortedDistribution, values: readonly number[], row: WholeRow) => KeptRange;

const first = (to: number): KeptRange => ({ from: 0, to: Math.max(1, to) });

/** ln p of token i. */
const logProbability = (tokens: SortedDistribution, i: number): number =>
  (tokens.logits[i] - tokens.logits[0]) / tokens.temperature - Math.log(tokens.total);

/** How many tokens have a probability of at least e^bound. */
function countAtLeast(tokens: SortedDistribution, bound: number): number {
  let to = 0;
  while (to < tokens.logits.length && logProbability(tokens, to) >= bound - RELATIVE_SLACK) to++;
  return to;
}

/** Tokens of probability at least e^bound, or the most probable one and its equals. */
function probabilityAtLeast(tokens: SortedDistribution, bound: number): KeptRange {
  return first(Math.max(countAtLeast(tokens, bound), countAtLeast(tokens, logProbability(tokens, 0))));
}

function topK({ logits }: SortedDistribution, [k]: readonly number[]): KeptRange {
  let to = Math.min(Math.max(1, k), logits.length);
  while (to < logits.length && logits[to] === logits[to - 1]) to++;
  return first(to);
}

function topP({ weights, total }: SortedDistribution, [p]: readonly number[]): KeptRange {
  if (p >= 1) return first(weights.length);
  const enough = p * total * (1 - RELATIVE_SLACK);
  let mass = 0;
  for (let i = 0; i < weights.length; i++) {
    mass += weights[i];
    if (mass >= enough) return first(i + 1);
  }
  return first(weights.length);
}

/** Locally typical sampling (Meister et al. 2023): the tokens whose surprisal is nearest to the entropy. */
function typical(tokens: SortedDistribution, [mass]: readonly number[]): KeptRange {
  const { weights, total, entropyNats } = tokens;
  const n = weights.length;
  if (mass >= 1) return first(n);
  const score = (i: number): number => Math.abs(logProbability(tokens, i) + entropyNats);
  // Scores fall to their least and rise again: the order of scores grows from there to both sides.
  let to = 0;
  while (to < n && logProbability(tokens, to) + entropyNats > 0) to++;
  let from = to;
  const enough = mass * total * (1 - RELATIVE_SLACK);
  let sum = 0;
  let last = 0;
  while (sum < enough && (from > 0 || to < n)) {
    const above = from > 0 && (to >= n || score(from - 1) <= score(to));
    const next = above ? --from : to++;
    last = score(next);
    sum += weights[next];
  }
  if (from === to) return nearestOnly(tokens, score, to);
  while (from > 0 && score(from - 1) <= last) from--;
  while (to < n && score(to) <= last) to++;
  return { from, to };
}

/** A mass of 0 keeps the one nearest token and those as near. */
function nearestOnly(tokens: SortedDistribution, score: (i: number) => number, at: number): KeptRange {
  const n = tokens.weights.length;
  const nearest = Math.min(
    at > 0 ? score(at - 1) : Number.POSITIVE_INFINITY,
    at < n ? score(at) : Number.POSITIVE_INFINITY,
  );
  let from = at;
  let to = at;
  while (from > 0 && score(from - 1) <= nearest) from--;
  while (to < n && score(to) <= nearest) to++;
  return { from, to };
}

/** Threshold min(epsilon, sqrt(epsilon) e^-H) of eta sampling (Hewitt, Manning & Liang 2022). */
export function etaThreshold(epsilon: number, entropyNats: number): number {
  return Math.min(epsilon, Math.sqrt(epsilon) * Math.exp(-entropyNats));
}

function topNSigma({ logits }: SortedDistribution, [n]: readonly number[], { deviation }: WholeRow): KeptRange {
  const least = logits[0] - n * deviation;
  const slack = RELATIVE_SLACK * n * deviation;
  let to = 0;
  while (to < logits.length && logits[to] >= least - slack) to++;
  return first(to);
}

/**
 * Top-H (Potraghloo et al. 2025, algorithms 1 and 2): the longest prefix whose renormalised entropy
 * H_j = ln Gamma_j - s_j/Gamma_j stays within alpha H(p). H_j grows along the prefix (theorem 3).
 */
function topHPaper(tokens: SortedDistribution, [alpha]: readonly number[]): KeptRange {
  const { logits, weights, temperature, entropyNats } = tokens;
  const bound = alpha * entropyNats * (1 + RELATIVE_SLACK);
  const prefix = createEntropySum();
  for (let j = 0; j < weights.length; j++) {
    if (weights[j] === 0) return first(j);
    prefix.add(weights[j], (logits[j] - logits[0]) / temperature);
    if (j > 0 && prefix.entropyNats() > bound) return first(j);
  }
  return first(weights.length);
}

/** Adds up tokens of weight e^d: weights of 1, the largest, apart, so that nothing is lost where they have nearly all mass. */
export interface EntropySum {
  add(weight: number, d: number): void;
  total(): number;
  /** ln z - sum e^d d / z. */
  entropyNats(): number;
}

export function createEntropySum(): EntropySum {
  let ones = 0;
  let rest = 0;
  let moment = 0;
  return {
    add(weight, d) {
      if (weight < 1) rest += weight;
      else ones++;
      if (weight > 0) moment += weight * d;
    },
    total: () => ones + rest,
    entropyNats: () => Math.log1p(ones - 1 + rest) - moment / (ones + rest),
  };
}

/**
 * The code rules of top-H: partial sums of -p ln p over the 100 most probable tokens against alpha times their whole; p
 * as it is (`reference`) or renormalised over the 100 (`transformers`).
 */
function topHPartial(renormalised: boolean): Cut {
  return ({ weights, total }, [alpha]) => {
    const n = Math.min(TOP_H_CANDIDATES, weights.length);
    let divisor = total;
    if (renormalised) {
      divisor = 0;
      for (let i = 0; i < n; i++) divisor += weights[i];
    }
    const sums = new Float64Array(n);
    let sum = 0;
    for (let i = 0; i < n; i++) {
      const p = weights[i] / divisor;
      if (p > 0) sum -= p * Math.log(p);
      sums[i] = sum;
    }
    const bound = alpha * sum * (1 + RELATIVE_SLACK);
    let to = 1;
    while (to < n && weights[to] > 0 && sums[to] <= bound) to++;
    return first(to);
  };
}

/** Exclude top choices, when it acts: all tokens of at least the threshold go but the least probable of them. */
function xtc(tokens: SortedDistribution, [threshold]: readonly number[]): KeptRange {
  const above = countAtLeast(tokens, Math.log(threshold));
  return { from: Math.max(0, above - 1), to: tokens.weights.length };
}

/** The estimate of Mirostat v1 (Basu et al. 2021) for one step. */
export interface MirostatCut {
  /** Exponent of Zipf's law fitted to the most probable tokens. */
  readonly exponent: number;
  /** How many tokens of such a law have the surprise mu. */
  readonly count: number;
  /** The count as it is applied: a whole number, at least 1. */
  readonly kept: number;
}

/**
 * The number of tokens that Mirostat v1 keeps. s = sum t b / sum t^2 over b_i = ln(p_i/p_(i+1)), t_i = ln((i+2)/(i+1));
 * k = (e 2^mu / (1 - V^-e))^(1/s) with e = s - 1, which tends to 2^mu / ln V where s tends to 1.
 * @param logits the most probable tokens' logits over the temperature, falling
 */
export function mirostatCut(logits: ArrayLike<number>, vocabulary: number, muBits: number): MirostatCut {
  let products = 0;
  let squares = 0;
  for (let i = 0; i + 1 < logits.length; i++) {
    const t = Math.log((i + 2) / (i + 1));
    products += t * (logits[i] - logits[i + 1]);
    squares += t * t;
  }
  const exponent = squares > 0 ? products / squares : Number.POSITIVE_INFINITY;
  const excess = exponent - 1;
  const ratio =
    Math.abs(excess) < 1e-9 ? 1 / Math.log(vocabulary) : excess / -Math.expm1(-excess * Math.log(vocabulary));
  const count = exponent === Number.POSITIVE_INFINITY ? 1 : (ratio * 2 ** muBits) ** (1 / exponent);
  // A flat start of the order gives 1^infinity or the like: NaN keeps one.
  return { exponent, count, kept: Math.max(1, Math.floor(Number.isNaN(count) ? 1 : Math.min(count, vocabulary))) };
}

function mirostatV1(tokens: SortedDistribution, [mu, candidates]: readonly number[], row: WholeRow): KeptRange {
  const { logits, temperature } = tokens;
  const scaled = logits.subarray(0, Math.min(candidates, logits.length)).map((x) => x / temperature);
  return first(Math.min(mirostatCut(scaled, row.vocabulary, mu).kept, logits.length));
}

/** The filters that cut, by name; temperatures do not. */
export const CUTS: Readonly<Partial<Record<FilterMethod, Cut>>> = {
  'top-k': topK,
  'top-p': topP,
  'min-p': (tokens, [p]) => probabilityAtLeast(tokens, Math.log(p) - Math.log(tokens.total)),
  typical,
  epsilon: (tokens, [epsilon]) => probabilityAtLeast(tokens, Math.log(epsilon)),
  eta: (tokens, [epsilon]) => probabilityAtLeast(tokens, Math.log(etaThreshold(epsilon, tokens.entropyNats))),
  'top-n-sigma': topNSigma,
  'top-h-paper': topHPaper,
  'top-h-reference': topHPartial(false),
  'top-h-transformers': topHPartial(true),
  xtc,
  'mirostat-v1': mirostatV1,
  'mirostat-v2': (tokens, [mu]) => first(countAtLeast(tokens, -mu * Math.LN2)),
};

/**
 * The temperature that dynamic temperature gives a distribution of entropy H over n tokens:
 * Tmin + (Tmax - Tmin) (H/ln n)^exponent, Tmin = max(0, T0 - range), Tmax = T0 + range. For one token it does not matter.
 */
export function dynamicTemperature(entropyNats: number, n: number, [base, range, exponent]: readonly number[]): number {
  const least = Math.max(0, base - range);
  return least + (base + range - least) * normalizedEntropy(entropyNats, n) ** exponent;
}

/** H/ln n, at most 1; 0 for one token. */
export function normalizedEntropy(entropyNats: number, n: number): number {
  return n > 1 ? Math.min(1, entropyNats / Math.log(n)) : 0;
}
