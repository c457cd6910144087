import type { RolloutStep, TokenBlock } from './types.js';

/** Columns of a block whose tokens and records are already flat. */
export type BlockColumns = Omit<TokenBlock, 'records' | 'offsets' | 'firstToken' | 'mask'>;

/** One minibatch, or one step that is in memory, as what interventions take: a step of a single block. */
export interface ArrayStep {
  /** Number of the step. 0 when absent. */
  readonly step?: number;
  /** [records + 1], from 0. */
  readonly offsets: Int32Array;
  /** All tokens count when absent. */
  readonly mask?: Uint8Array;
  /** Numbers of the records in the index. 0, 1, ... when absent. */
  readonly records?: Int32Array;
  readonly columns: BlockColumns;
}

/** A step of one block from flat arrays; the arrays are shared, not copied. */
export function stepOfArrays({ step = 0, offsets, mask, records, columns }: ArrayStep): RolloutStep {
  const count = offsets.length - 1;
  const tokens = offsets[count];
  const numbers = records ?? Int32Array.from({ length: count }, (_, r) => r);
  const counts = mask ?? new Uint8Array(tokens).fill(1);
  const block: TokenBlock = { records: numbers, offsets, firstToken: 0, mask: counts, ...columns };
  let counted = 0;
  for (const one of counts) counted += one;
  return { step, records: numbers, tokens, counted, blocks: () => [block] };
}
