import { InputError } from '../errors.js';

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
  const batch = Math.floor(row / shape.queries / shape.heads);
  const layer = options.layer === undefined ? '' : ` layer ${options.layer}`;
  return `attention${layer}${shape.batch > 1 ? ` batch ${batch}` : ''} head ${head} query ${query}`;
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

/**
 * Running softmax sums of one row: maximum m, `Z = sum e^{z-m}`, `A = sum e^{z-m}(z-m)`; the entropy is `log Z - A/Z`.
 * Held as three numbers in an array so that a scan allocates nothing.
 */
function entropyOf(z: number, weighted: number): number {
  return Math.max(0, Math.log(z) - weighted / z);
}

/** Fills row `row` of `result` from the sums over keys 1.. and the score of key 0. */
function finishScores(
  result: AttentionRows,
  row: number,
  firstScore: number,
  restMax: number,
  restZ: number,
  restWeighted: number,
): void {
  if (Number.isNaN(firstScore) || Number.isNaN(restZ) || firstScore === Number.POSITIVE_INFINITY) {
    result.state[row] = ROW_NAN;
    return;
  }
  const max = Math.max(firstScore, restMax);
  if (max === Number.NEGATIVE_INFINITY) {
    result.state[row] = ROW_FULLY_MASKED;
    return;
  }
  let z = 0;
  let weighted = 0;
  let firstExp = 0;
  if (restZ > 0) {
    const shift = restMax - max;
    const factor = Math.exp(shift);
    z = factor * restZ;
    weighted = factor === 0 ? 0 : factor * (restWeighted + shift * restZ);
  }
  if (firstScore !== Number.NEGATIVE_INFINITY) {
    firstExp = Math.exp(firstScore - max);
    z += firstExp;
    weighted += firstExp * (firstScore - max);
  }
  result.entropyNats[row] = entropyOf(z, weighted);
  result.firstKeyMass[row] = firstExp / z;
  if (restZ > 0) result.withoutFirstKeyNats[row] = entropyOf(restZ, restWeighted);
}

/**
 * Row entropies of attention scores `[batch, heads, queries, keys]` (already divided by sqrt(d) and any temperature,
 * masked keys at minus infinity): `e = logsumexp(z) - sum a z`. Rows of minus infinity are flagged as fully masked, rows
 * with NaN or plus infinity as NaN.
 */
export function attentionEntropiesFromScores(
  scores: Float32Array | Float64Array,
  shape: AttentionShape,
): AttentionRows {
  const { keys } = shape;
  const rows = shape.batch * shape.heads * shape.queries;
  if (scores.length !== rows * keys) {
    throw new InputError(
      `attention scores: expected [${shape.batch},${shape.heads},${shape.queries},${keys}], got ${scores.length} values`,
    );
  }
  const result = createAttentionRows(rows);
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
    let weighted = 0;
    for (let j = start + 1; j < start + keys; j++) {
      const below = scores[j] - max;
      if (!(below > Number.NEGATIVE_INFINITY)) continue;
      const e = Math.exp(below);
      z += e;
      weighted += e * below;
    }
    finishScores(result, row, scores[start], max, broken ? Number.NaN : z, weighted);
  }
  return result;
}

/** Queries and keys of one layer, from which row entropies follow without an attention matrix. */
export interface QueryKeyBlock {
  /** `[heads, queries, headDim]` */
  readonly queries: Float32Array | Float64Array;
  /** `[keyHeads, keys, headDim]`; heads share keys in runs of `heads / keyHeads`. */
  readonly keys: Float32Array | Float64Array;
  readonly heads: number;
  readonly keyHeads: number;
  readonly queryCount: number;
  readonly keyCount: number;
  readonly headDim: number;
  /** Multiplies the products, usually 1/sqrt(headDim). */
  readonly scale: number;
  /** Position of the first query; query i sees the keys up to its own position. */
  readonly queryStart: number;
  /** Sees only the last so many keys, its own included. */
  readonly slidingWindow?: number;
  /** Scores become `softcap * tanh(score / softcap)`. */
  readonly softcap?: number;
}

/**
 * Row entropies `[heads, queries]` of causal attention from queries and keys, key by key with running sums: memory of
 * O(heads * queries) whatever the context.
 */
export function attentionEntropiesFromQueryKeys(block: QueryKeyBlock): AttentionRows {
  const { heads, keyHeads, queryCount, keyCount, headDim, scale, queryStart, slidingWindow, softcap } = block;
  if (heads % keyHeads !== 0) throw new InputError(`attention: ${heads} heads cannot share ${keyHeads} key heads`);
  const result = createAttentionRows(heads * queryCount);
  for (let head = 0; head < heads; head++) {
    const keyBase = Math.floor(head / (heads / keyHeads)) * keyCount * headDim;
    for (let query = 0; query < queryCount; query++) {
      const row = head * queryCount + query;
      const queryBase = row * headDim;
      const position = queryStart + query;
      const last = Math.min(position, keyCount - 1);
      const from = slidingWindow === undefined ? 0 : Math.max(0, position - slidingWindow + 1);
      let firstScore = Number.NEGATIVE_INFINITY;
      let max = Number.NEGATIVE_INFINITY;
      let z = 0;
      let weighted = 0;
      for (let key = from; key <= last; key++) {
        let dot = 0;
        const keyAt = keyBase + key * headDim;
        for (let d = 0; d < headDim; d++) dot += block.queries[queryBase + d] * block.keys[keyAt + d];
        let score = dot * scale;
        if (softcap !== undefined) score = softcap * Math.tanh(score / softcap);
        if (key === 0) {
          firstScore = score;
          continue;
        }
        if (score > max) {
          if (z > 0) {
            const shift = max - score;
            const factor = Math.exp(shift);
            weighted = factor * (weighted + shift * z);
            z *= factor;
          }
          max = score;
          z += 1;
        } else {
          const below = score - max;
          const e = Math.exp(below);
          z += e;
          weighted += e * below;
        }
      }
      finishScores(result, row, firstScore, max, z, weighted);
    }
  }
  return result;
}

/** Keys that a causal query sees: its position + 1, at most the sliding window. */
export function visibleKeys(position: number, slidingWindow?: number): number {
  return Math.min(position + 1, slidingWindow ?? Number.POSITIVE_INFINITY);
}
