import { IGNORED, type LogitsBlock, type TokenBatch } from '../../../training/types.js';
import { softmaxRow } from './sampling.js';
import { PADDING } from './task.js';

/** A sequence whose last part is trained on. */
export interface PolicyRecord {
  readonly context: Int32Array;
  readonly tokens: Int32Array;
  /** [tokens], 1 where the token is the policy's. */
  readonly mask: Uint8Array;
}

/** Records as windows of the student. Token i of the batch is predicted by row `rows[i]` of the logits. */
export interface PolicyBatch {
  readonly windows: TokenBatch;
  /** [records + 1]. */
  readonly offsets: Int32Array;
  /** [tokens] each. */
  readonly tokens: Int32Array;
  readonly mask: Uint8Array;
  readonly rows: Int32Array;
}

/** Lengths of windows are multiples of this, so that few shapes appear. */
const LENGTH_STEP = 4;

/** Window length for some records. */
export function windowLength(records: readonly PolicyRecord[]): number {
  let longest = 0;
  for (const { context, tokens } of records) longest = Math.max(longest, context.length + tokens.length);
  return Math.ceil(longest / LENGTH_STEP) * LENGTH_STEP;
}

/** Lays records out, one a window, padded behind their ends. @throws RangeError for a record longer than `length` */
export function policyBatch(records: readonly PolicyRecord[], length: number): PolicyBatch {
  const offsets = new Int32Array(records.length + 1);
  records.forEach(({ tokens }, r) => {
    offsets[r + 1] = offsets[r] + tokens.length;
  });
  const count = offsets[records.length];
  const inputs = new Int32Array(records.length * length).fill(PADDING);
  const labels = new Int32Array(records.length * length).fill(IGNORED);
  const [tokens, rows, mask] = [new Int32Array(count), new Int32Array(count), new Uint8Array(count)];
  records.forEach((record, r) => {
    const start = record.context.length;
    if (start + record.tokens.length > length)
      throw new RangeError(`a record of ${start + record.tokens.length} tokens in a window of ${length}`);
    inputs.set(record.context, r * length);
    inputs.set(record.tokens, r * length + start);
    tokens.set(record.tokens, offsets[r]);
    mask.set(record.mask, offsets[r]);
    for (let t = 0; t < record.tokens.length; t++) {
      const row = r * length + start + t - 1;
      rows[offsets[r] + t] = row;
      if (record.mask[t] === 1) labels[row] = record.tokens[t];
    }
  });
  const windows = { tokens: inputs, batch: records.length, length, labels, windows: new Int32Array(records.length) };
  return { windows, offsets, tokens, mask, rows };
}

/** What the student says of the tokens of a batch; 0 where they are not the policy's. Nats. */
export interface TokenScores {
  readonly logProb: Float64Array;
  readonly entropy: Float64Array;
  readonly topTokens?: { readonly k: number; readonly ids: Int32Array; readonly logProbs: Float64Array };
}

/** The k largest probabilities, the lowest id first among equals; k passes, for k is small. */
function largest(probabilities: Float64Array, k: number, ids: Int32Array, logProbs: Float64Array, at: number): void {
  for (let j = 0; j < Math.min(k, probabilities.length); j++) {
    let best = -1;
    for (let v = 0; v < probabilities.length; v++) {
      if (best >= 0 && !(probabilities[v] > probabilities[best])) continue;
      let taken = false;
      for (let i = at; i < at + j; i++) taken ||= ids[i] === v;
      if (!taken) best = v;
    }
    ids[at + j] = best;
    logProbs[at + j] = Math.log(probabilities[best]);
  }
}

function checkWhole({ windows }: PolicyBatch, { firstRow, rows }: LogitsBlock): void {
  if (firstRow !== 0 || rows !== windows.batch * windows.length)
    throw new RangeError(`rows ${firstRow} to ${firstRow + rows} of a batch that must be seen whole`);
}

/**
 * Log-probabilities of the tokens and entropies of the policy, in double from its logits.
 * @param topCount likeliest tokens that are kept for every position; none when 0
 */
export function scoreTokens(batch: PolicyBatch, block: LogitsBlock, topCount = 0): TokenScores {
  checkWhole(batch, block);
  const { tokens, mask, rows } = batch;
  const { classes, logits } = block;
  const probabilities = new Float64Array(classes);
  const logProb = new Float64Array(tokens.length);
  const entropy = new Float64Array(tokens.length);
  const ids = new Int32Array(tokens.length * topCount).fill(-1);
  const logProbs = new Float64Array(tokens.length * topCount).fill(Number.NEGATIVE_INFINITY);
  for (let i = 0; i < tokens.length; i++) {
    if (mask[i] === 0) continue;
    const row = softmaxRow(logits, rows[i] * classes, probabilities);
    logProb[i] = Math.min(0, logits[rows[i] * classes + tokens[i]] - row.logTotal);
    entropy[i] = row.entropy;
    if (topCount > 0) largest(probabilities, topCount, ids, logProbs, i * topCount);
  }
  return { logProb, entropy, ...(topCount > 0 && { topTokens: { k: topCount, ids, logProbs } }) };
}

/**
 * Adds dL/dlogits to the block: g_l ([v = token] - p_v) + g_H (-p_v (ln p_v + H)) for every token that counts.
 * @param byLogProb [tokens], g_l = dL / d log pi(token)
 * @param byEntropy [tokens], g_H = dL / d H
 */
export function addLogitGradients(
  batch: PolicyBatch,
  block: LogitsBlock,
  byLogProb: Float64Array,
  byEntropy?: Float64Array,
): void {
  checkWhole(batch, block);
  const { tokens, mask, rows } = batch;
  const { classes, logits, gradient } = block;
  if (gradient === undefined) throw new RangeError('a pass without gradients');
  const probabilities = new Float64Array(classes);
  for (let i = 0; i < tokens.length; i++) {
    if (mask[i] === 0) continue;
    const slope = byLogProb[i];
    const bend = byEntropy?.[i] ?? 0;
    if (slope === 0 && bend === 0) continue;
    const from = rows[i] * classes;
    const { entropy } = softmaxRow(logits, from, probabilities);
    for (let v = 0; v < classes; v++) {
      const p = probabilities[v];
      const curve = bend === 0 || p === 0 ? 0 : bend * p * (Math.log(p) + entropy);
      gradient[from + v] -= slope * p + curve;
    }
    gradient[from + tokens[i]] += slope;
  }
}
