import { stepOfArrays } from '../../src/policy/rollouts/array-step.js';
import type { RolloutIndex, RolloutStep, TokenBlock } from '../../src/policy/rollouts/types.js';
import type { Json } from './harness.js';
import { float64, shapeOf } from './tensors.js';

/** A padded batch [records, tokens] of golden inputs as one step of one block. */
export interface PaddedBatch {
  readonly shape: number[];
  readonly step: RolloutStep;
  readonly block: TokenBlock;
  readonly index: RolloutIndex;
}

export function paddedBatch(inputs: { [key: string]: Json }): PaddedBatch {
  const shape = shapeOf(inputs.log_prob, 'log_prob');
  const [records, width] = shape;
  const offsets = Int32Array.from({ length: records + 1 }, (_, r) => r * width);
  const mask = Uint8Array.from(float64(inputs.response_mask, 'response_mask'));
  const columns = {
    logProb: float64(inputs.log_prob, 'log_prob'),
    oldLogProb: float64(inputs.old_log_prob, 'old_log_prob'),
    advantage: float64(inputs.advantages, 'advantages'),
    ...(inputs.entropy !== undefined && { entropy: float64(inputs.entropy, 'entropy') }),
  };
  const step = stepOfArrays({ offsets, mask, columns });
  const [block] = step.blocks();
  const counted = Int32Array.from({ length: records }, (_, r) =>
    mask.subarray(offsets[r], offsets[r + 1]).reduce((sum, one) => sum + one, 0),
  );
  const index: RolloutIndex = {
    records,
    step: new Float64Array(records),
    group: new Int32Array(records),
    groups: 1,
    promptIds: ['0'],
    length: new Int32Array(records).fill(width),
    counted,
  };
  return { shape, step, block, index };
}

export function wordOf(value: Json, name: string): string {
  if (typeof value !== 'string') throw new TypeError(`${name} is not a word`);
  return value;
}
