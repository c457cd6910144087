import { InputError } from '../../errors.js';
import { dot, projections } from '../vector-measures.js';

/** Activations of contrast pairs: rows `[2 pairs, width]`, positive and negative alternating. */
export interface PairRows {
  readonly data: ArrayLike<number>;
  readonly pairs: number;
  readonly width: number;
}

/**
 * Which of v and -v a method gives. `majority`: the one on which more pairs have a larger projection for the positive
 * member (repeng); `mean`: the one on which the mean projected difference is positive (steering-vectors).
 */
export type SignRule = 'majority' | 'mean';

export const SIGN_RULES: readonly SignRule[] = ['majority', 'mean'];

export interface ContrastOptions {
  readonly sign?: SignRule;
  /** Seed of methods that draw. */
  readonly seed?: number;
  readonly threads?: number;
}

/** What a method finds at one layer. */
export interface Direction {
  /** `[width]` */
  readonly vector: Float64Array;
  /** Share of the variance of what was decomposed, where the method is a principal component. */
  readonly explainedVarianceRatio: number | null;
}

/** A way to a direction from contrast pairs. */
export interface ContrastMethod {
  readonly name: string;
  /** What other libraries call it. */
  readonly aliases: readonly string[];
  readonly summary: string;
  /** @throws InputError when the pairs have no direction */
  direction(rows: PairRows, options?: ContrastOptions): Direction;
}

/**
 * @throws InputError without pairs, for sizes that disagree, or for an entry that is not finite
 */
export function checkPairs({ data, pairs, width }: PairRows): void {
  if (pairs < 1) throw new InputError('contrast: there is no pair');
  if (data.length !== 2 * pairs * width) {
    throw new InputError(`contrast: ${data.length} entries are not ${pairs} pairs of rows of ${width}`);
  }
  for (let at = 0; at < data.length; at++) {
    if (Number.isFinite(data[at])) continue;
    const row = Math.floor(at / width);
    throw new InputError(
      `contrast: the ${row % 2 === 0 ? 'positive' : 'negative'} row of pair ${Math.floor(row / 2) + 1} holds ${data[at]} at entry ${at % width}`,
    );
  }
}

/** Differences positive minus negative `[pairs, width]`. */
export function pairDifferences({ data, pairs, width }: PairRows): Float64Array {
  const result = new Float64Array(pairs * width);
  for (let p = 0; p < pairs; p++) {
    const positive = 2 * p * width;
    for (let i = 0; i < width; i++) result[p * width + i] = data[positive + i] - data[positive + width + i];
  }
  return result;
}

/** The vector or its negative, by the sign rule; where neither side has a majority, it stays. */
export function orient(vector: Float64Array, rows: PairRows, rule: SignRule = 'majority'): Float64Array {
  const projected = projections(rows.data, rows.width, vector);
  let balance = 0;
  let mean = 0;
  for (let p = 0; p < rows.pairs; p++) {
    const difference = projected[2 * p] - projected[2 * p + 1];
    balance += Math.sign(difference);
    mean += difference;
  }
  return (rule === 'majority' ? balance : mean) < 0 ? vector.map((value) => -value) : vector;
}

/** Sum of squares of all entries. */
export function squaredSum(data: Float64Array): number {
  return dot(data, data);
}
