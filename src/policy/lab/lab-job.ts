import { dumpLine } from './dump-lines.js';
import { loadEngine } from './engines.js';
import { type LawSettings, lawsOf, type RunLaws } from './laws.js';
import type { LabProbe, LabRollout, LabRun, LabRunRequest, LabSink } from './types.js';

/** What of a run is written out while it goes on. */
export interface DumpSettings {
  /** Every how many steps, from step 0 on. */
  readonly every: number;
  /** Likeliest tokens of every position; 0: none. */
  readonly top: number;
  /** Whether prompts are asked with the finished policy, with its hidden states. */
  readonly probe: boolean;
}

export interface LabJobRun extends LabRunRequest {
  readonly dump?: DumpSettings;
}

/** Runs of one thread. */
export interface LabJobArguments {
  readonly engine: string;
  readonly runs: readonly LabJobRun[];
  readonly law: LawSettings;
}

/** Lines of a dump, in order. */
export interface DumpPart {
  readonly lines: string;
  readonly records: number;
  readonly tokens: number;
}

/** What a thread tells while it works: steps since the last time, parts of the dump and of the probe's. */
export interface LabProgress {
  readonly steps?: number;
  readonly rollouts?: DumpPart;
  readonly probe?: DumpPart & Pick<LabProbe, 'states' | 'width' | 'promptIds'>;
}

export interface LabResult extends LabRun {
  /** A reason where the law cannot be fitted. */
  readonly laws: RunLaws | string;
}

/** Steps between two reports of progress. */
const PROGRESS_STEPS = 10;

function dumpPart(records: readonly LabRollout[], top: number): DumpPart {
  return {
    lines: records.map((record, i) => dumpLine(record, top, i)).join(''),
    records: records.length,
    tokens: records.reduce((sum, { tokens }) => sum + tokens.length, 0),
  };
}

/** What a run hears of its dump and its progress. */
function sinkOf({ dump }: LabJobRun, tell: (value: LabProgress) => void): LabSink {
  let since = 0;
  const progress = (): void => {
    since++;
    if (since < PROGRESS_STEPS) return;
    tell({ steps: since });
    since = 0;
  };
  if (dump === undefined) return { progress };
  const { every, top, probe } = dump;
  return {
    progress,
    rollouts(records) {
      if (records.length > 0 && records[0].step % every === 0) tell({ rollouts: dumpPart(records, top) });
    },
    ...(probe && {
      probe: ({ records, states, width, promptIds }: LabProbe) =>
        tell({ probe: { ...dumpPart(records, top), states, width, promptIds } }),
    }),
  };
}

/** Trains policies one after another. */
export async function trainPolicies(
  { engine: name, runs, law }: LabJobArguments,
  tell: (value: LabProgress) => void,
): Promise<LabResult[]> {
  const engine = await loadEngine(name);
  const results: LabResult[] = [];
  for (const request of runs) {
    const run = await engine.run(request, sinkOf(request, tell));
    results.push({ ...run, laws: lawsOf(run.curves, law) });
  }
  return results;
}

export const TRAIN_POLICIES = { module: import.meta.url, job: trainPolicies } as const;
