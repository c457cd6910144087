import { bfloatValue, halfValue } from './dtypes-reference.js';
import {
  FIELD,
  insertTop,
  type LogitBlock,
  mergeSums,
  type RowAccumulator,
  type RowSums,
  SUPPORT_DEPTH,
} from './row-accumulator.js';

/** Where the block lies in the accumulator, and what is known of the targets. */
export interface RowPlacement {
  readonly columnOffset: number;
  readonly rowOffset: number;
  readonly targets?: Int32Array;
  readonly targetLogits?: Float64Array;
}

/** One row of a block as f64. */
function readRow(block: LogitBlock, row: number, out: Float64Array): void {
  const start = row * (block.rowStride ?? block.columns);
  const { data } = block;
  if (block.dtype === 'F16') for (let i = 0; i < out.length; i++) out[i] = halfValue(data[start + i]);
  else if (block.dtype === 'BF16') for (let i = 0; i < out.length; i++) out[i] = bfloatValue(data[start + i]);
  else for (let i = 0; i < out.length; i++) out[i] = data[start + i];
}

/**
 * Sums of one row, two passes over it: the maximum, then everything relative to it; the support is counted against the
 * larger of that and `knownMax`. False for NaN or +inf.
 */
function sumRow(x: Float64Array, accumulator: RowAccumulator, knownMax: number, sums: RowSums): boolean {
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < x.length; i++) {
    const v = x[i];
    if (!(v < Number.POSITIVE_INFINITY)) return false;
    if (v > max) max = v;
  }
  sums.max = max;
  sums.z = sums.a = sums.q = sums.half = sums.square = sums.finiteSum = sums.finiteCount = sums.support = 0;
  sums.supportLeast = Number.POSITIVE_INFINITY;
  sums.powers.fill(0);
  if (max === Number.NEGATIVE_INFINITY) return true;
  const { full, powerOrders } = accumulator;
  const newMax = Math.max(max, knownMax);
  for (let i = 0; i < x.length; i++) {
    const v = x[i];
    if (v === Number.NEGATIVE_INFINITY) continue;
    const d = v - max;
    const e = Math.exp(d);
    if (e > 0) {
      const w = e * d;
      sums.z += e;
      sums.a += w;
      sums.q += w * d;
    }
    if (!full) continue;
    sums.half += Math.exp(0.5 * d);
    sums.square += e * e;
    sums.finiteSum += v;
    sums.finiteCount++;
    if (v - newMax > SUPPORT_DEPTH) {
      sums.support++;
      if (v < sums.supportLeast) sums.supportLeast = v;
    }
    for (let k = 0; k < powerOrders.length; k++) sums.powers[k] += Math.exp(powerOrders[k] * d);
  }
  return true;
}

function rankRow(x: Float64Array, accumulator: RowAccumulator, row: number, placement: RowPlacement): void {
  const target = placement.targets?.[row] ?? -1;
  if (target < 0) return;
  const f = accumulator.fields;
  const rows = accumulator.rows;
  const logitAt = FIELD.targetLogit * rows + row;
  const known = placement.targetLogits?.[row] ?? Number.NaN;
  const local = target - placement.columnOffset;
  const inside = local >= 0 && local < x.length;
  if (inside) {
    f[logitAt] = x[local];
    f[FIELD.targetSeen * rows + row] = 1;
  } else if (f[FIELD.targetSeen * rows + row] === 0 && placement.targetLogits !== undefined) {
    f[logitAt] = known;
  }
  if (!accumulator.full) return;
  const limit = Number.isNaN(known) ? f[logitAt] : known;
  if (Number.isNaN(limit)) return;
  let greater = 0;
  for (let i = 0; i < x.length; i++) if (x[i] > limit && i !== local) greater++;
  f[FIELD.greater * rows + row] += greater;
  f[FIELD.rankedColumns * rows + row] += x.length;
}

/** The meaning of the native `accumulateRows`, in plain f64. Returns the first bad row of the block, or -1. */
export function accumulateRowsReference(
  accumulator: RowAccumulator,
  block: LogitBlock,
  placement: RowPlacement,
): number {
  const x = new Float64Array(block.columns);
  const powers = new Float64Array(accumulator.powerOrders.length);
  const sums: RowSums = {
    max: 0,
    z: 0,
    a: 0,
    q: 0,
    half: 0,
    square: 0,
    finiteSum: 0,
    finiteCount: 0,
    support: 0,
    supportLeast: 0,
    powers,
  };
  for (let r = 0; r < block.rows; r++) {
    const row = placement.rowOffset + r;
    readRow(block, r, x);
    if (!sumRow(x, accumulator, accumulator.fields[FIELD.max * accumulator.rows + row], sums)) return r;
    mergeSums(accumulator, row, sums);
    accumulator.fields[FIELD.columns * accumulator.rows + row] += x.length;
    if (accumulator.topK > 0) {
      for (let i = 0; i < x.length; i++) {
        if (x[i] > Number.NEGATIVE_INFINITY) insertTop(accumulator, row, x[i], placement.columnOffset + i);
      }
    }
    rankRow(x, accumulator, row, placement);
  }
  return -1;
}

/** What the second pass reads of the first: [rows] each. */
export interface FirstPass {
  /** 1 for rows to visit. */
  readonly wanted: Uint8Array;
  readonly max: Float64Array;
  readonly logSumExp: Float64Array;
  readonly entropyNats: Float64Array;
}

/** Sums of the second pass, [rows] each: of p (-log p - entropy)^2, and of the logits that have a probability. */
export interface SecondPass {
  readonly varentropyNats2: Float64Array;
  readonly supportSize: Float64Array;
}

/** The meaning of the native `accumulateSecond`. */
export function accumulateSecondReference(
  second: SecondPass,
  first: FirstPass,
  block: LogitBlock,
  rowOffset: number,
): void {
  const x = new Float64Array(block.columns);
  for (let r = 0; r < block.rows; r++) {
    const row = rowOffset + r;
    if (first.wanted[row] === 0) continue;
    readRow(block, r, x);
    let varentropy = 0;
    let support = 0;
    for (let i = 0; i < x.length; i++) {
      const d = x[i] - first.logSumExp[row];
      const p = Math.exp(d);
      if (p > 0) varentropy += p * (d + first.entropyNats[row]) ** 2;
      if (x[i] - first.max[row] > SUPPORT_DEPTH) support++;
    }
    second.varentropyNats2[row] += varentropy;
    second.supportSize[row] += support;
  }
}

/** The first column of `row` that holds NaN or +inf, with its value; undefined when none does. */
export function hostileEntry(block: LogitBlock, row: number): { column: number; value: number } | undefined {
  const x = new Float64Array(block.columns);
  readRow(block, row, x);
  const column = x.findIndex((v) => !(v < Number.POSITIVE_INFINITY));
  return column < 0 ? undefined : { column, value: x[column] };
}
