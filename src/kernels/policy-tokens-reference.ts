/** Columns of tokens, one value each; absent where the dump has none. */
export interface PolicyTokens {
  readonly logProb?: Float64Array;
  readonly oldLogProb?: Float64Array;
  readonly referenceLogProb?: Float64Array;
  readonly entropy?: Float64Array;
  readonly advantage?: Float64Array;
  /** [responses], in place of `advantage` where the tokens of a response have one. */
  readonly responseAdvantage?: Float64Array;
  /** 1 where the token counts; what stands under a 0 is not looked at. */
  readonly mask: Uint8Array;
}

/** By token id. */
export interface TokenTables {
  /** [ids, 2]: tokens that count, and those of at least a threshold. */
  readonly counts: Float64Array;
  /** [ids]: sum of the entropies of the latter, nats. */
  readonly entropies: Float64Array;
}

/** Where the tokens of several blocks that count are put one behind another, -0 as 0. */
export interface HeldTokens {
  /** Position of the first. */
  readonly at: number;
  readonly logProb?: Float64Array;
  readonly entropy?: Float64Array;
  readonly advantage?: Float64Array;
  /** Token ids of the block, and where they are put. */
  readonly ids?: { readonly from: Int32Array; readonly into: Int32Array };
}

/** Figures of a response, in the order of `ResponseField` of native/src/policy_tokens.hpp. */
export const RESPONSE_FIELD = {
  count: 0,
  logProb: 1,
  advantage: 2,
  products: 3,
  entropy: 4,
  logRatio: 5,
  absoluteLogRatio: 6,
  oldDivergence: 7,
  clippedHigh: 8,
  clippedLow: 9,
  referenceLogRatio: 10,
  referenceDivergence: 11,
  quadrantCounts: 12,
  quadrantOmegas: 16,
  heldProbabilities: 20,
} as const;
export const RESPONSE_FIELDS = 21;

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
function compacted(tokens: PolicyTokens, response: number, begin: number, end: number): PolicyTokens {
  const take = (column: Float64Array | undefined): Float64Array | undefined =>
    column?.subarray(begin, end).filter((_, i) => tokens.mask[begin + i] !== 0);
  const mask = tokens.mask.subarray(begin, end).filter((counts) => counts !== 0);
  const { responseAdvantage } = tokens;
  return {
    logProb: take(tokens.logProb),
    oldLogProb: take(tokens.oldLogProb),
    referenceLogProb: take(tokens.referenceLogProb),
    entropy: take(tokens.entropy),
    advantage: responseAdvantage
      ? new Float64Array(mask.length).fill(responseAdvantage[response])
      : take(tokens.advantage),
    mask,
  };
}

function addMoments({ logProb, advantage, entropy, mask }: PolicyTokens, isShared: boolean, into: Float64Array): void {
  const n = mask.length;
  if (logProb) into[F.logProb] = sumOf(logProb);
  if (entropy) into[F.entropy] = sumOf(entropy);
  if (advantage === undefined) return;
  // What does not vary inside a response has no products there.
  into[F.advantage] = isShared ? n * advantage[0] : sumOf(advantage);
  if (logProb && !isShared) into[F.products] = products(advantage, into[F.advantage] / n, logProb, into[F.logProb] / n);
}

export function responseFiguresReference(
  tokens: PolicyTokens,
  offsets: Int32Array,
  clipLow: number,
  clipHigh: number,
  figures: Float64Array,
  held: HeldTokens | undefined,
): number {
  let at = held?.at ?? 0;
  for (let r = 0; r + 1 < offsets.length; r++) {
    const run = compacted(tokens, r, offsets[r], offsets[r + 1]);
    const into = figures.subarray(r * RESPONSE_FIELDS, (r + 1) * RESPONSE_FIELDS);
    into[F.count] = run.mask.length;
    if (run.mask.length === 0) continue;
    addMoments(run, tokens.responseAdvantage !== undefined, into);
    addRatios(run, 1 - clipLow, 1 + clipHigh, into);
    addReference(run, into);
    addQuadrants(run, into);
    for (const name of ['logProb', 'entropy', 'advantage'] as const) {
      const target = held?.[name];
      run[name]?.forEach((value, i) => {
        if (target) target[at + i] = value + 0;
      });
    }
    const own = held?.ids?.from.subarray(offsets[r], offsets[r + 1]);
    if (own)
      held?.ids?.into.set(
        own.filter((_, i) => tokens.mask[offsets[r] + i] !== 0),
        at,
      );
    at += run.mask.length;
  }
  return at;
}

export function responseCovariancesReference(
  logProb: Float64Array,
  responseAdvantage: Float64Array,
  offsets: Int32Array,
  meanLogProb: number,
  meanAdvantage: number,
  summands: Float64Array,
): number {
  let positive = 0;
  for (let r = 0; r + 1 < offsets.length; r++) {
    const advantage = responseAdvantage[r] - meanAdvantage;
    for (let i = offsets[r]; i < offsets[r + 1]; i++) {
      summands[i] = advantage * (logProb[i] - meanLogProb) + 0;
      if (summands[i] > 0) positive++;
    }
  }
  return positive;
}

export function settleValuesReference(
  values: Float64Array,
  mask: Uint8Array | undefined,
  least: number,
  most: number,
): boolean {
  let fits = true;
  for (let i = 0; i < values.length; i++) {
    if (mask !== undefined && mask[i] === 0) values[i] = 0;
    else fits &&= values[i] >= least && values[i] <= most;
  }
  return fits;
}

export function settleIdsReference(ids: Int32Array, mask: Uint8Array | undefined): boolean {
  let fits = true;
  for (let i = 0; i < ids.length; i++) {
    if (mask !== undefined && mask[i] === 0) ids[i] = 0;
    else fits &&= ids[i] >= 0;
  }
  return fits;
}

export function countMaskReference(mask: Uint8Array, offsets: Int32Array, counts: Int32Array): boolean {
  for (let r = 0; r < counts.length; r++) {
    counts[r] = 0;
    for (let i = offsets[r]; i < offsets[r + 1]; i++) counts[r] += mask[i];
  }
  return mask.every((one) => one <= 1);
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
  offsets: Int32Array,
  thresholds: Float64Array,
  sums: Float64Array,
): void {
  const count = thresholds.length;
  for (let r = 0; r + 1 < offsets.length; r++) {
    for (let i = offsets[r]; i < offsets[r + 1]; i++) {
      for (let t = 0; t < count; t++) if (values[i] > thresholds[t]) sums[r * count + t] += values[i];
    }
  }
}

export function countTokensReference(
  ids: Int32Array,
  entropy: Float64Array,
  mask: Uint8Array | undefined,
  threshold: number,
  { counts, entropies }: TokenTables,
): boolean {
  if (ids.some((id) => id >= entropies.length)) return false;
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i];
    if (mask?.[i] === 0 || id < 0) continue;
    counts[2 * id]++;
    if (entropy[i] >= threshold) {
      counts[2 * id + 1]++;
      entropies[id] += entropy[i];
    }
  }
  return true;
}
