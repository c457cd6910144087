import { createLoss } from '../../../training/losses/index.js';
import { createObjective, type Objective } from '../../../training/objective.js';
import { IGNORED, type Loss } from '../../../training/types.js';
import type { GroupBatch } from './group-batches.js';

/** Sums of -ln p of the labels, and their number, by group, since the last `clear`. */
export interface GroupSums {
  /** [k], nats. */
  readonly nll: Float64Array;
  /** [k]. */
  readonly tokens: Float64Array;
  clear(): void;
}

/** Cross-entropy on the labels, which also tells it by group. */
export interface GroupObjective extends Objective<GroupBatch> {
  readonly sums: GroupSums;
}

/** The loss that language models are trained with, its sums kept by group. */
export function createGroupObjective(groups: number): GroupObjective {
  const crossEntropy = createLoss('ce');
  const nll = new Float64Array(groups);
  const tokens = new Float64Array(groups);
  let current: GroupBatch | undefined;
  const watched: Loss = {
    ...crossEntropy,
    evaluate(input, gradients) {
      const output = crossEntropy.evaluate(input, gradients);
      if (current === undefined || output.perRow === undefined) return output;
      const firstRow = input.firstRow ?? 0;
      for (let r = 0; r < input.rows; r++) {
        if (current.labels[firstRow + r] === IGNORED) continue;
        const group = current.groups[Math.floor((firstRow + r) / current.length)];
        nll[group] += output.perRow[r];
        tokens[group]++;
      }
      return output;
    },
  };
  const objective = createObjective<GroupBatch>([{ weight: 1, loss: watched }], { labels: ({ labels }) => labels });
  return {
    ...objective,
    sums: {
      nll,
      tokens,
      clear() {
        nll.fill(0);
        tokens.fill(0);
      },
    },
    begin(batch, progress) {
      current = batch;
      return objective.begin(batch, progress);
    },
  };
}
