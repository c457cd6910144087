import { addTo, createCompensatedSum, totalOf } from '../compensated-sum.js';
import { openRollouts } from '../rollouts/open-rollouts.js';
import { requireColumns } from '../rollouts/require-columns.js';
import type { RolloutRequest, RolloutStep, Rollouts, TokenBlock } from '../rollouts/types.js';
import type { EntropySteps } from './law-data.js';

/** What of a dump may stand for the performance where there is no file of evaluations. */
export const DUMP_PERFORMANCES = ['reward', 'correct'] as const;
export type DumpPerformance = (typeof DUMP_PERFORMANCES)[number];

export interface DumpStepsArguments {
  readonly request: RolloutRequest;
  /** Name of the run. */
  readonly run: string;
  readonly performance?: DumpPerformance;
}

export interface DumpSteps {
  readonly steps: EntropySteps;
  readonly records: number;
  readonly tokens: number;
  readonly warnings: readonly string[];
}

/** Mean over the counted tokens of a step. */
function tokenMean(step: RolloutStep, read: (block: TokenBlock, token: number) => number): number {
  const sum = createCompensatedSum();
  let count = 0;
  for (const block of step.blocks()) {
    for (let t = 0; t < block.mask.length; t++) {
      if (block.mask[t] === 0) continue;
      addTo(sum, read(block, t));
      count++;
    }
  }
  return count === 0 ? Number.NaN : totalOf(sum) / count;
}

/** Population covariance of log-probability and advantage over the counted tokens, in two passes. */
function covarianceOf(step: RolloutStep): number {
  const [l, a] = [
    (b: TokenBlock, t: number) => b.logProb?.[t] ?? 0,
    (b: TokenBlock, t: number) => b.advantage?.[t] ?? 0,
  ];
  const [meanL, meanA] = [tokenMean(step, l), tokenMean(step, a)];
  return tokenMean(step, (block, t) => (l(block, t) - meanL) * (a(block, t) - meanA));
}

/** Mean of a fact of the records of a step that have it. */
function recordMean(values: Float64Array, { records }: RolloutStep): number {
  const known = Array.from(records, (r) => values[r]).filter((value) => !Number.isNaN(value));
  return known.reduce((sum, value) => sum + value, 0) / known.length;
}

/** Entropy, performance and covariance of an open dump by step. @throws InputError where the dump lacks what is asked for */
export function stepsOfRollouts(rollouts: Rollouts, run: string, performance?: DumpPerformance): EntropySteps {
  requireColumns(rollouts, ['entropy', ...(performance === undefined ? [] : [performance])], 'law');
  const { index, steps } = rollouts;
  const facts = performance === 'reward' ? index.reward : index.correct;
  const withCovariance = rollouts.columns.has('advantage') && rollouts.columns.has('logProb');
  return {
    run,
    step: Float64Array.from(steps, ({ step }) => step),
    entropy: Float64Array.from(steps, (step) => tokenMean(step, (block, t) => block.entropy?.[t] ?? Number.NaN)),
    ...(performance !== undefined &&
      facts !== undefined && { performance: Float64Array.from(steps, (step) => recordMean(facts, step)) }),
    ...(withCovariance && { covariance: Float64Array.from(steps, covarianceOf) }),
  };
}

/** Reads a dump and gives its steps: a job in a thread of its own. */
export async function dumpSteps(
  { request, run, performance }: DumpStepsArguments,
  progress: (value: unknown) => void,
): Promise<DumpSteps> {
  const rollouts = await openRollouts(request, progress);
  try {
    const steps = stepsOfRollouts(rollouts, run, performance);
    return { steps, records: rollouts.index.records, tokens: rollouts.counted, warnings: rollouts.warnings };
  } finally {
    rollouts.close();
  }
}
