/** Columns of tokens, one value each; absent where the dump has none. */
export interface PolicyTokens {
  readonly logProb?: Float64Array;
  readonly oldLogProb?: Float64Array;
  readonly referenceLogProb?: Float64Array;
  readonly entropy?: Float64Array;
  readonly advantage?: Float64Array;
  /** 1 where the token counts; what stands under a 0 is not looked at. */
  readonly mask: Uint8Array;
}

/** By token id: tokens that count, those of at least a threshold, and the sum of the entropies of the latter, nats. */
export interface TokenTables {
  readonly all: Float64Array;
  readonly high: Float64Array;
  readonly entropies: Float64Array;
}

/** Figures of a response, in the order of `ResponseField` of native/src/policy_tokens.hpp. */
export const RESPONSE_FIELD = {
  count: 0,
  logProb: 1,
  logProbSquares: 2,
  advantage: 3,
  advantageSquares: 4,
  products: 5,
  entropy: 6,
  entropySquares: 7,
  logRatio: 8,
  absoluteLogRatio: 9,
  oldDivergence: 10,
  clippedHigh: 11,
  clippedLow: 12,
  referenceLogRatio: 13,
  referenceDivergence: 14,
  quadrantCounts: 15,
  quadrantOmegas: 19,
  heldProbabilities: 23,
} as const;
export const RESPONSE_FIELDS = 24;

const F = RESPONSE_FIELD;
const LEAST_LOG = Math.log(1e-8);
const MOST_LOG = Math.log1p(-1e-8);

interface TokenChange {
  readonly omega: number;
  /** ln x + H. */
  readonly tendency: number;
  readonly heldProbability: boolean;
}

/** Omega = (A / q) x (1 - x)(ln x + H), x and q held at 1e-8 from 0, x also from 1. */
function tokenChange(logProb: number, oldLogProb: number, entropy: number, advantage: number): TokenChange {
  const logX = Math.min(MOST_LOG, Math.max(LEAST_LOG, logProb));
  const logQ = Math.min(0, Math.max(LEAST_LOG, oldLogProb));
  const tendency = logX + entropy;
  const omega = advantage * Math.exp(logX - logQ) * (1 - Math.exp(logX)) * tendency;
  return { omega, tendency, heldProbability: logX !== logProb || logQ !== oldLogProb };
}

function sumOf(x: Float64Array): number {
  let sum = 0;
  for (const value of x) sum += value;
  return sum;
}

function products(x: Float64Array, meanX: number, y: Float64Array, meanY: number): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += (x[i] - meanX) * (y[i] - meanY);
  return sum;
}

function addRatios(run: PolicyTokens, low: number, high: number, into: Float64Array): void {
  const { logProb, oldLogProb, advantage } = run;
  if (logProb === undefined || oldLogProb === undefined) return;
  for (let i = 0; i < logProb.length; i++) {
    const d = logProb[i] - oldLogProb[i];
    const rho = Math.exp(d);
    into[F.logRatio] += d;
    into[F.absoluteLogRatio] += Math.abs(d);
    into[F.oldDivergence] += rho - d - 1;
    const a = advantage?.[i] ?? 0;
    if (a > 0 && rho > high) into[F.clippedHigh]++;
    if (a < 0 && rho < low) into[F.clippedLow]++;
  }
}

function addReference({ logProb, referenceLogProb }: PolicyTokens, into: Float64Array): void {
  if (logProb === undefined || referenceLogProb === undefined) return;
  for (let i = 0; i < logProb.length; i++) {
    const d = referenceLogProb[i] - logProb[i];
    into[F.referenceLogRatio] -= d;
    into[F.referenceDivergence] += Math.exp(d) - d - 1;
  }
}

function addQuadrants({ logProb, oldLogProb, entropy, advantage }: PolicyTokens, into: Float64Array): void {
  if (!(logProb && oldLogProb && entropy && advantage)) return;
  for (let i = 0; i < logProb.length; i++) {
    const change = tokenChange(logProb[i], oldLogProb[i], entropy[i], advantage[i]);
    if (change.heldProbability) into[F.heldProbabilities]++;
    if (advantage[i] === 0 || change.tendency === 0) continue;
    const quadrant = (advantage[i] > 0 ? 0 : 2) + (change.tendency > 0 ? 0 : 1);
    into[F.quadrantCounts + quadrant]++;
    into[F.quadrantOmegas + quadrant] += change.omega;
  }
}

/** The tokens of a response that count. */
function compacted(tokens: PolicyTokens, begin: number, end: number): PolicyTokens {
  const take = (column: Float64Array | undefined): Float64Array | undefined =>
    column?.subarray(begin, end).filter((_, i) => tokens.mask[begin + i] !== 0);
  return {
    logProb: take(tokens.logProb),
    oldLogProb: take(tokens.oldLogProb),
    referenceLogProb: take(tokens.referenceLogProb),
    entropy: take(tokens.entropy),
    advantage: take(tokens.advantage),
    mask: tokens.mask.subarray(begin, end).filter((counts) => counts !== 0),
  };
}

function addMoments({ logProb, advantage, entropy, mask }: PolicyTokens, into: Float64Array): void {
  const n = mask.length;
  const add = (column: Float64Array | undefined, sum: number, squares: number): number => {
    if (column === undefined) return 0;
    into[sum] = sumOf(column);
    const mean = into[sum] / n;
    into[squares] = products(column, mean, column, mean);
    return mean;
  };
  const meanLogProb = add(logProb, F.logProb, F.logProbSquares);
  const meanAdvantage = add(advantage, F.advantage, F.advantageSquares);
  add(entropy, F.entropy, F.entropySquares);
  if (logProb && advantage) into[F.products] = products(advantage, meanAdvantage, logProb, meanLogProb);
}

export function responseFiguresReference(
  tokens: PolicyTokens,
  offsets: Int32Array,
  clipLow: number,
  clipHigh: number,
  figures: Float64Array,
): void {
  for (let r = 0; r + 1 < offsets.length; r++) {
    const run = compacted(tokens, offsets[r], offsets[r + 1]);
    const into = figures.subarray(r * RESPONSE_FIELDS, (r + 1) * RESPONSE_FIELDS);
    into[F.count] = run.mask.length;
    if (run.mask.length === 0) continue;
    addMoments(run, into);
    addRatios(run, 1 - clipLow, 1 + clipHigh, into);
    addReference(run, into);
    addQuadrants(run, into);
  }
}

export function covarianceSummandsReference(
  logProb: Float64Array,
  advantage: Float64Array,
  mask: Uint8Array,
  meanLogProb: number,
  meanAdvantage: number,
  summands: Float64Array,
): number {
  let positive = 0;
  for (let i = 0; i < mask.length; i++) {
    summands[i] = mask[i] === 0 ? 0 : (advantage[i] - meanAdvantage) * (logProb[i] - meanLogProb);
    if (summands[i] > 0) positive++;
  }
  return positive;
}

export function entropyChangeSummandsReference(
  logProb: Float64Array,
  oldLogProb: Float64Array,
  entropy: Float64Array,
  advantage: Float64Array,
  mask: Uint8Array,
  omegas: Float64Array,
): void {
  for (let i = 0; i < mask.length; i++) {
    omegas[i] = mask[i] === 0 ? 0 : tokenChange(logProb[i], oldLogProb[i], entropy[i], advantage[i]).omega;
  }
}

export function sumsAboveReference(
  values: Float64Array,
  mask: Uint8Array,
  offsets: Int32Array,
  thresholds: Float64Array,
  sums: Float64Array,
): void {
  const count = thresholds.length;
  for (let r = 0; r + 1 < offsets.length; r++) {
    for (let i = offsets[r]; i < offsets[r + 1]; i++) {
      if (mask[i] === 0) continue;
      for (let t = 0; t < count; t++) if (values[i] > thresholds[t]) sums[r * count + t] += values[i];
    }
  }
}

export function countTokensReference(
  ids: Int32Array,
  entropy: Float64Array,
  mask: Uint8Array,
  threshold: number,
  { all, high, entropies }: TokenTables,
): boolean {
  if (ids.some((id) => id >= all.length)) return false;
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i];
    if (mask[i] === 0 || id < 0) continue;
    all[id]++;
    if (entropy[i] >= threshold) {
      high[id]++;
      entropies[id] += entropy[i];
    }
  }
  return true;
}
