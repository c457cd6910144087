import { InputError } from '../../../errors.js';
import type { MixingMethod } from '../types.js';

/** What a run is for. Its steps are counted by it. */
export type StageKind = 'reference' | 'graph' | 'sweep' | 'proxy' | 'final';

/** Runs of a method, in their order; all begin with the same weights. */
export interface Stage {
  readonly kind: StageKind;
  /** Runs of this kind, and steps of each. */
  readonly runs: number;
  readonly steps: number;
}

export interface StageSettings {
  readonly groups: number;
  /** Steps of the final run, or of all runs together. */
  readonly steps: number;
  /** `total`: helper runs are taken out of `steps`, so that methods cost the same. */
  readonly budget: 'final' | 'total';
  readonly referenceSteps: number;
  readonly proxySteps: number;
  readonly graphSteps: number;
  readonly sweepSteps: number;
  readonly sweepRuns: number;
}

/**
 * What a method runs: Aioli and stratified mixing one run; Skill-It a short one a group and then its own; data mixing laws a sweep
 * and then the run on the mixture that was found; DoReMi a reference, a proxy that gives proportions, and the run on their mean; DoGE
 * a proxy and that run.
 * @throws InputError when helper runs leave nothing of the budget
 */
export function planStages(method: MixingMethod, settings: StageSettings): readonly Stage[] {
  const { groups, referenceSteps, proxySteps, graphSteps, sweepSteps, sweepRuns } = settings;
  const helpers: Readonly<Record<string, readonly Stage[]>> = {
    doremi: [
      { kind: 'reference', runs: 1, steps: referenceSteps },
      { kind: 'proxy', runs: 1, steps: proxySteps },
    ],
    doge: [{ kind: 'proxy', runs: 1, steps: proxySteps }],
    'skill-it': [{ kind: 'graph', runs: groups, steps: graphSteps }],
    dml: [{ kind: 'sweep', runs: sweepRuns, steps: sweepSteps }],
  };
  const before = helpers[method.name] ?? [];
  const spent = before.reduce((sum, { runs, steps }) => sum + runs * steps, 0);
  const left = settings.budget === 'total' ? settings.steps - spent : settings.steps;
  if (left < 1) {
    throw new InputError(
      `${method.name} spends ${spent} steps on runs before its own, of a budget of ${settings.steps} steps: raise --steps, ` +
        'shorten them, or count the final run alone with --budget final',
    );
  }
  return [...before, { kind: 'final', runs: 1, steps: left }];
}

export const totalSteps = (stages: readonly Stage[]): number =>
  stages.reduce((sum, { runs, steps }) => sum + runs * steps, 0);
