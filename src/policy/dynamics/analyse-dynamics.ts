import type { ComputeReference } from '../../kernels/compute-thread.js';
import { configureKernels } from '../../kernels/native.js';
import type { ClipBand } from '../../kernels/policy-tokens.js';
import { type DumpReport, dumpReport } from '../rollouts/dump-report.js';
import { openRollouts } from '../rollouts/open-rollouts.js';
import { hasRequirement, type Requirement, requireColumns } from '../rollouts/require-columns.js';
import type { RolloutRequest, Rollouts } from '../rollouts/types.js';
import { createStepMemory } from './held-step.js';
import { ENTROPY_QUANTILES, type StepFigures, stepFigures } from './step-figures.js';
import {
  createTokenCounts,
  createTokenTable,
  scoreNeeds,
  type TokenFrequency,
  type TokenTableSettings,
  type TopToken,
} from './token-table.js';

export interface DynamicsArguments {
  readonly request: RolloutRequest;
  readonly clip: ClipBand;
  /** Length from which a response counts as cut off; the longest of the dump when null. */
  readonly lengthLimit: number | null;
  /** The table of tokens, where it is wanted. */
  readonly table: Pick<TokenTableSettings, 'score' | 'top' | 'context'> | null;
  /** Tokens of the table of frequencies. */
  readonly frequent: number;
  readonly threads: number;
}

/** Which entropies the figures are of: exact ones, bounds from the likeliest tokens, or none but sampled log-probabilities. */
export type EntropyKind = 'entropy' | 'bounds' | 'nll';

export interface DynamicsResult {
  readonly dump: DumpReport;
  readonly kind: EntropyKind;
  readonly steps: readonly StepFigures[];
  readonly tokens: readonly TopToken[];
  readonly frequencies: readonly TokenFrequency[];
  /** Tokens of the top 20% of their steps. */
  readonly highTokens: number;
  readonly lengthLimit: number;
}

/** How far the job is. */
export interface DynamicsProgress {
  readonly done: number;
  readonly total: number;
}

const TOP_FIFTH = ENTROPY_QUANTILES.indexOf(0.8);

function entropyKind(rollouts: Rollouts): EntropyKind {
  if (hasRequirement(rollouts, 'entropy')) return 'entropy';
  return hasRequirement(rollouts, 'entropyBounds') ? 'bounds' : 'nll';
}

/** The figures of every step of an open dump, and its tables of tokens. */
export function measureDynamics(
  rollouts: Rollouts,
  args: Omit<DynamicsArguments, 'request'> & { readonly exactLimit: number },
  progress: (value: DynamicsProgress) => void = () => {},
): DynamicsResult {
  const kind = entropyKind(rollouts);
  if (kind === 'nll') requireColumns(rollouts, ['logProb'], 'dynamics');
  const { table, exactLimit, threads } = args;
  if (table !== null) {
    const needs = scoreNeeds(table.score).filter(
      (name) => !(name === 'entropy' && table.score === 'entropy' && kind === 'bounds'),
    );
    requireColumns(rollouts, needs satisfies readonly Requirement[], `the table of tokens by ${table.score}`);
  }
  const longest = rollouts.index.counted.reduce((most, count) => Math.max(most, count), 0);
  const lengthLimit = args.lengthLimit ?? longest;
  const memory = createStepMemory();
  const settings = { clip: args.clip, exactLimit, lengthLimit, threads, memory };
  const topTokens = table === null ? undefined : createTokenTable(rollouts, { ...table, exactLimit, threads });
  const named = hasRequirement(rollouts, 'text') || rollouts.columns.has('tokens');
  const counts = named && kind !== 'nll' ? createTokenCounts(rollouts) : undefined;
  const steps: StepFigures[] = [];
  let done = 0;
  for (const step of rollouts.steps) {
    const figures = stepFigures(step, rollouts.index, settings);
    steps.push(figures);
    topTokens?.add(step, figures.means ?? { logProb: Number.NaN, advantage: Number.NaN });
    const threshold = (figures.entropy ?? figures.entropyLower)?.quantiles[TOP_FIFTH];
    if (threshold !== undefined) counts?.add(step, threshold, memory.latest);
    done += step.tokens;
    progress({ done, total: rollouts.tokens });
  }
  return {
    dump: dumpReport(rollouts),
    kind,
    steps,
    tokens: topTokens?.rows() ?? [],
    frequencies: counts?.rows(args.frequent) ?? [],
    highTokens: counts?.high() ?? 0,
    lengthLimit,
  };
}

/**
 * The job of the view: opens a dump, measures it and closes it.
 * @throws InputError for a dump that cannot be read or lacks what the view needs
 */
export async function analyseDynamics(
  args: DynamicsArguments,
  progress: (value: DynamicsProgress) => void,
): Promise<DynamicsResult> {
  configureKernels({ threads: args.threads });
  const rollouts = await openRollouts(args.request, ({ bytes, totalBytes }) => {
    progress({ done: bytes, total: totalBytes });
  });
  try {
    return measureDynamics(rollouts, { ...args, exactLimit: args.request.exactLimit }, progress);
  } finally {
    rollouts.close();
  }
}

/** The job of the view, in a thread of its own. */
export const ANALYSE_DYNAMICS: ComputeReference<DynamicsArguments, DynamicsResult> = {
  module: import.meta.url,
  job: analyseDynamics as ComputeReference<DynamicsArguments, DynamicsResult>['job'],
};
