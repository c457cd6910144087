import { type PipelineState, planFilters } from '../../src/decoding/sampler.js';
import type { SamplingPlan } from '../../src/decoding/types.js';
import { filterTokens, type LogitRow } from '../../src/kernels/token-filter.js';

/** Ids that a pipeline keeps of one row [vocabulary], ascending. */
export function keptTokens(plan: SamplingPlan, logits: LogitRow, state?: PipelineState): Int32Array {
  const { kept } = filterTokens({
    logits,
    rows: 1,
    vocabulary: logits.length,
    pipelines: [planFilters(plan, state)],
    greedy: plan.greedy === true,
    keep: true,
  });
  return kept[0];
}
