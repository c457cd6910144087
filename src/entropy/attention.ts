import { InputError } from '../errors.js';
import { attentionScoreSums, SCORE_SUMS, type ScoreBlock, type ScoreOptions } from '../kernels/attention-scores.js';

/** The authors' epsilon inside the logarithm: `-sum a log(a + 1e-9)` (entropy-guided-attention-llm). */
export const CODE_EPSILON = 1e-9;

/** Shape of a block of attention probabilities or scores: `[batch, heads, queries, keys]`, row-major. */
export interface AttentionShape {
  readonly batch: number;
  readonly heads: number;
  readonly queries: number;
  readonly keys: number;
}

/** How rows lie in their context, and what counts as a proper row. */
export interface AttentionRowOptions {
  /** Added inside the logarithm; 0 is exact (0 log 0 = 0), `CODE_EPSILON` is the authors' code. */
  readonly epsilon?: number;
  /** Largest |row sum - 1| (default 1e-3; half-precision rows need about 3e-3). */
  readonly tolerance?: number;
  /** Names the layer in errors. */
  readonly layer?: number;
  /** Position of the first query, in errors (default 0). */
  readonly queryStart?: number;
  /** First sequence of the batch, named in errors where it is given. */
  readonly batchStart?: number;
}

export const ROW_PROPER = 0;
export const ROW_FULLY_MASKED = 1;
export const ROW_NAN = 2;

/** Measures of attention rows, `[batch, heads, queries]` flat. Entries of rows that are not proper are NaN. */
export interface AttentionRows {
  readonly entropyNats: Float64Array;
  /** Entropy of the row without key 0 (attention sink), renormalised; NaN where key 0 has all the mass. */
  readonly withoutFirstKeyNats: Float64Array;
  readonly firstKeyMass: Float64Array;
  /** ROW_PROPER, ROW_FULLY_MASKED (no mass at all) or ROW_NAN. */
  readonly state: Uint8Array;
}

export function createAttentionRows(rows: number): AttentionRows {
  return {
    entropyNats: new Float64Array(rows).fill(Number.NaN),
    withoutFirstKeyNats: new Float64Array(rows).fill(Number.NaN),
    firstKeyMass: new Float64Array(rows).fill(Number.NaN),
    state: new Uint8Array(rows),
  };
}

function describeRow(shape: AttentionShape, row: number, options: AttentionRowOptions): string {
  const query = (row % shape.queries) + (options.queryStart ?? 0);
  const head = Math.floor(row / shape.queries) % shape.heads;
  const batch = Math.floor(row / shape.queries / shape.heads) + (options.batchStart ?? 0);
  const named = shape.batch > 1 || options.batchStart !== undefined;
  const layer = options.layer === undefined ? '' : ` layer ${options.layer}`;
  return `attention${layer}${named ? ` batch ${batch}` : ''} head ${head} query ${query}`;
}

/**
 * Row entropies of attention probabilities `[batch, heads, queries, keys]`: `e = -sum_j a_j log(a_j + epsilon)`.
 * Rows without any mass are skipped and flagged, rows with NaN are flagged.
 * @throws InputError for a negative entry, or a row whose sum is off 1 by more than the tolerance
 */
export function attentionRowEntropies(
  probabilities: Float32Array | Float64Array,
  shape: AttentionShape,
  options: AttentionRowOptions = {},
): AttentionRows {
  const { epsilon = 0, tolerance = 1e-3 } = options;
  const { keys } = shape;
  const rows = shape.batch * shape.heads * shape.queries;
  if (probabilities.length !== rows * keys) {
    throw new InputError(
      `attention: expected [${shape.batch},${shape.heads},${shape.queries},${keys}], got ${probabilities.length} values`,
    );
  }
  const result = createAttentionRows(rows);
  for (let row = 0; row < rows; row++) {
    const start = row * keys;
    const first = probabilities[start];
    let rest = 0;
    let restLogs = 0;
    let entropy = first > 0 ? -first * Math.log(first + epsilon) : 0;
    let smallest = first;
    for (let j = start + 1; j < start + keys; j++) {
      const a = probabilities[j];
      if (a < smallest) smallest = a;
      rest += a;
      if (a > 0) {
        const term = a * Math.log(a + epsilon);
        entropy -= term;
        restLogs += epsilon === 0 ? term : a * Math.log(a);
      }
    }
    const sum = first + rest;
    if (Number.isNaN(sum)) {
      result.state[row] = ROW_NAN;
      continue;
    }
    if (sum === 0 && smallest === 0) {
      result.state[row] = ROW_FULLY_MASKED;
      continue;
    }
    if (!(Math.abs(sum - 1) <= tolerance) || smallest < 0) {
      const what = smallest < 0 ? `has the negative entry ${smallest}` : `sums to ${Number(sum.toPrecision(6))}`;
      throw new InputError(
        `${describeRow(shape, row, options)} ${what} (tolerance ${tolerance}); are these logits? use --from-scores`,
      );
    }
    // Exact rows are clamped against rounding; the epsilon makes a one-hot row slightly negative, which is kept.
    result.entropyNats[row] = epsilon === 0 ? Math.max(0, entropy) : entropy;
    result.firstKeyMass[row] = first;
    result.withoutFirstKeyNats[row] = rest > 0 ? Math.max(0, Math.log(rest) - restLogs / rest) : Number.NaN;
  }
  return result;
}

/** Measures of rows that are known by their scores, z after scale, soft cap and temperature. */
export interface ScoredRows extends AttentionRows {
  /** log of the sum of e^z over the visible keys; NaN where the row is not proper. */
  readonly logSumExp: Float64Array;
  /** Variance of z under the row's attention: d entropy / d log(temperature). NaN where the row is not proper. */
  readonly scoreVariance: Float64Array;
}

function createScoredRows(rows: number): ScoredRows {
  return {
    ...createAttentionRows(rows),
    logSumExp: new Float64Array(rows).fill(Number.NaN),
    scoreVariance: new Float64Array(rows).fill(Number.NaN),
  };
}

/**
 * Fills row `row` of `result` from `first`, the score of key 0, and the sums over the other keys with
 * `max` = m, Z = sum e^{z-m}, A = sum e^{z-m} (z-m), Q = sum e^{z-m} (z-m)^2. The entropy is log Z - A/Z, both parts of
 * which are not negative: nothing cancels.
 */
function finishScores(
  result: ScoredRows,
  row: number,
  first: number,
  [max, z, a, q]: readonly [number, number, number, number],
): void {
  if (Number.isNaN(first) || Number.isNaN(z) || Number.isNaN(a) || first === Number.POSITIVE_INFINITY) {
    result.state[row] = ROW_NAN;
    return;
  }
  const top = Math.max(first, max);
  if (top === Number.NEGATIVE_INFINITY) {
    result.state[row] = ROW_FULLY_MASKED;
    return;
  }
  let [allZ, allA, allQ] = [0, 0, 0];
  if (z > 0) {
    const shift = max - top;
    const factor = Math.exp(shift);
    if (factor > 0) {
      allZ = factor * z;
      allA = factor * (a + shift * z);
      allQ = factor * (q + shift * (2 * a + shift * z));
    }
    result.withoutFirstKeyNats[row] = Math.max(0, Math.log(z) - a / z);
  }
  const below = first - top;
  const firstExp = Math.exp(below);
  if (firstExp > 0) {
    allZ += firstExp;
    allA += firstExp * below;
    allQ += firstExp * below * below;
  }
  result.entropyNats[row] = Math.max(0, Math.log(allZ) - allA / allZ);
  result.firstKeyMass[row] = firstExp / allZ;
  result.logSumExp[row] = top + Math.log(allZ);
  result.scoreVariance[row] = Math.max(0, allQ / allZ - (allA / allZ) ** 2);
}

/**
 * Row entropies of attention scores `[batch, heads, queries, keys]` (already divided by sqrt(d) and any temperature,
 * masked keys at minus infinity): `e = logsumexp(z) - sum a z`. Rows of minus infinity are flagged as fully masked, rows
 * with NaN or plus infinity as NaN.
 */
export function attentionEntropiesFromScores(scores: Float32Array | Float64Array, shape: AttentionShape): ScoredRows {
  const { keys } = shape;
  const rows = shape.batch * shape.heads * shape.queries;
  if (scores.length !== rows * keys) {
    throw new InputError(
      `attention scores: expected [${shape.batch},${shape.heads},${shape.queries},${keys}], got ${scores.length} values`,
    );
  }
  const result = createScoredRows(rows);
  for (let row = 0; row < rows; row++) {
    const start = row * keys;
    let max = Number.NEGATIVE_INFINITY;
    let broken = false;
    for (let j = start + 1; j < start + keys; j++) {
      const score = scores[j];
      if (score > max) max = score;
      if (!(score < Number.POSITIVE_INFINITY)) broken = true;
    }
    let z = 0;
    let a = 0;
    let q = 0;
    for (let j = start + 1; j < start + keys; j++) {
      const below = scores[j] - max;
      if (!(below > Number.NEGATIVE_INFINITY)) continue;
      const e = Math.exp(below);
      z += e;
      a += e * below;
      q += e * below * below;
    }
    finishScores(result, row, scores[start], [max, broken ? Number.NaN : z, a, q]);
  }
  return result;
}

/**
 * Row entropies `[heads, queryCount]` from queries and keys, with running sums in place of scores: memory of
 * O(heads * queries) whatever the context. `scoreVariance` is NaN unless `moments` are asked for.
 */
export function attentionEntropiesFromQueryKeys(block: ScoreBlock, options: ScoreOptions = {}): ScoredRows {
  const sums = attentionScoreSums(block, options);
  const rows = block.heads * block.queryCount;
  const result = createScoredRows(rows);
  for (let row = 0; row < rows; row++) {
    const at = row * SCORE_SUMS;
    finishScores(result, row, sums[at], [sums[at + 1], sums[at + 2], sums[at + 3], sums[at + 4]]);
  }
  if (!options.moments) result.scoreVariance.fill(Number.NaN);
  return result;
}

/** Keys that a causal query sees: its position + 1, at most the sliding window. */
export function visibleKeys(position: number, slidingWindow?: number): number {
  return Math.min(position + 1, slidingWindow ?? Number.POSITIVE_INFINITY);
}
