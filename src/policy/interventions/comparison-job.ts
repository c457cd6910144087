import { type DumpReport, dumpReport } from '../rollouts/dump-report.js';
import { openRollouts } from '../rollouts/open-rollouts.js';
import type { RolloutRequest } from '../rollouts/types.js';
import { type Comparison, compareMethods, type MethodChoice } from './comparison.js';
import { createWeightWriter, type WeightTarget } from './weights-export.js';

export interface ComparisonArguments {
  readonly rollouts: RolloutRequest;
  readonly methods: readonly MethodChoice[];
  readonly plain: MethodChoice;
  readonly strict: boolean;
  readonly seed: number;
  readonly topFraction: number;
  readonly triggerWords?: readonly string[];
  readonly specialTokens?: readonly number[];
  readonly weights?: WeightTarget;
}

export interface ComparisonResult {
  readonly comparison: Comparison;
  readonly dump: DumpReport;
}

/** Reads a dump and compares the methods on it; progress is the number of tokens so far and of all. */
export async function compareInterventions(
  { rollouts: request, weights, ...options }: ComparisonArguments,
  progress: (value: { readonly done: number; readonly total: number }) => void,
): Promise<ComparisonResult> {
  const rollouts = await openRollouts(request);
  const writer = weights && createWeightWriter(weights, rollouts);
  try {
    const comparison = compareMethods(rollouts, {
      ...options,
      ...(writer && { sink: writer.take }),
      progress: (done) => progress({ done, total: rollouts.tokens }),
    });
    writer?.finish(new Set(comparison.methods.map(({ label }) => label)));
    return { comparison, dump: dumpReport(rollouts) };
  } catch (error) {
    writer?.abort();
    throw error;
  } finally {
    rollouts.close();
  }
}

export const COMPARE_INTERVENTIONS = { module: import.meta.url, job: compareInterventions } as const;
