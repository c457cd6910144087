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
  absolute: number,
  weightOf: (metric: number) => number,
): Facts {
  const stream: ValueStream = {
    count: step.counted,
    each(take) {
      for (const block of step.blocks()) {
        const values = omegas(block);
        for (let i = 0; i < values.length; i++) values[i] = Math.abs(values[i]);
        take(values, block.mask);
      }
    },
  };
  const options = { name: 'metric of STEER' };
  const [high] = streamedQuantiles(stream, [HIGH_QUANTILE], options).values;
  const [{ threshold, ties }] = selectLargest(stream, [topCount(TOP_SHARE, step.counted)], options);
  const above = createCompensatedSum();
  const weights = createCompensatedSum();
  let least = Number.POSITIVE_INFINITY;
  let most = 0;
  stream.each((values, mask) => {
    for (let i = 0; i < values.length; i++) {
      if (mask !== undefined && mask[i] === 0) continue;
      if (values[i] > threshold) addTo(above, values[i]);
      const weight = weightOf(values[i]);
      addTo(weights, weight);
      if (weight < least) least = weight;
      if (weight > most) most = weight;
    }
  });
  return {
    metric_p999: high,
    metric_top_1_percent_share: absolute === 0 ? 0 : (totalOf(above) + ties * threshold) / absolute,
    weight_mean: totalOf(weights) / step.counted,
    weight_smallest: least,
    weight_largest: most,
  };
}
