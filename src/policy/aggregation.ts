import { InputError } from '../errors.js';
import type { Aggregation } from './interventions/types.js';
import type { RolloutIndex, RolloutStep } from './rollouts/types.js';

/** What the published masked mean adds to its denominator. */
export const MASKED_MEAN_EPSILON = 1e-8;

export const AGGREGATIONS = [
  'token-mean',
  'seq-mean-token-sum',
  'seq-mean-token-mean',
  'seq-mean-token-sum-norm',
  'token-sum',
] as const satisfies readonly Aggregation[];

/** Sizes of the batch over which losses are aggregated: a whole step, however it is cut into blocks. */
export interface BatchSize {
  readonly records: number;
  /** Tokens that count. */
  readonly counted: number;
  /** Positions of the longest record, masked-out ones included: the width of the padded matrix. */
  readonly longest: number;
}

/**
 * Sizes of a step.
 * @throws InputError where no token of it counts
 */
export function batchSizeOf(step: RolloutStep, index: Pick<RolloutIndex, 'length'>): BatchSize {
  if (step.counted === 0) throw new InputError(`step ${step.step}: no valid tokens, every position is masked out`);
  let longest = 0;
  for (const record of step.records) longest = Math.max(longest, index.length[record]);
  return { records: step.records.length, counted: step.counted, longest };
}

/** Sizes of a batch of flat arrays: `offsets` [records + 1], `mask` [tokens]. @throws InputError where no token counts */
export function batchSize(offsets: Int32Array, mask: Uint8Array): BatchSize {
  let counted = 0;
  for (const one of mask) counted += one;
  if (counted === 0) throw new InputError('no valid tokens: every position is masked out');
  let longest = 0;
  for (let r = 0; r + 1 < offsets.length; r++) longest = Math.max(longest, offsets[r + 1] - offsets[r]);
  return { records: offsets.length - 1, counted, longest };
}

/**
 * What the loss of every token of a record is multiplied by, so that the sum over all counted tokens is the aggregated loss
 * (spec 0.2).
 * @param counted tokens of the record that count
 * @throws InputError for a record without such tokens under `seq-mean-token-mean`, whose mean would be 0/0
 */
export function tokenWeight(mode: Aggregation, batch: BatchSize, counted: number, record: number): number {
  switch (mode) {
    case 'token-mean':
      return 1 / (batch.counted + MASKED_MEAN_EPSILON);
    case 'seq-mean-token-sum':
      return 1 / batch.records;
    case 'seq-mean-token-mean':
      if (counted > 0) return 1 / (batch.records * counted);
      throw new InputError(
        `record ${record}: every token is masked out, so its token mean is 0/0; drop the record or aggregate by token-mean`,
      );
    case 'seq-mean-token-sum-norm':
      return 1 / batch.longest;
    case 'token-sum':
      return 1;
  }
}

/** Sum of the weights of all counted tokens, by which aggregations are put on one scale. */
export function totalWeight(mode: Aggregation, batch: BatchSize): number {
  switch (mode) {
    case 'token-mean':
      return batch.counted / (batch.counted + MASKED_MEAN_EPSILON);
    case 'seq-mean-token-sum':
      return batch.counted / batch.records;
    case 'seq-mean-token-mean':
      return 1;
    case 'seq-mean-token-sum-norm':
      return batch.counted / batch.longest;
    case 'token-sum':
      return batch.counted;
  }
}

/**
 * Aggregated loss of a batch.
 * @param losses [tokens]; what stands under a mask of 0 is not read
 * @param offsets [records + 1], from 0
 * @param mask [tokens]
 * @throws InputError where no token counts, and as {@link tokenWeight}
 */
export function aggregate(losses: Float64Array, offsets: Int32Array, mask: Uint8Array, mode: Aggregation): number {
  const batch = batchSize(offsets, mask);
  let total = 0;
  for (let r = 0; r < batch.records; r++) {
    let sum = 0;
    let counted = 0;
    for (let i = offsets[r]; i < offsets[r + 1]; i++) {
      if (mask[i] === 0) continue;
      sum += losses[i];
      counted++;
    }
    total += tokenWeight(mode, batch, counted, r) * sum;
  }
  return total;
}
