import { loadEngine } from './engines.js';
import { type LawSettings, lawsOf, type RunLaws } from './laws.js';
import type { LabRun, LabRunRequest } from './types.js';

/** Runs of one thread. */
export interface LabJobArguments {
  readonly engine: string;
  readonly runs: readonly LabRunRequest[];
  readonly law: LawSettings;
}

export interface LabResult extends LabRun {
  /** A reason where the law cannot be fitted. */
  readonly laws: RunLaws | string;
}

/** Steps between two reports of progress. */
const PROGRESS_STEPS = 10;

/** Trains policies one after another; progress is the number of steps since the last report. */
export async function trainPolicies(
  { engine: name, runs, law }: LabJobArguments,
  progress: (steps: number) => void,
): Promise<LabResult[]> {
  const engine = await loadEngine(name);
  const results: LabResult[] = [];
  for (const request of runs) {
    let since = 0;
    const run = await engine.run(request, {
      progress() {
        since++;
        if (since < PROGRESS_STEPS) return;
        progress(since);
        since = 0;
      },
    });
    results.push({ ...run, laws: lawsOf(run.curves, law) });
  }
  return results;
}

export const TRAIN_POLICIES = { module: import.meta.url, job: trainPolicies } as const;
