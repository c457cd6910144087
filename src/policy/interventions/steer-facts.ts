import { selectLargest, streamedQuantiles, topCount, type ValueStream } from '../../linalg/streamed-selection.js';
import { addTo, createCompensatedSum, totalOf } from '../compensated-sum.js';
import type { RolloutStep, TokenBlock } from '../rollouts/types.js';
import type { Facts } from './types.js';

/** Signs of advantage and of ln x + H, and what an update of such tokens does to the entropy. */
export const QUADRANTS = [
  { name: 'raised_likely', advantage: 1, surplus: 1, entropy: 'down' },
  { name: 'raised_unlikely', advantage: 1, surplus: -1, entropy: 'up' },
  { name: 'lowered_likely', advantage: -1, surplus: 1, entropy: 'up' },
  { name: 'lowered_unlikely', advantage: -1, surplus: -1, entropy: 'down' },
] as const;

const TOP_SHARE = 0.01;
const HIGH_QUANTILE = 0.999;

/** How the metric and the weights of a step are distributed. */
export function omegaDistribution(
  step: RolloutStep,
  omegas: (block: TokenBlock) => Float64Array,
  weights: (block: TokenBlock) => Float64Array,
  absolute: number,
): Facts {
  const stream: ValueStream = {
    count: step.counted,
    each(take) {
      for (const block of step.blocks()) {
        const values = omegas(block).slice();
        for (let i = 0; i < values.length; i++) values[i] = Math.abs(values[i]);
        take(values, block.mask);
      }
    },
  };
  const options = { name: 'metric of STEER' };
  const [high] = streamedQuantiles(stream, [HIGH_QUANTILE], options).values;
  const [{ threshold, ties }] = selectLargest(stream, [topCount(TOP_SHARE, step.counted)], options);
  const above = createCompensatedSum();
  const total = createCompensatedSum();
  let least = Number.POSITIVE_INFINITY;
  let most = 0;
  for (const block of step.blocks()) {
    const values = omegas(block);
    const weight = weights(block);
    for (let i = 0; i < values.length; i++) {
      if (block.mask[i] === 0) continue;
      const metric = Math.abs(values[i]);
      if (metric > threshold) addTo(above, metric);
      addTo(total, weight[i]);
      if (weight[i] < least) least = weight[i];
      if (weight[i] > most) most = weight[i];
    }
  }
  return {
    metric_p999: high,
    metric_top_1_percent_share: absolute === 0 ? 0 : (totalOf(above) + ties * threshold) / absolute,
    weight_mean: totalOf(total) / step.counted,
    weight_smallest: least,
    weight_largest: most,
  };
}
